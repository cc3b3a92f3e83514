"""Layers whose weights are laid out for this machine once, instead of at every call.

On a CPU, oneDNN reorders a plain convolution weight each time it is used, which for a recurrent model at batch 1 costs
as much as the products; and it computes fastest on pixels that lie channel by channel (NHWC).
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo.models.gated_block import DilatedDepthwise

NHWC = torch.channels_last
Pair = tuple[int, int]

# torch.compile packs and convolves with these on a CPU; PyTorch has no public names for them. Not every build has them,
# and not every CPU has the instructions that oneDNN needs for bfloat16.
_reorder: Any = getattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", None)
_convolve: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
_convolve_: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise_", None)  # in place
_rounds: Any = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Can oneDNN compute on this device with packed weights of this dtype?

    No while torch.compile traces, which packs weights itself.
    """
    if device.type != "cpu" or None in (_reorder, _convolve, _convolve_) or torch.compiler.is_compiling():
        return False
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and _rounds is not None and _rounds())


class PackedConv(nn.Module):
    """A 2d convolution whose weight (C_out, C_in / groups, K, K) is kept in `dtype`, in the order of NHWC.

    The layout that oneDNN likes best depends on the size of the input, so the weight is packed at the first call, and
    anew when an input of another size comes.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        *,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        groups: int = 1,
        gelu: bool = False,
    ):
        super().__init__()
        self.dtype, self.gelu = dtype, gelu
        weight = weight.detach().to(dtype)
        self.weight = weight if can_pack(weight.device, dtype) else weight.contiguous(memory_format=NHWC)
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.stride, self.padding, self.dilation = list(stride), list(padding), list(dilation)
        self.groups = groups
        self.packed: tuple[torch.Size, Tensor] | None = None  # the input's size, and the weight packed for it

    @classmethod
    def of(cls, plain: Any, dtype: torch.dtype, *, gelu: bool = False) -> PackedConv:
        """The packed form of an `nn.Conv2d` that `is_plain`; with `gelu`, GELU of its result."""
        return cls(
            plain.weight, plain.bias, dtype,
            stride=plain.stride, padding=plain.padding, dilation=plain.dilation, groups=plain.groups, gelu=gelu,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H', W') in the dtype of x: the convolution, or GELU of it."""
        y = x.to(self.dtype).contiguous(memory_format=NHWC)
        if not _packs(y):
            y = F.conv2d(y, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
            return (F.gelu(y) if self.gelu else y).to(x.dtype)
        activation = "gelu" if self.gelu else "none"
        return _convolve(y, self._weight(y), self.bias, *self._where, activation, [], "none").to(x.dtype)

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """The convolution of x, multiplied by `factor`, which has the result's shape and dtype."""
        if not _packs(x):
            return self(x) * factor
        return _convolve.binary(x, factor, self._weight(x), self.bias, *self._where, "mul", None, None, [], None)

    def add_to(self, stream: Tensor, x: Tensor) -> Tensor:
        """The convolution of x, added in place to `stream`, which may be of higher precision."""
        if not _packs(x) or stream.dtype != self.dtype:
            return stream.add_(self(x))
        return _convolve_.binary(stream, x, self._weight(x), self.bias, *self._where, "add", 1.0, None, [], None)

    @property
    def _where(self) -> tuple[list[int], list[int], list[int], int]:
        return self.padding, self.stride, self.dilation, self.groups

    def _weight(self, x: Tensor) -> Tensor:
        packed = self.packed
        if packed is None or packed[0] != x.shape:
            weight = self.weight.contiguous(memory_format=NHWC)
            packed = self.packed = (x.shape, _reorder(weight.to_mkldnn(), *self._where, list(x.shape)))
        return packed[1]


class Rounded(nn.Module):
    """A copy of `plain`, a linear layer or convolution, that computes in `dtype`."""

    def __init__(self, plain: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.plain, self.dtype = copy.deepcopy(plain).to(dtype), dtype

    def forward(self, x: Tensor) -> Tensor:
        """What `plain` computes, with its shapes, in the dtype of x."""
        return self.plain(x.to(self.dtype)).to(x.dtype)


def is_plain(module: nn.Module) -> bool:
    """Is this exactly a 2d convolution, padded with a given number of zeros?"""
    return (
        type(module) in (nn.Conv2d, DilatedDepthwise)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def twin(module: nn.Module) -> nn.Module:
    """A copy in eval mode, whose layers can be replaced. It shares the parameters and buffers of `module`."""
    shared = {id(tensor): tensor for tensor in chain(module.parameters(), module.buffers())}
    return copy.deepcopy(module, shared).eval()


def pieces(number: int, limit: int) -> int:
    """How many to take at once for pieces of one size: the largest divisor of `number` up to `limit`, at least 1."""
    return max(n for n in range(1, max(1, min(number, limit)) + 1) if number % n == 0)


def _packs(x: Tensor) -> bool:
    return x.numel() > 0 and can_pack(x.device, x.dtype)
