"""ConvLSTM (Shi et al., NIPS 2015), without peepholes: a stack of LSTM cells whose products are convolutions."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from stzoo.models.contract import Architecture
from stzoo.models.recurrent import RecurrentConfig, from_patches, gates, grid, to_patches, zero_plane
from stzoo.spec import ModelSpec


class State(NamedTuple):
    """Hidden state and cell of every layer, each (B, hidden, H/patch, W/patch)."""

    h: tuple[Tensor, ...]
    c: tuple[Tensor, ...]


class Cell(nn.Module):
    """i, f, o = sigmoid; g = tanh; c = f c + i g; h = o tanh(c). Gates lie in the order i, f, g, o."""

    def __init__(self, c_in: int, hidden: int, kernel: int):
        super().__init__()
        self.x = gates(c_in, 4 * hidden, kernel)
        self.h = gates(hidden, 4 * hidden, kernel)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = (self.x(x) + self.h(h)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class ConvLstm(nn.Module):
    """Sequential: one frame (B, C, H, W) in, the forecast of the next one out. H and W multiples of `patch`."""

    def __init__(self, spec: ModelSpec, config: RecurrentConfig):
        super().__init__()
        grid(spec, config.patch)
        self.stride = self.patch = config.patch
        self.hidden = config.hidden
        c = spec.channels * config.patch**2
        widths = [c] + [config.hidden] * (config.layers - 1)
        self.cells = nn.ModuleList(Cell(w, config.hidden, config.kernel) for w in widths)
        self.readout = nn.Conv2d(config.hidden, c, 1, bias=False)

    def initial_state(self, batch: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype) -> State:
        zeros = zero_plane(batch, self.hidden, size, self.patch, device, dtype)
        return State((zeros,) * len(self.cells), (zeros,) * len(self.cells))

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        x = to_patches(frame, self.patch)
        hs, cs = [], []
        for cell, h, c in zip(self.cells, state.h, state.c, strict=True):
            x, c = cell(x, h, c)
            hs.append(x)
            cs.append(c)
        return from_patches(self.readout(x), self.patch), State(tuple(hs), tuple(cs))


ARCHITECTURE = Architecture(name="convlstm", kind="sequential", config=RecurrentConfig, module=ConvLstm)
