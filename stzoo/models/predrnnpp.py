"""PredRNN++ (Wang et al., ICML 2018): causal LSTM cells, two memories in cascade, and a gradient highway unit.

The highway carries information through time between the first and the second layer, past the long cascade.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stzoo.errors import SpecError
from stzoo.models.contract import Architecture
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
class PredRnnPpConfig(RecurrentConfig):
    """A `RecurrentConfig` of at least two layers: the highway lies between the first and the second."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers < 2:
            raise SpecError(f"spec.params.layers is {self.layers}; it must be at least 2")


class PredRnnPpState(NamedTuple):
    """Planes of (B, hidden, H/patch, W/patch).

    Attributes:
        h, c: hidden state and cell of every layer.
        m: the memory that all layers share.
        z: the highway's state.
    """

    h: tuple[Tensor, ...]
    c: tuple[Tensor, ...]
    m: Tensor
    z: Tensor


class CausalCell(nn.Module):
    """Causal LSTM: the spatial memory m is updated from the temporal memory c that was just updated.

    c' = f c + i g;  m' = f' tanh(W m) + i' g';  h' = tanh(o) tanh(W_mix [c', m']). The gates i, f, g
    read x, h and c; the gates i', f', g' read x, m and the new c'; o reads x, h, c' and m'. Forget gates have a bias
    of 1. Gates of x lie in the order i, f, g, i', f', g', o, those of the new c in the order i', g', f', o.
    """

    def __init__(self, c_in: int, hidden: int, kernel: int):
        super().__init__()
        self.x = gates(c_in, 7 * hidden, kernel)
        self.h = gates(hidden, 4 * hidden, kernel)
        self.c = gates(hidden, 3 * hidden, kernel)
        self.m = gates(hidden, 3 * hidden, kernel)
        self.c_to_m = gates(hidden, 4 * hidden, kernel)
        self.m_to_o = gates(hidden, hidden, kernel)
        self.mix = nn.Conv2d(2 * hidden, hidden, 1, bias=False)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, c_in, h, w) and h, c, m (B, hidden, h, w) -> the new h, c and m."""
        x_i, x_f, x_g, x_i2, x_f2, x_g2, x_o = self.x(x).chunk(7, 1)
        h_i, h_f, h_g, h_o = self.h(h).chunk(4, 1)
        c_i, c_f, c_g = self.c(c).chunk(3, 1)
        m_i, m_f, m_m = self.m(m).chunk(3, 1)
        c = (x_f + h_f + c_f + 1.0).sigmoid() * c + (x_i + h_i + c_i).sigmoid() * (x_g + h_g + c_g).tanh()
        c_i2, c_g2, c_f2, c_o = self.c_to_m(c).chunk(4, 1)
        kept = (x_f2 + m_f + c_f2 + 1.0).sigmoid() * m_m.tanh()
        m = kept + (x_i2 + m_i + c_i2).sigmoid() * (x_g2 + c_g2).tanh()
        o = (x_o + h_o + c_o + self.m_to_o(m)).tanh()
        return o * self.mix(torch.cat([c, m], 1)).tanh(), c, m


class Highway(nn.Module):
    """Gradient highway unit: z' = s p + (1 - s) z, with p = tanh(W [x, z]) and s = sigmoid(W [x, z])."""

    def __init__(self, hidden: int, kernel: int):
        super().__init__()
        self.x = gates(hidden, 2 * hidden, kernel)
        self.z = gates(hidden, 2 * hidden, kernel)
        for conv in (self.x, self.z):
            if not conv.weight.is_meta:
                nn.init.uniform_(conv.weight, -1e-3, 1e-3)  # as published: the switch starts half open

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x and z, (B, hidden, h, w) each -> the new z."""
        p, switch = (self.x(x) + self.z(z)).chunk(2, 1)
        switch = switch.sigmoid()
        return switch * p.tanh() + (1 - switch) * z


class PredRnnPp(nn.Module):
    """Sequential: one frame (B, C, H, W) in, the forecast of the next one out. H and W must be multiples of `patch`."""

    def __init__(self, spec: ModelSpec, config: PredRnnPpConfig):
        super().__init__()
        grid(spec, config.patch)
        self.stride = self.patch = config.patch
        self.hidden = config.hidden
        c = spec.channels * config.patch**2
        widths = [c] + [config.hidden] * (config.layers - 1)
        self.cells = nn.ModuleList(CausalCell(w, config.hidden, config.kernel) for w in widths)
        self.highway = Highway(config.hidden, config.kernel)
        self.readout = nn.Conv2d(config.hidden, c, 1, bias=False)

    def initial_state(
        self, batch: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype
    ) -> PredRnnPpState:
        """All memories are zero before the first frame of `batch` clips, whose frames have `size` (H, W)."""
        zeros = zero_plane(batch, self.hidden, size, self.patch, device, dtype)
        return PredRnnPpState((zeros,) * len(self.cells), (zeros,) * len(self.cells), zeros, zeros)

    def step(self, frame: Tensor, state: PredRnnPpState) -> tuple[Tensor, PredRnnPpState]:
        """One normalised frame (B, C, H, W) -> the forecast of the next one, of the same shape, and the new state."""
        x, m, z = to_patches(frame, self.patch), state.m, state.z
        hs, cs = [], []
        for i, (cell, h, c) in enumerate(zip(self.cells, state.h, state.c, strict=True)):
            x, c, m = cell(x, h, c, m)
            hs.append(x)
            cs.append(c)
            if i == 0:
                x = z = self.highway(x, z)
        return from_patches(self.readout(x), self.patch), PredRnnPpState(tuple(hs), tuple(cs), m, z)


OPENSTL = Layout(
    rules=rules(
        (r"cells\.(\d+)\.([xhcm])", r"cell_list.\1.conv_\2.0"),
        (r"cells\.(\d+)\.c_to_m", r"cell_list.\1.conv_c2m.0"),
        (r"cells\.(\d+)\.m_to_o", r"cell_list.\1.conv_om.0"),
        (r"cells\.(\d+)\.mix", r"cell_list.\1.conv_last"),
        (r"highway\.([xz])", r"gradient_highway.\1_concat.0"),
    )
    + OPENSTL_READOUT,
    dead=r"cell_list\.\d+\.conv_o\.0\.weight",
    readers=(Reader("gradient_highway.x_concat.0.weight", reads_cells("conv_x.0.weight")),),
)
ARCHITECTURE = Architecture(
    name="predrnnpp",
    kind="sequential",
    config=PredRnnPpConfig,
    module=PredRnnPp,
    colour="last",  # as `to_patches` folds
    layouts={"openstl": OPENSTL},
)
