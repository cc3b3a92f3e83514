"""PFGNet: Peripheral Frequency Gating (Cai et al., CVPR 2026).

SimVP's encoder and decoder around blocks that look at several surroundings of a place at once, and choose among them
place by place, by how much the features change there. Time lies in the channels. All is convolution: kernels of up to
31x31 are a row of 1x31 after a column of 31x1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo.errors import SpecError
from stzoo.models.contract import Architecture
from stzoo.models.encoder_decoder import (
    OPENSTL_FRAMES,
    OPENSTL_INNER,
    ConvNorm,
    DropPath,
    EncodeTranslateDecode,
    check_even,
    told_by_encoder,
)
from stzoo.models.gated_block import flat
from stzoo.models.published import Layout, rules
from stzoo.models.reading import Frame, Reader, Shape, Shapes, Told, depth
from stzoo.spec import ModelSpec, bounded

STEM_KERNELS = (3, 5, 7)
GROUPS = 32  # of a GroupNorm; narrower features have one for each channel
FIRST_RATE = 0.01  # of `drop_path`, in the first block


@dataclass(frozen=True)
class PfgNetConfig:
    """`hid_s` and `n_s` are the encoder's width and depth, `n_t` is the number of PFG blocks.

    The blocks work at the width of all frames together, T * hid_s (the paper); with `hid_t`, at that width between two
    1x1 convolutions. `kernels` are the sides of the surroundings that a block looks at, all odd. `mlp_ratio` is how
    many times wider the gated MLP is inside. `patch` folds p x p pixels into channels before the encoder (the paper:
    1). `layer_scale` is the value that the residual scales start from. `drop_path` is the rate at which the last
    block's branches are skipped in training.

    Raises `SpecError` if `hid_s` or a kernel is not what it must be.
    """

    hid_s: int = bounded(64, 2, 1024)
    hid_t: int | None = bounded(None, 3, 8192)
    n_s: int = bounded(4, 1, 12)
    n_t: int = bounded(8, 1, 64)
    kernels: tuple[int, ...] = bounded((9, 15, 31), 1, 127)
    mlp_ratio: int = bounded(4, 1, 16)
    patch: int = bounded(1, 1, 16)
    layer_scale: float = bounded(1e-6, 0.0, 1.0)
    drop_path: float = bounded(0.0, 0.0, 0.9)

    def __post_init__(self) -> None:
        check_even(self.hid_s)
        if not self.kernels or any(k % 2 == 0 for k in self.kernels):
            raise SpecError(f"spec.params.kernels is {list(self.kernels)}; it must be a list of odd numbers")


def depthwise(dim: int, height: int, width: int) -> nn.Conv2d:
    """One kernel a channel, without a bias: (B, dim, h, w) -> (B, dim, h, w)."""
    return nn.Conv2d(dim, dim, (height, width), padding=(height // 2, width // 2), groups=dim, bias=False)


class StemBranch(nn.Module):
    """1 x k then k x 1, beside 3x3 and 1x1, all depthwise; their sum goes through a 1x1 convolution."""

    def __init__(self, dim: int, dim_out: int, kernel: int):
        super().__init__()
        self.row, self.column = depthwise(dim, 1, kernel), depthwise(dim, kernel, 1)
        self.near, self.here = depthwise(dim, 3, 3), depthwise(dim, 1, 1)
        self.mix = nn.Conv2d(dim, dim_out, 1, bias=False)
        if not self.here.weight.is_meta:
            nn.init.ones_(self.here.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim_out, h, w)."""
        return self.mix(self.column(self.row(x)) + self.near(x) + self.here(x))


class Stem(nn.Module):
    """GELU(GroupNorm(branches)): a third of the channels from each kernel; what remains, from the first kernel again.

    The normalisation is over all channels and places.
    """

    def __init__(self, dim: int):
        super().__init__()
        third, rest = divmod(dim, len(STEM_KERNELS))
        self.branches = nn.ModuleList(StemBranch(dim, third, k) for k in STEM_KERNELS)
        self.rest = StemBranch(dim, rest, STEM_KERNELS[0]) if rest else None
        self.norm = nn.GroupNorm(1, dim)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        parts = [branch(x) for branch in self.branches]
        if self.rest is not None:
            parts.append(self.rest(x))
        return self.act(self.norm(torch.cat(parts, 1)))


class Ring(nn.Module):
    """What surrounds a place, less what is near it: column(row(x)) - tanh(beta) * near(x), for each channel."""

    def __init__(self, dim: int, kernel: int):
        super().__init__()
        self.row, self.column, self.near = depthwise(dim, 1, kernel), depthwise(dim, kernel, 1), depthwise(dim, 3, 3)
        self.beta = nn.Parameter(torch.zeros(dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        return self.column(self.row(x)) - self.beta.tanh() * self.near(x)


def changes(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, 3, h, w): how much the features change at each place, as means over the channels.

    The three are the length of the gradient (Sobel's), the absolute value of the Laplacian, and the variance over 3x3
    places. Outside the plane everything is zero.
    """
    wide = F.pad(x, (1, 1, 1, 1))
    down = wide[..., :-2, :] + 2 * wide[..., 1:-1, :] + wide[..., 2:, :]
    along = wide[..., :-2] + 2 * wide[..., 1:-1] + wide[..., 2:]
    right, lower = down[..., 2:] - down[..., :-2], along[..., 2:, :] - along[..., :-2, :]
    gradient = (right.square() + lower.square() + 1e-6).sqrt()
    rows, columns = wide[..., 1:-1, :], wide[..., 1:-1]
    laplacian = rows[..., :-2] + rows[..., 2:] + columns[..., :-2, :] + columns[..., 2:, :] - 4 * x
    variance = (F.avg_pool2d(x * x, 3, 1, 1) - F.avg_pool2d(x, 3, 1, 1).square()).clamp(min=0)
    return torch.stack([gradient.mean(1), laplacian.abs().mean(1), variance.mean(1)], 1)


class FrequencyGate(nn.Module):
    """The sum of the rings, weighted at each place by softmax(conv 1x1 (changes(x)))."""

    def __init__(self, dim: int, kernels: tuple[int, ...]):
        super().__init__()
        self.rings = nn.ModuleList(Ring(dim, k) for k in kernels)
        self.choose = nn.Conv2d(3, len(kernels), 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        shares = self.choose(changes(x)).softmax(1).split(1, 1)
        found = [share * ring(x) for share, ring in zip(shares, self.rings, strict=True)]
        return torch.stack(found).sum(0) if len(found) > 1 else found[0]


class ResponseNorm(nn.Module):
    """x + gamma * x / |x| + beta, where |x| is the length of a channel over all places.

    This is what public code computes; in ConvNeXt V2, from which it takes the name, |x| is divided by its mean over the
    channels, and divides nothing.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim, 1, 1))
        self.beta = nn.Parameter(torch.zeros(dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        length = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)
        return x + self.gamma * (x / (length + 1e-6)) + self.beta


class GatedMlp(nn.Module):
    """conv 1x1 (SiLU(u) * depthwise 3x3 (v)), where u and v are the halves of conv 1x1 (x)."""

    def __init__(self, dim: int, mlp_ratio: int):
        super().__init__()
        inner = dim * mlp_ratio
        self.enter = nn.Conv2d(dim, 2 * inner, 1)
        self.near = depthwise(inner, 3, 3)
        self.leave = nn.Conv2d(inner, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        gate, value = self.enter(x).chunk(2, 1)
        return self.leave(F.silu(gate) * self.near(value))


class PfgBlock(nn.Module):
    """x + s1 * RN(GELU(gate(GN(x)))), then x + s2 * RN(mlp(GN(x))).

    GN is a GroupNorm, RN a `ResponseNorm`, gate a `FrequencyGate`, mlp a `GatedMlp`.
    """

    def __init__(self, dim: int, config: PfgNetConfig, drop_path: float):
        super().__init__()
        groups = min(GROUPS, dim)
        self.norm1, self.response1 = nn.GroupNorm(groups, dim), ResponseNorm(dim)
        self.norm2, self.response2 = nn.GroupNorm(groups, dim), ResponseNorm(dim)
        self.gate, self.act = FrequencyGate(dim, config.kernels), nn.GELU()
        self.mlp = GatedMlp(dim, config.mlp_ratio)
        self.scale1 = nn.Parameter(torch.full((dim, 1, 1), config.layer_scale))
        self.scale2 = nn.Parameter(torch.full((dim, 1, 1), config.layer_scale))
        self.drop_path = DropPath(drop_path)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        x = x + self.drop_path(self.scale1 * self.response1(self.act(self.gate(self.norm1(x)))))
        return x + self.drop_path(self.scale2 * self.response2(self.mlp(self.norm2(x))))


def _initialise(part: nn.Module) -> None:
    """Normal weights of variance 2 / fan-out, for which depthwise kernels count as full ones, and zero biases."""
    if isinstance(part, nn.Conv2d) and not part.weight.is_meta:
        nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        if part.bias is not None:
            nn.init.zeros_(part.bias)


class Translator(nn.Module):
    """`Stem` and the blocks, `dim` channels wide, between 1x1 convolutions if that is not the width they are given."""

    def __init__(self, outer: int, dim: int, config: PfgNetConfig):
        super().__init__()
        self.enter = nn.Conv2d(outer, dim, 1) if config.hid_t is not None else nn.Identity()
        self.stem = Stem(dim)
        self.blocks = nn.Sequential(*(PfgBlock(dim, config, rate) for rate in drop_rates(config)))
        self.leave = nn.Conv2d(dim, outer, 1) if config.hid_t is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, outer, h, w) -> (B, outer, h, w)."""
        return self.leave(self.blocks(self.stem(self.enter(x))))


def drop_rates(config: PfgNetConfig) -> list[float]:
    """`drop_path` of each block, in equal steps from 0.01 to that of the last one; 0 in all if it is 0 there."""
    last = config.n_t - 1
    if not config.drop_path or not last:
        return [config.drop_path] * config.n_t
    return [FIRST_RATE + (config.drop_path - FIRST_RATE) * i / last for i in range(config.n_t)]


class PfgNet(EncodeTranslateDecode):
    """Block: past frames (B, T, C, H, W) in, as many future frames out. H and W must be multiples of `stride`."""

    def __init__(self, spec: ModelSpec, config: PfgNetConfig):
        outer = spec.frames_in * config.hid_s
        dim = outer if config.hid_t is None else config.hid_t
        if dim < len(STEM_KERNELS) or dim % min(GROUPS, dim):
            of = "spec.frames_in times spec.params.hid_s" if config.hid_t is None else "spec.params.hid_t"
            least = len(STEM_KERNELS)
            raise SpecError(f"{of} is {dim}; it must be a multiple of {GROUPS}, or between {least} and {GROUPS}")
        translator = Translator(outer, dim, config)
        super().__init__(spec.channels, config.hid_s, config.n_s, config.patch, translator)


def batched(shape: Shape) -> Shape:
    """What belongs to channels, (dim, 1, 1), was published as (1, dim, 1, 1)."""
    return (1, *shape)


_BLOCK = r"translator\.blocks\.(\d+)\."
_DEPTHWISE = (("row", "dw_h"), ("column", "dw_v"))
OPENSTL_PFG = (
    rules(
        *(
            (rf"translator\.stem\.{ours}\.{part}", f"hid.cel.{theirs}.{named}")
            for ours, theirs in ((r"branches\.(\d+)", r"branches.\1"), ("rest", "tail"))
            for part, named in (
                *((part, f"0.{named}") for part, named in (*_DEPTHWISE, ("near", "dw_s"), ("here", "dw_i"))),
                ("mix", "1"),
            )
        ),
        (r"translator\.stem\.norm", r"hid.cel.norm"),
        *(
            (_BLOCK + rf"gate\.rings\.(\d+)\.{part}", rf"hid.blocks.\1.tm.branches.\2.{named}")
            for part, named in (*_DEPTHWISE, ("near", "dw_c"))
        ),
        (_BLOCK + r"gate\.choose", r"hid.blocks.\1.tm.gate_head"),
        (_BLOCK + r"norm1", r"hid.blocks.\1.norm_dw"),
        (_BLOCK + r"norm2", r"hid.blocks.\1.norm_pw"),
        (_BLOCK + r"mlp\.enter", r"hid.blocks.\1.pw_in"),
        (_BLOCK + r"mlp\.near", r"hid.blocks.\1.dw_v"),
        (_BLOCK + r"mlp\.leave", r"hid.blocks.\1.pw_out"),
    )
    + rules(
        (_BLOCK + r"gate\.rings\.(\d+)\.beta", r"hid.blocks.\1.tm.branches.\2.beta"),
        (_BLOCK + r"response1\.(gamma|beta)", r"hid.blocks.\1.grn_dw.\2"),
        (_BLOCK + r"response2\.(gamma|beta)", r"hid.blocks.\1.grn_pw.\2"),
        shape=batched,
    )
    + rules(
        (_BLOCK + r"scale1", r"hid.blocks.\1.gamma_dw"),
        (_BLOCK + r"scale2", r"hid.blocks.\1.gamma_pw"),
        shape=flat,
    )
)


_PFG = "hid.blocks.0."


def told(shapes: Shapes, known: Frame) -> Told:
    """Published ones have no `hid_t`, so that their blocks tell how many frames go in."""
    params, frame = told_by_encoder(shapes, known)
    dim, rings = shapes[f"{_PFG}grn_dw.gamma"][1], depth(shapes, f"{_PFG}tm.branches")
    params |= {
        "n_t": depth(shapes, "hid.blocks"),
        "kernels": tuple(shapes[f"{_PFG}tm.branches.{i}.dw_h.weight"][-1] for i in range(rings)),
        "mlp_ratio": shapes[f"{_PFG}dw_v.weight"][0] // dim,
    }
    return Told(params=params, frame=frame, frames_in=dim // params["hid_s"])


PUBLISHED = Layout(
    rules=OPENSTL_FRAMES + OPENSTL_PFG,
    inner=OPENSTL_INNER,
    readers=(Reader(f"{_PFG}tm.gate_head.weight", told),),
)
ARCHITECTURE = Architecture(
    name="pfgnet",
    kind="block",
    config=PfgNetConfig,
    module=PfgNet,
    colour="first",  # as nn.PixelUnshuffle folds
    recompute=(ConvNorm, PfgBlock),
    layouts={"openstl": PUBLISHED, "official": PUBLISHED},  # the authors' code is written on OpenSTL's
)
