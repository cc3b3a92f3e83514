"""UniFormer as a translator: convolution where the width changes, attention between (Li et al., ICLR 2022, section 3).

Local blocks aggregate a 5x5 neighbourhood, global ones attend among all pixels. Both begin with a depthwise 3x3
convolution that tells where a pixel lies (equation 1), so any height and width work.
"""

import torch
from torch import Tensor, nn

from stzoo.models.encoder_decoder import DropPath
from stzoo.models.metaformers.parts import BlockPlace, Mlp, PixelAttention, PixelMlp

SCALE = 1e-6  # what the residual scales of a global block start from


def uniformer_block(place: BlockPlace) -> nn.Module:
    """A global block if it keeps the width and is not the first one, else a local block (OpenSTL's rule)."""
    return GlobalBlock(place) if place.keeps_width and place.number > 0 else LocalBlock(place)


class LocalBlock(nn.Module):
    """x + DW3(x), x + PW(DW5(PW(BN(x)))), x + MLP(BN(x)): depthwise convolutions DW and 1x1 convolutions PW."""

    def __init__(self, place: BlockPlace):
        super().__init__()
        dim = place.dim
        self.pos_embed = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.BatchNorm2d(dim)
        self.conv1 = nn.Conv2d(dim, dim, 1)
        self.attn = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)  # the paper's "local affinity"
        self.conv2 = nn.Conv2d(dim, dim, 1)
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = PixelMlp(dim, dim * place.mlp_ratio)
        self.drop_path = DropPath(place.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        x = x + self.pos_embed(x)
        x = x + self.drop_path(self.conv2(self.attn(self.conv1(self.norm1(x)))))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class GlobalBlock(nn.Module):
    """x + DW3(x), x + g1 * Attention(LN(x)), x + g2 * MLP(LN(x)), with residual scales g1 and g2."""

    def __init__(self, place: BlockPlace):
        super().__init__()
        place.check_multiple(place.heads, "attention heads")
        dim = place.dim
        self.pos_embed = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = PixelAttention(dim, place.heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, dim * place.mlp_ratio)
        self.gamma_1 = nn.Parameter(torch.full((dim,), SCALE))
        self.gamma_2 = nn.Parameter(torch.full((dim,), SCALE))
        self.drop_path = DropPath(place.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        x = (x + self.pos_embed(x)).permute(0, 2, 3, 1)
        x = x + self.drop_path(self.gamma_1 * self.attn(self.norm1(x)))
        x = x + self.drop_path(self.gamma_2 * self.mlp(self.norm2(x)))
        return x.permute(0, 3, 1, 2)
