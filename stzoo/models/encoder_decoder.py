"""The frame encoder and decoder that TAU and SimVP share (SimVP, CVPR 2022, section 3.2).

Each frame is encoded by itself; the first layer's output skips over the translator and is added before the last
decoder layer, so that fine detail does not have to pass through the bottleneck.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from stzoo.errors import SpecError


def strides(layers: int) -> list[int]:
    """1, 2, 1, 2, ... : the stride of each encoder layer; the decoder's upsampling reads it backwards."""
    return [1 + i % 2 for i in range(layers)]


def block_widths(outer: int, inner: int, blocks: int) -> list[tuple[int, int]]:
    """(width, width out) of each block: `outer` at both ends, `inner` between."""
    return list(pairwise([outer] + [inner] * (blocks - 1) + [outer]))


def check_even(hid_s: int) -> None:
    """The encoder normalises in two groups of channels."""
    if hid_s % 2:
        raise SpecError(f"spec.params.hid_s is {hid_s}; it must be even")


class ConvNorm(nn.Module):
    """3x3 convolution, GroupNorm(2), SiLU; upsampling convolves to four times the width and shuffles pixels."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1, up: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out * up * up, 3, stride=stride, padding=1)
        self.shuffle = nn.PixelShuffle(up) if up > 1 else nn.Identity()
        self.norm = nn.GroupNorm(2, c_out)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.shuffle(self.conv(x))))


class Encoder(nn.Module):
    """(N, C, H, W) -> features (N, width, H/s, W/s) and the first layer's output, s = patch * 2^(layers // 2)."""

    def __init__(self, channels: int, width: int, layers: int, patch: int):
        super().__init__()
        self.unshuffle = nn.PixelUnshuffle(patch) if patch > 1 else nn.Identity()
        c_in = [channels * patch**2] + [width] * (layers - 1)
        self.layers = nn.ModuleList(ConvNorm(c, width, stride=s) for c, s in zip(c_in, strides(layers), strict=True))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        skip = self.layers[0](self.unshuffle(x))
        hidden = skip
        for layer in self.layers[1:]:
            hidden = layer(hidden)
        return hidden, skip


class Decoder(nn.Module):
    """Features (N, width, H/s, W/s) and the encoder's skip -> frames (N, C, H, W), with no output activation."""

    def __init__(self, channels: int, width: int, layers: int, patch: int):
        super().__init__()
        self.layers = nn.ModuleList(ConvNorm(width, width, up=s) for s in reversed(strides(layers)))
        self.readout = nn.Conv2d(width, channels * patch**2, 1)
        self.shuffle = nn.PixelShuffle(patch) if patch > 1 else nn.Identity()

    def forward(self, hidden: Tensor, skip: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            hidden = layer(hidden)
        return self.shuffle(self.readout(self.layers[-1](hidden + skip)))


class EncodeTranslateDecode(nn.Module):
    """Encode each frame, translate all frames' features together, decode each frame.

    Time is folded into the batch for the encoder and decoder, and into the channels for the translator:
    (B, T, C, H, W) -> (B*T, width, h, w) -> (B, T*width, h, w) -> (B, T, C, H, W). With `from_last` the last past frame
    is added to each of them.
    """

    def __init__(
        self, channels: int, width: int, layers: int, patch: int, translator: nn.Module, from_last: bool = False
    ):
        super().__init__()
        self.encoder = Encoder(channels, width, layers, patch)
        self.translator = translator
        self.decoder = Decoder(channels, width, layers, patch)
        self.patch, self.from_last = patch, from_last
        self.stride = patch * 2 ** (layers // 2)

    def forward(self, past: Tensor) -> Tensor:
        b, t = past.shape[:2]
        hidden, skip = self.encoder(past.flatten(0, 1))
        width, h, w = hidden.shape[1:]
        hidden = self.translator(hidden.reshape(b, t * width, h, w)).reshape(b * t, width, h, w)
        future = self.decoder(hidden, skip).unflatten(0, (b, t))
        return future + past[:, -1:] if self.from_last else future


class DropPath(nn.Module):
    """Skip a residual branch for whole samples, with probability `rate`, in training only (stochastic depth)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        keep = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= self.rate
        return x * (keep / (1.0 - self.rate)).to(x.dtype)
