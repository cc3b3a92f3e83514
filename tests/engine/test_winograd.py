"""Convolutions in fewer multiplications against float64 ones."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stzoo
from stzoo.engine import Engine, for_inference
from stzoo.engine import winograd as room
from stzoo.engine.winograd import Scratch, WinogradConv, pays, with_fewer_products
from stzoo.unroll import unroll


def error(found: Tensor, wanted: Tensor) -> float:
    """The largest, relative to the largest value."""
    return ((found.double() - wanted).abs().max() / wanted.abs().max()).item()


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 16), (5, 9), (1, 1), (7, 300), (50, 33)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("padding", [(2, 2), (4, 0)])
def test_the_convolution_is_the_plain_one(size: tuple[int, int], bias: bool, padding: tuple[int, int]) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(64, 12, 5, padding=padding, bias=bias)
    fast = WinogradConv.of(plain, Scratch())
    for batch in (3, 1, 2):
        x = torch.randn(batch, 64, size[0], size[1] + 4)
        assert error(fast(x), plain.double()(x.double())) < 5e-6
        assert error(fast(x.contiguous(memory_format=torch.channels_last)), plain(x.double())) < 5e-6


@torch.no_grad()
def test_threads_that_share_a_layer_do_not_disturb_each_other() -> None:
    torch.manual_seed(0)
    plain, found = nn.Conv2d(32, 32, 5, padding=2), {}
    fast, inputs = WinogradConv.of(plain, Scratch()), torch.randn(4, 20, 1, 32, 24, 24)

    def compute(number: int) -> None:
        with torch.no_grad():
            found[number] = [fast(x) for x in inputs[number]]

    threads = [Thread(target=compute, args=(number,)) for number in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, made in found.items():
        for x, y in zip(inputs[number], made, strict=True):
            assert error(y, plain(x).double()) < 1e-5


@pytest.fixture
def fit_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "mkl_keeps_up", lambda: True)


@pytest.mark.usefixtures("fit_cpu")
def test_it_is_used_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pays(nn.Conv2d(64, 256, 5, padding=2))
    for other in (
        nn.Conv2d(64, 256, 3, padding=1), nn.Conv2d(32, 128, 5), nn.Conv2d(64, 256, 5, stride=2),
        nn.Conv2d(64, 256, 5, dilation=2), nn.Conv2d(512, 512, 5, groups=64), nn.Conv2d(64, 256, (5, 1)),
        nn.Conv2d(64, 256, 5, padding="same"), nn.Conv2d(64, 256, 5, padding_mode="reflect"),
        nn.Conv2d(64, 256, 5).double(), nn.ConvTranspose2d(64, 256, 5), nn.Linear(64, 256),
    ):  # fmt: skip
        assert not pays(other)
    with monkeypatch.context() as changed:
        changed.setattr(torch.backends.mkldnn, "enabled", False)
        assert not pays(nn.Conv2d(64, 256, 5, padding=2))
    monkeypatch.setattr(room, "mkl_keeps_up", lambda: False)
    assert not pays(nn.Conv2d(64, 256, 5, padding=2))


@torch.no_grad()
@pytest.mark.usefixtures("fit_cpu")
@pytest.mark.parametrize("arch", ["convlstm", "predrnn"])
def test_a_recurrent_module_forecasts_the_same(arch: str) -> None:
    params = {"layers": 2, "hidden": 48, "kernel": 5, "patch": 4}
    spec = stzoo.ModelSpec(arch=arch, frames_in=4, frames_out=4, channels=1, height=40, width=24, params=params)
    torch.manual_seed(0)
    module, past = stzoo.create(spec).module, torch.rand(3, 4, 1, 40, 24)
    assert any(isinstance(part, WinogradConv) for part in for_inference(module, spec, "float32").modules())
    assert not any(isinstance(part, WinogradConv) for part in for_inference(module, spec, "bfloat16").modules())
    found = torch.stack(list(Engine(module, spec).unroll(past, 8)), 1)
    wanted = torch.stack(list(unroll(module.double(), spec, past.double(), 8)), 1)
    assert error(found, wanted) < 1e-5


@pytest.mark.usefixtures("fit_cpu")
def test_a_convolution_alone_is_replaced_too() -> None:
    assert isinstance(with_fewer_products(nn.Conv2d(64, 256, 5)), WinogradConv)
    assert room.KERNEL == 5


@pytest.mark.usefixtures("fit_cpu")
@pytest.mark.parametrize("first", ["plain", "inference", "float64"])
def test_contexts_of_the_caller_change_nothing(first: str) -> None:
    """The first forecast asks for the memory that the later ones use."""
    contexts: dict[str, Any] = {
        "plain": nullcontext, "inference": torch.inference_mode, "float64": lambda: default_dtype(torch.float64),
    }  # fmt: skip
    params = {"layers": 2, "hidden": 48, "kernel": 5, "patch": 4}
    spec = stzoo.ModelSpec(arch="convlstm", frames_in=2, frames_out=2, channels=1, height=24, width=24, params=params)
    model, past = stzoo.create(spec), torch.rand(1, 2, 1, 24, 24)
    found = []
    for name in (first, *(name for name in contexts if name != first)):
        with contexts[name]():
            found.append(model.predict(past).clone())
    assert all(torch.equal(each, found[0]) for each in found)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
