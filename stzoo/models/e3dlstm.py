"""E3D-LSTM (Wang et al., ICLR 2019): 3-D convolutions over the last two frames, and recall of earlier memories.

The paper's window of two frames and kernels two frames deep are fixed here. A 3-D convolution as deep as its input is a
2-D one over the channels of both frames. Its result is one frame deep and holds for both frames, by broadcasting.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo.models.contract import Architecture
from stzoo.models.published import Layout, rules
from stzoo.models.reading import Reader, Shape
from stzoo.models.recurrent import RecurrentConfig, from_patches, grid, reads_cells, to_patches
from stzoo.spec import ModelSpec, bounded

WINDOW = 2  # frames that a convolution sees


@dataclass(frozen=True)
class E3dLstmConfig(RecurrentConfig):
    """A `RecurrentConfig`; `history` earlier memories are recalled, among them the zero one at the start.

    A history of 19 covers 10 + 10 frames.

    `variant` "paper" hands the new global memory on and attends from place to place. Public code hands on the *old*
    global memory, which therefore remains zero, and cuts memories into rows of `hidden` numbers without moving the
    channels to the end first; "public" reproduces both, for weights that were trained so. The equations of the gates
    are those of the public code in both variants.

    With a `stride` of s, gates are computed at every s-th row and column, and each value holds for s x s places (the
    paper: 1; OpenSTL's checkpoint for KTH: 2).
    """

    history: int = bounded(20, 1, 4096)
    variant: Literal["paper", "public"] = "paper"
    stride: int = bounded(1, 1, 8)


class E3dLstmState(NamedTuple):
    """Volumes of (B, hidden, 2, H/patch, W/patch).

    h: of every layer; m: the global memory; past: every layer's last cells, oldest first, (B, hidden, n, 2, H/patch,
    W/patch) with n at most `history`; frame: the last patched frame (B, C * patch * patch, H/patch, W/patch).
    """

    h: tuple[Tensor, ...]
    m: Tensor
    past: tuple[Tensor, ...]
    frame: Tensor


def volume_gates(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """For `over_window`: a 3-D convolution with kernels of 2 x kernel x kernel, without padding in time or biases."""
    return nn.Conv2d(c_in * WINDOW, c_out, kernel, stride=stride, padding=kernel // 2, bias=False)


def over_window(gates: nn.Module, x: Tensor) -> Tensor:
    """(B, c_in, 2, h, w) -> (B, c_out, 1, h, w).

    With a stride, what `gates` gives is copied to the nearest places until it has the height and width of x again.
    """
    made = gates(x.flatten(1, 2))
    if made.shape[-2:] != x.shape[-2:]:
        made = F.interpolate(made, x.shape[-2:], mode="nearest")
    return made.unsqueeze(2)


class EideticCell(nn.Module):
    """Eidetic 3D LSTM.

    c = LayerNorm(c + RECALL(r, past c)) + i g;  m = f' tanh(W m) + i' g';
    h = sigmoid(tanh(x_o + h_o + W c + W m)) tanh(W_mix [c, m]): the published output gate, squashed twice.
    Gates of x lie in the order i, g, r, o, i', g', f'; those of m in the order i', f', g', m.
    """

    def __init__(self, c_in: int, size: tuple[int, int], config: E3dLstmConfig):
        super().__init__()
        hidden, shape = config.hidden, (config.kernel, config.stride)
        self.variant = config.variant
        self.x = volume_gates(c_in, 7 * hidden, *shape)
        self.h = volume_gates(hidden, 4 * hidden, *shape)
        self.m = volume_gates(hidden, 4 * hidden, *shape)
        self.c_to_o = volume_gates(hidden, hidden, *shape)
        self.m_to_o = volume_gates(hidden, hidden, *shape)
        self.norm = nn.LayerNorm([hidden, WINDOW, *size])
        self.mix = nn.Conv2d(2 * hidden, hidden, 1, bias=False)

    def recall(self, query: Tensor, past: Tensor) -> Tensor:
        """RECALL: softmax attention without scaling, in which the past is both keys and values.

        query (B, hidden, 1, h, w) is the same for both frames; past (B, hidden, n, 2, h, w). Returns (B, hidden, 1, h,
        w), which holds for both frames as well, or in the public variant (B, hidden, 2, h, w).
        """
        b, hidden = query.shape[:2]
        if self.variant == "paper":
            q, kv = query.flatten(2).transpose(1, 2), past.flatten(2).transpose(1, 2)
            return attend(q, kv).transpose(1, 2).reshape(query.shape)
        both = query.expand_as(past[:, :, -1])  # a row of `hidden` numbers may begin in one frame and end in the other
        q, kv = both.reshape(b, -1, hidden), past.transpose(1, 2).reshape(b, -1, hidden)
        return attend(q, kv).reshape(both.shape)

    def forward(self, x: Tensor, h: Tensor, past: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One time step of one layer.

        Args:
            x: (B, c_in, 2, h, w). h, m: (B, hidden, 2, h, w). past: (B, hidden, n, 2, h, w), the last cell at its end.

        Returns:
            The new hidden state, the new cell and the global memory to hand on, (B, hidden, 2, h, w) each.
        """
        x_i, x_g, x_r, x_o, x_i2, x_g2, x_f2 = over_window(self.x, x).chunk(7, 1)
        h_i, h_g, h_r, h_o = over_window(self.h, h).chunk(4, 1)
        m_i, m_f, m_g, m_m = over_window(self.m, m).chunk(4, 1)
        c = past[:, :, -1]
        c = self.norm(c + self.recall((x_r + h_r).sigmoid(), past)) + (x_i + h_i).sigmoid() * (x_g + h_g).tanh()
        new = (x_f2 + m_f + 1.0).sigmoid() * m_m.tanh() + (x_i2 + m_i).sigmoid() * (x_g2 + m_g).tanh()
        new = new.expand_as(c)
        o = (x_o + h_o + over_window(self.c_to_o, c) + over_window(self.m_to_o, new)).tanh().sigmoid()
        mixed = self.mix(torch.cat([c, new], 1).flatten(2, 3)).view_as(c)  # 1x1: frames may lie below one another
        return o * mixed.tanh(), c, new if self.variant == "paper" else m


def attend(query: Tensor, memory: Tensor) -> Tensor:
    """(B, N, C) and (B, M, C) -> (B, N, C): softmax(query memory^T) memory."""
    # in this layout torch never holds the whole matrix of N x M
    q, kv = query[:, None].contiguous(), memory[:, None].contiguous()
    return F.scaled_dot_product_attention(q, kv, kv, scale=1.0).squeeze(1)


class E3dLstm(nn.Module):
    """Sequential: one frame (B, C, H, W) in, the forecast of the next one out. H and W must be those of the spec."""

    stride = None

    def __init__(self, spec: ModelSpec, config: E3dLstmConfig):
        super().__init__()
        size = grid(spec, config.patch)
        self.patch, self.hidden, self.history = config.patch, config.hidden, config.history
        self.frame_channels = spec.channels * config.patch**2
        widths = [self.frame_channels] + [config.hidden] * (config.layers - 1)
        self.cells = nn.ModuleList(EideticCell(w, size, config) for w in widths)
        self.readout = volume_gates(config.hidden, self.frame_channels, 1)

    def initial_state(
        self, batch: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype
    ) -> E3dLstmState:
        """All memories are zero before the first frame of `batch` clips, whose frames have `size` (H, W)."""
        h, w = size[0] // self.patch, size[1] // self.patch
        zeros = torch.zeros(batch, self.hidden, WINDOW, h, w, device=device, dtype=dtype)
        frame = torch.zeros(batch, self.frame_channels, h, w, device=device, dtype=dtype)
        layers = len(self.cells)
        return E3dLstmState((zeros,) * layers, zeros, (zeros[:, :, None],) * layers, frame)

    def step(self, frame: Tensor, state: E3dLstmState) -> tuple[Tensor, E3dLstmState]:
        """One normalised frame (B, C, H, W) -> the forecast of the next one, of the same shape, and the new state."""
        frame = to_patches(frame, self.patch)
        x, m = torch.stack([state.frame, frame], 2), state.m
        hs, pasts = [], []
        for cell, h, past in zip(self.cells, state.h, state.past, strict=True):
            x, c, m = cell(x, h, past, m)
            hs.append(x)
            pasts.append(torch.cat([past, c[:, :, None]], 2)[:, :, -self.history :])
        forecast = from_patches(over_window(self.readout, x).squeeze(2), self.patch)
        return forecast, E3dLstmState(tuple(hs), m, tuple(pasts), frame)


def as_published(spec: ModelSpec, config: E3dLstmConfig) -> ModelSpec:
    """Published weights were trained as `variant` "public", with a history that covers one forecast."""
    return spec.replace(variant="public", history=max(config.history, spec.frames_in + spec.frames_out - 1))


def in_3d(shape: Shape) -> Shape:
    """A 2-D kernel over the channels of both frames was published as a 3-D one: (O, 2 I, K, K) -> (O, I, 2, K, K)."""
    return (shape[0], shape[1] // WINDOW, WINDOW, *shape[2:])


def deepened(shape: Shape) -> Shape:
    """A 1x1 kernel was published as a 1x1x1 one."""
    return (*shape, 1)


OPENSTL = Layout(
    rules=rules(
        (r"cells\.(\d+)\.([xh])", r"cell_list.\1.conv_\2.0.conv3d"),
        (r"cells\.(\d+)\.m", r"cell_list.\1.conv_gm.0.conv3d"),
        (r"cells\.(\d+)\.c_to_o", r"cell_list.\1.conv_new_cell.0.conv3d"),
        (r"cells\.(\d+)\.m_to_o", r"cell_list.\1.conv_new_gm.0.conv3d"),
        (r"readout", r"conv_last"),
        shape=in_3d,
    )
    + rules((r"cells\.(\d+)\.mix", r"cell_list.\1.conv_last.conv3d"), shape=deepened)
    + rules((r"cells\.(\d+)\.norm", r"cell_list.\1._norm_c_t")),
    spec=as_published,
    readers=(
        Reader(
            "cell_list.0.conv_gm.0.conv3d.weight",
            reads_cells("conv_x.0.conv3d.weight", place="cell_list.0._norm_c_t.weight", untold=("stride",)),
        ),
    ),
)
ARCHITECTURE = Architecture(
    name="e3dlstm",
    kind="sequential",
    config=E3dLstmConfig,
    module=E3dLstm,
    layouts={"openstl": OPENSTL},
)
