"""MIM, Memory In Memory (Wang et al., CVPR 2019): the forget gate of ST-LSTM becomes two recurrent units of its own.

A *non-stationary* unit follows how the layer below changed since the last time step; a *stationary* unit inside each
block turns that change and the block's old memory into its new one. Every unit's memory lives in the state, so that one
call leaves nothing behind for the next.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stzoo.errors import SpecError
from stzoo.models.contract import Architecture
from stzoo.models.predrnn import SpatioTemporalCell
from stzoo.models.published import Layout, rules
from stzoo.models.reading import Reader
from stzoo.models.recurrent import (
    OPENSTL_READOUT,
    RecurrentConfig,
    from_patches,
    gates,
    grid,
    reads_cells,
    to_patches,
    zero_plane,
)
from stzoo.spec import ModelSpec


@dataclass(frozen=True)
class MimConfig(RecurrentConfig):
    """A `RecurrentConfig` of at least two layers: the first is an ST-LSTM, the others are MIM blocks.

    Since the peepholes have a weight for every place, the model takes frames of the spec's size only.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers < 2:
            raise SpecError(f"spec.params.layers is {self.layers}; it must be at least 2")


class MimState(NamedTuple):
    """Planes of (B, hidden, H/patch, W/patch).

    Attributes:
        h, c: hidden state and cell of every layer.
        m: the memory that zigzags through the layers.
        inner: the cell of each block's stationary unit.
        change: hidden state and cell of the non-stationary unit below each block.
        started: was a frame read before?
    """

    h: tuple[Tensor, ...]
    c: tuple[Tensor, ...]
    m: Tensor
    inner: tuple[Tensor, ...]
    change: tuple[tuple[Tensor, Tensor], ...]
    started: bool


class MimUnit(nn.Module):
    """MIM-N and MIM-S: an LSTM with peepholes, which have a weight for each channel and place.

    c' = sigmoid(f + c p_f + 1) c + sigmoid(i + c p_i) tanh(g);  h' = sigmoid(o + c' p_o) tanh(c').
    Gates lie in the order i, g, f, o.
    """

    def __init__(self, hidden: int, kernel: int, size: tuple[int, int]):
        super().__init__()
        self.x = gates(hidden, 4 * hidden, kernel)
        self.h = gates(hidden, 4 * hidden, kernel)
        self.peep_if = nn.Parameter(torch.zeros(2 * hidden, *size))
        self.peep_o = nn.Parameter(torch.zeros(hidden, *size))

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """x, hidden state and cell, (B, hidden, h, w) each -> the new hidden state and cell."""
        i, g, f, o = (self.x(x) + self.h(h)).chunk(4, 1)
        peep_i, peep_f = self.peep_if.chunk(2, 0)
        c = (f + c * peep_f + 1.0).sigmoid() * c + (i + c * peep_i).sigmoid() * g.tanh()
        return (o + c * self.peep_o).sigmoid() * c.tanh(), c


class MimBlock(nn.Module):
    """MIM block: an ST-LSTM in which the stationary unit's output takes the place of f c.

    m' = f' m + i' g';  c' = MIM-S(change, c) + i g;  h' = sigmoid(x_o + h_o + m_o) tanh(W_mix [c', m']).
    Gates of x and m lie in the order i, g, f, o, those of h in the order i, g, o.
    """

    def __init__(self, hidden: int, kernel: int, size: tuple[int, int]):
        super().__init__()
        self.x = gates(hidden, 4 * hidden, kernel)
        self.h = gates(hidden, 3 * hidden, kernel)
        self.m = gates(hidden, 4 * hidden, kernel)
        self.stationary = MimUnit(hidden, kernel, size)
        self.mix = nn.Conv2d(2 * hidden, hidden, 1, bias=False)

    def forward(
        self, x: Tensor, change: Tensor, h: Tensor, c: Tensor, m: Tensor, inner: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x, the change below it, h, c, m and the stationary unit's cell -> the new h, c, m and that unit's new cell.

        Each is (B, hidden, h, w).
        """
        x_i, x_g, x_f, x_o = self.x(x).chunk(4, 1)
        h_i, h_g, h_o = self.h(h).chunk(3, 1)
        m_i, m_g, m_f, m_o = self.m(m).chunk(4, 1)
        m = (x_f + m_f + 1.0).sigmoid() * m + (x_i + m_i).sigmoid() * (x_g + m_g).tanh()
        kept, inner = self.stationary(change, c, inner)
        c = kept + (x_i + h_i).sigmoid() * (x_g + h_g).tanh()
        o = (x_o + h_o + m_o).sigmoid()
        return o * self.mix(torch.cat([c, m], 1)).tanh(), c, m, inner


class Mim(nn.Module):
    """Sequential: one frame (B, C, H, W) in, the forecast of the next one out. H and W must be those of the spec."""

    stride = None

    def __init__(self, spec: ModelSpec, config: MimConfig):
        super().__init__()
        size = grid(spec, config.patch)
        self.patch, self.hidden = config.patch, config.hidden
        c, above = spec.channels * config.patch**2, config.layers - 1
        self.first = SpatioTemporalCell(c, config.hidden, config.kernel)
        self.blocks = nn.ModuleList(MimBlock(config.hidden, config.kernel, size) for _ in range(above))
        self.changes = nn.ModuleList(MimUnit(config.hidden, config.kernel, size) for _ in range(above))
        self.readout = nn.Conv2d(config.hidden, c, 1, bias=False)

    def initial_state(self, batch: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype) -> MimState:
        """All memories are zero before the first frame of `batch` clips, whose frames have `size` (H, W)."""
        zeros, above = zero_plane(batch, self.hidden, size, self.patch, device, dtype), len(self.blocks)
        some = (zeros,) * above
        return MimState((zeros, *some), (zeros, *some), zeros, some, ((zeros, zeros),) * above, False)

    def step(self, frame: Tensor, state: MimState) -> tuple[Tensor, MimState]:
        """One normalised frame (B, C, H, W) -> the forecast of the next one, of the same shape, and the new state."""
        x, c, m, _ = self.first(to_patches(frame, self.patch), state.h[0], state.c[0], state.m)
        hs, cs, inners, changes = [x], [c], [], []
        change = x - state.h[0]
        for i, block in enumerate(self.blocks):
            unit = state.change[i]
            if state.started:  # before the first frame there is none, so nothing has changed yet
                unit = self.changes[i](change, *unit)
            change = unit[0]
            x, c, m, inner = block(x, change, state.h[i + 1], state.c[i + 1], m, state.inner[i])
            hs.append(x)
            cs.append(c)
            inners.append(inner)
            changes.append(unit)
        state = MimState(tuple(hs), tuple(cs), m, tuple(inners), tuple(changes), True)
        return from_patches(self.readout(x), self.patch), state


OPENSTL = Layout(
    rules=rules(
        (r"first\.([xhmo])", r"stlstm_layer.0.conv_\1.0"),
        (r"first\.mix", r"stlstm_layer.0.conv_last"),
        (r"blocks\.(\d+)\.x", r"stlstm_layer.<\1+1>.conv_x_cc.0"),
        (r"blocks\.(\d+)\.h", r"stlstm_layer.<\1+1>.conv_t_cc.0"),
        (r"blocks\.(\d+)\.m", r"stlstm_layer.<\1+1>.conv_s_cc.0"),
        (r"blocks\.(\d+)\.mix", r"stlstm_layer.<\1+1>.conv_last"),
        (r"blocks\.(\d+)\.stationary\.([xh])", r"stlstm_layer.<\1+1>.conv_\2_concat.0"),
        (r"blocks\.(\d+)\.stationary\.peep_if", r"stlstm_layer.<\1+1>.ct_weight"),
        (r"blocks\.(\d+)\.stationary\.peep_o", r"stlstm_layer.<\1+1>.oc_weight"),
        (r"changes\.(\d+)\.([xh])", r"stlstm_layer_diff.\1.conv_\2_concat.0"),
        (r"changes\.(\d+)\.peep_if", r"stlstm_layer_diff.\1.ct_weight"),
        (r"changes\.(\d+)\.peep_o", r"stlstm_layer_diff.\1.oc_weight"),
    )
    + OPENSTL_READOUT,
    dead=r"stlstm_layer_diff\.\d+\.conv_last\.weight",
    readers=(
        Reader(
            "stlstm_layer.0.conv_x.0.weight",
            reads_cells("conv_x.0.weight", "stlstm_layer", "stlstm_layer.1.ct_weight"),
        ),
    ),
)
ARCHITECTURE = Architecture(
    name="mim",
    kind="sequential",
    config=MimConfig,
    module=Mim,
    colour="last",  # as `to_patches` folds
    layouts={"openstl": OPENSTL},
)
