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
        {"period": 2},
        {"frame_norm": False},
        {"from_last": True, "still": 0.1},
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


BROKEN = [
    ("gate_fwd", {"project": True}),
    ("mid_bwd", {"project": True}),
    ("gn_bwd", {"project": True}),
    ("gate_bwd", {"dynamical": False}),
    ("mul_fwd", {"statical": False}),
    ("mul_bwd", {"statical": False}),
    ("glu_fwd", {"translator": "gsta"}),
    ("glu_bwd", {"translator": "gsta"}),
]


@needs_compiler
@pytest.mark.parametrize(("kernel", "params"), BROKEN, ids=str)
def test_a_kernel_that_does_nothing_would_be_seen(
    kernel: str, params: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above fails when one kernel leaves its outputs as they were."""
    call = kernels.Kernels.call

    def broken(self: kernels.Kernels, name: str, *arguments: Any) -> None:
        if name != kernel:
            call(self, name, *arguments)
            return
        for argument in arguments:
            if isinstance(argument, torch.Tensor) and not argument.requires_grad:
                argument.zero_()

    monkeypatch.setattr(kernels.Kernels, "call", broken)
    with pytest.raises(AssertionError):
        test_forward_gradients_and_statistics_are_the_plain_ones(params, torch.float32)


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
def test_frozen_norms_keep_their_statistics(dtype: torch.dtype) -> None:
    """As `stzoo.train.run` freezes them: without gradient, and in evaluation."""
    plain, fused = of(SPEC, dtype)
    blocks = list(plain.translator)
    for norm in (blocks[0].norm1, blocks[1].norm2):
        norm.requires_grad_(False).eval()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    past, future = clip(SPEC)
    ours = step(fused, plain, past, future)
    exact = step(plain.double(), plain, past.double(), future.double())
    assert "translator.0.norm1.weight" not in ours
    assert ours.keys() == exact.keys()
    for name, value in exact.items():
        assert (ours[name] - value).norm() < (1e-4 if dtype == torch.float32 else 0.05) * value.norm() + 1e-12, name


@needs_compiler
def test_gelu_is_that_of_erf() -> None:
    """Within 1e-6, which the tanh form misses by hundreds of times; the slope is within 1e-6 as well."""
    (height, width), c = (6, 10), 16
    found = kernels.kernels_for(height, width, torch.float32)
    x = torch.linspace(-9, 9, height * width * c).view(height * width, c)
    u, gp, ones, sums, none = (torch.ones_like(x), torch.ones_like(x), torch.ones_like(x), torch.zeros(c), None)
    found.call("gate_fwd", x, torch.zeros(c), none, none, none, none, u, none, none, 1, c)
    found.call(
        "gate_bwd", x, torch.zeros(c), none, ones, none, none, none, none, gp, none, none, none, none, sums, 1, c
    )  # fmt: skip
    exact = x.double().requires_grad_()
    y = nn.functional.gelu(exact)
    y.sum().backward()
    assert exact.grad is not None
    assert (u - y).abs().max() < 1e-6
    assert (gp - exact.grad).abs().max() < 1e-6
    assert (nn.functional.gelu(x, approximate="tanh") - y).abs().max() > 1e-4


@needs_compiler
def test_losses_of_a_run_are_the_plain_ones() -> None:
    """To 1e-3 over 200 steps, from the same start with the same clips."""
    spec = SPEC.replace(hid_s=16, hid_t=16, n_t=2, mlp_ratio=1)
    past, future = (frames[:1] for frames in clip(spec))
    losses = []
    for fused in (False, True):
        plain, form = of(spec, torch.float32)
        form = form if fused else plain
        optimizer = torch.optim.AdamW(plain.parameters(), 1e-3)
        losses.append([])
        for i in range(200):
            loss = (form(past.roll(i, -1)) - future.roll(i, -1)).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[-1].append(loss.item())
    assert losses[0][-1] < 0.5 * losses[0][0]
    assert all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(*losses, strict=True))


@needs_compiler
def test_threads_change_nothing_but_rounding() -> None:
    plain, fused = of(SPEC, torch.float32)
    past, future = clip(SPEC)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3, 3):
            fused.kernels.library.omp_set_num_threads(threads)  # type: ignore[operator, union-attr]
            found.append(step(fused, plain, past, future))
    finally:
        fused.kernels.library.omp_set_num_threads(before)  # type: ignore[operator, union-attr]
    for name, value in found[0].items():
        assert (found[1][name] - value).norm() <= 1e-5 * value.norm(), name
        assert torch.equal(found[1][name], found[2][name]), name


def test_without_a_compiler_the_plain_module_trains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernels.kernels_for.cache_clear()
    monkeypatch.setenv("STZOO_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    try:
        assert "could not be built" in str(why_not(build(SPEC), SPEC, torch.float32))
        recipe = Recipe(dataset="mmnist", minutes=1, fused=True)
        plain = build(SPEC)
        with pytest.warns(UserWarning, match="without the fused kernels"):
            assert not isinstance(computing_form(plain, SPEC, recipe), FusedForm)
    finally:
        kernels.kernels_for.cache_clear()


@pytest.mark.parametrize(
    ("params", "dtype", "reason"),
    [
        ({"hid_s": 24}, torch.float32, "in float32 widths must be multiples of 16, and one is 24"),
        ({"hid_s": 16, "hid_t": 48}, torch.bfloat16, "in bfloat16 widths must be multiples of 32, and one is 16"),
        ({"hid_t": 72}, torch.float32, "multiples of 16, and one is 72"),
    ],
)
def test_where_the_kernels_do_not_apply_it_says_why(params: dict[str, Any], dtype: torch.dtype, reason: str) -> None:
    spec = SPEC.replace(**params)
    assert reason in str(why_not(build(spec), spec, dtype))


def test_planes_that_are_too_wide_are_refused() -> None:
    spec = dataclasses.replace(SPEC, width=520)
    assert "at most 128 pixels wide" in str(why_not(build(spec, "meta"), spec, torch.float32))


@pytest.mark.parametrize(
    ("arch", "params"),
    [("simvp", {"translator": "incepu"}), ("simvp", {"translator": "poolformer"}), ("conv", {"hid_s": 32})],
)
def test_a_module_that_never_has_kernels_is_trained_without_a_warning(arch: str, params: dict[str, Any]) -> None:
    given = params if arch == "conv" else {"hid_s": 32, "hid_t": 64, "n_s": 2, "n_t": 2} | params
    spec = dataclasses.replace(SPEC, arch=arch, params=given)
    plain = build(spec)
    assert not has_kernels(plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not isinstance(computing_form(plain, spec, Recipe(dataset="mmnist", minutes=1, fused=True)), FusedForm)
