"""The plain-convolution baseline of TAU's Table 6: TAU's encoder and decoder around a stack of 3x3 convolutions.

The paper prints about 6.11 GMAC and names no width; `hid_t` 256 has 6.37 GMAC, 128 has 5.31.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from stzoo.models.contract import Architecture
from stzoo.models.encoder_decoder import ConvNorm, EncodeTranslateDecode, block_widths, check_even
from stzoo.spec import ModelSpec, bounded


@dataclass(frozen=True)
class ConvConfig:
    """`hid_s` and `n_s` are the encoder's width and depth, `hid_t` and `n_t` the translator's, as in `TauConfig`.

    Each of the n_t blocks is one 3x3 convolution. `patch` folds p x p pixels into channels before the encoder.
    """

    hid_s: int = bounded(64, 2, 1024)
    hid_t: int = bounded(512, 2, 8192)
    n_s: int = bounded(4, 1, 12)
    n_t: int = bounded(8, 2, 64)
    patch: int = bounded(1, 1, 16)

    def __post_init__(self) -> None:
        check_even(self.hid_s)


class ConvBlock(nn.Module):
    """y = GELU(BatchNorm(conv 3x3 (x))); x + y if the width stays, else y."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(dim_out)
        self.act = nn.GELU()
        self.residual = dim == dim_out

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim_out, h, w)."""
        y = self.act(self.norm(self.conv(x)))
        return x + y if self.residual else y


class Conv(EncodeTranslateDecode):
    """Block: past frames (B, T, C, H, W) in, as many future frames out. H and W must be multiples of `stride`."""

    def __init__(self, spec: ModelSpec, config: ConvConfig):
        widths = block_widths(spec.frames_in * config.hid_s, config.hid_t, config.n_t)
        translator = nn.Sequential(*(ConvBlock(a, b) for a, b in widths))
        super().__init__(spec.channels, config.hid_s, config.n_s, config.patch, translator)


ARCHITECTURE = Architecture(
    name="conv",
    kind="block",
    config=ConvConfig,
    module=Conv,
    colour="first",  # as nn.PixelUnshuffle folds
    recompute=(ConvNorm, ConvBlock),
)
