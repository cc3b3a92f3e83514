"""TAU and SimVP's gSTA against published counts, and against its equations written out in float64."""

import copy
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stzoo.models import build
from stzoo.models.gated_block import GatedBlock, large_kernel
from stzoo.models.simvp import GstaGate
from stzoo.models.tau import TauGate
from stzoo.spec import ModelSpec


def spec_of(arch: str, frames: int, channels: int, size: int, **params: object) -> ModelSpec:
    return ModelSpec(
        arch=arch, frames_in=frames, frames_out=frames, channels=channels, height=size, width=size, params=params
    )


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


PUBLISHED = [
    (spec_of("tau", 10, 1, 64), 44_656_001, 15.95),
    (spec_of("tau", 10, 1, 128, n_s=2, hid_t=256, n_t=6), 14_955_201, 73.8),
    (spec_of("tau", 4, 2, 32, hid_s=32, hid_t=256, n_s=2), 9_545_442, 2.49),
    (spec_of("simvp", 10, 1, 64), 46_769_665, 16.53),
    (spec_of("simvp", 10, 1, 64, translator="incepu"), 57_946_113, 19.43),
]
NAMES = ["mmnist", "kth", "taxibj", "gsta", "incepu"]


@pytest.mark.parametrize(("spec", "count", "gmac"), PUBLISHED, ids=NAMES)
def test_parameters_are_the_published_ones(spec: ModelSpec, count: int, gmac: float) -> None:
    assert parameters(build(spec, "meta")) == count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "gmac"),
    [(spec, gmac) for spec, _, gmac in PUBLISHED]
    + [(spec_of("tau", 10, 1, 64, statical=False), 15.30), (spec_of("tau", 10, 1, 64, dynamical=False), 15.96)],
    ids=[*NAMES, "no statical", "no dynamical"],
)
def test_multiply_accumulates_are_the_published_ones(spec: ModelSpec, gmac: float) -> None:
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    past = torch.zeros(1, spec.frames_in, spec.channels, spec.height, spec.width)
    counted = FlopCountAnalysis(build(spec).eval(), past).unsupported_ops_warnings(False).total() / 1e9
    assert counted == pytest.approx(gmac, rel=0.01)


def test_attentions_switch_separately() -> None:
    base = {"hid_s": 4, "hid_t": 32, "n_s": 2, "n_t": 3}
    full = parameters(build(spec_of("tau", 4, 1, 16, **base)))
    widths = [16, 32, 32]
    squeeze = [2 * c * (c // max(c // 16, 4)) for c in widths]
    large = [c * (25 + 1) + c * (49 + 1) + c * (c + 1) for c in widths]
    assert full - parameters(build(spec_of("tau", 4, 1, 16, **base, dynamical=False))) == sum(squeeze)
    assert full - parameters(build(spec_of("tau", 4, 1, 16, **base, statical=False))) == sum(large)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def pointwise(x: np.ndarray, conv: nn.Conv2d) -> np.ndarray:
    weight, bias = conv.weight.detach().numpy()[:, :, 0, 0], conv.bias.detach().numpy()
    return np.einsum("oc,chw->ohw", weight, x) + bias[:, None, None]


def depthwise(x: np.ndarray, conv: nn.Conv2d) -> np.ndarray:
    """One multiplication at a time, zero outside the plane."""
    weight, bias = conv.weight.detach().numpy()[:, 0], conv.bias.detach().numpy()
    (_, h, w), k, d = x.shape, weight.shape[1], conv.dilation[0]
    out = np.tile(bias[:, None, None], (1, h, w)).astype(np.float64)
    for y in range(h):
        for z in range(w):
            for i in range(k):
                for j in range(k):
                    yy, zz = y + (i - k // 2) * d, z + (j - k // 2) * d
                    if 0 <= yy < h and 0 <= zz < w:
                        out[:, y, z] += weight[:, i, j] * x[:, yy, zz]
    return out


def batch_norm(x: np.ndarray, norm: nn.BatchNorm2d) -> np.ndarray:
    mean, var, weight, bias = (
        t.detach().numpy()[:, None, None] for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / np.sqrt(var + norm.eps) * weight + bias


def tau_gate(u: np.ndarray, gate: TauGate) -> np.ndarray:
    statical = pointwise(depthwise(depthwise(u, gate.statical[0]), gate.statical[1]), gate.statical[2])
    squeeze, excite = (gate.dynamical[i].weight.detach().numpy() for i in (0, 2))
    dynamical = 1 / (1 + np.exp(-(excite @ np.maximum(squeeze @ u.mean((1, 2)), 0))))
    return dynamical[:, None, None] * statical * u


def gsta_gate(u: np.ndarray, gate: GstaGate) -> np.ndarray:
    both = pointwise(depthwise(depthwise(u, gate.attention[0]), gate.attention[1]), gate.attention[2])
    return both[: len(u)] / (1 + np.exp(-both[len(u) :]))


def reference_block(block: GatedBlock, x: np.ndarray, gated: Callable[..., np.ndarray]) -> np.ndarray:
    """The paper's equations for one sample (C, H, W) in float64."""
    normed = batch_norm(x, block.norm1)
    u = gelu(pointwise(normed, block.proj1))
    attended = pointwise(gated(u, block.gate), block.proj2) + normed
    x = x + block.scale1.detach().numpy() * attended
    hidden = pointwise(batch_norm(x, block.norm2), block.mlp[0])
    x = x + block.scale2.detach().numpy() * pointwise(gelu(depthwise(hidden, block.mlp[1])), block.mlp[3])
    return pointwise(x, block.reduction)


@pytest.mark.parametrize(
    ("gate", "gated"), [(TauGate(16, True, True), tau_gate), (GstaGate(16), gsta_gate)], ids=["tau", "gsta"]
)
def test_block_is_the_papers_equation(gate: nn.Module, gated: Callable[..., np.ndarray]) -> None:
    torch.manual_seed(0)
    block = GatedBlock(gate, 16, 24, mlp_ratio=2, layer_scale=1e-2, drop_path=0.0).double().eval()
    with torch.no_grad():
        for p in [*block.parameters(), block.norm1.running_mean, block.norm2.running_mean]:
            p.copy_(torch.randn_like(p) * 0.5)
        block.norm1.running_var.uniform_(0.5, 2)
        block.norm2.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 16, 11, 9, dtype=torch.float64)
    expected = np.stack([reference_block(block, sample.numpy(), gated) for sample in x])
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("arch", ["tau", "conv"])
@pytest.mark.parametrize("patch", [1, 2])
def test_emits_as_many_frames_as_it_takes_at_any_size_of_its_stride(arch: str, patch: int) -> None:
    module = build(spec_of(arch, 3, 2, 32, hid_s=4, hid_t=8, n_s=2, n_t=2, patch=patch))
    assert module.stride == 2 * patch
    for size in ((32, 32), (8, 40)):
        assert module(torch.zeros(2, 3, 2, *size)).shape == (2, 3, 2, *size)


def test_clips_of_a_batch_do_not_touch_each_other() -> None:
    torch.manual_seed(0)
    module = build(spec_of("tau", 3, 1, 16, hid_s=4, hid_t=8, n_s=2, n_t=2)).eval()
    x = torch.rand(2, 3, 1, 16, 16)
    torch.testing.assert_close(module(x)[1:], module(x[1:]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("project", [False, True])
def test_every_parameter_gets_a_gradient(project: bool) -> None:
    torch.manual_seed(0)
    module = build(spec_of("tau", 3, 1, 16, hid_s=4, hid_t=64, n_s=4, n_t=3, project=project))
    module(torch.rand(2, 3, 1, 16, 16)).square().mean().backward()
    assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("size", [16, 32, 48])
def test_gradients_of_the_dilated_kernel_in_bfloat16_on_a_cpu_are_the_right_ones(size: int) -> None:
    """torch's own are wrong by more than their size for 32x32 pixels and more, and not finite where memory is dirty."""
    torch.manual_seed(0)
    kernels = large_kernel(32, 32).to(memory_format=torch.channels_last)
    x = torch.randn(1, 32, size, size).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        y = kernels(x)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    exact = copy.deepcopy(kernels).double()
    exact.zero_grad()
    exact(x.double()).backward(gradient.double())
    for name, parameter in exact.named_parameters():
        found = kernels.get_parameter(name).grad
        assert found is not None
        assert parameter.grad is not None
        assert (found - parameter.grad).norm() < 0.02 * parameter.grad.norm(), name


def test_drop_path_only_acts_in_training() -> None:
    torch.manual_seed(0)
    module = build(spec_of("tau", 3, 1, 16, hid_s=4, hid_t=8, n_s=2, n_t=3, drop_path=0.5, layer_scale=1.0)).eval()
    x = torch.rand(2, 3, 1, 16, 16)
    assert torch.equal(module(x), module(x))
    module.train()
    assert not torch.equal(module(x), module(x))


@pytest.mark.parametrize("arch", ["tau", "simvp"])
def test_how_large_values_are_goes_through_without_frame_norm_alone(arch: str) -> None:
    """With it, a frame and the same frame a hundred times as large have the same features, since biases are 0 here."""
    spec = ModelSpec(arch=arch, frames_in=3, frames_out=3, channels=2, height=16, width=16, params={"n_s": 3})
    past = 10 * torch.rand(2, 3, 2, 16, 16)
    found = []
    for frame_norm in (True, False):
        module: Any = build(spec.replace(hid_s=4, hid_t=8, n_t=2, mlp_ratio=2, frame_norm=frame_norm)).eval()
        for layer in module.encoder.layers:
            torch.nn.init.zeros_(layer.conv.bias)
        with torch.no_grad():
            hidden, larger = (module.encoder(x.flatten(0, 1))[0] for x in (past, 100 * past))
        found.append(float((larger - hidden).norm() / hidden.norm()))
    assert found[0] < 0.01
    assert found[1] > 10
