"""PhyDNet against its equations, written out in float64, one tap and one group at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from recurrent_modules import Unrolled, clip, gmac, module_of, outputs, spec_of
from torch import Tensor, nn

import stzoo
from stzoo.convert import convert
from stzoo.errors import MismatchError, SpecError
from stzoo.models import build
from stzoo.models.phydnet import LstmCell, PhyCell, PhyDNet
from stzoo.spec import ModelSpec

Array = NDArray[np.float64]


def array(x: Tensor) -> Array:
    return x.detach().double().numpy()


def conv(x: Array, layer: nn.Conv2d) -> Array:
    """(C, H, W), stride 1 or 2, zeros outside the plane: a sum over taps."""
    weight, k, s = array(layer.weight), layer.kernel_size[0], layer.stride[0]
    _, h, w = x.shape
    padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    out = np.tile(array(layer.bias)[:, None, None], (1, h // s, w // s))
    for dy in range(k):
        for dx in range(k):
            out += np.einsum("oc,chw->ohw", weight[:, :, dy, dx], padded[:, dy : dy + h : s, dx : dx + w : s])
    return out


def transposed(x: Array, layer: nn.ConvTranspose2d) -> Array:
    """Every pixel spreads its value over 3x3 places of a canvas `stride` times as large."""
    weight, s = array(layer.weight), layer.stride[0]
    _, h, w = x.shape
    canvas = np.zeros((weight.shape[1], h * s + 2, w * s + 2))
    for y in range(h):
        for z in range(w):
            canvas[:, y * s : y * s + 3, z * s : z * s + 3] += np.einsum("c,coij->oij", x[:, y, z], weight)
    return canvas[:, 1 : h * s + 1, 1 : w * s + 1] + array(layer.bias)[:, None, None]


def group_norm(x: Array, layer: nn.GroupNorm) -> Array:
    out = np.empty_like(x)
    size = len(x) // layer.num_groups
    for start in range(0, len(x), size):
        group = x[start : start + size]
        out[start : start + size] = (group - group.mean()) / np.sqrt(group.var() + layer.eps)
    return out * array(layer.weight)[:, None, None] + array(layer.bias)[:, None, None]


def layers(x: Array, blocks: nn.Module) -> Array:
    for layer in blocks.modules():
        if isinstance(layer, nn.Conv2d):
            x = conv(x, layer)
        elif isinstance(layer, nn.ConvTranspose2d):
            x = transposed(x, layer)
        elif isinstance(layer, nn.GroupNorm):
            x = group_norm(x, layer)
        elif isinstance(layer, nn.LeakyReLU):
            x = np.where(x > 0, x, 0.2 * x)
    return x


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def phycell(x: Array, h: Array, cell: PhyCell) -> Array:
    derivatives = group_norm(conv(h, cell.derivatives), cell.norm)
    predicted = h + conv(derivatives, cell.combine)
    gain = sigmoid(conv(np.concatenate([x, h]), cell.gain))
    return predicted + gain * (x - predicted)


def lstm(x: Array, h: Array, c: Array, cell: LstmCell) -> tuple[Array, Array]:
    i, f, o, g = np.split(conv(np.concatenate([x, h]), cell.gates), 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def reference(module: PhyDNet, frames: Array) -> list[Array]:
    side = frames.shape[-1] // module.stride
    physical = np.zeros((module.widths[-1], side, side))
    states = [(np.zeros((w, side, side)), np.zeros((w, side, side))) for w in module.widths]
    forecasts = []
    for frame in frames:
        features = layers(frame, module.encoder)
        physical = phycell(layers(features, module.to_physical), physical, module.physical)
        x = layers(features, module.to_residual)
        for i, cell in enumerate(module.residual):
            states[i] = lstm(x, *states[i], cell)
            x = states[i][0]
        decoded = layers(physical, module.from_physical) + layers(x, module.from_residual)
        forecasts.append(sigmoid(layers(decoded, module.decoder)))
    return forecasts


@pytest.mark.parametrize("patch", [2, 4])
def test_every_step_is_the_equation(patch: int) -> None:
    module = module_of("phydnet", patch=patch).double()
    frames = torch.rand(1, 4, 2, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    state = module.initial_state(1, (16, 16), frames.device, frames.dtype)
    for frame, expected in zip(frames.unbind(1), reference(module, frames[0].numpy()), strict=True):
        found, state = module.step(frame, state)
        np.testing.assert_allclose(found[0].detach().numpy(), expected, rtol=0, atol=1e-12)


class Painted(Unrolled):
    """Also paints what each branch sees by itself, as the published code does at every step."""

    def forward(self, past: Tensor) -> Tensor:
        forecasts = [super().forward(past)]
        for _ in range(19):
            forecasts += [self.module.decoder(torch.rand(1, 64, 16, 16)).sigmoid() for _ in range(2)]
        return sum(f.sum() for f in forecasts)  # type: ignore[return-value]


@pytest.mark.slow
def test_multiply_accumulates() -> None:
    """The published 15.3 counts the branches painted one by one; a forecast needs only their sum."""
    spec = ModelSpec(arch="phydnet", frames_in=10, frames_out=10, channels=1, height=64, width=64)
    assert gmac(Unrolled(spec)) == pytest.approx(14.85, rel=0.001)
    assert gmac(Painted(spec)) == pytest.approx(15.3, rel=0.01)


@pytest.mark.parametrize(
    "change", [{"value_range": None}, {"value_range": (-1.0, 1.0)}, {"mean": (0.5,)}, {"std": (2.0,)}]
)
def test_values_that_a_sigmoid_cannot_reach_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(SpecError, match=r"spec\.value_range is .*sigmoid"):
        build(spec_of("phydnet").replace(**change), "meta")


def test_without_the_sigmoid_any_values_are_reached() -> None:
    spec = spec_of("phydnet").replace(value_range=None)
    build(spec.replace(sigmoid=False), "meta")
    squeezed, free = (outputs(module_of("phydnet", sigmoid=s), clip())[0] for s in (True, False))
    torch.testing.assert_close(free.sigmoid(), squeezed)


def test_a_normalisation_to_the_unit_range_is_accepted() -> None:
    build(spec_of("phydnet").replace(value_range=(-1.0, 1.0), mean=(-1.0,), std=(2.0,)), "meta")
    build(spec_of("phydnet").replace(value_range=(0.1, 0.4), mean=(0.1,), std=(0.3,)), "meta")  # 1 but for rounding


def test_a_sigmoid_for_values_without_a_range_is_there_on_demand() -> None:
    """As OpenSTL trained its checkpoints for WeatherBench: the forecast stays within the mean and one std above it."""
    spec = spec_of("phydnet", any_range=True).replace(value_range=None, mean=(3.0,), std=(2.0,))
    future = stzoo.create(spec).predict(3 + 2 * torch.randn(1, 4, 2, 16, 16))
    assert 3 < future.min() < future.max() < 5


LEAVES = ("weight", "bias")


def published_names() -> dict[str, str]:
    """Our name of every tensor -> the authors', spelt out."""
    names = {}
    for ours, theirs in (("encoder", "encoder_E.c"), ("to_physical", "encoder_Ep.c"), ("to_residual", "encoder_Er.c")):
        for i in range(3 if ours == "encoder" else 2):
            names |= {f"{ours}.{i}.{j}": f"{theirs}{i + 1}.main.{j}" for j in (0, 1)}
    for ours, theirs in (("from_physical", "Dp"), ("from_residual", "Dr"), ("decoder", "D")):
        for i in range(2):
            names |= {f"{ours}.{i}.{j}": f"decoder_{theirs}.upc{i + 1}.main.{j}" for j in (0, 1)}
    names["decoder.2"] = "decoder_D.upc3"
    cell = "phycell.cell_list.0"
    names |= {"physical.derivatives": f"{cell}.F.conv1", "physical.norm": f"{cell}.F.bn1"}
    names |= {"physical.combine": f"{cell}.F.conv2", "physical.gain": f"{cell}.convgate"}
    names |= {f"residual.{i}.gates": f"convcell.cell_list.{i}.conv" for i in range(3)}
    return {f"{ours}.{leaf}": f"{theirs}.{leaf}" for ours, theirs in names.items() for leaf in LEAVES}


def published(origin: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random weights of ours, and the same as `origin` lays them out."""
    ours = dict(module_of("phydnet").state_dict())
    alone = {theirs: ours[name] for name, theirs in published_names().items()}
    if origin == "official":
        return ours, alone
    moments = {f"k2m.{name}": torch.rand(3, 3, dtype=torch.float64) for name in ("_M0", "_M1", "_invM0", "_invM1")}
    twice = {name: tensor for name, tensor in alone.items() if name.startswith(("phycell", "convcell"))}
    return ours, {f"encoder.{name}": tensor for name, tensor in alone.items()} | twice | moments


@pytest.mark.parametrize("origin", ["openstl", "official"])
def test_every_tensor_of_a_published_checkpoint_finds_its_place(origin: str, tmp_path: Path) -> None:
    ours, theirs = published(origin)
    torch.save(theirs, tmp_path / "ckpt.pth")
    report = convert(origin, tmp_path / "ckpt.pth", spec_of("phydnet"), tmp_path / "out")
    doubled = {name for name in theirs if name.startswith(("phycell", "convcell", "k2m"))}
    assert set(report.unused) == (doubled if origin == "openstl" else set())
    assert report.tensors == len(ours)
    found = stzoo.load(tmp_path / "out").module.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in ours.items())


def test_a_file_of_the_other_origin_is_named(tmp_path: Path) -> None:
    torch.save(published("openstl")[1], tmp_path / "ckpt.pth")
    with pytest.raises(MismatchError, match=r"encoder_E\.c1\.main\.0\.weight is missing"):
        convert("official", tmp_path / "ckpt.pth", spec_of("phydnet"), tmp_path / "out")
