"""PFGNet against its equations, written out in float64 on the tensors of a checkpoint laid out as published.

Nothing is shared with stzoo: kernels run over the plane one element at a time, and the fixed kernels of the gradient
and the Laplacian are written out.
"""

import logging
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from models.published_shapes import published_shapes
from numpy.typing import NDArray

import stzoo
from stzoo.convert import convert
from stzoo.errors import SpecError
from stzoo.models import build
from stzoo.models.pfgnet import PfgNetConfig, drop_rates
from stzoo.spec import ModelSpec

Array = NDArray[np.float64]
T, C, H, W, HID_S, KERNELS = 2, 3, 12, 20, 4, (3, 5, 9)
WIDE = HID_S * T  # 8: a stem of 2 channels from each of three kernels, and 2 more
SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
LAPLACE = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])


def spec_of(**changes: object) -> ModelSpec:
    params = {"hid_s": HID_S, "n_s": 2, "n_t": 2, "kernels": list(KERNELS), "mlp_ratio": 2}
    return ModelSpec(
        arch="pfgnet", frames_in=T, frames_out=T, channels=C, height=H, width=W, value_range=None,
        params=params | changes,
    )  # fmt: skip


def published(spec: ModelSpec) -> dict[str, torch.Tensor]:
    """Random weights under the published names, so large that every part shows in the forecast."""
    generator = torch.Generator().manual_seed(1)
    state = {
        name: torch.randn(shape, generator=generator)
        * (1.0 if len(shape) < 2 or shape[0] == 1 else 1.5 / math.prod(shape[1:]) ** 0.5)
        for name, shape in published_shapes(spec).items()
    }
    return {re.sub(r"^dec\.dec\.0\.conv\.conv", "dec.dec.0.conv.conv.0", name): t for name, t in state.items()}


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def slide(x: Array, kernel: Array, stride: int = 1) -> Array:
    """One plane (h, w) under one kernel, zero outside."""
    (h, w), (rows, columns) = x.shape, kernel.shape
    out = np.zeros((h, w))
    for y in range(h):
        for z in range(w):
            for i in range(rows):
                for j in range(columns):
                    yy, zz = y + i - rows // 2, z + j - columns // 2
                    if 0 <= yy < h and 0 <= zz < w:
                        out[y, z] += kernel[i, j] * x[yy, zz]
    return out[::stride, ::stride]


class Reference:
    """(C, h, w) arrays throughout; names are the published ones."""

    def __init__(self, state: dict[str, torch.Tensor]):
        self.tensors = {name: tensor.double().numpy() for name, tensor in state.items()}

    def conv(self, name: str, x: Array, stride: int = 1) -> Array:
        weight = self.tensors[f"{name}.weight"]
        planes = [sum(slide(x[c], kernel[c], stride) for c in range(len(x))) for kernel in weight]
        bias = self.tensors.get(f"{name}.bias", np.zeros(len(weight)))
        return np.stack(planes) + bias[:, None, None]

    def depthwise(self, name: str, x: Array) -> Array:
        return np.stack(
            [slide(plane, kernel[0]) for plane, kernel in zip(x, self.tensors[f"{name}.weight"], strict=True)]
        )

    def group_norm(self, name: str, x: Array, groups: int) -> Array:
        parts = x.reshape(groups, -1)
        parts = (parts - parts.mean(1, keepdims=True)) / np.sqrt(parts.var(1, keepdims=True) + 1e-5)
        weight, bias = (self.tensors[f"{name}.{kind}"][:, None, None] for kind in ("weight", "bias"))
        return parts.reshape(x.shape) * weight + bias

    def layer(self, name: str, x: Array, stride: int = 1, up: bool = False) -> Array:
        """A layer of the encoder or of the decoder."""
        y = self.conv(f"{name}.conv.0" if up else f"{name}.conv", x, stride)
        if up:
            wide = np.empty((len(y) // 4, 2 * y.shape[1], 2 * y.shape[2]))
            for i in range(4):
                wide[:, i // 2 :: 2, i % 2 :: 2] = y[i::4]
            y = wide
        y = self.group_norm(f"{name}.norm", y, 2)
        return y * sigmoid(y)

    def stem(self, x: Array) -> Array:
        parts = []
        for name in ("branches.0", "branches.1", "branches.2", "tail"):
            name = f"hid.cel.{name}"
            far = self.depthwise(f"{name}.0.dw_v", self.depthwise(f"{name}.0.dw_h", x))
            near, here = self.depthwise(f"{name}.0.dw_s", x), self.depthwise(f"{name}.0.dw_i", x)
            parts.append(self.conv(f"{name}.1", far + near + here))
        return gelu(self.group_norm("hid.cel.norm", np.concatenate(parts), 1))

    def gate(self, name: str, x: Array) -> Array:
        """Peripheral frequency gating of a normalised input."""
        gradient, laplacian, variance = (np.zeros(x.shape) for _ in range(3))
        for c, plane in enumerate(x):
            gradient[c] = np.sqrt(slide(plane, SOBEL) ** 2 + slide(plane, SOBEL.T) ** 2 + 1e-6)
            laplacian[c] = abs(slide(plane, LAPLACE))
            mean, square = (slide(values, np.full((3, 3), 1 / 9)) for values in (plane, plane**2))
            variance[c] = np.maximum(square - mean**2, 0)
        logits = self.conv(f"{name}.gate_head", np.stack([m.mean(0) for m in (gradient, laplacian, variance)]))
        shares = np.exp(logits) / np.exp(logits).sum(0)
        out = np.zeros(x.shape)
        for i in range(len(KERNELS)):
            branch = f"{name}.branches.{i}"
            far = self.depthwise(f"{branch}.dw_v", self.depthwise(f"{branch}.dw_h", x))
            centre = np.tanh(self.tensors[f"{branch}.beta"][0]) * self.depthwise(f"{branch}.dw_c", x)
            out += shares[i] * (far - centre)
        return out

    def response_norm(self, name: str, x: Array) -> Array:
        gamma, beta = (self.tensors[f"{name}.{kind}"][0] for kind in ("gamma", "beta"))
        length = np.sqrt((x**2).sum((1, 2), keepdims=True))
        return x + gamma * x / (length + 1e-6) + beta

    def block(self, name: str, x: Array) -> Array:
        y = gelu(self.gate(f"{name}.tm", self.group_norm(f"{name}.norm_dw", x, WIDE)))
        x = x + self.tensors[f"{name}.gamma_dw"][:, None, None] * self.response_norm(f"{name}.grn_dw", y)
        u, v = np.split(self.conv(f"{name}.pw_in", self.group_norm(f"{name}.norm_pw", x, WIDE)), 2)
        y = self.conv(f"{name}.pw_out", u * sigmoid(u) * self.depthwise(f"{name}.dw_v", v))
        return x + self.tensors[f"{name}.gamma_pw"][:, None, None] * self.response_norm(f"{name}.grn_pw", y)

    def forecast(self, past: Array) -> Array:
        """(T, C, H, W) -> the same shape."""
        skips = [self.layer("enc.enc.0.conv", frame) for frame in past]
        x = np.concatenate([self.layer("enc.enc.1.conv", skip, 2) for skip in skips])
        x = self.stem(x)
        for i in range(2):
            x = self.block(f"hid.blocks.{i}", x)
        future = []
        for hidden, skip in zip(np.split(x, T), skips, strict=True):
            y = self.layer("dec.dec.1.conv", self.layer("dec.dec.0.conv", hidden, up=True) + skip)
            future.append(self.conv("dec.readout", y))
        return np.stack(future)


def test_a_converted_checkpoint_forecasts_as_published(tmp_path: Path) -> None:
    spec = spec_of()
    state = published(spec)
    torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}}, tmp_path / "pfg.ckpt")
    known = {"channels": C, "height": H, "width": W, "frames_out": T, "value_range": None}
    report = convert("openstl", tmp_path / "pfg.ckpt", None, tmp_path / "out", known=known)
    assert report.unused == ()
    model = stzoo.load(tmp_path / "out")
    past = torch.rand(2, T, C, H, W, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        found = model.module.double()(past).numpy()
    expected = np.stack([Reference(state).forecast(clip) for clip in past.numpy()])
    assert expected.std() > 0.3  # or there would be little to compare
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_every_part_of_a_checkpoint_shows_in_the_forecast() -> None:
    """So the test above says something of each."""
    torch.manual_seed(0)
    module = build(spec_of(layer_scale=1.0)).double()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn_like(p))
    module(torch.rand(2, T, C, H, W, dtype=torch.float64)).square().mean().backward()
    assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 1e-12] == []


@pytest.mark.parametrize(
    ("frames", "params", "count", "millions", "gmac"),
    [
        ((4, 2, 32, 32), {"hid_s": 32, "n_s": 2}, 1_855_426, "1.86", 0.55),
        pytest.param((4, 3, 256, 256), {}, 7_259_491, "7.3", 58.3, marks=pytest.mark.slow),
    ],
    ids=["taxibj", "human"],
)
def test_counts_are_the_published_ones(
    frames: tuple[int, int, int, int], params: dict[str, int], count: int, millions: str, gmac: float
) -> None:
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    t, c, h, w = frames
    spec = ModelSpec(arch="pfgnet", frames_in=t, frames_out=t, channels=c, height=h, width=w, params=params)
    module = build(spec).eval()
    assert sum(p.numel() for p in module.parameters()) == count
    assert f"{count / 1e6:.{len(millions.partition('.')[2])}f}" == millions
    past = torch.zeros(1, t, c, h, w)
    counted = FlopCountAnalysis(module, past).unsupported_ops_warnings(False).total() / 1e9
    assert counted == pytest.approx(gmac, rel=0.01)


@pytest.mark.parametrize("changes", [{}, {"hid_t": 12, "patch": 2, "n_s": 1, "kernels": [7]}], ids=["paper", "narrow"])
def test_emits_as_many_frames_as_it_takes_at_any_size_of_its_stride(changes: dict[str, object]) -> None:
    torch.manual_seed(0)
    module = build(spec_of(**changes)).eval()
    assert module.stride == 2
    for size in ((12, 20), (2, 34)):
        past = torch.rand(2, T, C, *size)
        assert module(past).shape == past.shape
        torch.testing.assert_close(module(past)[1:], module(past[1:]), rtol=1e-5, atol=1e-6)  # clips do not touch


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hid_s": 22}, r"spec\.frames_in times spec\.params\.hid_s is 44; .* a multiple of 32"),
        ({"hid_t": 65}, r"spec\.params\.hid_t is 65; .* a multiple of 32"),
        ({"kernels": [9, 16]}, r"spec\.params\.kernels is \[9, 16\]; it must be a list of odd numbers"),
        ({"kernels": []}, r"spec\.params\.kernels is \[\]"),
        ({"hid_s": 5}, r"spec\.params\.hid_s is 5; it must be even"),
    ],
)
def test_widths_and_kernels_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(spec_of(**changes), "meta")


def test_blocks_are_dropped_in_training_alone_and_more_often_towards_the_end() -> None:
    assert drop_rates(PfgNetConfig(n_t=4, drop_path=0.1)) == pytest.approx([0.01, 0.04, 0.07, 0.1])
    assert drop_rates(PfgNetConfig(n_t=2)) == [0.0, 0.0]
    torch.manual_seed(0)
    module, past = build(spec_of(drop_path=0.5, layer_scale=1.0)), torch.rand(4, T, C, H, W)
    with torch.no_grad():
        assert not torch.equal(module.train()(past), module(past))
        assert torch.equal(module.eval()(past), module(past))
