"""ViT as a translator: attention among all pixels (Dosovitskiy et al., ICLR 2021, equations 2 and 3).

There are no position embeddings, as in OpenSTL, so any height and width work. Time and memory of the attention grow
with the square of the number of pixels.
"""

from torch import Tensor, nn

from stzoo.models.encoder_decoder import DropPath
from stzoo.models.metaformers.parts import BlockPlace, Mlp, PixelAttention


class VitBlock(nn.Module):
    """x + Attention(LN(x)), then x + MLP(LN(x))."""

    def __init__(self, place: BlockPlace):
        super().__init__()
        place.check_multiple(place.heads, "attention heads")
        self.norm1 = nn.LayerNorm(place.dim)
        self.attn = PixelAttention(place.dim, place.heads)
        self.norm2 = nn.LayerNorm(place.dim)
        self.mlp = Mlp(place.dim, place.dim * place.mlp_ratio)
        self.drop_path = DropPath(place.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        x = x.permute(0, 2, 3, 1)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x.permute(0, 3, 1, 2)
