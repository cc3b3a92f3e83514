"""HorNet as a translator: recursive gated convolutions (Rao et al., NeurIPS 2022, section 3.1)."""

import torch
from torch import Tensor, nn

from stzoo.models.encoder_decoder import DropPath
from stzoo.models.metaformers.parts import BlockPlace, ChannelNorm, Mlp
from stzoo.models.published import rules

ORDER = 4
SCALE = 1e-6  # what the residual scales start from


class GatedConv(nn.Module):
    """gnConv of order 4: p <- g_k(p) * f(q_k) four times, at widths of dim / 8, dim / 4, dim / 2 and dim.

    A 1x1 convolution makes the first p and all q_k. f is one depthwise 7x7 convolution of all q_k; g_k is a 1x1
    convolution to the next width, and nothing the first time. The paper divides by a constant; OpenSTL does not.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.widths = [dim >> k for k in reversed(range(ORDER))]
        self.enter = nn.Conv2d(dim, 2 * dim, 1)
        self.spread = nn.Conv2d(sum(self.widths), sum(self.widths), 7, padding=3, groups=sum(self.widths))
        self.widen = nn.ModuleList(nn.Conv2d(width, 2 * width, 1) for width in self.widths[:-1])
        self.leave = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        p, q = self.enter(x).split([self.widths[0], sum(self.widths)], 1)
        first, *others = self.spread(q).split(self.widths, 1)
        p = p * first
        for widen, gate in zip(self.widen, others, strict=True):
            p = widen(p) * gate
        return self.leave(p)


class HorNetBlock(nn.Module):
    """x + gamma1 * gnConv(LN(x)), then x + gamma2 * MLP(LN(x))."""

    def __init__(self, place: BlockPlace):
        super().__init__()
        place.check_multiple(2 ** (ORDER - 1), "equal parts")
        self.norm1 = ChannelNorm(place.dim, eps=1e-6)
        self.gated = GatedConv(place.dim)
        self.norm2 = nn.LayerNorm(place.dim, eps=1e-6)
        self.feed = Mlp(place.dim, place.dim * place.mlp_ratio)
        self.gamma1 = nn.Parameter(torch.full((place.dim,), SCALE))
        self.gamma2 = nn.Parameter(torch.full((place.dim,), SCALE))
        self.drop_path = DropPath(place.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        x = x + self.drop_path(self.gamma1[:, None, None] * self.gated(self.norm1(x)))
        x = x.permute(0, 2, 3, 1)
        x = x + self.drop_path(self.gamma2 * self.feed(self.norm2(x)))
        return x.permute(0, 3, 1, 2)


_BLOCK = r"translator\.(\d+)\.block\."
OPENSTL = rules(
    (_BLOCK + r"gated\.enter", r"hid.enc.\1.block.gnconv.proj_in"),
    (_BLOCK + r"gated\.spread", r"hid.enc.\1.block.gnconv.dwconv"),
    (_BLOCK + r"gated\.widen\.(\d+)", r"hid.enc.\1.block.gnconv.pws.\2"),
    (_BLOCK + r"gated\.leave", r"hid.enc.\1.block.gnconv.proj_out"),
    (_BLOCK + r"feed\.fc([12])", r"hid.enc.\1.block.pwconv\2"),
)
