"""The fused kernels compute the plain module's function and gradients, to what bfloat16 can tell."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from stzoo.models import build
from stzoo.spec import ModelSpec
from stzoo.train import Recipe, fused
from stzoo.train.fused import FusedTau, why_not
from stzoo.train.speedups import computing_form


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Not here: the kernels share their work out among threads."""


WIDE = {"hid_s": 32, "hid_t": 64, "n_s": 2, "n_t": 3, "mlp_ratio": 2, "patch": 2, "layer_scale": 0.5}
SPEC = ModelSpec(arch="tau", frames_in=3, frames_out=3, channels=2, height=64, width=64, params=WIDE)


@pytest.mark.parametrize(
    "params",
    [
        {"project": True},
        {"project": False},
        {"patch": 1, "n_s": 4},
        {"from_last": True},
        {"from_last": True, "lagrangian": True},
        {"statical": False},
        {"dynamical": False},
        {"statical": False, "dynamical": False},
    ],
)
def test_forward_gradients_and_statistics_are_the_plain_ones(params: dict[str, object]) -> None:
    spec = SPEC.replace(**params)
    torch.manual_seed(0)
    plain = build(spec)
    if why_not(plain, spec):
        pytest.skip(why_not(plain, spec))
    past, future = torch.rand(2, 3, 2, 64, 64), torch.rand(2, 3, 2, 64, 64)
    start = {n: t.clone() for n, t in plain.state_dict().items()}

    def run(module: nn.Module, autocast: bool) -> dict[str, torch.Tensor]:
        plain.load_state_dict(start)
        plain.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = module(past)
        (out.float() - future).square().mean().backward()
        found = {n: p.grad.clone() for n, p in plain.named_parameters()}
        return found | {n: b.float() for n, b in plain.named_buffers()} | {"output": out.detach().float()}

    exact, fused, rounded = run(plain, False), run(FusedTau(plain), True), run(plain, True)
    for name, value in exact.items():
        ours, autocast = ((other[name] - value).norm() / (value.norm() + 1e-12) for other in (fused, rounded))
        assert ours < 0.05, (name, ours)
        assert ours < 2 * autocast + 0.005, (name, ours, autocast)


@pytest.mark.parametrize(
    ("kernel", "params"),
    [
        ("gate_fwd", {"project": True}),
        ("mid_bwd", {"project": True}),
        ("gn_bwd", {"project": True}),
        ("gate_bwd", {"dynamical": False}),
        ("mul_fwd", {"statical": False}),
        ("mul_bwd", {"statical": False}),
    ],
)
def test_a_kernel_that_does_nothing_would_be_seen(
    kernel: str, params: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above fails when one kernel leaves its outputs as they were."""
    call = fused._call

    def broken(name: str, *arguments: object) -> None:
        if name != kernel:
            call(name, *arguments)
            return
        for argument in arguments:
            if isinstance(argument, torch.Tensor) and not argument.requires_grad:
                argument.zero_()

    monkeypatch.setattr(fused, "_call", broken)
    with pytest.raises(AssertionError):
        test_forward_gradients_and_statistics_are_the_plain_ones(params)


def test_where_it_cannot_build_the_plain_module_trains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fused._kernels.cache_clear()
    monkeypatch.setenv("STZOO_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    try:
        if "avx512_bf16" in fused.cpu_flags():
            assert "could not be built" in str(why_not(build(SPEC), SPEC))
        recipe = Recipe(dataset="mmnist", minutes=1, fused=True)
        with pytest.warns(UserWarning, match="without the fused kernels"):
            assert not isinstance(computing_form(build(SPEC), SPEC, recipe), FusedTau)
    finally:
        fused._kernels.cache_clear()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"arch": "conv", "params": {"hid_s": 32}}, "only tau"),
        ({"height": 32}, "16x16"),
        ({"params": WIDE | {"hid_s": 16}}, "multiples of 32"),
        ({"params": WIDE | {"drop_path": 0.1}}, "drop path"),
    ],
)
def test_where_the_kernels_do_not_apply_it_says_why(change: dict[str, object], reason: str) -> None:
    spec = dataclasses.replace(SPEC, **change)
    assert reason in str(why_not(build(spec), spec))
