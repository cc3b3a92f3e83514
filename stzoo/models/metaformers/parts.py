"""What the MetaFormer blocks share: where a block stands, normalisation over channels, MLPs and attention.

Blocks take and return (B, dim, h, w). Inside, attention and linear layers work on (B, h, w, dim), channels last.
"""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from stzoo.errors import SpecError


@dataclass(frozen=True)
class BlockPlace:
    """Where a block stands in its translator, and what it is made of.

    Attributes:
        dim: the width of its input and output, in channels.
        number: how many blocks come before it.
        keeps_width: whether the next block is as wide; if it is not, a 1x1 convolution follows this block.
        size: (h, w) of the features, for frames of the spec's height and width.
        mlp_ratio: how many times wider the MLP is inside.
        drop_path: the rate at which residual branches are skipped in training.
        heads: how many heads the attention has.
        window: the side of Swin's windows; None means the published choice, `stzoo.models.metaformers.swin.window_of`.
    """

    dim: int
    number: int
    keeps_width: bool
    size: tuple[int, int]
    mlp_ratio: int
    drop_path: float
    heads: int
    window: int | None

    def check_multiple(self, n: int, what: str) -> None:
        """Raises `SpecError` if the width does not divide by `n`, which the message explains as `what`."""
        if self.dim % n:
            raise SpecError(
                f"a block of this translator has {self.dim} channels, which do not divide into {n} {what}; "
                f"choose hid_t and frames_in * hid_s as multiples of {n}"
            )


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel: (B, C, h, w) -> (B, C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Mlp(nn.Sequential):
    """Linear, GELU, linear on the last axis: (..., dim) -> (..., dim)."""

    def __init__(self, dim: int, hidden: int):
        super().__init__(OrderedDict(fc1=nn.Linear(dim, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, dim)))


class PixelMlp(nn.Sequential):
    """1x1 convolution, GELU, 1x1 convolution: (B, dim, h, w) -> (B, dim, h, w)."""

    def __init__(self, dim: int, hidden: int):
        super().__init__(OrderedDict(fc1=nn.Conv2d(dim, hidden, 1), act=nn.GELU(), fc2=nn.Conv2d(hidden, dim, 1)))


class Attention(nn.Module):
    """Multi-head self-attention, softmax(q k^T / sqrt(d) + bias) v, of `heads` heads of width d = dim / heads."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, N, dim) tokens, and a bias (heads, N, N) of the scores -> (B, N, dim)."""
        b, n, dim = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4).unbind()
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))
        return self.proj(seen.transpose(1, 2).reshape(b, n, dim))


class PixelAttention(Attention):
    """`Attention` among all pixels of the features."""

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, h, w, dim), and a bias (heads, h * w, h * w) of the scores -> (B, h, w, dim)."""
        return super().forward(x.flatten(1, 2), bias).reshape(x.shape)
