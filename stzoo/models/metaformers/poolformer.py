"""PoolFormer as a translator: the mean of 3x3 pixels in place of attention (Yu et al., CVPR 2022, equation 4)."""

import torch
from torch import Tensor, nn

from stzoo.models.encoder_decoder import DropPath
from stzoo.models.metaformers.parts import BlockPlace, PixelMlp

SCALE = 1e-5  # what the residual scales start from


class PoolFormerBlock(nn.Module):
    """x + s1 * (pool(y) - y), y = GN(x); then x + s2 * MLP(GN(x)). GN normalises all channels together.

    The mean at an edge is that of the pixels that are there.
    """

    def __init__(self, place: BlockPlace):
        super().__init__()
        self.norm1 = nn.GroupNorm(1, place.dim)
        self.pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        self.norm2 = nn.GroupNorm(1, place.dim)
        self.mlp = PixelMlp(place.dim, place.dim * place.mlp_ratio)
        self.layer_scale_1 = nn.Parameter(torch.full((place.dim,), SCALE))
        self.layer_scale_2 = nn.Parameter(torch.full((place.dim,), SCALE))
        self.drop_path = DropPath(place.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        y = self.norm1(x)
        x = x + self.drop_path(self.layer_scale_1[:, None, None] * (self.pool(y) - y))
        return x + self.drop_path(self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x)))
