"""Encoders, gated blocks and decoders (TAU, SimVP's gSTA) rewritten for forecasts: the same function up to rounding.

BatchNorm and residual scales, which are constants in a forecast, are multiplied into the weights around them. A
pixelwise operation that follows a convolution is computed together with it. Frames go through encoder and decoder a few
at a time, so that what lies between two layers stays in the cache. docs/speed.md says how fast this is.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo.engine.packed import NHWC, PackedConv, Rounded, is_plain, pieces
from stzoo.models.beginning import BlurredLastFrame, LastFrame, LastPeriod, MovingParts
from stzoo.models.encoder_decoder import ConvNorm, Decoder, DropPath, Encoder, EncodeTranslateDecode
from stzoo.models.gated_block import DilatedDepthwise, GatedBlock
from stzoo.models.motion import along_motion
from stzoo.models.simvp import GstaGate
from stzoo.models.tau import TauGate

CACHE = 4 << 20  # bytes: what one layer hands to the next should fit, beside its weights, into a core's own cache
KNOWN = frozenset(
    {
        Encoder, Decoder, ConvNorm, GatedBlock, TauGate, GstaGate, DropPath, nn.Sequential, nn.ModuleList,
        nn.Conv2d, nn.GroupNorm, nn.BatchNorm2d, nn.Linear, nn.SiLU, nn.GELU, nn.ReLU, nn.Sigmoid, nn.Identity,
        nn.PixelShuffle, nn.PixelUnshuffle, DilatedDepthwise, LastFrame, LastPeriod, MovingParts, BlurredLastFrame,
    }
)  # fmt: skip


def applies(module: nn.Module) -> bool:
    """Does the module compute as `EncodeTranslateDecode`, with no other layers than those that are rewritten here?"""
    if type(module).forward is not EncodeTranslateDecode.forward:
        return False
    layers = [part for part in module.modules() if part is not module]
    if any(type(layer) not in KNOWN for layer in layers):
        return False
    return all(is_plain(layer) for layer in layers if isinstance(layer, nn.Conv2d))


class Translating(nn.Module):
    """What `plain`, an `EncodeTranslateDecode`, computes in eval mode.

    Convolutions and linear layers compute in `dtype`; the residual stream between blocks and the readout are float32.
    """

    def __init__(self, plain: Any, dtype: torch.dtype):
        super().__init__()
        self.dtype, self.patch, self.begins, self.lagrangian = dtype, plain.patch, plain.begins, plain.lagrangian
        self.encoder = nn.ModuleList(_Layer(layer, dtype) for layer in plain.encoder.layers)
        self.blocks = nn.ModuleList(
            _Block(layer, dtype) if isinstance(layer, GatedBlock) else PackedConv.of(layer, dtype)
            for layer in plain.translator
        )
        self.decoder = nn.ModuleList(_Layer(layer, dtype) for layer in plain.decoder.layers)
        self.readout = PackedConv.of(plain.decoder.readout, torch.float32)

    def forward(self, past: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised past frames -> the T frames that follow, of the same shape and dtype."""
        return along_motion(self.still, past) if self.lagrangian else self.still(past)

    def still(self, past: Tensor) -> Tensor:
        """As `forward`, of frames between which nothing is moved."""
        b, t = past.shape[:2]
        frames = past.flatten(0, 1).to(self.dtype)
        frames = F.pixel_unshuffle(frames, self.patch) if self.patch > 1 else frames
        skips, encoded = [], []
        for some in frames.split(self._at_once(frames)):
            hidden = self.encoder[0](some)
            skips.append(hidden)
            for layer in self.encoder[1:]:
                hidden = layer(hidden)
            encoded.append(hidden)
        hidden = self._translate(torch.cat(encoded), b, t)
        painted = []
        for some, skip in zip(hidden.split([len(skip) for skip in skips]), skips, strict=True):
            for layer in self.decoder[:-1]:
                some = layer(some)
            painted.append(self.readout(self.decoder[-1](some.add_(skip)).float()))
        future = torch.cat(painted)
        future = F.pixel_shuffle(future, self.patch) if self.patch > 1 else future
        future = future.to(past.dtype).unflatten(0, (b, t))
        return self.begins(future, past) if self.begins else future

    def _at_once(self, frames: Tensor) -> int:
        """How many frames to take at once: the output of the widest layers, the first and the last, fits the cache."""
        width: Any = self.encoder[0].channels
        return pieces(len(frames), CACHE // (width * frames.shape[2] * frames.shape[3] * frames.element_size()))

    def _translate(self, hidden: Tensor, b: int, t: int) -> Tensor:
        """(B*T, width, h, w) -> the same shape. For the blocks time lies in the channels, (B, T*width, h, w)."""
        width, h, w = hidden.shape[1:]
        x = hidden.permute(0, 2, 3, 1).view(b, t, h, w, width).permute(0, 2, 3, 1, 4).reshape(b, h, w, t * width)
        x = x.permute(0, 3, 1, 2).float()
        for block in self.blocks:
            x = block(x)
        x = x.to(self.dtype).permute(0, 2, 3, 1).view(b, h, w, t, width).permute(0, 3, 1, 2, 4)
        return x.reshape(b * t, h, w, width).permute(0, 3, 1, 2)


class _Layer(nn.Module):
    """`ConvNorm`, NHWC. In upsampling, channels are ordered so that pixels move whole."""

    def __init__(self, plain: Any, dtype: torch.dtype):
        super().__init__()
        conv = plain.conv
        self.up = plain.shuffle.upscale_factor if isinstance(plain.shuffle, nn.PixelShuffle) else 1
        self.channels = conv.out_channels // self.up**2
        weight, bias = conv.weight, conv.bias
        if self.up > 1:
            weight, bias = (x.unflatten(0, (self.channels, -1)).transpose(0, 1).flatten(0, 1) for x in (weight, bias))
        self.conv = PackedConv(weight, bias, dtype, stride=conv.stride, padding=conv.padding)
        self.normed = isinstance(plain.norm, nn.GroupNorm)
        if self.normed:
            self.groups, self.eps = plain.norm.num_groups, plain.norm.eps
            self.weight, self.bias = plain.norm.weight.detach().to(dtype), plain.norm.bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C', h', w'): SiLU(GroupNorm(conv(x))), h' = up * h / stride."""
        y = self.conv(x)
        if self.up > 1:
            n, _, h, w = y.shape
            y = y.permute(0, 2, 3, 1).reshape(n, h, w, self.up, self.up, self.channels).transpose(2, 3)
            y = y.reshape(n, h * self.up, w * self.up, self.channels).permute(0, 3, 1, 2)
        y = F.group_norm(y, self.groups, self.weight, self.bias, self.eps) if self.normed else y
        return F.silu(y, inplace=True)


class _Block(nn.Module):
    """`GatedBlock` on the float32 residual stream.

    In x + s * f(BatchNorm(x)), BatchNorm goes into the first convolution of f and s into its last one. Attention adds
    its own normalised input a x + b to f, so that the sum becomes (1 + s a) x + s b + s f.
    """

    def __init__(self, plain: Any, dtype: torch.dtype):
        super().__init__()
        a, b = _constants(plain.norm1)
        s = plain.scale1.detach().double().flatten()
        self.enter = _after(a, b, plain.proj1, dtype, gelu=True)
        self.gate = _TauGate(plain.gate, dtype) if isinstance(plain.gate, TauGate) else _GstaGate(plain.gate, dtype)
        self.leave = _before(s, plain.proj2, dtype)
        self.keep, self.shift = (x.float()[:, None, None] for x in (1 + s * a, s * b))
        self.widen = _after(*_constants(plain.norm2), plain.mlp[0], dtype)
        self.mix = PackedConv.of(plain.mlp[1], dtype, gelu=True)
        self.narrow = _before(plain.scale2.detach().double().flatten(), plain.mlp[3], dtype)
        changes = isinstance(plain.reduction, nn.Conv2d)
        self.reduction = PackedConv.of(plain.reduction, dtype) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) float32 -> (B, C', h, w) float32; C' differs from C if the plain block changes the width."""
        dtype = self.narrow.dtype
        gated = self.gate(self.enter(x.to(dtype)))
        x = self.leave.add_to(torch.addcmul(self.shift, x, self.keep), gated)
        x = self.narrow.add_to(x, self.mix(self.widen(x.to(dtype))))
        return self.reduction(x)


class _TauGate(nn.Module):
    """TAU's gate: dynamical(u) * statical(u) * u."""

    def __init__(self, plain: TauGate, dtype: torch.dtype):
        super().__init__()
        self.statical = None if plain.statical is None else _LargeKernel(plain.statical, dtype)
        self.dynamical = None if plain.dynamical is None else Rounded(plain.dynamical, dtype)

    def forward(self, u: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        gated = u if self.statical is None else self.statical.last.times(self.statical.seen(u), u)
        return gated if self.dynamical is None else gated * self.dynamical(u.mean((2, 3)))[:, :, None, None]


class _GstaGate(nn.Module):
    """gSTA's gate: sigmoid(gate) * value, where value and gate are the two halves of the attention's channels."""

    def __init__(self, plain: GstaGate, dtype: torch.dtype):
        super().__init__()
        self.attention = _LargeKernel(plain.attention, dtype)

    def forward(self, u: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        value, gate = self.attention.last(self.attention.seen(u)).chunk(2, 1)
        return gate.sigmoid() * value


class _LargeKernel(nn.Module):
    """Depthwise 5x5 and depthwise 7x7 with dilation 3 (`seen`), then 1x1 (`last`).

    oneDNN has no fast dilated depthwise convolution. Every third pixel in both directions makes a picture on which the
    convolution is an ordinary one, and there are nine such pictures.
    """

    def __init__(self, plain: nn.Sequential, dtype: torch.dtype):
        super().__init__()
        near, far, last = cast(Any, plain)
        self.near, self.step = PackedConv.of(near, dtype), far.dilation[0]
        padding = (far.padding[0] // self.step,) * 2
        self.far = PackedConv(far.weight, far.bias, dtype, padding=padding, groups=far.groups)
        self.last = PackedConv.of(last, dtype)

    def seen(self, u: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w): both depthwise convolutions."""
        (b, c, h, w), n = u.shape, self.step
        x = self.near(u).permute(0, 2, 3, 1)
        rows, columns = -(-h // n), -(-w // n)
        if h % n or w % n:  # zeros, in place of the convolution's own padding
            x = F.pad(x, (0, 0, 0, columns * n - w, 0, rows * n - h))
        x = x.reshape(b, rows, n, columns, n, c).permute(0, 2, 4, 1, 3, 5).reshape(b * n * n, rows, columns, c)
        x = self.far(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x.reshape(b, n, n, rows, columns, c).permute(0, 3, 1, 4, 2, 5).reshape(b, rows * n, columns * n, c)
        return x[:, :h, :w].permute(0, 3, 1, 2).contiguous(memory_format=NHWC)


def _constants(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """a and b, (C,) each: BatchNorm in eval mode is a * x + b. In float64, for the products with weights."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    a = norm.weight.detach().double() / (variance.double() + norm.eps).sqrt()
    return a, norm.bias.detach().double() - mean.double() * a


def _after(a: Tensor, b: Tensor, conv: Any, dtype: torch.dtype, *, gelu: bool = False) -> PackedConv:
    """The 1x1 convolution of a * x + b, as one of x; a and b are (C_in,)."""
    weight = conv.weight.detach().double()
    bias = conv.bias.detach().double() + weight.flatten(1) @ b
    return PackedConv(weight * a[:, None, None], bias, dtype, gelu=gelu)


def _before(s: Tensor, conv: Any, dtype: torch.dtype) -> PackedConv:
    """s times a 1x1 convolution, as one convolution; s is (C_out,)."""
    return PackedConv(conv.weight.detach().double() * s[:, None, None, None], conv.bias.detach().double() * s, dtype)
