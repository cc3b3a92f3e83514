"""MLP-Mixer as a translator: one MLP across pixels, one across channels (Tolstikhin et al., NeurIPS 2021, equation 1).

The MLP across pixels has a weight for every pixel, so the model takes frames of the spec's height and width only.
"""

from torch import Tensor, nn

from stzoo.models.encoder_decoder import DropPath
from stzoo.models.metaformers.parts import BlockPlace, Mlp

EPS = 1e-6


class MixerBlock(nn.Module):
    """x + MLP across pixels (LN(x)), half as wide inside as x has channels; then x + MLP across channels (LN(x))."""

    def __init__(self, place: BlockPlace):
        super().__init__()
        self.norm1 = nn.LayerNorm(place.dim, eps=EPS)
        self.mlp_tokens = Mlp(place.size[0] * place.size[1], place.dim // 2)
        self.norm2 = nn.LayerNorm(place.dim, eps=EPS)
        self.mlp_channels = Mlp(place.dim, place.dim * place.mlp_ratio)
        self.drop_path = DropPath(place.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w). h and w are those of the spec's features."""
        x = x.permute(0, 2, 3, 1)
        mixed = self.mlp_tokens(self.norm1(x).flatten(1, 2).transpose(1, 2)).transpose(1, 2)
        x = x + self.drop_path(mixed.reshape(x.shape))
        x = x + self.drop_path(self.mlp_channels(self.norm2(x)))
        return x.permute(0, 3, 1, 2)
