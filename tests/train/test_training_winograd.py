"""Convolutions that learn in fewer products against float64 ones, and what makes training choose them."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import stzoo
from stzoo.models import build
from stzoo.train import read_recipe
from stzoo.train import winograd as room
from stzoo.train.memory import training_memory
from stzoo.train.objectives import objective
from stzoo.train.speedups import computing_form
from stzoo.train.winograd import WinogradConv, pays, with_fewer_products


def error(found: Tensor, wanted: Tensor) -> float:
    """The norm of the difference, relative to the norm of what is wanted."""
    return ((found.double() - wanted).norm() / wanted.norm()).item()


@pytest.fixture
def fit_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "mkl_keeps_up", lambda: True)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [(16, 16), (5, 9), (1, 1), (7, 30), (12, 33)])
@pytest.mark.parametrize("bias", [True, False])
def test_results_and_gradients_are_those_of_the_plain_convolution(
    kernel: int, size: tuple[int, int], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "CACHED", 20_000)  # so that the batch goes through in parts
    torch.manual_seed(0)
    plain = nn.Conv2d(24, 20, kernel, padding=kernel // 2, bias=bias)
    fast = WinogradConv(plain)
    x, above = torch.randn(5, 24, *size), torch.randn(5, 20, *size)
    exact = [p.detach().double().requires_grad_() for p in (x, *plain.parameters())]
    wanted = F.conv2d(exact[0], *exact[1:], padding=kernel // 2)
    of_exact = torch.autograd.grad(wanted, exact, above.double())
    for layout in (torch.contiguous_format, torch.channels_last):
        seen = x.detach().contiguous(memory_format=layout).requires_grad_()
        found = fast(seen)
        assert error(found, wanted.detach()) < 2e-5
        gradients = torch.autograd.grad(found, [seen, *plain.parameters()], above.contiguous(memory_format=layout))
        assert all(error(a, b) < 2e-5 for a, b in zip(gradients, of_exact, strict=True))


def test_sums_of_weights_are_made_once_for_all_steps_and_anew_for_new_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    plain, x, made = nn.Conv2d(8, 8, 3, padding=1), torch.randn(2, 8, 8, 8), []
    fast, make = WinogradConv(plain), room._on_both_axes
    kernel = room.MATRICES[3][1]

    def counted(matrix: Tensor, of: Tensor) -> Tensor:
        made.append(matrix is kernel)
        return make(matrix, of)

    monkeypatch.setattr(room, "_on_both_axes", counted)
    optimizer = torch.optim.AdamW(plain.parameters(), 0.1, fused=True)  # as `stzoo.train.optim` makes it
    for step in range(1, 4):
        wanted = plain(plain(x)).square().mean()
        expected = torch.autograd.grad(wanted, list(plain.parameters()))
        loss = fast(fast(x)).square().mean()  # as a recurrent module would
        assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
        loss.backward()
        for parameter, gradient in zip(plain.parameters(), expected, strict=True):
            assert error(parameter.grad, gradient.double()) < 1e-5
        assert sum(made) == step
        optimizer.step()
        optimizer.zero_grad()


def test_a_forecast_without_a_backward_pass_leaves_nothing_stale() -> None:
    torch.manual_seed(0)
    plain, x = nn.Conv2d(8, 8, 3, padding=1), torch.randn(2, 8, 8, 8)
    fast, optimizer = WinogradConv(plain), torch.optim.AdamW(plain.parameters(), 0.1, fused=True)
    plain(x).square().mean().backward()
    fast(x)
    optimizer.step()
    torch.autograd.graph.increment_version(list(plain.parameters()))  # as `Run.advance` does
    assert error(fast(x), plain(x).detach().double()) < 1e-5


def test_the_form_is_a_convolution_in_all_but_its_sums(fit_cpu: None) -> None:
    """Modules may ask their convolutions for what these are."""
    plain = nn.Conv2d(64, 72, 3, padding=1, bias=False)
    fast = with_fewer_products(plain)
    assert isinstance(fast, nn.Conv2d)
    assert (fast.out_channels, fast.padding, fast.bias) == (72, (1, 1), None)
    assert fast.weight is plain.weight
    assert not pays(fast)


def test_what_does_not_learn_is_shared(fit_cpu: None) -> None:
    """It is in eval mode while the rest trains, which a copy would not see."""
    still = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.Dropout())
    still.requires_grad_(False)
    whole = nn.Sequential(still, nn.Conv2d(64, 64, 3, padding=1))
    fast: Any = with_fewer_products(whole)
    assert fast[0] is still
    assert isinstance(fast[1], WinogradConv)


def test_an_estimate_before_training_leaves_numbers_for_it(fit_cpu: None) -> None:
    """Memory is estimated by a pass over tensors without values, in this very process."""
    spec = stzoo.info("convlstm-mmnist").spec.replace(frames_in=2, frames_out=1, hidden=64)
    recipe = dataclasses.replace(read_recipe("convlstm-mmnist"), precision="float32", fused=False, compile=False)
    without = training_memory(spec, dataclasses.replace(recipe, precision="bfloat16"), 2)
    plain = training_memory(spec, recipe, 2)
    module = build(spec)
    assert room.bytes_kept(module) > sum(p.numel() * 4 for p in module.parameters())
    assert plain.fixed - without.fixed == room.bytes_kept(module)  # however many clips there are at once
    frames = torch.rand(1, 3, 1, 64, 64)
    loss = objective(computing_form(module, spec, recipe), module, spec, recipe, frames[:, :2], frames[:, 2:], 0.5)
    assert loss.isfinite()


def test_a_frozen_weight_and_an_input_without_gradient(fit_cpu: None) -> None:
    plain = nn.Conv2d(64, 64, 3, padding=1)
    plain.weight.requires_grad_(False)
    fast, x = with_fewer_products(plain), torch.randn(1, 64, 8, 8, requires_grad=True)
    found, wanted = (torch.autograd.grad(f(x).square().sum(), [x, plain.bias]) for f in (fast, plain))
    assert all(error(a, b.double()) < 1e-5 for a, b in zip(found, wanted, strict=True))
    plain.weight.requires_grad_(True)
    found, wanted = (torch.autograd.grad(f(x.detach()).square().sum(), [plain.weight]) for f in (fast, plain))
    assert error(found[0], wanted[0].double()) < 1e-5


@pytest.mark.parametrize("sampling", ["none", "scheduled"])
@pytest.mark.parametrize("name", ["predrnn-mmnist", "convlstm-mmnist", "simvp-mmnist", "tctn-mmnist"])
def test_a_training_step_in_float32_computes_the_same_in_fewer_products(
    name: str, sampling: Any, fit_cpu: None
) -> None:
    torch.manual_seed(0)
    spec = stzoo.info(name).spec
    if name == "simvp-mmnist" and sampling != "none":
        pytest.skip("a block reads no frames while it forecasts")
    changes = {"precision": "float32", "sampling": sampling, "fused": False, "compile": False, "checkpoint": False}
    recipe = dataclasses.replace(read_recipe(name), **changes)
    spec = spec.replace(frames_in=3, frames_out=2)
    module = build(spec).train()
    frames = torch.rand(2, 5, 1, 64, 64)
    fast = computing_form(module, spec, recipe)
    assert any(isinstance(m, WinogradConv) for m in fast.modules())
    assert {id(p) for p in fast.parameters()} == {id(p) for p in module.parameters()}
    losses, gradients = [], []
    for form in (module, fast):
        module.zero_grad()
        torch.manual_seed(1)
        loss = objective(form, module, spec, recipe, frames[:, :3], frames[:, 3:], 0.5)
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert error(gradients[1], gradients[0].double()) < 1e-3


def test_other_precisions_and_other_forms_keep_the_plain_convolutions(fit_cpu: None) -> None:
    spec = stzoo.info("predrnn-mmnist").spec
    module, recipe = build(spec), dataclasses.replace(read_recipe("predrnn-mmnist"), fused=False, compile=False)
    assert computing_form(module, spec, dataclasses.replace(recipe, precision="bfloat16")) is module
    recomputed = computing_form(module, spec, dataclasses.replace(recipe, precision="float32", checkpoint=True))
    assert not hasattr(recomputed, "modules")


def test_convolutions_that_stay_plain(fit_cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pays(nn.Conv2d(64, 64, 3, padding=1))
    assert pays(nn.Conv2d(64, 64, 5, padding=2))
    assert not pays(nn.Conv2d(64, 64, 3))
    assert not pays(nn.Conv2d(64, 64, 3, padding=1, stride=2))
    assert not pays(nn.Conv2d(64, 64, 3, padding=2, dilation=2))
    assert not pays(nn.Conv2d(64, 64, 3, padding=1, groups=2))
    assert not pays(nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular"))
    assert not pays(nn.Conv2d(64, 64, 7, padding=3))
    assert not pays(nn.Conv2d(16, 16, 3, padding=1))
    assert not pays(nn.Conv2d(64, 64, 3, padding=1, dtype=torch.bfloat16))
    assert not pays(torch.nn.utils.spectral_norm(nn.Conv2d(64, 64, 3, padding=1)))  # a hook makes its weight
    assert not pays(torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(64, 64, 3, padding=1)))
    monkeypatch.setattr(room, "mkl_keeps_up", lambda: False)
    module = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1))
    assert with_fewer_products(module) is module
