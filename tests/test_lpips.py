"""LPIPS: against its equations in float64, against the figures of the package lpips, and as a loss of codecs."""

import dataclasses
import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import stzoo
from stzoo import metrics
from stzoo.data import Clip
from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.errors import DataError, OfflineError, SpecError, TrainingError
from stzoo.evaluate import evaluate
from stzoo.metrics.perceptual import LpipsNetwork, read_network
from stzoo.models import build
from stzoo.spec import ModelSpec
from stzoo.train import Recipe, train
from stzoo.train.assignment import Assignment
from stzoo.train.codecs import codec_loss
from stzoo.train.memory import training_memory
from stzoo.train.objectives import check
from stzoo.train.perceptual import PerceptualLoss
from stzoo.train.processes import Processes
from stzoo.train.run import Run

WEIGHTS = Path(os.environ.get("STZOO_DATA", "")) / "lpips" / "lpips_alex_v01.npz"
RECIPE = Recipe(dataset="mmnist", minutes=1, batch=2, precision="float32", ddr_weight=0.0, perceptual_weight=0.5)
CODECS: dict[str, dict[str, Any]] = {"vae": {}, "vqvae": {"codes": 8}}


def spec_of(arch: str, **changes: Any) -> ModelSpec:
    params = {"width": 8, "residual_layers": 0, "dim": 4} | CODECS[arch]
    spec = ModelSpec(
        arch=arch, frames_in=1, frames_out=1, channels=1, height=64, width=64, value_range=(0.0, 1.0), params=params
    )
    return spec.replace(**changes)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like that of the published weights, with random ones of the size that activations stay of."""
    rng, held = np.random.default_rng(0), {}
    for i, (n, convolution) in enumerate(LpipsNetwork().features.items()):
        o, c, k, _ = convolution.weight.shape
        held[f"features.{n}.weight"] = rng.normal(0, math.sqrt(2 / (c * k * k)), (o, c, k, k)).astype(np.float32)
        held[f"features.{n}.bias"] = rng.normal(0, 0.1, o).astype(np.float32)
        held[f"lin{i}.weight"] = rng.random((1, o, 1, 1)).astype(np.float32)
    file = tmp_path_factory.mktemp("lpips") / "weights.npz"
    np.savez(file, **held)
    return file


def transcribed(a: Tensor, b: Tensor, held: Any) -> float:
    """sum over layers l of 1 / (H W) sum over places of |w_l (y_l - y0_l)|^2 with unit y, for one pair (3, H, W)."""
    mean, std = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    total = 0.0
    pair = [(x.double() - mean.double()[:, None, None]) / std.double()[:, None, None] for x in (a, b)]
    for i, (n, stride, pad) in enumerate(((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1))):
        kernel, bias = (torch.from_numpy(held[f"features.{n}.{x}"]).double() for x in ("weight", "bias"))
        if n in (3, 6):  # the largest of each 3x3 places, every second one
            pair = [x.unfold(1, 3, 2).unfold(2, 3, 2).amax((3, 4)) for x in pair]
        moved = []
        for x in pair:
            padded = x.new_zeros(x.shape[0], x.shape[1] + 2 * pad, x.shape[2] + 2 * pad)
            padded[:, pad : pad + x.shape[1], pad : pad + x.shape[2]] = x
            seen = padded.unfold(1, kernel.shape[2], stride).unfold(2, kernel.shape[3], stride)
            moved.append((torch.einsum("cyxij,ocij->oyx", seen, kernel) + bias[:, None, None]).clamp(min=0))
        pair = moved
        one, other = (x / (x.square().sum(0).sqrt() + 1e-10) for x in pair)
        head = torch.from_numpy(held[f"lin{i}.weight"]).double().view(-1, 1, 1)
        total += (head * (one - other) ** 2).sum(0).mean().item()
    return total


@torch.no_grad()
def test_the_network_in_float64(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STZOO_LPIPS", str(weights))
    rng = torch.Generator().manual_seed(0)
    a, b = (2 * torch.rand(2, 3, 40, 48, generator=rng) - 1 for _ in range(2))
    found = read_network()(a, b)
    with np.load(weights) as held:
        for i in range(2):
            assert found[i].item() == pytest.approx(transcribed(a[i], b[i], held), rel=1e-4)
    assert torch.equal(read_network()(a, a), torch.zeros(2))


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="needs the weights of LPIPS")
def test_what_the_package_lpips_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 0.1.4 of the package with the same weights, in colour and in gray."""
    monkeypatch.setenv("STZOO_LPIPS", str(WEIGHTS))
    y, x = np.mgrid[:64, :64]
    a = np.stack([((3 * y + 5 * x * k) % 97) / 96 for k in (1, 2, 3)])[None, None]
    b = np.stack([((2 * y + x * k) % 53) / 52 for k in (2, 3, 1)])[None, None]
    assert metrics.lpips(a, b).item() == pytest.approx(0.19908039, abs=1e-5)
    assert metrics.lpips(a[:, :, :1], b[:, :, :1]).item() == pytest.approx(0.14892830, abs=1e-5)


def test_files_that_hold_no_weights(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, short, other = (tmp_path / name for name in ("text.npz", "short.npz", "other.npz"))
    text.write_text("no archive")
    with np.load(weights) as held:
        np.savez(short, **{name: held[name] for name in list(held)[:-1]})
        np.savez(other, **(dict(held) | {"features.0.weight": np.zeros((64, 3, 5, 5), np.float32)}))
    for file in (tmp_path, tmp_path / "absent.npz"):
        monkeypatch.setenv("STZOO_LPIPS", str(file))
        with pytest.raises(DataError, match="which is no file; leave it out, and the weights of LPIPS are downloaded"):
            read_network()
    monkeypatch.setenv("STZOO_LPIPS", str(text))
    with pytest.raises(DataError, match=r"text\.npz is no \.npz file; docs/training\.md shows how"):
        read_network()
    with np.load(weights) as held:
        wrong: list[Any] = [np.array("text"), np.full(64, np.nan, np.float32), np.zeros(64, np.complex64)]
        odd = [tmp_path / f"odd{i}.npz" for i in range(len(wrong))]
        for file, bias in zip(odd, wrong, strict=True):
            np.savez(file, **(dict(held) | {"features.0.bias": bias}))
        np.savez_compressed(tmp_path / "cut.npz", **held)
    content = bytearray((tmp_path / "cut.npz").read_bytes())
    content[200:2000] = bytes(x ^ 255 for x in content[200:2000])
    (tmp_path / "cut.npz").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "member.npz", "w") as archive:
        archive.writestr("features.0.weight.npy", b"no array")
    for file in (short, other, *odd, tmp_path / "cut.npz", tmp_path / "member.npz"):
        monkeypatch.setenv("STZOO_LPIPS", str(file))
        with pytest.raises(DataError, match="does not hold the weights of LPIPS"):
            read_network()


@pytest.mark.parametrize("arch", CODECS)
def test_the_loss_has_the_distance_in_it(arch: str, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In [-1, 1] whatever the spec's units are; it is differentiable, and teaches the codec alone."""
    monkeypatch.setenv("STZOO_LPIPS", str(weights))
    spec = spec_of(arch, value_range=(-2.0, 6.0), mean=(1.0,), std=(2.0,))
    module, network = build(spec), read_network()
    units = 8 * torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0)) - 2
    frames = (units - 1) / 2
    distance = PerceptualLoss(spec, network)
    shown = ((units + 2) / 8 * 2 - 1).expand(-1, 3, -1, -1)
    wanted = network(shown, torch.zeros_like(shown)).mean()
    torch.testing.assert_close(distance(frames, torch.full_like(frames, 0.5)), wanted)  # 0.5 * 2 + 1 is the middle
    made = []
    for weighed in (None, distance):
        torch.manual_seed(1)
        made.append(codec_loss(module, spec, RECIPE, frames, torch.ones(()), weighed)[0])
    assert made[1] > made[0]
    plain, whole = (torch.autograd.grad(loss, module.decoder[0].weight, retain_graph=True)[0] for loss in made)
    assert (whole - plain).abs().max() > 0
    assert (whole - plain).isfinite().all()
    assert not any(p.requires_grad for p in network.parameters())


class Noise:
    """Two clips of random frames, of whose future a part may be unknown."""

    def __init__(self, channels: int = 1, side: int = 32, unknown: bool = False):
        self.shape, self.unknown = (channels, side, side), unknown

    def __len__(self) -> int:
        return 2

    def clips(self, start: int, stop: int) -> Clip:
        frames = torch.rand(2, 4, *self.shape, generator=torch.Generator().manual_seed(0))[start:stop]
        valid = None
        if self.unknown:
            valid = torch.ones(stop - start, 2, 1, *self.shape[1:], dtype=torch.bool)
            valid[:, 0], valid[:, 1, :, :16] = False, False
        return Clip(frames[:, :2], frames[:, 2:], valid)


def forecaster(**changes: Any) -> stzoo.Forecaster:
    params = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2}
    spec = ModelSpec(arch="tau", frames_in=2, frames_out=2, channels=1, height=32, width=32, params=params)
    return stzoo.create(spec.replace(value_range=(0.0, 1.0), **changes))


def test_a_report_has_it_beside_that_of_persistence(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STZOO_LPIPS", str(weights))
    model, clip = forecaster(), Noise().clips(0, 2)
    report = evaluate(model, Noise(), name="a", protocol="p", definition="stzoo-lpips", progress=False)
    assert list(report.total) == ["mse", "mae", "ssim", "psnr", "lpips"]
    past, truth = clip.past.numpy(), clip.future.numpy()
    last = np.broadcast_to(past[:, -1:], truth.shape)
    made = model.predict(past)
    for found, frames in ((report.steps, made), (report.persistence_steps, last)):
        assert found["lpips"] == pytest.approx(metrics.lpips(frames, truth).mean(0), rel=1e-4)


def test_unknown_cells_are_no_difference(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STZOO_LPIPS", str(weights))
    clip = Noise(unknown=True).clips(0, 2)
    assert clip.valid is not None
    truth, valid = clip.future.numpy(), clip.valid.numpy()
    wrong = np.where(valid, truth, 1 - truth)
    found = metrics.lpips(wrong, truth, valid)
    assert np.isnan(found[:, 0]).all()
    assert not found[:, 1].any()
    assert (metrics.lpips(1 - truth, truth, valid)[:, 1] > 0).all()
    report = evaluate(
        forecaster(), Noise(unknown=True), name="a", protocol="p", definition="stzoo-lpips", progress=False
    )
    assert np.isnan(report.steps["lpips"][0])
    assert report.total["lpips"] == report.steps["lpips"][1] > 0


@pytest.mark.parametrize(
    ("channels", "side", "says"), [(2, 32, "not at 2 channels"), (1, 16, "31x31 pixels, not 16x16")]
)
def test_what_it_cannot_see_is_told_before_a_forecast(
    channels: int, side: int, says: str, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STZOO_LPIPS", str(weights))
    monkeypatch.setattr("stzoo.evaluate.measuring.forecast", lambda *_: pytest.fail("a clip was forecast"))
    model = forecaster(channels=channels, height=side, width=side)
    with pytest.raises(DataError, match=says):
        evaluate(model, Noise(channels, side), name="a", protocol="p", definition="stzoo-lpips", progress=False)


def test_dead_features_have_no_nan_in_their_gradient() -> None:
    network, black = LpipsNetwork(), (-torch.ones(1, 3, 32, 32)).requires_grad_()
    with torch.no_grad():
        for convolution in network.features.values():
            convolution.bias.fill_(-9)  # type: ignore[operator, union-attr]
    network(black, torch.ones(1, 3, 32, 32)).sum().backward()
    assert black.grad is not None
    assert black.grad.isfinite().all()


@pytest.mark.parametrize("arch", CODECS)
def test_a_run_trains_by_it(arch: str, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [MovingDigits(drawn_digits(), seed, 100, 1, 1) for seed in (1, 2)]
    recipe = dataclasses.replace(RECIPE, validation_clips=2)
    monkeypatch.delenv("STZOO_LPIPS", raising=False)
    monkeypatch.setenv("STZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STZOO_OFFLINE", "1")
    with pytest.raises(OfflineError, match="LPIPS needs the weights of AlexNet, which are not on this"):
        train(spec_of(arch), recipe, *clips, tmp_path, steps=2, device="cpu", progress=False)
    monkeypatch.setenv("STZOO_LPIPS", str(weights))
    alone = Processes(torch.device("cpu"))
    with_it, without = (
        Run(Assignment(spec_of(arch), r, clips[0]), alone).advance(2).item()
        for r in (recipe, dataclasses.replace(recipe, perceptual_weight=0.0))
    )
    assert with_it > without
    train(spec_of(arch), recipe, *clips, tmp_path, steps=2, device="cpu", progress=False)
    plan = (tmp_path / "plan.json").read_text()
    assert '"perceptual"' in plan
    with np.load(weights) as held:
        np.savez_compressed(tmp_path / "again.npz", **held)
        np.savez(tmp_path / "others.npz", **(dict(held) | {"features.0.bias": held["features.0.bias"] + 1}))
    monkeypatch.setenv("STZOO_LPIPS", str(tmp_path / "again.npz"))  # the same weights in another file
    train(spec_of(arch), recipe, *clips, tmp_path, steps=2, device="cpu", progress=False)
    monkeypatch.setenv("STZOO_LPIPS", str(tmp_path / "others.npz"))
    with pytest.raises(TrainingError, match="holds a run with other weights of LPIPS"):
        train(spec_of(arch), recipe, *clips, tmp_path, steps=2, device="cpu", progress=False)


def test_memory_is_estimated_with_it() -> None:
    with_it, without = (
        training_memory(spec_of("vqvae"), dataclasses.replace(RECIPE, perceptual_weight=weight), 2).clip
        for weight in (0.5, 0.0)
    )
    assert with_it > without


@pytest.mark.parametrize("changes", [{"channels": 2}, {"value_range": None}, {"height": 28}])
def test_frames_that_it_cannot_look_at(changes: dict[str, Any]) -> None:
    spec = spec_of("vqvae", **changes)
    with pytest.raises(SpecError, match=r"perceptual_weight needs frames of 1 or 3 channels with a value_range"):
        check(build(spec, "meta"), spec, RECIPE)
    tau = ModelSpec(arch="tau", frames_in=2, frames_out=2, channels=1, height=64, width=64)
    with pytest.raises(SpecError, match=r"perceptual_weight is for codecs"):
        check(build(tau, "meta"), tau, RECIPE)
