"""What holds on a CPU holds on a GPU. Without one, these tests are skipped."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stzoo.data.mmnist import MovingDigits
from stzoo.forecaster import Forecaster
from stzoo.opening import create
from stzoo.spec import ModelSpec
from stzoo.train import Recipe, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

RECURRENT = {"layers": 2, "hidden": 8, "kernel": 3, "patch": 4}
TCTN = {"layers": 2, "hidden": 8, "heads": 2, "expansion": 2, "window": 5, "patch": 4}
SMALL: dict[str, dict[str, Any]] = {
    "tau": {"hid_s": 4, "hid_t": 16, "n_s": 2, "n_t": 2, "mlp_ratio": 2},
    "simvp": {"hid_s": 4, "hid_t": 16, "n_s": 2, "n_t": 2, "mlp_ratio": 2},
    "convlstm": RECURRENT,
    "convttlstm": {
        "hidden": [8, 8, 8],
        "layers": 1,
        "skip": 1,
        "order": 2,
        "steps": 3,
        "ranks": 4,
        "kernel": 3,
        "patch": 4,
    },
    "predrnn": RECURRENT,
    "predrnnpp": RECURRENT,
    "mim": RECURRENT,
    "e3dlstm": {"layers": 2, "hidden": 8, "kernel": 3, "patch": 4, "history": 4},
    "phydnet": {"width": 16, "lstm": [8, 8], "kernel": 3},
    "lmc": {"width": 4, "layers": 2, "slots": 8, "pools": 4},
    "mau": {"layers": 2, "hidden": 8, "kernel": 3, "tau": 3},
    "pfgnet": {"hid_s": 4, "n_s": 2, "n_t": 2},
    "prednet": {"widths": [8, 12], "kernel": 3},
    "crevnet": {"blocks": [1, 1], "layers": 2},
    "predformer": {"dim": 16, "heads": 2, "head_dim": 8, "blocks": 1, "patch": 4},
    "swinlstm": {"dim": 8, "down": [2], "up": [2], "heads": [2], "window": 2},
    "tctn": TCTN,
}


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """By default a GPU multiplies float32 convolutions in tf32, whose eleven bits are not what is tested here."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def spec_of(arch: str) -> ModelSpec:
    return ModelSpec(
        arch=arch, frames_in=4, frames_out=4, channels=1, height=32, width=32, value_range=(0.0, 1.0),
        params=SMALL[arch],
    )  # fmt: skip


def both(arch: str, precision: str = "float32") -> tuple[Forecaster, Forecaster]:
    """The same random weights on the CPU in float32, and on the GPU. None is left at zero, so every gate acts."""
    torch.manual_seed(0)
    cpu, other = create(spec_of(arch)), create(spec_of(arch))
    with torch.no_grad():
        for p in cpu.module.parameters():
            p.copy_(p if p.std(correction=0) > 0 else p + 0.2 * torch.randn_like(p))
    other.module.load_state_dict(cpu.module.state_dict())
    return cpu, Forecaster(other.spec, other.module, other.report, precision).to("cuda")


def past(frames: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, 32, 32), dtype=np.uint8)


@pytest.mark.parametrize("arch", SMALL)
def test_a_gpu_forecasts_what_a_cpu_does(arch: str) -> None:
    cpu, gpu = both(arch)
    frames = past() / 255.0
    expected, found = cpu.rollout(frames, 9), gpu.rollout(frames, 9)
    assert isinstance(found, np.ndarray)
    assert next(gpu.module.parameters()).is_cuda
    np.testing.assert_allclose(found, expected, atol=1e-4)  # rounding grows from step to step


@pytest.mark.parametrize("arch", SMALL)
def test_in_bfloat16_it_stays_near(arch: str) -> None:
    cpu, gpu = both(arch, "bfloat16")
    frames = past() / 255.0
    assert np.abs(gpu.predict(frames) - cpu.predict(frames)).mean() < 0.02


def test_a_stream_and_a_tensor_on_the_gpu() -> None:
    cpu, gpu = both("tau")
    frames = torch.from_numpy(past(6) / 255.0).float()
    found = gpu.rollout(frames.cuda(), 6)
    assert torch.allclose(found.cpu(), cpu.rollout(frames, 6), atol=2e-5)
    np.testing.assert_array_equal(np.stack(list(gpu.stream(past(), 6))), gpu.rollout(past(), 6))


def test_a_modular_model() -> None:
    cpu = create("tctn-modular-mmnist")
    gpu = create("tctn-modular-mmnist")
    gpu.module.load_state_dict(cpu.module.state_dict())
    frames = np.random.default_rng(0).random((10, 64, 64))
    expected, found = cpu.predict(frames), gpu.to("cuda").predict(frames)
    # a latent half-way between two codes may be painted from the other one
    assert np.mean(np.abs(found - expected) > 1e-3) < 0.01


def digits() -> torch.Tensor:
    return torch.randint(0, 256, (40, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_moving_digits_are_the_same_bits() -> None:
    source = MovingDigits(digits(), seed=3, count=64)
    assert torch.equal(source.to("cuda").sequences(5, 37).cpu(), source.sequences(5, 37))


RECIPE = Recipe(dataset="mmnist", minutes=1, batch=4, precision="float32", validate_every=4, validation_clips=4)
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("tau", {}),
    "channels first": ("tau", {"channels_last": False}),
    "bfloat16": ("tau", {"precision": "bfloat16"}),
    "muon": ("tau", {"optimizer": "muon"}),
    "compiled": ("tau", {"precision": "bfloat16", "compile": True}),
    "computed again": ("predrnn", {"checkpoint": True}),
    "sampled": ("predrnn", {"sampling": "scheduled"}),
    "parallel": ("tctn", {"sampling": "parallel"}),
}


def trained(out: Path, form: str, device: str, steps: int = 8, stop: int | None = None) -> dict[str, torch.Tensor]:
    arch, changes = FORMS[form]
    spec = dataclasses.replace(spec_of(arch), height=64, width=64)
    recipe = dataclasses.replace(RECIPE, **changes)
    training = MovingDigits(digits(), 1, 1 << 40, 4, 4).to(device)
    validation = MovingDigits(digits(), 2, 8, 4, 4)
    train(spec, recipe, training, validation, out, steps=steps, device=device, progress=False)
    state: dict[str, torch.Tensor] = torch.load(out / "checkpoint.pt", map_location="cpu", weights_only=True)["module"]
    return state


@pytest.mark.parametrize("form", FORMS)
def test_training_goes_where_it_goes_on_a_cpu(tmp_path: Path, form: str) -> None:
    """Eight steps of Adam-like updates move weights by up to 8e-3; the two may differ by a small share of that."""
    if "sampling" in FORMS[form][1]:
        found = trained(tmp_path / "gpu", form, "cuda")
        assert all(tensor.isfinite().all() for tensor in found.values())
        return
    with torch.random.fork_rng():
        expected = trained(tmp_path / "cpu", form.replace("compiled", "bfloat16"), "cpu")
    found = trained(tmp_path / "gpu", form, "cuda")
    apart = torch.cat([(found[name].float() - x.float()).abs().flatten() for name, x in expected.items()])
    assert apart.mean() < (2e-3 if "precision" in FORMS[form][1] else 5e-4)


def test_a_run_begun_on_a_gpu_goes_on_on_a_cpu(tmp_path: Path) -> None:
    trained(tmp_path / "run", "plain", "cuda")
    log = (tmp_path / "run" / "log.jsonl").read_text("utf-8")
    trained(tmp_path / "run", "plain", "cpu")  # complete already: nothing is done
    assert (tmp_path / "run" / "log.jsonl").read_text("utf-8") == log
