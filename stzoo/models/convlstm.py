"""ConvLSTM (Shi et al., NIPS 2015), without peepholes: a stack of LSTM cells whose products are convolutions."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from stzoo.models.contract import Architecture
from stzoo.models.published import Layout, rules
from stzoo.models.reading import Reader, lacks
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


class ConvLstmState(NamedTuple):
    """Hidden state and cell of every layer, each (B, hidden, H/patch, W/patch)."""

    h: tuple[Tensor, ...]
    c: tuple[Tensor, ...]


class ConvLstmCell(nn.Module):
    """Equation 3, without the terms that let gates see the cell: c' = f c + i g; h' = o tanh(c').

    i, f, o = sigmoid(W_x x + W_h h) and g = tanh(W_x x + W_h h). Gates lie in the order i, f, g, o.
    """

    def __init__(self, c_in: int, hidden: int, kernel: int):
        super().__init__()
        self.x = gates(c_in, 4 * hidden, kernel)
        self.h = gates(hidden, 4 * hidden, kernel)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, c_in, h, w), hidden state and cell (B, hidden, h, w) -> the new hidden state and cell."""
        i, f, g, o = (self.x(x) + self.h(h)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class ConvLstm(nn.Module):
    """Sequential: one frame (B, C, H, W) in, the forecast of the next one out. H and W must be multiples of `patch`."""

    def __init__(self, spec: ModelSpec, config: RecurrentConfig):
        super().__init__()
        grid(spec, config.patch)
        self.stride = self.patch = config.patch
        self.hidden = config.hidden
        c = spec.channels * config.patch**2
        widths = [c] + [config.hidden] * (config.layers - 1)
        self.cells = nn.ModuleList(ConvLstmCell(w, config.hidden, config.kernel) for w in widths)
        self.readout = nn.Conv2d(config.hidden, c, 1, bias=False)

    def initial_state(
        self, batch: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype
    ) -> ConvLstmState:
        """All memories are zero before the first frame of `batch` clips, whose frames have `size` (H, W)."""
        zeros = zero_plane(batch, self.hidden, size, self.patch, device, dtype)
        return ConvLstmState((zeros,) * len(self.cells), (zeros,) * len(self.cells))

    def step(self, frame: Tensor, state: ConvLstmState) -> tuple[Tensor, ConvLstmState]:
        """One normalised frame (B, C, H, W) -> the forecast of the next one, of the same shape, and the new state."""
        x = to_patches(frame, self.patch)
        hs, cs = [], []
        for cell, h, c in zip(self.cells, state.h, state.c, strict=True):
            x, c = cell(x, h, c)
            hs.append(x)
            cs.append(c)
        return from_patches(self.readout(x), self.patch), ConvLstmState(tuple(hs), tuple(cs))


OPENSTL = Layout(
    rules=rules((r"cells\.(\d+)\.([xh])", r"cell_list.\1.conv_\2.0")) + OPENSTL_READOUT,
    dead=r"cell_list\.\d+\.(conv_o\.0|conv_last)\.weight",
    readers=(
        Reader(
            "cell_list.0.conv_x.0.weight",
            reads_cells("conv_x.0.weight"),
            also=lacks("cell_list.0.conv_m.0.weight", "gradient_highway.x_concat.0.weight"),
        ),
    ),
)
ARCHITECTURE = Architecture(
    name="convlstm",
    kind="sequential",
    config=RecurrentConfig,
    module=ConvLstm,
    colour="last",  # as `to_patches` folds
    layouts={"openstl": OPENSTL},
)
