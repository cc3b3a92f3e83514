"""Convolutions in fewer multiplications: Winograd's minimal filtering over the rows of a picture.

Four neighbouring rows of the result of a kernel with five rows take 20 products of a row and a kernel's row. Toom and
Cook's polynomials make them from 8 products of sums of rows, and of sums of the kernel's rows that are made once (Lavin
and Gray, CVPR 2016). Along a row all products remain, as one large matrix product. Over rows alone, rounding is that of
an ordinary convolution; over both axes, with these tiles, it would be several times as large.

It pays where a matrix product is about as fast as oneDNN's convolution. PyTorch takes its matrix products in float32
from Intel's MKL, which uses AVX-512 on Intel's own processors alone; so others that have AVX-512 keep the convolution.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo.engine.packed import NHWC, Pair, can_pack, is_plain
from stzoo.machine import mkl_keeps_up

OUTPUTS = 4  # rows of the result that are made together
PIXELS = 512  # of a row of tiles, at least, that go through one matrix product; more would leave the cache
PAIRS = 8192  # of channels, at least: with a quarter of them, a picture of 16x16 takes as long as with all products
KERNEL = 5  # rows
# Where a kernel's rows and the picture are evaluated as polynomials, and "infinity" besides: as many as are needed, the
# first first. All of them are powers of two, so that the matrices below are exact.
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0, -0.5, 2.0)


def with_fewer_products(module: nn.Module) -> nn.Module:
    """`module`, or what takes its place, in which convolutions are replaced for which that pays."""
    scratch = Scratch()

    def replaced(part: nn.Module) -> nn.Module:
        if pays(part):
            return WinogradConv.of(part, scratch)
        for name, child in part.named_children():
            setattr(part, name, replaced(child))
        return part

    return replaced(module)


def pays(module: Any) -> bool:
    """Is this a plain convolution in float32, with 5 x 5 weights for each of many pairs of channels, on a fit CPU?

    A CPU is fit on which MKL keeps up with oneDNN. With fewer weights there is less to save than the sums cost.
    """
    return (
        mkl_keeps_up()
        and is_plain(module)
        and can_pack(module.weight.device, module.weight.dtype)
        and module.weight.dtype == torch.float32
        and module.kernel_size == (KERNEL, KERNEL)
        and module.stride == module.dilation == (1, 1)
        and module.groups == 1
        and module.in_channels * module.out_channels >= PAIRS
    )


class Scratch(threading.local):
    """Memory in which the layers of a module put what they need for a moment; every thread has its own.

    One after the other they find it in the cache, where new memory would have to be asked for, page by page.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def empty(self, use: str, *shape: int) -> Tensor:
        """Anything, of this shape, in float32 on the CPU; what was there for the same `use` is lost."""
        if torch.compiler.is_compiling():
            return torch.empty(shape, dtype=torch.float32, device="cpu")
        kept = self._kept.get(use)
        if kept is None or kept.numel() < math.prod(shape):
            with torch.inference_mode(False):  # what is made in that mode could not be written to outside of it
                kept = self._kept[use] = torch.empty(math.prod(shape), dtype=torch.float32, device="cpu")
        return kept[: math.prod(shape)].view(shape)


class WinogradConv(nn.Module):
    """A 2d convolution with a weight (C_out, C_in, 5, 5), a stride of 1 and zeros around the picture."""

    def __init__(self, weight: Tensor, bias: Tensor | None, padding: Pair, scratch: Scratch):
        super().__init__()
        to_rows, of_kernel, of_picture = toom_cook(KERNEL)
        product = torch.einsum("pi,ocij->pjco", of_kernel, weight.detach().double())  # points, columns, C_in, C_out
        self.weight = product.flatten(1, 2).float()
        self.of_picture, self.to_rows = of_picture.float(), to_rows.float()
        self.bias = None if bias is None else bias.detach().float()
        self.padding, self.scratch = padding, scratch

    @classmethod
    def of(cls, plain: Any, scratch: Scratch) -> WinogradConv:
        """The fast form of an `nn.Conv2d` for which it `pays`."""
        return cls(plain.weight, plain.bias, plain.padding, scratch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H', W') in float32, in the order of NHWC: the convolution."""
        (batch, _, height, width), (down, across) = x.shape, self.padding
        points, inner, c_out = self.weight.shape
        x = x.contiguous(memory_format=NHWC).permute(0, 2, 3, 1)
        height, width = height + 2 * down - KERNEL + 1, width + 2 * across - KERNEL + 1
        x = F.pad(x, (0, 0, across, across, down, down + -height % OUTPUTS))
        tiles = x.flatten(2).unfold(1, points, OUTPUTS).permute(3, 0, 1, 2)  # points, B, tiles, columns * C_in
        rows, empty = batch * tiles.shape[2], self.scratch.empty
        tiles = empty("tiles", *tiles.shape).copy_(tiles).view(points, -1)
        seen = torch.mm(self.of_picture, tiles, out=empty("seen", *tiles.shape)).view(points, rows, *x.shape[2:])
        made = x.new_empty(rows, OUTPUTS, width * c_out)
        at_once = max(1, PIXELS // width)
        for part, result in zip(seen.split(at_once, 1), made.split(at_once), strict=True):
            # five columns of NHWC follow each other in memory, and overlap with the next five
            columns = part.as_strided((points, len(result), width, inner), part.stride())
            columns = empty("columns", *columns.shape).copy_(columns).flatten(1, 2)
            product = torch.bmm(columns, self.weight, out=empty("product", points, columns.shape[1], c_out))
            added = empty("added", OUTPUTS, product[0].numel())
            torch.mm(self.to_rows, product.view(points, -1), out=added)
            result.copy_(added.view(OUTPUTS, len(result), -1).transpose(0, 1))
        made = made.view(batch, -1, width, c_out)[:, :height]
        return (made if self.bias is None else made.add_(self.bias)).permute(0, 3, 1, 2)


def toom_cook(kernel: int) -> tuple[Tensor, Tensor, Tensor]:
    """The matrices of `OUTPUTS` outputs of a `kernel` of three to five weights, from n = kernel + 3 products.

    Returns:
        (4, n), (n, kernel) and (n, n) float64: products -> outputs; the kernel -> sums; the inputs of a tile -> sums.
    """
    points = POINTS[: kernel + OUTPUTS - 2]
    finite = len(points)
    to_outputs = torch.zeros(OUTPUTS, finite + 1, dtype=torch.float64, device="cpu")
    of_kernel = torch.zeros(finite + 1, kernel, dtype=torch.float64, device="cpu")
    of_inputs = torch.zeros(finite + 1, finite + 1, dtype=torch.float64, device="cpu")
    for i, point in enumerate(points):
        others = [other for other in points if other != point]
        exponents = range(max(kernel, OUTPUTS))
        powers = torch.tensor([point**n for n in exponents], dtype=torch.float64, device="cpu")
        to_outputs[:, i] = powers[:OUTPUTS]
        of_kernel[i] = powers[:kernel] / math.prod(point - other for other in others)
        of_inputs[i, :finite] = _with_roots(others)
    to_outputs[-1, -1] = of_kernel[-1, -1] = 1.0  # at infinity only the highest power counts
    of_inputs[-1] = _with_roots(list(points))
    return to_outputs, of_kernel, of_inputs


def _with_roots(roots: list[float]) -> Tensor:
    """The coefficients of the polynomial with these roots, that of x^0 first, that of the highest power being 1."""
    made = torch.ones(1, dtype=torch.float64, device="cpu")
    for root in roots:
        made = F.pad(made, (1, 0)) - root * F.pad(made, (0, 1))
    return made
