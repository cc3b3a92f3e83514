"""The fused kernels compute the plain module's function and gradients, to what their dtype can tell."""

import dataclasses
import math
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stzoo.models import build
from stzoo.spec import ModelSpec
from stzoo.train import Recipe
from stzoo.train.fused import FusedForm, has_kernels, kernels, why_not
from stzoo.train.speedups import computing_form

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
DTYPES = (torch.float32, torch.bfloat16)
WIDE = {"hid_s": 32, "hid_t": 64, "n_s": 2, "n_t": 3, "mlp_ratio": 2, "patch": 2, "layer_scale": 0.5}
SPEC = ModelSpec(arch="tau", frames_in=3, frames_out=3, channels=2, height=24, width=40, params=WIDE)  # planes of 6x10


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Not here: the kernels share their work out among threads."""


def of(spec: ModelSpec, dtype: torch.dtype) -> tuple[Any, nn.Module]:
    """A module whose parameters are all of some size, and its fused form."""
    torch.manual_seed(0)
    plain = build(spec).train()
    for p in plain.parameters():
        p.data += 0.1 * torch.randn_like(p)
    assert why_not(plain, spec, dtype) is None
    return plain, FusedForm(plain, spec, dtype)


def step(module: nn.Module, plain: nn.Module, past: torch.Tensor, future: torch.Tensor) -> dict[str, torch.Tensor]:
    """The output, gradients and statistics of a step of `module`, a form of `plain`, which is left as it was."""
    before = {n: t.clone() for n, t in plain.state_dict().items()}
    torch.manual_seed(1)
    out = module(past)
    (out.to(future.dtype) - future).square().mean().backward()
    found = {n: p.grad for n, p in plain.named_parameters() if p.grad is not None}
    found |= {n: b.clone() for n, b in plain.named_buffers()} | {"output": out.detach()}
    plain.zero_grad()
    plain.load_state_dict(before)
    return {n: t.double() for n, t in found.items()}


def clip(spec: ModelSpec) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    past, future = torch.rand(2, 3, 2, 3, spec.channels, spec.height, spec.width).unbind(0)
    return past[0], future[0]


def errors(spec: ModelSpec, dtype: torch.dtype) -> dict[str, tuple[float, float]]:
    """Of each output, gradient and statistic: the relative errors of the fused form and of the plain one in `dtype`.

    Both are against the plain form in float64.
    """
    plain, fused = of(spec, dtype)
    past, future = clip(spec)
    ours = step(fused, plain, past, future)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        theirs = step(plain, plain, past, future)
    for block in plain.translator.modules():
        if hasattr(block, "drop_path"):
            block.drop_path.kept = kept_in_float64(block.drop_path)
    exact = step(plain.double(), plain, past.double(), future.double())
    assert ours.keys() == exact.keys()
    return {
        n: tuple(float((found[n] - e).norm() / (e.norm() + 1e-12)) for found in (ours, theirs))  # type: ignore[misc]
        for n, e in exact.items()
    }


def kept_in_float64(drop_path: Any) -> Any:
    kept = drop_path.kept
    return lambda *arguments: None if (found := kept(*arguments)) is None else found.double()


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "params",
    [
        {"project": True},
        {"n_s": 3, "hid_s": 64, "hid_t": 96},
        {"patch": 1, "n_s": 4},
        {"from_last": True, "lagrangian": True, "blurs": 1},
        {"statical": False},
        {"dynamical": False},
        {"statical": False, "dynamical": False},
        {"drop_path": 0.4},
        {"translator": "gsta"},
        {"translator": "gsta", "drop_path": 0.4, "project": True},
        {"translator": "van"},
    ],
    ids=str,
)
def test_forward_gradients_and_statistics_are_the_plain_ones(params: dict[str, Any], dtype: torch.dtype) -> None:
    arch = "simvp" if "translator" in params else "tau"
    spec = dataclasses.replace(SPEC, arch=arch, params=WIDE | params)
    for name, (ours, theirs) in errors(spec, dtype).items():
        if dtype == torch.float32:
            assert ours < 2 * theirs + 1e-5, (name, ours, theirs)
        else:
            assert ours < 0.05, (name, ours)
            assert ours < 2 * theirs + 0.005, (name, ours, theirs)
