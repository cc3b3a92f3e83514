"""PredRNN (Wang et al., NIPS 2017): spatiotemporal LSTM cells that share one memory, which zigzags through the stack.

The memory M leaves the top layer at one time step and enters the bottom layer at the next. The second version (TPAMI
2022) trains with a loss that keeps the increments of M and of each layer's own cell C apart; forecasts do not need it.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stzoo.models.contract import Architecture, Decoupling
from stzoo.models.published import Layout, rules
from stzoo.models.reading import Frame, Reader, Shapes, Told, lacks
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
class PredRnnConfig(RecurrentConfig):
    """A `RecurrentConfig` with two more settings.

    `layer_norm` puts a LayerNorm over (channels, height, width) behind every gate convolution, with a weight for each
    place; the model then takes frames of the spec's size only. `decouple` adds the adapter, a 1x1 convolution through
    which the decoupling loss of the second version sees the increments.
    """

    layer_norm: bool = False
    decouple: bool = False


class PredRnnState(NamedTuple):
    """Planes of (B, hidden, H/patch, W/patch).

    Attributes:
        h, c: hidden state and cell of every layer.
        m: the memory that all layers share.
        increments: i * g and i' * g' of every layer at the last step; empty without `decouple`.
    """

    h: tuple[Tensor, ...]
    c: tuple[Tensor, ...]
    m: Tensor
    increments: tuple[tuple[Tensor, Tensor], ...]


class SpatioTemporalCell(nn.Module):
    """ST-LSTM. Forget gates have a bias of 1.

    c' = f c + i g;  m' = f' m + i' g';  o = sigmoid(x_o + h_o + W_o [c', m']);  h' = o tanh(W_mix [c', m']).
    Gates of x lie in the order i, f, g, i', f', g', o, those of h in the order i, f, g, o, those of m as i', f', g'.
    With `norm`, the (h, w) of a plane, a LayerNorm follows each gate convolution.
    """

    def __init__(self, c_in: int, hidden: int, kernel: int, norm: tuple[int, int] | None = None):
        super().__init__()

        def normed(c_in: int, c_out: int) -> nn.Module:
            conv = gates(c_in, c_out, kernel)
            return conv if norm is None else nn.Sequential(conv, nn.LayerNorm([c_out, *norm]))

        self.x = normed(c_in, 7 * hidden)
        self.h = normed(hidden, 4 * hidden)
        self.m = normed(hidden, 3 * hidden)
        self.o = normed(2 * hidden, hidden)
        self.mix = nn.Conv2d(2 * hidden, hidden, 1, bias=False)

    def forward(
        self, x: Tensor, h: Tensor, c: Tensor, m: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """x (B, c_in, h, w) and h, c, m (B, hidden, h, w) -> the new h, c, m, and the increments i * g and i' * g'."""
        x_i, x_f, x_g, x_i2, x_f2, x_g2, x_o = self.x(x).chunk(7, 1)
        h_i, h_f, h_g, h_o = self.h(h).chunk(4, 1)
        m_i, m_f, m_g = self.m(m).chunk(3, 1)
        to_c = (x_i + h_i).sigmoid() * (x_g + h_g).tanh()
        to_m = (x_i2 + m_i).sigmoid() * (x_g2 + m_g).tanh()
        c = (x_f + h_f + 1.0).sigmoid() * c + to_c
        m = (x_f2 + m_f + 1.0).sigmoid() * m + to_m
        memory = torch.cat([c, m], 1)
        h = (x_o + h_o + self.o(memory)).sigmoid() * self.mix(memory).tanh()
        return h, c, m, (to_c, to_m)


class PredRnn(nn.Module):
    """Sequential: one frame (B, C, H, W) in, the forecast of the next one out. H and W must be multiples of `patch`."""

    def __init__(self, spec: ModelSpec, config: PredRnnConfig):
        super().__init__()
        size = grid(spec, config.patch)
        self.patch, self.hidden = config.patch, config.hidden
        self.stride = None if config.layer_norm else config.patch
        c = spec.channels * config.patch**2
        widths = [c] + [config.hidden] * (config.layers - 1)
        norm = size if config.layer_norm else None
        self.cells = nn.ModuleList(SpatioTemporalCell(w, config.hidden, config.kernel, norm) for w in widths)
        self.readout = nn.Conv2d(config.hidden, c, 1, bias=False)
        self.adapter = nn.Conv2d(config.hidden, config.hidden, 1, bias=False) if config.decouple else None

    def initial_state(
        self, batch: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype
    ) -> PredRnnState:
        """All memories are zero before the first frame of `batch` clips, whose frames have `size` (H, W)."""
        zeros = zero_plane(batch, self.hidden, size, self.patch, device, dtype)
        layers = len(self.cells)
        return PredRnnState(
            (zeros,) * layers, (zeros,) * layers, zeros, ((zeros, zeros),) * layers if self.adapter else ()
        )

    def step(self, frame: Tensor, state: PredRnnState) -> tuple[Tensor, PredRnnState]:
        """One normalised frame (B, C, H, W) -> the forecast of the next one, of the same shape, and the new state."""
        x, m = to_patches(frame, self.patch), state.m
        hs, cs, increments = [], [], []
        for cell, h, c in zip(self.cells, state.h, state.c, strict=True):
            x, c, m, increment = cell(x, h, c, m)
            hs.append(x)
            cs.append(c)
            if self.adapter is not None:
                increments.append(increment)
        return from_patches(self.readout(x), self.patch), PredRnnState(tuple(hs), tuple(cs), m, tuple(increments))

    def adapted_increments(self, state: PredRnnState) -> list[tuple[Tensor, Tensor]]:
        """Each layer's increments of the last step, seen through the adapter; needs `decouple`.

        These are W (i * g) and W (i' * g') of equation 6 of the second paper, (B, hidden, H/patch, W/patch) each.
        """
        assert self.adapter is not None
        return [(self.adapter(to_c), self.adapter(to_m)) for to_c, to_m in state.increments]


def told(shapes: Shapes, known: Frame) -> Told:
    """For `Reader.read`."""
    norm = "cell_list.0.conv_x.1.weight"
    plain = reads_cells("conv_x.0.weight", place=norm)(shapes, known)
    more = {"layer_norm": norm in shapes, "decouple": "adapter.weight" in shapes}
    return replace(plain, params=dict(plain.params) | more)


OPENSTL = Layout(
    rules=rules(
        (r"cells\.(\d+)\.([xhmo])\.([01])", r"cell_list.\1.conv_\2.\3"),  # with its LayerNorm
        (r"cells\.(\d+)\.([xhmo])", r"cell_list.\1.conv_\2.0"),
        (r"cells\.(\d+)\.mix", r"cell_list.\1.conv_last"),
        (r"adapter", r"adapter"),
    )
    + OPENSTL_READOUT,
    dead=r"adapter\.weight",  # a forecast does not need it
    readers=(Reader("cell_list.0.conv_m.0.weight", told, also=lacks("gradient_highway.x_concat.0.weight")),),
)
ARCHITECTURE = Architecture(
    name="predrnn",
    kind="sequential",
    config=PredRnnConfig,
    module=PredRnn,
    colour="last",  # as `to_patches` folds
    layouts={"openstl": OPENSTL},
    decoupling=Decoupling(setting="decouple", pairs=PredRnn.adapted_increments),
)
