"""What the engine runs is the plain module's function: for every architecture, batch and size, as weights change."""

import copy
import getpass
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models.recurrent_modules import SMALL
from torch import Tensor, nn
from torch.nn import functional as F

import stzoo
from stzoo import engine as room
from stzoo.engine import Engine, for_inference
from stzoo.engine.compiling import _keep_code_privately
from stzoo.engine.translating import Translating
from stzoo.errors import NoHomeError, SpecError
from stzoo.models import architectures, build
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

CODEC = {"arch": "vqvae", "params": {"width": 16, "residual_width": 4, "codes": 32, "dim": 8}}
GATED = {"hid_s": 8, "hid_t": 16, "n_s": 2, "n_t": 3, "mlp_ratio": 2}
BLOCKS: dict[str, dict[str, Any]] = {
    "tau": GATED,
    "tau without statical": GATED | {"statical": False},
    "tau without dynamical": GATED | {"dynamical": False},
    "tau patched": GATED | {"patch": 2, "project": True, "from_last": True, "n_s": 1},
    "tau periodic": GATED | {"period": 2},
    "tau without frame_norm": GATED | {"frame_norm": False},
    "tau near movement": GATED | {"from_last": True, "still": 0.1},
    "tau moved": GATED | {"from_last": True, "lagrangian": True},
    "tau deep": GATED | {"n_s": 4, "n_t": 2},
    "simvp": GATED,
    "simvp patched": GATED | {"patch": 2, "project": True},
    "simvp incepu": {"hid_s": 8, "hid_t": 16, "n_s": 2, "n_t": 2, "translator": "incepu"},
    "conv": {"hid_s": 8, "hid_t": 16, "n_s": 2, "n_t": 3},
    "pfgnet": {"hid_s": 4, "n_s": 2, "n_t": 2, "mlp_ratio": 2},
    "pfgnet patched": {"hid_s": 4, "hid_t": 10, "n_s": 1, "n_t": 1, "kernels": [3, 5], "patch": 2},
    "lmc": {"width": 4, "layers": 2, "slots": 8, "pools": 3},
    "predformer": {"dim": 16, "heads": 2, "head_dim": 8, "blocks": 2, "mlp_ratio": 2, "patch": 4},
}


def spec_of(kind: str, height: int = 24, width: int = 16) -> ModelSpec:
    arch, params = kind.split()[0], (BLOCKS | SMALL).get(kind, {})
    if arch == "modular":
        predictor = kind.split()[1]
        params = {"codec": CODEC, "predictor": {"arch": predictor, "params": (BLOCKS | SMALL)[predictor]}}
        height, width = 32, 48
    return ModelSpec(arch=arch, frames_in=4, frames_out=4, channels=2, height=height, width=width, params=params)


def module_of(spec: ModelSpec) -> nn.Module:
    """Nothing is at its initial value: statistics, scales and biases that were lost or doubled would show."""
    torch.manual_seed(0)
    module: Any = build(spec).eval()
    if spec.arch == "modular":
        module.codec.codebook.copy_(0.2 * torch.randn(module.codec.codebook.shape))
    with torch.no_grad():
        for name, p in module.named_parameters():
            if name.endswith(("scale1", "scale2")):
                p.uniform_(0.2, 0.6)
            elif p.dim() == 1:
                p.add_(0.2 * torch.randn_like(p))
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                norm.running_mean.normal_(0, 0.3)
                norm.running_var.uniform_(0.5, 2)
    return module


def clips(spec: ModelSpec, batch: int) -> Tensor:
    """Noise; or, where motion is looked for, something smooth, since in noise it hangs on the last digits."""
    size = (spec.frames_in, spec.channels, spec.height, spec.width)
    if not spec.params.get("lagrangian"):
        return torch.rand(batch, *size)
    return F.interpolate(torch.rand(batch, *size[:2], 6, 4), size[1:], mode="trilinear")


@torch.no_grad()
def plainly(module: nn.Module, spec: ModelSpec, past: Tensor, steps: int) -> Tensor:
    return torch.stack(list(unroll(module, spec, past, steps)), 1)


def run(engine: Engine, past: Tensor, steps: int) -> Tensor:
    return torch.stack(list(engine.unroll(past, steps)), 1)


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest, relative to the largest value."""
    return ((found.double() - wanted.double()).abs().max() / wanted.double().abs().max()).item()


KINDS = [*BLOCKS, *SMALL, "modular predrnn", "modular tau", "modular tctn"]


def test_every_architecture_is_tried_here() -> None:
    forecasters = {name for name, a in architectures().items() if not a.is_codec}
    assert {kind.split()[0] for kind in KINDS} == forecasters


@pytest.mark.parametrize("kind", KINDS)
def test_it_agrees_with_the_plain_module_in_float64(kind: str) -> None:
    """Beyond one block, at a height that is not the width; float32 is no further off than the plain module may be."""
    spec = spec_of(kind)
    module, past = module_of(spec), clips(spec, 3)
    exact = plainly(copy.deepcopy(module).double(), spec, past.double(), 6)
    found = run(Engine(module, spec), past, 6)
    assert found.dtype == torch.float32
    assert difference(found, exact) < (1e-3 if spec.params.get("lagrangian") else 1e-5)  # motion hangs on rounding
    rounded = difference(run(Engine(module, spec, "bfloat16"), past, 6), exact)
    assert 1e-5 < rounded < (1.0 if spec.params.get("lagrangian") else 0.05)  # and it is not float32 in truth


@pytest.mark.parametrize("kind", ["tau", "simvp", "tau patched"])
@pytest.mark.parametrize("part", ["keep", "shift"])
def test_a_constant_that_was_lost_would_be_seen(kind: str, part: str) -> None:
    spec = spec_of(kind)
    module, past = module_of(spec), clips(spec, 1)
    made: Any = for_inference(module, spec, "float32")
    blocks = [block for block in made.blocks if hasattr(block, part)]
    assert isinstance(made, Translating)
    assert blocks
    setattr(blocks[0], part, 0.9 * getattr(blocks[0], part))
    with torch.no_grad():
        assert difference(made(past), module(past)) > 1e-4


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["tau", "predrnn"])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_clip_is_forecast_alike_in_any_batch(
    kind: str, limit: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(kind)
    past = clips(spec, 6)
    together = 1 if kind == "predrnn" else 4
    monkeypatch.setattr(room, "PIXELS_AT_ONCE", limit * together * spec.height * spec.width)
    engine = Engine(module_of(spec), spec, precision)
    whole = run(engine, past, 5)
    assert whole.shape == (6, 5, 2, 24, 16)
    apart = torch.cat([run(engine, past[i : i + 1], 5) for i in range(6)])
    assert difference(whole, apart) < (1e-5 if precision == "float32" else 0.02)


@pytest.mark.parametrize("kind", ["tau", "convlstm"])
def test_any_size_one_after_the_other(kind: str) -> None:
    spec = spec_of(kind)
    module = module_of(spec)
    engine = Engine(module, spec)
    for batch, height, width in [(1, 24, 16), (2, 8, 40), (1, 40, 8), (1, 24, 16)]:
        past = torch.rand(batch, 4, 2, height, width)
        assert difference(run(engine, past, 4), plainly(module, spec, past, 4)) < 1e-5


NAMES = [name for name in stzoo.list_models(pretrained=True) if stzoo.info(name).spec.arch != "vqvae"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_trained_weights_forecast_the_same(name: str) -> None:
    """A bright square that moves, which every one of them takes for something it has seen."""
    model = stzoo.load(name)
    spec = model.spec
    past = torch.zeros(1, spec.frames_in, spec.channels, spec.height, spec.width)
    for t in range(spec.frames_in):
        past[:, t, :, 10 + t : 26 + t, 12 + 2 * t : 20 + 2 * t] = 0.8
    wanted = plainly(model.module, spec, past, spec.frames_out)
    assert difference(run(Engine(model.module, spec), past, spec.frames_out), wanted) < 1e-4
    rounded = run(Engine(model.module, spec, "bfloat16"), past, spec.frames_out)
    assert ((rounded - wanted).square().mean() / wanted.var()).item() < 0.01


def test_forecasts_follow_the_weights() -> None:
    spec = spec_of("tau")
    model, past = stzoo.create(spec), clips(spec, 1)
    other = module_of(spec)

    def check() -> Tensor:
        found = run(model.engine, past, 4)
        assert difference(found, plainly(model.module, spec, past, 4)) < 1e-5
        return found

    first = check()
    model.module.load_state_dict(other.state_dict())
    second = check()
    assert difference(first, second) > 1e-3
    loss: Tensor = model.module(past).square().mean()
    loss.backward()
    torch.optim.AdamW(model.module.parameters(), lr=0.01, fused=True).step()  # which PyTorch keeps no count of
    third = check()
    assert difference(second, third) > 1e-4
    for p in model.module.parameters():
        p.data.mul_(1.1)
    fourth = check()
    assert difference(third, fourth) > 1e-4
    last = next(p for name, p in model.module.named_parameters() if name == "decoder.layers.0.conv.weight")
    last.data.view(-1)[-100:] = 5.0
    model.engine.refresh()
    assert difference(fourth, check()) > 1e-4


def test_forecasting_leaves_the_module_alone() -> None:
    spec = spec_of("conv")
    model, past = stzoo.create(spec), clips(spec, 2)
    evaluated = run(model.engine, past, 4)
    model.module.train()
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    assert torch.equal(run(model.engine, past, 4), evaluated)  # statistics of these clips play no part
    assert model.module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.module.state_dict().items())
    assert not run(model.engine, past, 4).requires_grad
    with pytest.raises(AttributeError):
        model.module = model.module  # type: ignore[misc]


def test_nothing_is_asked_for_beyond_the_frames_that_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of("predrnn")
    model, steps = stzoo.create(spec), []
    arch: Any = type(model.module)
    step = arch.step
    monkeypatch.setattr(arch, "step", lambda *arguments: steps.append(1) or step(*arguments))
    frames = model.engine.unroll(clips(spec, 1))
    for _ in range(3):
        next(frames)
    assert len(steps) == 4 + 2


def test_hooks_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of("tau")
    model, past, seen = stzoo.create(spec), clips(spec, 1), []
    wanted = run(model.engine, past, 4)
    module: Any = model.module
    handle = module.translator.register_forward_hook(lambda part, inputs, output: seen.append(output.shape))
    assert difference(run(model.engine, past, 4), wanted) < 1e-5
    assert len(seen) == 1
    handle.remove()
    assert difference(run(model.engine, past, 4), wanted) < 1e-5
    assert len(seen) == 1


def test_a_module_with_a_hook_forecasts_in_eval_mode_as_well() -> None:
    """Although it was left in train mode; its statistics stay as they are, and so does the mode."""
    for kind in ("tau", "predrnn"):
        spec = spec_of(kind)
        engine, past = stzoo.create(spec).engine, clips(spec, 2)
        wanted = run(engine, past, 4)
        module: Any = engine.module
        module.train()
        next(module.children()).eval()
        modes = [part.training for part in module.modules()]
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        with_hook = next(part for part in module.modules() if isinstance(part, nn.Conv2d))
        with_hook.register_forward_hook(lambda part, inputs, output: None)
        assert difference(run(engine, past, 4), wanted) < 1e-5
        assert [part.training for part in module.modules()] == modes
        assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_parts_that_are_not_the_zoos_own_stay_as_they_are() -> None:
    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    spec = spec_of("tau")
    past = clips(spec, 1)
    for change in ("subclass", "reflect"):
        module: Any = module_of(spec)
        conv = module.encoder.layers[1].conv
        if change == "subclass":
            module.encoder.layers[1].conv = Doubled(conv.in_channels, conv.out_channels, 3, conv.stride, padding=1)
        else:
            conv.padding_mode = "reflect"
            conv._reversed_padding_repeated_twice = [1, 1, 1, 1]
        assert difference(run(Engine(module, spec), past, 4), plainly(module, spec, past, 4)) < 1e-5


@pytest.mark.parametrize("kind", ["tau", "phydnet"])
def test_neither_autocast_nor_a_frame_that_is_edited_changes_a_forecast(kind: str) -> None:
    spec = spec_of(kind)
    engine, past = Engine(module_of(spec), spec), clips(spec, 1)
    wanted, found = run(engine, past, 8), []
    with torch.autocast("cpu", torch.bfloat16):
        for frame in engine.unroll(past, 8):
            found.append(frame.clone())
            frame.zero_()
    assert torch.equal(torch.stack(found, 1), wanted)


def test_a_twin_shares_what_it_does_not_repack() -> None:
    spec = spec_of("e3dlstm")
    module = module_of(spec)
    made = for_inference(module, spec, "float32")
    own = {p.data_ptr() for p in module.parameters()}
    norms = [p for name, p in made.named_parameters() if "norm" in name]
    assert norms
    assert all(p.data_ptr() in own for p in norms)


def test_a_copy_and_a_pickle_forecast_the_same() -> None:
    spec = spec_of("predrnn")
    model, past = stzoo.create(spec), clips(spec, 1).numpy()
    wanted = model.predict(past)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict(past), wanted)


def test_of_other_dtypes_the_module_runs_as_it_is() -> None:
    spec = spec_of("tau")
    module, past = module_of(spec).double(), clips(spec, 1).double()
    assert torch.equal(run(Engine(module, spec), past, 4), plainly(module, spec, past, 4))


def test_precision_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of("tau")
    with pytest.raises(SpecError, match="float16.*float32, bfloat16, auto"):
        Engine(module_of(spec), spec, "float16")
    with pytest.raises(SpecError, match="precision"):
        stzoo.load("tau-mmnist", precision="half")
    for flags, wanted in ((frozenset({"avx2"}), "float32"), (frozenset({"amx_bf16"}), "bfloat16")):
        monkeypatch.setattr(room, "cpu_flags", lambda flags=flags: flags)
        assert Engine(module_of(spec), spec, "auto").precision == wanted
    model = stzoo.load("tau-mmnist", pretrained=False, precision="bfloat16")
    assert model.engine.precision == "bfloat16"
    assert all(p.dtype == torch.float32 for p in model.module.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tau", "convlstm"])
def test_compiled_it_forecasts_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch.compile without a C++ compiler: that everything is traced, and what is traced, computed."""
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile(function, backend="aot_eager"))
    spec = spec_of(kind)
    model, past = stzoo.create(spec), clips(spec, 2)
    wanted = run(model.engine, past, 5)
    assert difference(run(model.compile().engine, past, 5), wanted) < 1e-5


@pytest.fixture
def where_torch_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder among everybody's temporary files in which torch.compile looks by default; others may write to it."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is set back afterwards, whoever sets it
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("STZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(getpass, "getuser", lambda: "me")
    folder = tmp_path / "torchinductor_me"
    folder.mkdir()
    (folder / "planted.py").write_text("raise SystemExit")
    folder.chmod(0o775)
    return folder


@pytest.mark.parametrize("before", ["nobody", "torch itself"])
def test_compiled_code_is_kept_in_a_folder_of_ones_own(
    before: str, where_torch_compiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.compile runs what it finds there. What lies in its default folder may be in use by another program."""
    if before == "torch itself":
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(where_torch_compiles))
    _keep_code_privately()
    own = tmp_path / "home" / "compiled"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(own)
    assert own.stat().st_mode & 0o777 == 0o700
    assert where_torch_compiles.stat().st_mode & 0o777 == 0o775
    assert [path.name for path in where_torch_compiles.iterdir()] == ["planted.py"]
    (own / "kept.py").touch()
    _keep_code_privately()
    assert (own / "kept.py").exists()


def test_a_folder_for_compiled_code_that_the_user_named_is_taken(
    where_torch_compiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "named"))
    _keep_code_privately()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "named")
    assert not (tmp_path / "home").exists()


def test_compiled_code_is_not_taken_from_a_folder_of_others(
    where_torch_compiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(SpecError, match="belongs to another user.* set TORCHINDUCTOR_CACHE_DIR"):
        _keep_code_privately()
    monkeypatch.setenv("STZOO_HOME", str(where_torch_compiles / "planted.py"))
    with pytest.raises(NoHomeError, match="set STZOO_HOME"):
        _keep_code_privately()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
