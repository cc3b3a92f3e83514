"""SwinLSTM (Tang et al., ICCV 2023): an LSTM whose only gate is made by Swin Transformer blocks.

A frame becomes tokens, one for each patch. In the deep form (SwinLSTM-D) cells run on ever coarser grids of tokens on
the way down, and on ever finer ones on the way up; in the base form (SwinLSTM-B) all run on the grid of the patches.
A transposed convolution paints the next frame.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stzoo.errors import SpecError
from stzoo.models.contract import Architecture
from stzoo.models.encoder_decoder import DropPath
from stzoo.models.metaformers.parts import Mlp
from stzoo.models.metaformers.swin import WindowAttention, window_mask
from stzoo.models.published import Layout, rules
from stzoo.models.reading import Frame, Reader, Shapes, Told, depth, same_channels
from stzoo.models.recurrent import any_range_where_trained, check_squeezed, check_unit_range
from stzoo.spec import ModelSpec, bounded

MAX_CELLS = 8  # on one way; eight already halve 256 tokens to one

State = tuple[tuple[Tensor, Tensor], ...]
"""Hidden state and cell of every cell, in the order in which they run: (B, dim, h, w) on the grid of that cell."""


@dataclass(frozen=True)
class SwinLstmConfig:
    """Tokens of `dim` channels from patches of `patch` x `patch` pixels; cells of some number of Swin blocks each.

    `down` has the number of blocks of every cell on the way down, and `up` of every cell on the way up, in the order in
    which they run. After a cell on the way down the grid is halved and the width doubled; after one on the way up the
    reverse. Both ways have as many cells; with an empty `up` all cells run on one grid (SwinLSTM-B). `heads` are the
    attention heads of the cells on the way down; a cell on the way up has those of its counterpart: the last one's
    first. Windows are `window` tokens wide. `mlp_ratio` is how many times wider an MLP is inside. `drop_path` is the
    largest rate at which residual branches are skipped in training: it grows from 0 over the blocks on the way down,
    and falls to 0 on the way up. `sigmoid` squeezes the output into (0, 1); switch it off for values without a range,
    such as latents. `any_range` allows the sigmoid for frames whose normalised values leave [0, 1], which a forecast
    then never reaches: published code squeezes whatever it is trained on.
    """

    dim: int = bounded(128, 1, 4096)
    down: tuple[int, ...] = bounded((2, 6), 1, 64)
    up: tuple[int, ...] = bounded((2, 6), 1, 64)
    heads: tuple[int, ...] = bounded((4, 8), 1, 64)
    window: int = bounded(4, 2, 64)
    mlp_ratio: int = bounded(4, 1, 16)
    patch: int = bounded(2, 2, 16)
    drop_path: float = bounded(0.1, 0.0, 0.9)
    sigmoid: bool = True
    any_range: bool = False

    def __post_init__(self) -> None:
        check_squeezed(self)
        cells = len(self.down)
        if not 1 <= cells <= MAX_CELLS:
            raise SpecError(f"spec.params.down has {cells} values; it must have 1 to {MAX_CELLS}, one for each cell")
        if len(self.up) not in (0, cells):
            raise SpecError(
                f"spec.params.up has {len(self.up)} values; it must have as many as spec.params.down, {cells}, or none"
            )
        if len(self.heads) != cells:
            raise SpecError(
                f"spec.params.heads has {len(self.heads)} values; it must have as many as spec.params.down, {cells}"
            )
        for i, heads in enumerate(self.heads):
            for width in {self.dim << i * bool(self.up), self.dim << (i + 1) * bool(self.up)}:
                if width % heads:
                    raise SpecError(
                        f"spec.params.heads[{i}] is {heads}; it must divide the {width} channels of its cell"
                    )


class FusingBlock(nn.Module):
    """A Swin block that may read another set of tokens: x + WindowAttention(y), then x + MLP(LN(x)).

    y is LN(x), or W [LN(x), LN(other)] in a block that `fuses`. With `shifts` the windows are shifted by half their
    side, unless one of them is as high or as wide as the grid.
    """

    def __init__(self, dim: int, heads: int, config: SwinLstmConfig, drop_path: float, fuses: bool, shifts: bool):
        super().__init__()
        self.shifts = shifts
        self.norm1 = nn.LayerNorm(dim)
        self.fuse = nn.Linear(2 * dim, dim) if fuses else None
        self.windows = WindowAttention(dim, heads, config.window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, dim * config.mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, other: Tensor, mask: Tensor | None) -> Tensor:
        """x and other (B, h, w, dim), and the mask of shifted windows, if there are such -> (B, h, w, dim)."""
        y = self.norm1(x)
        if self.fuse is not None:
            y = self.fuse(torch.cat([y, self.norm1(other)], -1))
        if self.shifts and mask is not None:
            half = self.windows.window // 2
            y = self.windows(y.roll((-half, -half), (1, 2)), mask).roll((half, half), (1, 2))
        else:
            y = self.windows(y)
        x = x + self.drop_path(y)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SwinLstmCell(nn.Module):
    """Equations 2 to 4: f = sigmoid(z); c' = f (c + tanh(z)); h' = f tanh(c'), where Swin blocks make z of x and h.

    The first block fuses x with h, every other one after it what came so far with x; those between do not fuse, and
    their windows are shifted.
    """

    def __init__(self, dim: int, heads: int, config: SwinLstmConfig, drop_paths: list[float]):
        super().__init__()
        self.window = config.window
        self.blocks = nn.ModuleList(
            FusingBlock(dim, heads, config, rate, fuses=i % 2 == 0, shifts=i % 2 == 1)
            for i, rate in enumerate(drop_paths)
        )

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """x, hidden state and cell (B, h, w, dim) -> the new hidden state and cell."""
        size = x.shape[1], x.shape[2]
        mask = window_mask(size, self.window, x.device) if min(size) > self.window else None
        z = x
        for i, block in enumerate(self.blocks):
            z = block(z, x if i else h, mask)
        gate = z.sigmoid()
        c = gate * (c + z.tanh())
        return gate * c.tanh(), c


class Merge(nn.Module):
    """Patch merging: the tokens of 2 x 2 places become one, of twice the width."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduce = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, dim) -> (B, h / 2, w / 2, 2 * dim)."""
        b, h, w, dim = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, dim).permute(0, 1, 3, 4, 2, 5)  # columns before rows, as published
        return self.reduce(self.norm(x.reshape(b, h // 2, w // 2, 4 * dim)))


class Expand(nn.Module):
    """Patch expanding: a token becomes those of 2 x 2 places, of half the width."""

    def __init__(self, dim: int):
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(dim // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, dim) -> (B, 2 * h, 2 * w, dim / 2)."""
        b, h, w, dim = x.shape
        x = self.expand(x).reshape(b, h, w, 2, 2, dim // 2).transpose(2, 3)
        return self.norm(x.reshape(b, 2 * h, 2 * w, dim // 2))


class Place(NamedTuple):
    """Where a cell stands: its width, the pixels on a side of its tokens, its heads, and its blocks' `drop_path`."""

    width: int
    scale: int
    heads: int
    drop_paths: list[float]


def places(config: SwinLstmConfig) -> tuple[list[Place], list[Place]]:
    """The cells on the way down and on the way up, in the order in which they run."""
    n, deep = len(config.down), bool(config.up)
    down = [
        Place(config.dim << i * deep, config.patch << i * deep, heads, rates)
        for i, (heads, rates) in enumerate(zip(config.heads, drop_rates(config.down, config.drop_path), strict=True))
    ]
    up = [
        Place(config.dim << n - i, config.patch << n - i, config.heads[n - 1 - i], rates[::-1])
        for i, rates in enumerate(drop_rates(config.up[::-1], config.drop_path)[::-1])
    ]
    return down, up


def drop_rates(blocks: tuple[int, ...], largest: float) -> list[list[float]]:
    """The rates of all blocks, for each cell a list: they grow from 0 to `largest`."""
    steps = max(1, sum(blocks) - 1)
    return [[largest * (sum(blocks[:i]) + j) / steps for j in range(n)] for i, n in enumerate(blocks)]


class SwinLstm(nn.Module):
    """Sequential: one frame (B, C, H, W) in, the forecast of the next one out; with `sigmoid` both lie in [0, 1].

    H and W must be multiples of `patch`, times two for every halving of the grid, times `window`.
    """

    def __init__(self, spec: ModelSpec, config: SwinLstmConfig):
        super().__init__()
        if config.sigmoid:
            check_unit_range(spec, config.any_range)
        patch, dim, deep = config.patch, config.dim, bool(config.up)
        down, up = places(config)
        self.sigmoid, self.places = config.sigmoid, (*down, *up)
        self.stride = config.window * max((p.scale for p in up), default=patch)
        self.embed = nn.Conv2d(spec.channels, dim, patch, stride=patch)
        self.norm = nn.LayerNorm(dim)
        self.down = nn.ModuleList(SwinLstmCell(p.width, p.heads, config, p.drop_paths) for p in down)
        self.merge = nn.ModuleList(Merge(p.width) if deep else nn.Identity() for p in down)
        self.up = nn.ModuleList(SwinLstmCell(p.width, p.heads, config, p.drop_paths) for p in up)
        self.expand = nn.ModuleList(Expand(p.width) for p in up)
        self.paint = nn.ConvTranspose2d(dim, spec.channels, patch + 1, stride=patch, padding=1, output_padding=1)

    def initial_state(self, batch: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype) -> State:
        """All memories are zero before the first frame of `batch` clips, whose frames have `size` (H, W)."""
        (h, w), state = size, []
        for width, scale, _, _ in self.places:
            zeros = torch.zeros(batch, h // scale, w // scale, width, device=device, dtype=dtype)
            state.append((zeros, zeros))
        return tuple(state)

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """One normalised frame (B, C, H, W) -> the forecast of the next one, of the same shape, and the new state."""
        x, new = self.norm(self.embed(frame).permute(0, 2, 3, 1)), []
        cells, resizes = (*self.down, *self.up), (*self.merge, *self.expand)
        for cell, resize, (h, c) in zip(cells, resizes, state, strict=True):
            x, c = cell(x, h, c)
            new.append((x, c))
            x = resize(x)
        painted = self.paint(x.permute(0, 3, 1, 2))
        return painted.sigmoid() if self.sigmoid else painted, tuple(new)


_BLOCK = (  # the parts of a block, here and as published
    (r"(?P<part>norm1|norm2|mlp\.fc1|mlp\.fc2)", r"\g<part>"),
    (r"fuse", r"red"),
    (r"windows\.bias_table", r"attn.relative_position_bias_table"),
    (r"windows\.attn\.(?P<part>qkv|proj)", r"attn.\g<part>"),
)


def reads_stages(way: str, cell: str, blocks: str) -> Callable[[Shapes, Frame], Told]:
    """For `Reader.read`: cells named `way`.`cell` with a number, each of a stack of blocks called `blocks`."""

    def read(shapes: Shapes, known: Frame) -> Told:
        first = shapes[f"{way}.patch_embed.proj.weight"]
        cells = [f"{way}.{cell}.{i}" for i in range(depth(shapes, f"{way}.{cell}"))] or [f"{way}.{cell}"]
        tables = [shapes[f"{name}.{blocks}.0.attn.relative_position_bias_table"] for name in cells]
        ups = depth(shapes, "Upsample.layers")
        params = {
            "dim": first[0],
            "down": tuple(depth(shapes, f"{name}.{blocks}") for name in cells),
            "up": tuple(depth(shapes, f"Upsample.layers.{i}.{blocks}") for i in range(ups)),
            "heads": tuple(table[1] for table in tables),
            "window": (isqrt(tables[0][0]) + 1) // 2,
            "mlp_ratio": shapes[f"{cells[0]}.{blocks}.0.mlp.fc1.weight"][0] // first[0],
            "patch": first[-1],
        }
        return Told(params=params, frame=Frame(channels=same_channels(first[1], known.channels)))

    return read


PUBLISHED = Layout(
    rules=rules(
        (r"embed", r"Downsample.patch_embed.proj"),
        (r"norm", r"Downsample.patch_embed.norm"),
        (r"merge\.(\d+)\.norm", r"Downsample.downsample.\1.norm"),
        (r"merge\.(\d+)\.reduce", r"Downsample.downsample.\1.reduction"),
        (r"expand\.(\d+)\.(expand|norm)", r"Upsample.upsample.\1.\2"),
        (r"paint", r"Upsample.Unembed.Conv"),
        *(
            (rf"{way}\.(\d+)\.blocks\.(\d+)\.{ours}", rf"{their_way}.layers.\1.Swin.layers.\2.{theirs}")
            for way, their_way in (("down", "Downsample"), ("up", "Upsample"))
            for ours, theirs in _BLOCK
        ),
    ),
    # OpenSTL calls the blocks STBs; the authors' and its own base form have one part, called ST
    inner=(
        (r"\.STBs\.", r".Swin.layers."),
        (r"^ST\.layer\.", r"ST.layers.0."),
        (r"^ST\.(layers|patch_embed)\.", r"Downsample.\1."),
        (r"^ST\.(PatchInflated\.ConvT|patch_inflated\.Conv)\.", r"Upsample.Unembed.Conv."),
    ),
    # a second embedding, what follows from sizes, and what would fuse in blocks that do not
    spec=any_range_where_trained,
    dead=r"Upsample\.patch_embed\..+|.+\.(relative_position_index|attn_mask)|.+\.layers\.\d*[13579]\.red\.\w+",
    readers=(
        Reader("Downsample.layers.0.Swin.layers.0.red.weight", reads_stages("Downsample", "layers", "Swin.layers")),
        Reader("Downsample.layers.0.STBs.0.red.weight", reads_stages("Downsample", "layers", "STBs")),
        Reader("ST.layers.0.Swin.layers.0.red.weight", reads_stages("ST", "layers", "Swin.layers")),
        Reader("ST.layer.STBs.0.red.weight", reads_stages("ST", "layer", "STBs")),
    ),
)
ARCHITECTURE = Architecture(
    name="swinlstm",
    kind="sequential",
    config=SwinLstmConfig,
    module=SwinLstm,
    layouts={"openstl": PUBLISHED, "official": PUBLISHED},
)
