"""Packed convolutions against float64 ones."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from stzoo.engine import packed as room
from stzoo.engine.packed import PackedConv, Rounded, pieces

KINDS: dict[str, dict[str, Any]] = {
    "1x1": {"kernel_size": 1},
    "5x5": {"kernel_size": 5, "padding": 2},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "dilated": {"kernel_size": 3, "padding": 3, "dilation": 3},
    "grouped": {"kernel_size": 3, "padding": 1, "groups": 4},
    "uneven": {"kernel_size": (3, 1), "padding": (1, 0)},
    "no bias": {"kernel_size": 3, "padding": 1, "bias": False},
}
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.03}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)


@pytest.fixture(params=["", "_convolve", "_rounds"], ids=["packed", "another PyTorch", "another CPU"])
def packs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setattr(room, request.param, None)


@torch.no_grad()
@each_dtype
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("packs")
def test_the_convolution_is_the_plain_one(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 16, **KINDS[kind])
    fast, active = PackedConv.of(plain, dtype), PackedConv.of(plain, dtype, gelu=True)
    exact = nn.Conv2d(8, 16, **KINDS[kind]).double()
    exact.load_state_dict(plain.state_dict())
    for size in [(2, 8, 9, 12), (1, 8, 9, 12), (3, 8, 16, 7), (2, 8, 9, 12)]:
        x = torch.randn(size)
        wanted = exact(x.double())
        found = fast(x)
        assert found.dtype == torch.float32
        close = {"rtol": 0, "atol": TOLERANCE[dtype], "check_dtype": False}
        torch.testing.assert_close(found, wanted, **close)
        torch.testing.assert_close(active(x), F.gelu(wanted), **close)
        if plain.stride == (1, 1) and kind != "uneven":
            factor, stream = torch.randn(wanted.shape).to(dtype), torch.randn(wanted.shape)
            stream = stream.contiguous(memory_format=torch.channels_last)
            y = x.to(dtype).contiguous(memory_format=torch.channels_last)
            before = stream.clone()
            torch.testing.assert_close(fast.times(y, factor), wanted * factor, **close | {"atol": 4 * TOLERANCE[dtype]})
            assert fast.add_to(stream, y).data_ptr() == stream.data_ptr()
            torch.testing.assert_close(stream, before + wanted, **close)


@torch.no_grad()
def test_rounded_layers_round_and_leave_the_plain_one_alone() -> None:
    torch.manual_seed(0)
    plain, x = nn.Linear(32, 8), torch.randn(4, 32)
    found = Rounded(plain, torch.bfloat16)(x)
    assert found.dtype == torch.float32
    assert 0 < (found - plain(x)).abs().max() < 0.03
    assert plain.weight.dtype == torch.float32


@given(st.integers(1, 200), st.integers(-3, 300))
def test_pieces_are_equal_and_the_largest_that_are(number: int, limit: int) -> None:
    found = pieces(number, limit)
    assert number % found == 0
    assert 1 <= found <= max(1, limit)
    assert all(number % n for n in range(found + 1, min(number, limit) + 1))
