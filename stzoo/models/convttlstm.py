"""Conv-TT-LSTM (Su et al., NeurIPS 2020): a ConvLSTM whose gates read several past hidden states at once.

Kernels over all of these states would be large. A convolutional tensor train takes their place: each state becomes a
few features, and one small convolution after the other carries the features of older states on to those of newer ones.
"""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stzoo.errors import SpecError
from stzoo.models.contract import Architecture
from stzoo.models.published import Layout, rules
from stzoo.models.reading import Frame, Reader, Shape, Shapes, Told, depth, same_channels
from stzoo.models.recurrent import check_unit_range, from_patches, grid, to_patches
from stzoo.spec import ModelSpec, bounded

MAX_BLOCKS = 32


@dataclass(frozen=True)
class ConvTtLstmConfig:
    """Blocks of `layers` cells each, on patches of `patch` x `patch` pixels.

    `hidden` has the channels of every block's cells. What block i gives out goes on together with what block i - `skip`
    gave; with a `skip` of as many blocks as there are, or more, nothing is handed past a block. The gates read the last
    `steps` hidden states through a tensor train of `order` parts, whose features have `ranks` channels; each part sees
    `steps` - `order` + 1 states in a row. Kernels are `kernel` x `kernel`. `sigmoid` squeezes the output into (0, 1):
    an option of the authors' code, which their published weights do without.
    """

    hidden: tuple[int, ...] = bounded((32, 48, 48, 32), 1, 4096)
    layers: int = bounded(3, 1, 32)
    skip: int = bounded(2, 1, MAX_BLOCKS)
    order: int = bounded(3, 1, 16)
    steps: int = bounded(3, 1, 64)
    ranks: int = bounded(8, 1, 1024)
    kernel: int = bounded(5, 1, 31)
    patch: int = bounded(1, 1, 64)
    sigmoid: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.hidden) <= MAX_BLOCKS:
            raise SpecError(f"spec.params.hidden has {len(self.hidden)} values; it must have 1 to {MAX_BLOCKS}")
        if self.steps < self.order:
            raise SpecError(f"spec.params.steps is {self.steps}; it must be at least spec.params.order, {self.order}")
        if self.kernel % 2 == 0:
            raise SpecError(f"spec.params.kernel is {self.kernel}; it must be odd")


class ConvTtLstmState(NamedTuple):
    """What every cell remembers, in the order in which they run.

    Attributes:
        hidden: the last `steps` hidden states, the oldest first: (B, steps, hidden, h, w) each.
        cell: (B, hidden, h, w) each.
    """

    hidden: tuple[Tensor, ...]
    cell: tuple[Tensor, ...]


class ConvTtLstmCell(nn.Module):
    """The tensor train, then an LSTM cell that reads its last features in the place of a hidden state.

    With h_1, ..., h_steps the hidden states, the oldest first, and every W a convolution with a bias:
    v_1 = W_1 [h_1 .. h_lags];  v_l = W_l [h_l .. h_(l + lags - 1)] + U_(l-1) v_(l-1)  for l up to `order`;
    i, f, o = sigmoid(W [x, v]) and g = tanh(W [x, v]);  c' = f c + i g;  h' = o tanh(c').
    `read` holds the W_l, `carry` the U_l and, last, W. Gates lie in the order i, f, o, g.
    """

    def __init__(self, c_in: int, hidden: int, config: ConvTtLstmConfig):
        super().__init__()
        self.lags = config.steps - config.order + 1

        def conv(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, config.kernel, padding=config.kernel // 2)

        self.read = nn.ModuleList(conv(self.lags * hidden, config.ranks) for _ in range(config.order))
        between = [conv(config.ranks, config.ranks) for _ in range(config.order - 1)]
        self.carry = nn.ModuleList([*between, conv(config.ranks + c_in, 4 * hidden)])

    def forward(self, x: Tensor, past: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, c_in, h, w), hidden states (B, steps, hidden, h, w), cell (B, hidden, h, w) -> the new h and c."""
        features = [read(past[:, i : i + self.lags].flatten(1, 2)) for i, read in enumerate(self.read)]
        *between, gates = self.carry
        v = features[0]
        for carry, more in zip(between, features[1:], strict=True):
            v = more + carry(v)
        i, f, o, g = gates(torch.cat([x, v.to(x.dtype)], 1)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class ConvTtLstm(nn.Module):
    """Sequential: one frame (B, C, H, W) in, the forecast of the next one out. H and W must be multiples of `patch`."""

    def __init__(self, spec: ModelSpec, config: ConvTtLstmConfig):
        super().__init__()
        grid(spec, config.patch)
        if config.sigmoid:
            check_unit_range(spec)
        self.stride = self.patch = config.patch
        self.skip, self.steps, self.sigmoid = config.skip, config.steps, config.sigmoid
        self.widths = [width for width in config.hidden for _ in range(config.layers)]
        c = width = spec.channels * config.patch**2
        self.blocks = nn.ModuleList()
        for number, hidden in enumerate(config.hidden):
            inputs = [width] + [hidden] * (config.layers - 1)
            self.blocks.append(nn.ModuleList(ConvTtLstmCell(n, hidden, config) for n in inputs))
            width = hidden + (config.hidden[number - config.skip] if number >= config.skip else 0)
        self.readout = nn.Conv2d(width, c, 1)

    def initial_state(
        self, batch: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype
    ) -> ConvTtLstmState:
        """All states are zero before the first frame of `batch` clips, whose frames have `size` (H, W)."""
        h, w = size[0] // self.patch, size[1] // self.patch
        zeros = [torch.zeros(batch, self.steps, n, h, w, device=device, dtype=dtype) for n in self.widths]
        return ConvTtLstmState(tuple(zeros), tuple(z[:, 0] for z in zeros))

    def step(self, frame: Tensor, state: ConvTtLstmState) -> tuple[Tensor, ConvTtLstmState]:
        """One normalised frame (B, C, H, W) -> the forecast of the next one, of the same shape, and the new state."""
        x, given = to_patches(frame, self.patch), []
        hidden, cell = [], []
        before = zip(state.hidden, state.cell, strict=True)
        for number, block in enumerate(self.blocks):
            layers: Any = block  # the type checker does not know what an nn.ModuleList holds
            for layer in layers:
                past, c = next(before)
                x, c = layer(x, past, c)
                hidden.append(torch.cat([past[:, 1:], x[:, None].to(past.dtype)], 1))
                cell.append(c)
            given.append(x)
            if number >= self.skip:
                x = torch.cat([x, given[number - self.skip]], 1)
        made = from_patches(self.readout(x), self.patch)
        return made.sigmoid() if self.sigmoid else made, ConvTtLstmState(tuple(hidden), tuple(cell))


def over_time(shape: Shape) -> Shape:
    """A kernel that reads one hidden state was published as a 3-D one, whose last axis is time."""
    return (*shape, 1) if len(shape) == 4 else shape  # biases have no axes of places or time


_READS = "layers.b0l0.layers_"  # of the first cell


def told(shapes: Shapes, known: Frame) -> Told:
    """How many blocks are skipped is told by what reads more channels than the block before it has."""
    first, order = shapes[f"{_READS}.0.weight"], depth(shapes, _READS)
    gates = f"layers.{order - 1}.weight"
    widths = [shapes[f"layers.b0l0.{gates}"][0] // 4]
    while f"layers.b{len(widths)}l0.{gates}" in shapes:
        widths.append(shapes[f"layers.b{len(widths)}l0.{gates}"][0] // 4)
    if first[4] != 1:
        raise SpecError(f"its cells read {first[4]} hidden states with one kernel; stzoo reads published ones of one")
    ranks, blocks = first[0], range(1, len(widths))
    inputs = [*(shapes[f"layers.b{b}l0.{gates}"][1] - ranks for b in blocks), shapes["layers.output.weight"][1]]
    skips = [b for b, (width, reads) in enumerate(zip(widths, inputs, strict=True)) if reads > width]
    params = {
        "hidden": tuple(widths),
        "layers": sum(re.fullmatch(r"layers\.b0l\d+\.layers_\.0\.weight", name) is not None for name in shapes),
        "skip": skips[0] if skips else max(1, len(widths)),
        "order": order,
        "steps": order,
        "ranks": ranks,
        "kernel": first[2],
        "patch": 1,
    }
    channels = same_channels(shapes[f"layers.b0l0.{gates}"][1] - ranks, known.channels)
    return Told(params=params, frame=Frame(channels=channels), untold=("sigmoid",))


OFFICIAL = Layout(
    rules=rules(
        (r"blocks\.(\d+)\.(\d+)\.carry\.(\d+)", r"layers.b\1l\2.layers.\3"),
        (r"readout", r"layers.output"),
    )
    + rules((r"blocks\.(\d+)\.(\d+)\.read\.(\d+)", r"layers.b\1l\2.layers_.\3"), shape=over_time),
    readers=(Reader(f"{_READS}.0.weight", told),),
)
ARCHITECTURE = Architecture(
    name="convttlstm",
    kind="sequential",
    config=ConvTtLstmConfig,
    module=ConvTtLstm,
    layouts={"official": OFFICIAL},
)
