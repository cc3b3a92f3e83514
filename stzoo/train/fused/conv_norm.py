"""`ConvNorm` of the encoder and the decoder: its convolution by PyTorch, all else by one kernel in each direction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo.models.encoder_decoder import ConvNorm
from stzoo.train.fused.kernels import Kernels


def conv_norm(kernels: Kernels, layer: ConvNorm, x: Tensor) -> Tensor:
    """(N, h, w, C) -> (N, up * h / stride, up * w / stride, C'), in the dtype of the kernels.

    In upsampling, channels are ordered so that pixels move whole, and the kernel moves them.
    """
    conv, norm = layer.conv, layer.norm
    up = layer.shuffle.upscale_factor if isinstance(layer.shuffle, nn.PixelShuffle) else 1
    channels, weight, bias = conv.out_channels // up**2, conv.weight, conv.bias
    assert bias is not None
    if up > 1:
        weight = weight.unflatten(0, (channels, up * up)).transpose(0, 1).flatten(0, 1)
        bias = bias.view(channels, up * up).t().flatten()
    weight = weight.to(kernels.dtype).contiguous(memory_format=torch.channels_last)
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias.to(kernels.dtype), conv.stride, 1).permute(0, 2, 3, 1)
    if isinstance(norm, nn.Identity):
        return F.silu(_moved(y, up))
    out: Tensor = _GroupNormSilu.apply(kernels, y.contiguous(), norm.weight, norm.bias, norm.eps, up)
    return out


def _moved(y: Tensor, up: int) -> Tensor:
    """(N, h, w, up * up * C) -> (N, up * h, up * w, C), as the kernel moves pixels."""
    n, h, w, _ = y.shape
    return y.view(n, h, w, up, up, -1).transpose(2, 3).reshape(n, h * up, w * up, -1)


class _GroupNormSilu(torch.autograd.Function):
    """SiLU(GroupNorm(2)(y)): y (N, h, w, up * up * C) -> (N, up * h, up * w, C)."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, y: Tensor, weight: Tensor, bias: Tensor, eps: float, up: int) -> Tensor:
        n, h, w, _ = y.shape
        c = len(weight)
        out, moments = kernels.stored(n, h * up, w * up, c), kernels.full(n, 4)
        kernels.call("gn_fwd", y, weight, bias, out, moments, n, h * up, w * up, up, c, eps)
        ctx.save_for_backward(y, weight, bias, moments)
        ctx.kernels, ctx.up = kernels, up
        return out

    @staticmethod
    def backward(ctx: Any, go: Tensor) -> tuple[Tensor | None, ...]:
        y, weight, bias, moments = ctx.saved_tensors
        kernels, up = ctx.kernels, ctx.up
        (n, h, w, _), c = y.shape, len(weight)
        gy, gw, gb = torch.empty_like(y), kernels.full(n, c), kernels.full(n, c)
        kernels.call("gn_bwd", y, go.contiguous(), weight, bias, moments, gy, gw, gb, n, h * up, w * up, up, c)
        return None, gy, gw.sum(0), gb.sum(0), None, None
