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
from stzoo.models.recurrent import RecurrentConfig, from_patches, gates, grid, to_patches, zero_plane
from stzoo.spec import ModelSpec


@dataclass(frozen=True)
class MimConfig(RecurrentConfig):
    """At least two layers: the first is an ST-LSTM, the others are MIM blocks. Weights for every place fix the size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers < 2:
            raise SpecError(f"spec.params.layers is {self.layers}; it must be at least 2")


class State(NamedTuple):
    """Planes of (B, hidden, H/patch, W/patch).

    h, c: of every layer; m: the memory that zigzags through them; inner: the stationary units' cells, one a block;
    change: hidden state and cell of the non-stationary units, one a block.
    """

    h: tuple[Tensor, ...]
    c: tuple[Tensor, ...]
    m: Tensor
    inner: tuple[Tensor, ...]
    change: tuple[tuple[Tensor, Tensor], ...]
    started: bool


class Unit(nn.Module):
    """An LSTM with peepholes, one weight a channel and place: MIM-N and MIM-S. Gates lie in the order i, g, f, o."""

    def __init__(self, hidden: int, kernel: int, size: tuple[int, int]):
        super().__init__()
        self.x = gates(hidden, 4 * hidden, kernel)
        self.h = gates(hidden, 4 * hidden, kernel)
        self.peep_if = nn.Parameter(torch.zeros(2 * hidden, *size))
        self.peep_o = nn.Parameter(torch.zeros(hidden, *size))

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, g, f, o = (self.x(x) + self.h(h)).chunk(4, 1)
        peep_i, peep_f = self.peep_if.chunk(2, 0)
        c = (f + c * peep_f + 1.0).sigmoid() * c + (i + c * peep_i).sigmoid() * g.tanh()
        return (o + c * self.peep_o).sigmoid() * c.tanh(), c


class Block(nn.Module):
    """MIM block: ST-LSTM whose forgotten memory f c is what the stationary unit makes of c and of the change below."""

    def __init__(self, hidden: int, kernel: int, size: tuple[int, int]):
        super().__init__()
        self.x = gates(hidden, 4 * hidden, kernel)
        self.h = gates(hidden, 3 * hidden, kernel)
        self.m = gates(hidden, 4 * hidden, kernel)
        self.stationary = Unit(hidden, kernel, size)
        self.mix = nn.Conv2d(2 * hidden, hidden, 1, bias=False)

    def forward(
        self, x: Tensor, change: Tensor, h: Tensor, c: Tensor, m: Tensor, inner: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x_i, x_g, x_f, x_o = self.x(x).chunk(4, 1)
        h_i, h_g, h_o = self.h(h).chunk(3, 1)
        m_i, m_g, m_f, m_o = self.m(m).chunk(4, 1)
        m = (x_f + m_f + 1.0).sigmoid() * m + (x_i + m_i).sigmoid() * (x_g + m_g).tanh()
        kept, inner = self.stationary(change, c, inner)
        c = kept + (x_i + h_i).sigmoid() * (x_g + h_g).tanh()
        o = (x_o + h_o + m_o).sigmoid()
        return o * self.mix(torch.cat([c, m], 1)).tanh(), c, m, inner


class Mim(nn.Module):
    """Sequential: one frame (B, C, H, W) in, the forecast of the next one out. H and W as in the spec, no other."""

    stride = None

    def __init__(self, spec: ModelSpec, config: MimConfig):
        super().__init__()
        size = grid(spec, config.patch)
        self.patch, self.hidden = config.patch, config.hidden
        c, above = spec.channels * config.patch**2, config.layers - 1
        self.first = SpatioTemporalCell(c, config.hidden, config.kernel)
        self.blocks = nn.ModuleList(Block(config.hidden, config.kernel, size) for _ in range(above))
        self.changes = nn.ModuleList(Unit(config.hidden, config.kernel, size) for _ in range(above))
        self.readout = nn.Conv2d(config.hidden, c, 1, bias=False)

    def initial_state(self, batch: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype) -> State:
        zeros, above = zero_plane(batch, self.hidden, size, self.patch, device, dtype), len(self.blocks)
        some = (zeros,) * above
        return State((zeros, *some), (zeros, *some), zeros, some, ((zeros, zeros),) * above, False)

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        x, c, m, _ = self.first(to_patches(frame, self.patch), state.h[0], state.c[0], state.m)
        hs, cs, inners, changes = [x], [c], [], []
        change = x - state.h[0]
        for i, block in enumerate(self.blocks):
            unit = state.change[i]
            if state.started:  # the first frame has none before it, so nothing has changed yet
                unit = self.changes[i](change, *unit)
            change = unit[0]
            x, c, m, inner = block(x, change, state.h[i + 1], state.c[i + 1], m, state.inner[i])
            hs.append(x)
            cs.append(c)
            inners.append(inner)
            changes.append(unit)
        state = State(tuple(hs), tuple(cs), m, tuple(inners), tuple(changes), True)
        return from_patches(self.readout(x), self.patch), state


ARCHITECTURE = Architecture(name="mim", kind="sequential", config=MimConfig, module=Mim)
