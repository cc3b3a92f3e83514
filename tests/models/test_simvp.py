"""SimVP's first translator against a transcription in float64, and what is refused. Its gSTA is in test_tau.py."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from stzoo.errors import SpecError
from stzoo.models import build
from stzoo.models.simvp import Inception, IncepU
from stzoo.spec import ModelSpec

Array = NDArray[np.float64]
SMALL: dict[str, Any] = {"hid_s": 8, "hid_t": 32, "n_s": 2, "n_t": 3}


def spec_of(**params: Any) -> ModelSpec:
    return ModelSpec(
        arch="simvp", frames_in=3, frames_out=3, channels=2, height=16, width=16, params={**SMALL, **params}
    )


def grouped(x: Array, conv: nn.Conv2d) -> Array:
    """Every group of outputs reads its own group of inputs, one tap at a time."""
    weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
    (_, h, w), k, out_size = x.shape, weight.shape[-1], len(weight) // conv.groups
    padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    out = np.tile(bias[:, None, None], (1, h, w))
    for group in range(conv.groups):
        outputs = slice(group * out_size, (group + 1) * out_size)
        inputs = slice(group * weight.shape[1], (group + 1) * weight.shape[1])
        for dy in range(k):
            for dx in range(k):
                taps = weight[outputs, :, dy, dx]
                out[outputs] += np.einsum("oc,chw->ohw", taps, padded[inputs, dy : dy + h, dx : dx + w])
    return out


def branch(x: Array, conv: nn.Conv2d, norm: nn.GroupNorm) -> Array:
    y = grouped(x, conv)
    parts = np.split(y, norm.num_groups)
    y = np.concatenate([(p - p.mean()) / np.sqrt(p.var() + norm.eps) for p in parts])
    y = y * norm.weight.detach().numpy()[:, None, None] + norm.bias.detach().numpy()[:, None, None]
    return np.where(y > 0, y, 0.2 * y)


def inception(x: Array, module: Inception) -> Array:
    x = grouped(x, module.reduce)
    return sum(branch(x, b[0], b[1]) for b in module.branches)  # type: ignore[index, return-value]


def unet(x: Array, module: IncepU) -> Array:
    first, second, third = module.down
    a = inception(x, first)
    b = inception(a, second)
    x = inception(inception(b, third), module.up[0])
    x = inception(np.concatenate([x, b]), module.up[1])
    return inception(np.concatenate([x, a]), module.up[2])


@pytest.mark.parametrize("hid_t", [32, 24], ids=["eight groups", "one group"])
def test_incepu_is_the_transcription(hid_t: int) -> None:
    torch.manual_seed(0)
    module = IncepU(24, hid_t, 3).double().eval()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    assert {b[0].groups for d in module.down for b in d.branches} == {8 if hid_t == 32 else 1}
    x = torch.randn(2, 24, 7, 6, dtype=torch.float64)
    expected = np.stack([unet(sample.numpy(), module) for sample in x])
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("params", [{}, {"translator": "incepu"}, {"project": True, "patch": 2}])
def test_every_parameter_gets_a_gradient_and_any_size_of_the_stride_works(params: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = build(spec_of(**params))
    for size in ((16, 16), (8, 24)):
        assert module(torch.rand(2, 3, 2, *size)).shape == (2, 3, 2, *size)
    module(torch.rand(2, 3, 2, 16, 16)).square().mean().backward()
    assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"translator": "unet"}, r"spec\.params\.translator is 'unet'; it may be 'gsta' or 'incepu'"),
        ({"translator": "incepu", "mlp_ratio": 4}, r"spec\.params\.mlp_ratio is 4; translator incepu does not use"),
        (
            {"translator": "incepu", "project": True},
            r"spec\.params\.project is True; translator incepu does not use",
        ),
        ({"translator": "incepu", "hid_s": 6}, r"spec\.params\.hid_s is 6; times frames_in"),
        ({"translator": "incepu", "hid_t": 33}, r"spec\.params\.hid_t is 33; incepu needs a multiple of 8"),
        ({"hid_s": 7}, r"spec\.params\.hid_s is 7; it must be even"),
        ({"hid_t": -1}, r"spec\.params\.hid_t is -1"),
        ({"patch": 3}, r"spec\.height x spec\.width is 16x16; this simvp needs multiples of 6"),
    ],
)
def test_a_wrong_parameter_is_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(spec_of(**params), "meta")
