"""MogaNet as a translator: gates over neighbourhoods of several sizes (Li et al., ICLR 2024, section 4)."""

import torch
from torch import Tensor, nn

from stzoo.models.encoder_decoder import DropPath
from stzoo.models.gated_block import DilatedDepthwise
from stzoo.models.metaformers.parts import BlockPlace
from stzoo.models.published import rules

PARTS = 8  # equal parts of the channels, see `MultiOrderConv`
SCALE = 1e-5  # what the residual scales and the decomposing ones start from


def scale(dim: int) -> nn.Parameter:
    """A learnt factor for each channel, (1, dim, 1, 1)."""
    return nn.Parameter(torch.full((1, dim, 1, 1), SCALE))


class MultiOrderConv(nn.Module):
    """Depthwise 5x5, then further depthwise convolutions of some channels, then 1x1 to mix them.

    An eighth of the channels has seen enough; three eighths go through 5x5 with dilation 2, and four through 7x7 with
    dilation 3.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.widths = [dim // PARTS, 3 * dim // PARTS, 4 * dim // PARTS]
        self.near = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.far = DilatedDepthwise(self.widths[1], 5, dilation=2)
        self.farthest = DilatedDepthwise(self.widths[2], 7, dilation=3)
        self.mix = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        low, middle, high = self.near(x).split(self.widths, 1)
        return self.mix(torch.cat([low, self.far(middle), self.farthest(high)], 1))


class SpatialAggregation(nn.Module):
    """y + PW(SiLU(gate(z)) * SiLU(value(z))), where z = SiLU(d(PW(y))) and d(u) = u + sigma * (u - mean(u)).

    The mean is taken over all pixels; `gate` and PW are 1x1 convolutions, `value` is a `MultiOrderConv`.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.proj_1 = nn.Conv2d(dim, dim, 1)
        self.sigma = scale(dim)
        self.gate = nn.Conv2d(dim, dim, 1)
        self.value = MultiOrderConv(dim)
        self.proj_2 = nn.Conv2d(dim, dim, 1)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        u = self.proj_1(x)
        z = self.act(u + self.sigma * (u - u.mean((2, 3), keepdim=True)))
        return x + self.proj_2(self.act(self.gate(z)) * self.act(self.value(z)))


class ChannelAggregation(nn.Module):
    """PW(d(z)), where z = GELU(DW(PW(y))) and d(z) = z + sigma * (z - GELU(w(z))).

    PW are 1x1 convolutions, DW is a depthwise 3x3 convolution, w is a 1x1 convolution to a single channel.
    """

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.decompose = nn.Conv2d(hidden, 1, 1)
        self.sigma = scale(hidden)
        self.fc2 = nn.Conv2d(hidden, dim, 1)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        z = self.act(self.dwconv(self.fc1(x)))
        return self.fc2(z + self.sigma * (z - self.act(self.decompose(z))))


class MogaBlock(nn.Module):
    """x + s1 * SpatialAggregation(BN(x)), then x + s2 * ChannelAggregation(BN(x))."""

    def __init__(self, place: BlockPlace):
        super().__init__()
        place.check_multiple(PARTS, "equal parts")
        self.norm1 = nn.BatchNorm2d(place.dim)
        self.attn = SpatialAggregation(place.dim)
        self.norm2 = nn.BatchNorm2d(place.dim)
        self.mlp = ChannelAggregation(place.dim, place.dim * place.mlp_ratio)
        self.layer_scale_1, self.layer_scale_2 = scale(place.dim), scale(place.dim)
        self.drop_path = DropPath(place.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        x = x + self.drop_path(self.layer_scale_1 * self.attn(self.norm1(x)))
        return x + self.drop_path(self.layer_scale_2 * self.mlp(self.norm2(x)))


_VALUE = r"translator\.(\d+)\.block\.attn\.value\."
OPENSTL = rules(
    (_VALUE + "near", r"hid.enc.\1.block.attn.value.DW_conv0"),
    (_VALUE + "far", r"hid.enc.\1.block.attn.value.DW_conv1"),
    (_VALUE + "farthest", r"hid.enc.\1.block.attn.value.DW_conv2"),
    (_VALUE + "mix", r"hid.enc.\1.block.attn.value.PW_conv"),
)
