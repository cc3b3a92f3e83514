"""CrevNet (Yu et al., ICLR 2020): a forecast in the features of an autoencoder that loses nothing.

Three frames at a time are brought to two groups of features by blocks of which each can be undone exactly, with the
same weights: the encoder, run backwards, is the decoder. Between the two, a reversible predictive module turns the
features of three frames into those of the next three, one frame further on. Its cells are ST-LSTMs of 3D convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from stzoo.errors import SpecError
from stzoo.models.contract import Architecture
from stzoo.models.feedback import is_own
from stzoo.models.published import Layout, rules
from stzoo.models.reading import Frame, Reader, Shapes, Told, depth, same_channels
from stzoo.models.recurrent import from_patches, to_patches
from stzoo.spec import ModelSpec, bounded

TOGETHER = 3  # frames that are encoded together
MAX_STAGES = 8

Pair = tuple[Tensor, Tensor]  # two groups of features, (B, c, 3, h, w) each


@dataclass(frozen=True)
class CrevNetConfig:
    """The autoencoder has stages of so many `blocks`, each at half the height and width; the predictor has `layers`."""

    blocks: tuple[int, ...] = bounded((4, 5, 3), 1, 64)
    layers: int = bounded(8, 1, 64)

    def __post_init__(self) -> None:
        if not 1 <= len(self.blocks) <= MAX_STAGES:
            raise SpecError(f"spec.params.blocks has {len(self.blocks)} values; it must have 1 to {MAX_STAGES}")


class CrevNetState(NamedTuple):
    """What is kept of the frames that were read. With c channels in a group of features:

    Attributes:
        hidden, cell: of each layer, (B, c, 3, h, w).
        memory: what goes from layer to layer, and from the last one to the first one of the next step; the same shape.
        frames: the last two frames, (B, C, H, W) each, the older one first; fewer at the beginning.
        own: for each of these (B, 1, 1, 1), 1 if it was a forecast that came back, and 0 if it was a true frame.
        decoded: the last forecast, which is of these two frames and of the next one; None if none was decoded.
    """

    hidden: tuple[Tensor, ...]
    cell: tuple[Tensor, ...]
    memory: Tensor
    frames: tuple[Tensor, ...]
    own: tuple[Tensor, ...]
    decoded: tuple[Tensor, ...] | None


class CouplingBlock(nn.Module):
    """(x, y) -> (y, x + F(y)), where F is a bottleneck of three 3x3x3 convolutions, as in i-RevNet.

    With `halve` both groups are folded to half the height and width and four times the channels, and F has a stride.
    """

    def __init__(self, c_in: int, c_out: int, halve: bool, first: bool):
        super().__init__()
        inner = max(c_out // 2, 1)

        def conv(a: int, b: int, stride: int = 1) -> nn.Conv3d:
            return nn.Conv3d(a, b, 3, stride=(1, stride, stride), padding=1, bias=False)

        def normed(channels: int) -> list[nn.Module]:
            return [nn.BatchNorm3d(channels), nn.ReLU()]

        entry = [] if first else normed(c_in)
        wide, narrow = conv(c_in, inner, 2 if halve else 1), conv(inner, inner)
        self.body = nn.Sequential(*entry, wide, *normed(inner), narrow, *normed(inner), conv(inner, c_out))
        self.halve = halve

    def forward(self, pair: Pair) -> Pair:
        x, y = pair
        change = self.body(y)
        x, y = (fold(x), fold(y)) if self.halve else (x, y)
        return y, x + change

    def invert(self, pair: Pair) -> Pair:
        """What `forward` made -> what it was given."""
        y, made = pair
        y = unfold(y) if self.halve else y
        x = made - self.body(y)
        return (unfold(x) if self.halve else x), y


class TwoWayAutoencoder(nn.Module):
    """Frames -> features and back, without any loss but that of rounding."""

    def __init__(self, channels: int, blocks: tuple[int, ...]):
        super().__init__()
        width = 2 * channels
        parts: list[CouplingBlock] = []
        for stage, count in enumerate(blocks):
            for number in range(count):
                halve = stage > 0 and number == 0
                parts.append(CouplingBlock(width, 4 * width if halve else width, halve, first=not parts))
                width = 4 * width if halve else width
        self.blocks, self.width = nn.ModuleList(parts), width

    def encode(self, frames: Tensor) -> Pair:
        """(B, C, 3, H, W) -> two groups of (B, width, 3, h, w)."""
        first, second = fold(frames).chunk(2, 1)
        pair = first, second
        for block in self.blocks:
            pair = block(pair)
        return pair

    def decode(self, pair: Pair) -> Tensor:
        """The inverse of `encode`."""
        for block in reversed(cast("list[CouplingBlock]", list(self.blocks))):
            pair = block.invert(pair)
        return unfold(torch.cat(pair, 1))


def fold(x: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B, 4 C, T, H / 2, W / 2), in the order of `to_patches`."""
    b, _, t = x.shape[:3]
    return to_patches(x.transpose(1, 2).flatten(0, 1), 2).unflatten(0, (b, t)).transpose(1, 2)


def unfold(x: Tensor) -> Tensor:
    """The inverse of `fold`."""
    b, _, t = x.shape[:3]
    return from_patches(x.transpose(1, 2).flatten(0, 1), 2).unflatten(0, (b, t)).transpose(1, 2)


class PredictiveLayer(nn.Module):
    """A 3D ST-LSTM reads one group of features, and its hidden state is mixed into the other by a gate.

    With x what is read, y the other group, h, c the layer's states and m the memory, every W a convolution with a bias:
    c' = f c + i g with i, f, g from [x, h, c];  m' = f' m + i' g' with i', f', g' from [x, m, c'];
    h' = o tanh(W_mix [c', m']) with o from [x, h, c', m'];  y' = (1 - a) y + a h' with a = sigmoid(W_a h').
    """

    def __init__(self, width: int):
        super().__init__()

        def gate(inputs: int) -> nn.Conv3d:
            return nn.Conv3d(inputs * width, width, 3, padding=1)

        self.cell_input, self.cell_forget, self.cell_candidate = gate(3), gate(3), gate(3)
        self.memory_input, self.memory_forget, self.memory_candidate = gate(3), gate(3), gate(3)
        self.output, self.mix = gate(4), nn.Conv3d(2 * width, width, 1)
        self.attention = nn.Conv3d(width, width, 1)

    def forward(self, x: Tensor, y: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All (B, width, 3, h, w) -> y', h', c', m'."""
        seen = torch.cat([x, h, c], 1)
        c = self.cell_forget(seen).sigmoid() * c + self.cell_input(seen).sigmoid() * self.cell_candidate(seen).tanh()
        seen = torch.cat([x, m, c], 1)
        kept = self.memory_forget(seen).sigmoid() * m
        m = kept + self.memory_input(seen).sigmoid() * self.memory_candidate(seen).tanh()
        h = self.output(torch.cat([x, h, c, m], 1)).sigmoid() * self.mix(torch.cat([c, m], 1)).tanh()
        a = self.attention(h).sigmoid()
        return (1 - a) * y + a * h, h, c, m


class CrevNet(nn.Module):
    """Sequential: one frame (B, C, H, W) in, the forecast of the next one out.

    H and W must be multiples of 2 to the number of stages. After the first and the second frame, which do not make
    three yet, that frame itself is the forecast, and the memories stay as they are.
    """

    def __init__(self, spec: ModelSpec, config: CrevNetConfig):
        super().__init__()
        self.stride = 2 ** len(config.blocks)
        self.autoencoder = TwoWayAutoencoder(spec.channels, config.blocks)
        self.layers = nn.ModuleList(PredictiveLayer(self.autoencoder.width) for _ in range(config.layers))

    def initial_state(
        self, batch: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype
    ) -> CrevNetState:
        """All memories are zero before the first frame of `batch` clips, whose frames have `size` (H, W)."""
        shape = batch, self.autoencoder.width, TOGETHER, size[0] // self.stride, size[1] // self.stride
        zeros = torch.zeros(shape, device=device, dtype=dtype)
        return CrevNetState((zeros,) * len(self.layers), (zeros,) * len(self.layers), zeros, (), (), None)

    def step(self, frame: Tensor, state: CrevNetState) -> tuple[Tensor, CrevNetState]:
        """One normalised frame (B, C, H, W) -> the forecast of the next one, of the same shape, and the new state."""
        pair, state = self._read(frame, state)
        if pair is None:
            return frame, state
        decoded = self.autoencoder.decode(pair).unbind(2)
        return decoded[-1], state._replace(decoded=decoded)

    def advance(self, frame: Tensor, state: CrevNetState) -> CrevNetState:
        """One normalised frame (B, C, H, W) -> the new state, from which nothing is forecast yet."""
        return self._read(frame, state)[1]

    def _read(self, frame: Tensor, state: CrevNetState) -> tuple[Pair | None, CrevNetState]:
        """The features of the three frames that are forecast next, None as long as there are too few, and the state.

        A true frame stays what it is in the two steps in which it is among the earlier ones. For a forecast that came
        back, the next step's forecast of the same frame is taken then, as in the authors' code and OpenSTL's.
        """
        earlier, decoded = state.frames, state.decoded
        if decoded is None:
            own = torch.zeros_like(frame[:, :1, :1, :1])
        else:
            own = is_own(frame, decoded[-1]).to(frame.dtype)
            earlier = tuple(
                torch.where(back > 0, again, read)
                for back, again, read in zip(state.own, decoded, earlier, strict=False)
            )
        frames, owns = (*earlier, frame), (*state.own, own)
        if len(frames) < TOGETHER:
            return None, state._replace(frames=frames, own=owns)
        x, y = self.autoencoder.encode(torch.stack(frames, 2))
        memory, states = state.memory, []
        for layer, h, c in zip(self.layers, state.hidden, state.cell, strict=True):
            made, h, c, memory = layer(x, y, h, c, memory)
            x, y = made, x
            states.append((h, c))
        hidden, cell = zip(*states, strict=True)
        return (x, y), CrevNetState(hidden, cell, memory, frames[1:], owns[1:], None)


_BLOCK, _THEIRS = r"autoencoder\.blocks\.", r"encoder.stack."
_GATES = {
    "cell_input": "in_gate",
    "cell_forget": "remember_gate",
    "cell_candidate": "cell_gate",
    "memory_input": "in_gate1",
    "memory_forget": "remember_gate1",
    "memory_candidate": "cell_gate1",
    "output": "out_gate",
    "mix": "w1",
}


def told(shapes: Shapes, known: Frame) -> Told:
    """A stage begins with the block that makes four times the channels of what it reads."""
    blocks: list[int] = []
    for number in range(depth(shapes, "encoder.stack")):
        body = f"encoder.stack.{number}.bottleneck_block."
        reads = shapes[f"{body}{2 if number else 0}.weight"][1]
        makes = shapes[f"{body}{9 if number else 7}.weight"][0]
        if number == 0 or makes > reads:
            blocks.append(0)
        blocks[-1] += 1
    params = {"blocks": tuple(blocks), "layers": depth(shapes, "frame_predictor.convlstm")}
    channels = shapes["encoder.stack.0.bottleneck_block.0.weight"][1] // 2
    return Told(params=params, frame=Frame(channels=same_channels(channels, known.channels)))


OPENSTL = Layout(  # their bottlenecks have a dropout before the third norm, and the first one lacks its first norm
    rules=rules(
        (_BLOCK + r"0\.body\.([0-3])", _THEIRS + r"0.bottleneck_block.\1"),
        (_BLOCK + r"0\.body\.(\d)", _THEIRS + r"0.bottleneck_block.<\1+1>"),
        (_BLOCK + r"(\d+)\.body\.([0-5])", _THEIRS + r"\1.bottleneck_block.\2"),
        (_BLOCK + r"(\d+)\.body\.(\d)", _THEIRS + r"\1.bottleneck_block.<\2+1>"),
        *((rf"layers\.(\d+)\.{ours}", rf"frame_predictor.convlstm.\1.{theirs}") for ours, theirs in _GATES.items()),
        (r"layers\.(\d+)\.attention", r"frame_predictor.att.\1.0"),
    ),
    readers=(Reader("encoder.stack.0.bottleneck_block.0.weight", told),),
)
ARCHITECTURE = Architecture(
    name="crevnet",
    kind="sequential",
    config=CrevNetConfig,
    module=CrevNet,
    advances=True,
    layouts={"openstl": OPENSTL},
)
