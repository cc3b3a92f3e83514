"""Convolutions that learn in fewer multiplications: Winograd's minimal filtering over both axes of a picture.

Sixteen pixels of the result, 4x4, of a 3x3 kernel take 144 products of a pixel and a weight for each pair of channels.
Toom and Cook's polynomials make them from 36 products of sums of pixels and sums of weights (Lavin and Gray, CVPR
2016), and the gradients of the input and of the weights likewise. The products are one matrix product for each of the
36 places. With 5x5 kernels it is 64 in place of 400.

Rounding is two or three times that of an ordinary convolution in float32 with 3x3 kernels, which no training can tell
from its own noise. Forecasts are made by `stzoo.engine`, which has a form of its own.
"""

from __future__ import annotations

import copy
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo.engine.packed import is_plain
from stzoo.engine.winograd import OUTPUTS, toom_cook
from stzoo.machine import mkl_keeps_up

PAIRS = 4096  # of channels, at least: with fewer, the sums cost more than the products that they save
CACHED = 1 << 21  # numbers: a batch goes through in parts whose sums are about so many, so that they stay in the cache
# For kernels of 3x3 and 5x5, in float32: (4, n), (n, kernel) and (n, n) for products -> outputs, weights -> sums, and
# pixels of a tile -> sums. They are made here because they must be numbers whatever mode a first forward pass is in.
MATRICES = MappingProxyType({kernel: tuple(matrix.float() for matrix in toom_cook(kernel)) for kernel in (3, 5)})


def with_fewer_products(module: nn.Module) -> nn.Module:
    """`module`, or a form with its parameters in which convolutions are replaced for which that pays.

    Modules that hold some are copied, everything else is shared. So are modules of which nothing learns: they are in
    eval mode while the others are not.
    """
    if not any(p.requires_grad for p in module.parameters()):
        return module
    if pays(module):
        return WinogradConv(module)
    if not any(pays(m) for m in module.modules()):
        return module
    other = copy.copy(module)
    other._modules = {name: child and with_fewer_products(child) for name, child in module._modules.items()}
    return other


def pays(module: Any) -> bool:
    """Is this a plain convolution in float32 that keeps the size of its input, on a CPU where this form is faster?"""
    return (
        is_plain(module)
        and module.weight.device.type in ("cpu", "meta")  # the latter where memory is estimated
        and module.weight.dtype == torch.float32
        and module.kernel_size in [(k, k) for k in MATRICES]
        and module.padding == (module.kernel_size[0] // 2,) * 2
        and module.stride == module.dilation == (1, 1)
        and module.groups == 1
        and not (module._forward_pre_hooks or module._forward_hooks)  # they may make the weight, or look on
        and module.in_channels * module.out_channels >= PAIRS
        and mkl_keeps_up()
    )


def bytes_kept(module: nn.Module) -> int:
    """What the sums of the weights of such convolutions take, and their gradients, while a batch is learned from."""
    convolutions: list[Any] = [m for m in module.modules() if pays(m)]
    shapes = [(*m.weight.shape[:2], m.weight.shape[-1] + OUTPUTS - 1, m.weight.element_size()) for m in convolutions]
    return sum(2 * c_in * c_out * points**2 * size for c_out, c_in, points, size in shapes)


class WinogradConv(nn.Conv2d):
    """The form of an `nn.Conv2d` that `pays`, of which it has the parameters and everything else.

    The sums of weights are made once for all steps of a recurrent module: they are kept until their gradient is there.
    """

    def __init__(self, plain: nn.Module):
        self.__dict__ = plain.__dict__.copy()  # in place of new parameters
        self._sums: Tensor | None = None
        self._of: tuple[int, bool] | None = None  # the version of the weight that they were made of, and does it learn?

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H, W), both float32: the convolution."""
        y: Tensor = _Products.apply(x, self._of_weight())
        return y if self.bias is None else y + self.bias[:, None, None]

    def _of_weight(self) -> Tensor:
        """The sums of weights (points, points, C_in, C_out)."""
        of = self.weight._version, self.weight.requires_grad
        if self._sums is not None and self._of == of:
            return self._sums
        of_kernel = MATRICES[self.weight.shape[-1]][1]
        sums = _on_both_axes(of_kernel, self.weight.permute(2, 3, 1, 0).contiguous())
        if torch.is_grad_enabled():
            self._sums, self._of = sums, of
            if sums.requires_grad:
                sums.register_hook(self._forget)
        return sums

    def _forget(self, gradient: Tensor) -> None:
        self._sums = None  # the graph that made it is used up


class _Products(torch.autograd.Function):
    """The convolution of x (B, C_in, H, W) by the sums of weights (points, points, C_in, C_out), zeros around x.

    The sums of pixels are made again for the gradients, so that no more is kept than by an ordinary convolution.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, weights)
        made = [_convolved(part, weights) for part in _parts(x, weights)]
        return (made[0] if len(made) == 1 else torch.cat(made)).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weights = ctx.saved_tensors
        of_x, of_weights = ctx.needs_input_grad
        points, _, c_in, c_out = weights.shape
        to_outputs, _, of_picture = MATRICES[points - OUTPUTS + 1]
        in_x: list[Tensor] = []
        in_weights = torch.zeros_like(weights) if of_weights else None
        for part, above in zip(_parts(x, weights), _parts(gradient, weights), strict=True):
            batch, down, across = len(part), *_tiles(part)
            height, width = part.shape[-2:]
            above = F.pad(
                above.permute(0, 2, 3, 1), (0, 0, 0, across * OUTPUTS - width, 0, down * OUTPUTS - height)
            ).view(batch, down, OUTPUTS, across, OUTPUTS, c_out)
            sums = _on_both_axes(to_outputs.mT, above.permute(2, 4, 0, 1, 3, 5).contiguous()).view(points**2, -1, c_out)
            if in_weights is not None:
                in_weights.view(-1, c_in, c_out).baddbmm_(_sums_of_pixels(part, points).mT, sums)
            if of_x:
                in_tiles = torch.bmm(sums, weights.view(-1, c_in, c_out).mT)
                in_tiles = in_tiles.view(points, points, batch, down, across, c_in)
                in_x.append(_overlapped(_on_both_axes(of_picture.mT, in_tiles), height, width))
        return (torch.cat(in_x).permute(0, 3, 1, 2) if of_x else None), in_weights


def _parts(x: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    """Some pictures of x (B, C, H, W) at a time, as many for every x of a convolution."""
    points, _, c_in, c_out = weights.shape
    down, across = _tiles(x)
    return x.split(max(1, CACHED // (points**2 * down * across * max(c_in, c_out))))


def _tiles(x: Tensor) -> tuple[int, int]:
    """How many tiles cover a picture (B, C, H, W), down and across."""
    return -(-x.shape[-2] // OUTPUTS), -(-x.shape[-1] // OUTPUTS)


def _convolved(x: Tensor, weights: Tensor) -> Tensor:
    """(B, C_in, H, W) -> (B, H, W, C_out)."""
    (batch, _, height, width), (down, across) = x.shape, _tiles(x)
    points, _, c_in, c_out = weights.shape
    product = torch.bmm(_sums_of_pixels(x, points), weights.view(-1, c_in, c_out))
    to_outputs = MATRICES[points - OUTPUTS + 1][0]
    pixels = _on_both_axes(to_outputs, product.view(points, points, batch, down, across, c_out))
    whole = pixels.permute(2, 3, 0, 4, 1, 5).reshape(batch, down * OUTPUTS, across * OUTPUTS, c_out)
    return whole[:, :height, :width]


def _sums_of_pixels(x: Tensor, points: int) -> Tensor:
    """(B, C, H, W) -> (points * points, B * tiles, C)."""
    (_, c, height, width), (down, across) = x.shape, _tiles(x)
    before = (points - OUTPUTS) // 2
    after = [before + tiles * OUTPUTS - size for tiles, size in ((down, height), (across, width))]
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, before, after[1], before, after[0]))
    tiles = padded.unfold(1, points, OUTPUTS).unfold(2, points, OUTPUTS).permute(4, 5, 0, 1, 2, 3).contiguous()
    return _on_both_axes(MATRICES[points - OUTPUTS + 1][2], tiles).view(points**2, -1, c)


def _overlapped(tiles: Tensor, height: int, width: int) -> Tensor:
    """Overlapping tiles (points, points, B, down, across, C), added up in their places: (B, H, W, C)."""
    points, _, batch, down, across, c = tiles.shape
    edge, before = points - OUTPUTS, (points - OUTPUTS) // 2
    whole = tiles.new_zeros(batch, down * OUTPUTS + edge, across * OUTPUTS + edge, c)
    places = whole.unfold(1, points, OUTPUTS).unfold(2, points, OUTPUTS).permute(4, 5, 0, 1, 2, 3)
    for i in range(points):
        for j in range(points):
            places[i, j].add_(tiles[i, j])  # the same pixel of every tile: no two of these are one pixel of the whole
    return whole[:, before : before + height, before : before + width]


def _on_both_axes(matrix: Tensor, x: Tensor) -> Tensor:
    """An (m, n) matrix on each of the first two axes of x (n, n, ...): (m, m, ...)."""
    (m, n), rest = matrix.shape, x.shape[2:]
    rows = torch.mm(matrix, x.reshape(n, -1)).view(m, n, -1)
    return torch.matmul(matrix, rows).view(m, m, *rest)
