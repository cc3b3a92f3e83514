"""ConvNeXt as a translator: a depthwise 7x7 convolution and an MLP in one branch (Liu et al., CVPR 2022, figure 4)."""

import torch
from torch import Tensor, nn

from stzoo.models.encoder_decoder import DropPath
from stzoo.models.metaformers.parts import BlockPlace, ChannelNorm, PixelMlp

SCALE = 1e-6  # what the residual scale starts from


class ConvNextBlock(nn.Module):
    """x + gamma * MLP(LN(depthwise 7x7 (x)))."""

    def __init__(self, place: BlockPlace):
        super().__init__()
        self.conv_dw = nn.Conv2d(place.dim, place.dim, 7, padding=3, groups=place.dim)
        self.norm = ChannelNorm(place.dim, eps=1e-6)
        self.mlp = PixelMlp(place.dim, place.dim * place.mlp_ratio)
        self.gamma = nn.Parameter(torch.full((place.dim,), SCALE))
        self.drop_path = DropPath(place.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        return x + self.drop_path(self.gamma[:, None, None] * self.mlp(self.norm(self.conv_dw(x))))
