"""Swin Transformer as a translator: attention within windows, shifted in every second block (Liu et al., ICCV 2021).

The windows are shifted by rolling the features. OpenSTL leaves out the attention mask that the paper then needs, so
windows at the edges mix pixels of opposite edges. Its weights were trained that way, and we compute the same.
"""

import torch
from torch import Tensor, nn

from stzoo.models.encoder_decoder import DropPath
from stzoo.models.metaformers.parts import Attention, BlockPlace, Mlp
from stzoo.models.published import rules


def window_of(size: tuple[int, int], asked: int | None) -> int:
    """Side of the windows for features of `size` (h, w): what was asked for, else the published choice.

    OpenSTL takes 7 if h is a multiple of 7, else the larger of 4 and h // 16, at most 8. No window is larger than the
    shorter side of the features.
    """
    published = 7 if size[0] % 7 == 0 else min(8, max(4, size[0] // 16))
    return min(published if asked is None else asked, *size)


class WindowAttention(nn.Module):
    """`Attention` within windows of side M, with a learnt bias for each offset of two pixels (equation 4).

    Entry (dy + M - 1) * (2M - 1) + dx + M - 1 of the table, ((2M - 1)^2, heads), belongs to a query that lies dy rows
    below its key and dx columns to its right.
    """

    def __init__(self, dim: int, heads: int, window: int):
        super().__init__()
        self.window = window
        self.attn = Attention(dim, heads)
        self.bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        if not self.bias_table.is_meta:  # there torch would spend seconds on importing sympy, to fill nothing
            nn.init.trunc_normal_(self.bias_table, std=0.02)

    def bias(self) -> Tensor:
        """(heads, M * M, M * M): of query and key."""
        m, places = self.window, torch.arange(self.window, device=self.bias_table.device)
        offset = places[:, None] - places + m - 1
        entry = offset[:, None, :, None] * (2 * m - 1) + offset[None, :, None, :]
        return self.bias_table[entry.reshape(m * m, m * m)].permute(2, 0, 1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, h, w, dim) -> (B, h, w, dim). h and w are multiples of M; `mask` is their `window_mask`, or None."""
        (b, h, w, dim), m = x.shape, self.window
        bias = self.bias()
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(b, 1, 1, 1)
        seen = self.attn(in_windows(x, m), bias)
        return seen.reshape(b, h // m, w // m, m, m, dim).transpose(2, 3).reshape(b, h, w, dim)


def in_windows(x: Tensor, window: int) -> Tensor:
    """(B, h, w, dim) -> (B * windows, M * M, dim): the windows of a clip lie in rows, and so do the pixels of each."""
    (b, h, w, dim), m = x.shape, window
    return x.reshape(b, h // m, m, w // m, m, dim).transpose(2, 3).reshape(-1, m * m, dim)


def window_mask(size: tuple[int, int], window: int, device: torch.device) -> Tensor:
    """(windows, M * M, M * M), to be added to the scores: 0 for two pixels that may see each other, else -100.

    Features of `size` (h, w) were rolled up and to the left by half a window (section 3.2). Pixels that came from the
    other edge share the last windows with pixels that they do not lie beside.
    """

    def parts(side: int) -> Tensor:
        places = torch.arange(side, device=device)
        return (places >= side - window).int() + (places >= side - window // 2).int()

    part = 3 * parts(size[0])[:, None] + parts(size[1])
    of_pixel = in_windows(part[None, ..., None], window)  # (windows, M * M, 1)
    return -100.0 * (of_pixel != of_pixel.transpose(1, 2)).float()


class SwinBlock(nn.Module):
    """x + WindowAttention(LN(x)), then x + MLP(LN(x)).

    In odd blocks the windows are shifted by half their side, unless one window is as high or as wide as the features.
    """

    def __init__(self, place: BlockPlace):
        super().__init__()
        place.check_multiple(place.heads, "attention heads")
        window = window_of(place.size, place.window)
        self.shift = window // 2 if place.number % 2 and window < min(place.size) else 0
        self.norm1 = nn.LayerNorm(place.dim)
        self.windows = WindowAttention(place.dim, place.heads, window)
        self.norm2 = nn.LayerNorm(place.dim)
        self.mlp = Mlp(place.dim, place.dim * place.mlp_ratio)
        self.drop_path = DropPath(place.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w). h and w are multiples of the window's side."""
        x = x.permute(0, 2, 3, 1)
        y = self.norm1(x)
        if self.shift:
            y = self.windows(y.roll((-self.shift, -self.shift), (1, 2))).roll((self.shift, self.shift), (1, 2))
        else:
            y = self.windows(y)
        x = x + self.drop_path(y)
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x.permute(0, 3, 1, 2)


_WINDOWS = r"translator\.(\d+)\.block\.windows\."
OPENSTL = rules(
    (_WINDOWS + r"bias_table", r"hid.enc.\1.block.attn.relative_position_bias_table"),
    (_WINDOWS + r"attn\.(qkv|proj)", r"hid.enc.\1.block.attn.\2"),
)
# The index follows from the sizes. The mask is made by the published code, which then does not use it.
OPENSTL_DEAD = r"hid\.enc\.\d+\.block\.(attn\.relative_position_index|attn_mask)"
