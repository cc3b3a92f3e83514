"""MAU, the motion-aware unit (Chang et al., NeurIPS 2021): a cell that attends to what its last `tau` steps held.

Each cell has a spatial state, which is its input, and a temporal state. The spatial states of the last steps, compared
with the present one, say how much each of the temporal states beside them counts; their weighted sum is the trend of
the motion. Then motion and appearance are fused, each through a gate of its own. A frame is encoded to a smaller grid
before the first cell, and painted from the last one.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo.errors import SpecError
from stzoo.models.contract import Architecture
from stzoo.models.published import Layout, rules
from stzoo.models.reading import Frame, Reader, Shapes, Told, depth, hint_of, patches, plane
from stzoo.models.recurrent import RecurrentConfig, from_patches, grid, to_patches
from stzoo.spec import ModelSpec, bounded

SLOPE = 0.2  # of every leaky ReLU


@dataclass(frozen=True)
class MauConfig(RecurrentConfig):
    """A `RecurrentConfig` with four more settings.

    The encoder brings patches of `patch` x `patch` pixels to 1/`shrink` of their height and width; `shrink` is a power
    of two, called sr_size in public code. Each cell attends to its last `tau` steps. `recall` adds the encoder's
    features to the decoder's, at each resolution (the paper's information recalling scheme). `residual` adds to what a
    cell hands up what it read from below, as public code does where its `cell_mode` says so.

    Since LayerNorms have a weight for every place, the model takes frames of the spec's size only.
    """

    hidden: int = bounded(64, 1, 4096)
    patch: int = bounded(1, 1, 64)
    shrink: int = bounded(4, 1, 64)
    tau: int = bounded(5, 1, 1024)
    recall: bool = False
    residual: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shrink & (self.shrink - 1):
            raise SpecError(f"spec.params.shrink is {self.shrink}; it must be a power of two")


class MauState(NamedTuple):
    """The last `tau` states of every layer, the oldest first: (B, tau, hidden, h, w) each.

    Attributes:
        temporal: what the layers handed on in time.
        spatial: what the layers read from below.
    """

    temporal: tuple[Tensor, ...]
    spatial: tuple[Tensor, ...]


class MotionAwareCell(nn.Module):
    """MAU: attention over the last steps, then the fusion of motion and appearance.

    With s the spatial state, t_j and s_j the states of the last tau steps, t the last of the t_j, and every W a
    convolution with a LayerNorm over (channels, height, width) behind it:
    a_j = softmax_j(<s_j, W_q s> / sqrt(hidden h w));  u = sigmoid(W_u t);  m = u t + (1 - u) sum_j a_j t_j;
    t' = g_t W_tt m + (1 - g_t) W_st s  with  g_t = sigmoid(W_tg m);
    s' = g_s W_ss s + (1 - g_s) W_ts m  with  g_s = sigmoid(W_sg s);  if `residual`, s is added to it.
    `temporal` holds W_tg, W_tt and W_ts, `spatial` W_sg, W_st and W_ss, in this order.
    """

    def __init__(self, hidden: int, kernel: int, size: tuple[int, int], residual: bool):
        super().__init__()
        self.residual = residual

        def normed(gates: int) -> nn.Sequential:
            conv = nn.Conv2d(hidden, gates * hidden, kernel, padding=kernel // 2)
            return nn.Sequential(conv, nn.LayerNorm([gates * hidden, *size]))

        self.temporal, self.keep = normed(3), normed(1)
        self.spatial, self.query = normed(3), normed(1)
        self.temperature = math.sqrt(hidden * size[0] * size[1])

    def forward(self, s: Tensor, past_t: Tensor, past_s: Tensor) -> tuple[Tensor, Tensor]:
        """s (B, hidden, h, w) and the last steps' states (B, tau, hidden, h, w) -> the new t and s, shaped as s."""
        scores = (past_s * self.query(s)[:, None]).flatten(2).sum(2) / self.temperature
        trend = (past_t * scores.softmax(1)[:, :, None, None, None]).sum(1)
        t = past_t[:, -1]
        kept = self.keep(t).sigmoid()
        motion = kept * t + (1 - kept) * trend
        t_gate, t_t, t_s = self.temporal(motion).chunk(3, 1)
        s_gate, s_t, s_s = self.spatial(s).chunk(3, 1)
        t_gate, s_gate = t_gate.sigmoid(), s_gate.sigmoid()
        new_s = s_gate * s_s + (1 - s_gate) * t_s
        return t_gate * t_t + (1 - t_gate) * s_t, new_s + s if self.residual else new_s


class Mau(nn.Module):
    """Sequential: one frame (B, C, H, W) in, the forecast of the next one out. H and W must be those of the spec."""

    stride = None

    def __init__(self, spec: ModelSpec, config: MauConfig):
        super().__init__()
        height, width = grid(spec, config.patch)
        if height % config.shrink or width % config.shrink:
            raise SpecError(
                f"spec.params.shrink is {config.shrink}; it must divide the frame's patches, {height}x{width}"
            )
        size = height // config.shrink, width // config.shrink
        self.patch, self.hidden, self.recall = config.patch, config.hidden, config.recall
        self.tau, self.scale = config.tau, config.patch * config.shrink
        c, hidden, halvings = spec.channels * config.patch**2, config.hidden, int(math.log2(config.shrink))
        self.embed = nn.Conv2d(c, hidden, 1)
        self.encoder = nn.ModuleList(nn.Conv2d(hidden, hidden, 3, stride=2, padding=1) for _ in range(halvings))
        self.cells = nn.ModuleList(
            MotionAwareCell(hidden, config.kernel, size, config.residual) for _ in range(config.layers)
        )
        self.decoder = nn.ModuleList(
            nn.ConvTranspose2d(hidden, hidden, 3, stride=2, padding=1, output_padding=1) for _ in range(halvings)
        )
        self.readout = nn.Conv2d(hidden, c, 1)

    def initial_state(self, batch: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype) -> MauState:
        """All states are zero before the first frame of `batch` clips, whose frames have `size` (H, W)."""
        h, w = size[0] // self.scale, size[1] // self.scale
        zeros = (torch.zeros(batch, self.tau, self.hidden, h, w, device=device, dtype=dtype),) * len(self.cells)
        return MauState(zeros, zeros)

    def step(self, frame: Tensor, state: MauState) -> tuple[Tensor, MauState]:
        """One normalised frame (B, C, H, W) -> the forecast of the next one, of the same shape, and the new state."""
        encoded = self._encode(frame)
        s, state = self._through_cells(encoded.pop(), state)
        for i, (double, seen) in enumerate(zip(self.decoder, reversed(encoded), strict=True), 1):
            s = double(s)
            s = F.leaky_relu(s, SLOPE) if i < len(self.decoder) else s  # none before the readout, as published
            s = s + seen if self.recall else s
        return from_patches(self.readout(s), self.patch), state

    def advance(self, frame: Tensor, state: MauState) -> MauState:
        """One normalised frame (B, C, H, W) -> the new state, from which nothing is forecast yet."""
        return self._through_cells(self._encode(frame)[-1], state)[1]

    def _encode(self, frame: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> (B, hidden, h, w) on every grid, from the finest to that of the cells."""
        encoded = [F.leaky_relu(self.embed(to_patches(frame, self.patch)), SLOPE)]
        for halve in self.encoder:
            encoded.append(F.leaky_relu(halve(encoded[-1]), SLOPE))
        return encoded

    def _through_cells(self, s: Tensor, state: MauState) -> tuple[Tensor, MauState]:
        """What the first cell reads, (B, hidden, h, w) -> what the last one hands on, shaped as s, and the state."""
        temporal, spatial = [], []
        for cell, past_t, past_s in zip(self.cells, state.temporal, state.spatial, strict=True):
            spatial.append(_pushed(past_s, s))
            t, s = cell(s, past_t, past_s)
            temporal.append(_pushed(past_t, t))
        return s, MauState(tuple(temporal), tuple(spatial))


def _pushed(past: Tensor, new: Tensor) -> Tensor:
    """The last steps (B, tau, hidden, h, w) without their oldest, and with `new` (B, hidden, h, w) at their end."""
    return torch.cat([past[:, 1:], new[:, None].to(past.dtype)], 1)


def told(shapes: Shapes, known: Frame) -> Told:
    """For `Reader.read`."""
    first, gates = shapes["encoders.0.encoder_t_conv-1.weight"], shapes["cell_list.0.conv_s.0.weight"]
    shrink = 2 ** min(depth(shapes, "encoders") - 1, 16)  # more than any configuration may have, and still printable
    patch, frame = patches(first[1], known, plane(shapes, "cell_list.0.conv_s.1.weight"), shrink)
    params = {
        "layers": depth(shapes, "cell_list"),
        "hidden": first[0],
        "kernel": gates[-1],
        "patch": patch,
        "shrink": shrink,
    }
    return Told(params=params, frame=frame, untold=("tau", "recall", "residual"), hint=hint_of(known))


PUBLISHED = Layout(
    rules=rules(
        (r"cells\.(\d+)\.temporal\.([01])", r"cell_list.\1.conv_t.\2"),
        (r"cells\.(\d+)\.keep\.([01])", r"cell_list.\1.conv_t_next.\2"),
        (r"cells\.(\d+)\.spatial\.([01])", r"cell_list.\1.conv_s.\2"),
        (r"cells\.(\d+)\.query\.([01])", r"cell_list.\1.conv_s_next.\2"),
        (r"embed", r"encoders.0.encoder_t_conv-1"),
        (r"encoder\.(\d+)", r"encoders.<\1+1>.encoder_t\1"),
        (r"decoder\.(\d+)", r"decoders.\1.c_decoder\1"),
        (r"readout", r"srcnn.0"),
    ),
    dead=r"(merge|conv_last_sr)\.(weight|bias)",
    readers=(Reader("cell_list.0.conv_t_next.0.weight", told),),
)
ARCHITECTURE = Architecture(
    name="mau",
    kind="sequential",
    config=MauConfig,
    module=Mau,
    advances=True,
    colour="last",  # as `to_patches` folds
    layouts={"openstl": PUBLISHED, "official": PUBLISHED},  # the authors' tensors have the same names
)
