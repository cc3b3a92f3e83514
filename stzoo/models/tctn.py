"""TCTN: a transformer over time whose projections are causal 3-D convolutions (Yang et al., arXiv 2112.01085).

Every pixel attends to its own past; its queries, keys and values have seen its neighbourhood and the two steps before.
Nothing at a step depends on a later one, so all steps of a clip can be trained at once and forecasts go on frame by
frame. Three choices were made here: positions are added to the input, as in equation 8 of the modular design (public
code adds them to queries and keys); a norm sees one time step at a time, because statistics over time would show the
future to training; and attention looks back over a `window` of steps, so that a state does not grow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo.errors import SpecError
from stzoo.models.contract import Architecture
from stzoo.models.positions import positions
from stzoo.models.recurrent import from_patches, grid, to_patches
from stzoo.spec import ModelSpec, bounded

BEFORE = 2  # how many earlier steps a causal convolution sees, besides its own


@dataclass(frozen=True)
class TctnConfig:
    """`layers` with `hidden` channels and `heads` heads, attention over `window` steps, on `patch` x `patch` patches.

    `expansion` is how many times wider the feed-forward part is inside.
    """

    layers: int = bounded(6, 1, 64)
    hidden: int = bounded(128, 2, 4096)
    heads: int = bounded(4, 1, 64)
    expansion: int = bounded(3, 1, 16)
    window: int = bounded(20, 1, 1024)
    patch: int = bounded(4, 1, 64)

    def __post_init__(self) -> None:
        if self.hidden % (2 * self.heads):
            raise SpecError(
                f"spec.params.hidden is {self.hidden}; it must be a multiple of 2 * heads, {2 * self.heads}"
            )


class LayerState(NamedTuple):
    """What a layer keeps of earlier steps.

    Attributes:
        keys, values: (B * h * w, heads, at most window - 1, hidden / heads).
        attended, spread, merged: (B, BEFORE, channels, h, w), the last inputs of the three causal convolutions.
    """

    keys: Tensor
    values: Tensor
    attended: Tensor
    spread: Tensor
    merged: Tensor


class TctnState(NamedTuple):
    """`position` counts the steps that were read; `layers` holds the state of each layer."""

    position: int
    layers: tuple[LayerState, ...]


class CausalConv(nn.Module):
    """3x3x3 convolution over time and space that sees its own step and the two before: the causal form of equation 9.

    The kernel of `conv` holds the three time steps side by side, the oldest first.
    """

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv = nn.Conv2d((BEFORE + 1) * c_in, c_out, 3, padding=1)

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs x (B, T, c_in, h, w), and `before`, those of the two steps before (B, 2, c_in, h, w).

        Returns (B, T, c_out, h, w), and the last two inputs, which are `before` at the next call.
        """
        steps, x = x.shape[1], torch.cat([before.to(x.dtype), x], 1)
        seen = torch.cat([x[:, i : i + steps] for i in range(BEFORE + 1)], 2)
        return _each_step(self.conv, seen), x[:, steps:]


class Attention(nn.Module):
    """softmax(q k / sqrt(d)) v over the past of each pixel (equation 9), then 1x1."""

    def __init__(self, hidden: int, heads: int, window: int):
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = CausalConv(hidden, 3 * hidden)
        self.out = nn.Conv2d(hidden, hidden, 1)

    def forward(self, x: Tensor, before: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """T more steps x (B, T, hidden, h, w), with `before`, `keys` and `values` as in `LayerState`.

        Returns the attended steps (B, T, hidden, h, w), and the new `before`, `keys` and `values`.
        """
        b, t, c, h, w = x.shape
        qkv, before = self.qkv(x, before)
        split = qkv.view(b, t, 3, self.heads, c // self.heads, h, w).permute(2, 0, 5, 6, 3, 1, 4)
        # with reshape in place of view, a batch of 1 could not be exported
        q, k, v = split.contiguous().view(3, b * h * w, self.heads, t, c // self.heads)
        keys, values = torch.cat([keys.to(k.dtype), k], 2), torch.cat([values.to(v.dtype), v], 2)
        weights = (_products(q, keys.mT) * (c // self.heads) ** -0.5).masked_fill(
            self._beyond(t, keys.shape[2], x.device), -torch.inf
        )
        out = (
            _products(weights.softmax(-1), values)
            .view(b, h, w, self.heads, t, c // self.heads)
            .permute(0, 4, 3, 5, 1, 2)
            .reshape(b, t, c, h, w)
        )
        kept = max(0, keys.shape[2] - (self.window - 1))
        return _each_step(self.out, out), before, keys[:, :, kept:], values[:, :, kept:]

    def _beyond(self, queries: int, keys: int, device: torch.device) -> Tensor:
        """(queries, keys) of booleans: true where query i, which is step keys - queries + i, must not look.

        It may look at its own step and the window - 1 steps before it.
        """
        back = torch.arange(keys - queries, keys, device=device)[:, None] - torch.arange(keys, device=device)
        return (back < 0) | (back >= self.window)


def _products(rows: Tensor, matrices: Tensor) -> Tensor:
    """Many small matrix products (..., t, n) x (..., n, m): (..., t, m).

    Fused attention is slower on so many small ones, and a matrix product is if there is one row alone.
    """
    return rows @ matrices if rows.shape[-2] > 1 else (rows.mT * matrices).sum(-2, keepdim=True)


class TctnLayer(nn.Module):
    """x + Attention(norm(x)), then x + FeedForward(norm(x)) (equation 10).

    The feed-forward part is two causal convolutions with a leaky ReLU between them.
    """

    def __init__(self, config: TctnConfig):
        super().__init__()
        c = config.hidden
        self.norm1, self.norm2 = nn.GroupNorm(1, c), nn.GroupNorm(1, c)
        self.attention = Attention(c, config.heads, config.window)
        self.spread, self.merge = CausalConv(c, config.expansion * c), CausalConv(config.expansion * c, c)

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """T more steps (B, T, hidden, h, w) and the state before them -> the same shape, and the state after them."""
        y, attended, keys, values = self.attention(_each_step(self.norm1, x), state.attended, state.keys, state.values)
        x = x + y
        y, spread = self.spread(_each_step(self.norm2, x), state.spread)
        y, merged = self.merge(F.leaky_relu(y, 0.2), state.merged)
        return x + y, LayerState(keys, values, attended, spread, merged)


class Tctn(nn.Module):
    """Sequential: one frame (B, C, H, W) in, the forecast of the next one out. H and W must be multiples of `patch`."""

    def __init__(self, spec: ModelSpec, config: TctnConfig):
        super().__init__()
        grid(spec, config.patch)
        self.config, self.patch, self.stride = config, config.patch, config.patch
        c = spec.channels * config.patch**2
        self.embed, self.refine = (
            nn.Conv2d(c, config.hidden, 7, padding=3),
            nn.Conv2d(config.hidden, config.hidden, 5, padding=2),
        )
        self.layers = nn.ModuleList(TctnLayer(config) for _ in range(config.layers))
        self.norm = nn.GroupNorm(1, config.hidden)
        self.readout = nn.Conv2d(config.hidden, c, 1, bias=False)

    def initial_state(self, batch: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype) -> TctnState:
        """Nothing was seen before the first frame of `batch` clips, whose frames have `size` (H, W)."""
        h, w, c = size[0] // self.patch, size[1] // self.patch, self.config.hidden

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, device=device, dtype=dtype)

        none = zeros(batch * h * w, self.config.heads, 0, c // self.config.heads)
        narrow, wide = zeros(batch, BEFORE, c, h, w), zeros(batch, BEFORE, self.config.expansion * c, h, w)
        return TctnState(0, (LayerState(none, none, narrow, narrow, wide),) * len(self.layers))

    def step(self, frame: Tensor, state: TctnState) -> tuple[Tensor, TctnState]:
        """One normalised frame (B, C, H, W) -> the forecast of the next one, of the same shape, and the new state."""
        forecasts, state = self.read(frame[:, None], state)
        return forecasts[:, 0], state

    def forward(self, frames: Tensor) -> Tensor:
        """Whole clips (B, T, C, H, W) -> after each of their frames the forecast of the next one, of the same shape."""
        state = self.initial_state(len(frames), (frames.shape[-2], frames.shape[-1]), frames.device, frames.dtype)
        return self.read(frames, state)[0]

    def read(self, frames: Tensor, state: TctnState) -> tuple[Tensor, TctnState]:
        """Any number of frames (B, T, C, H, W), read from `state` on.

        Returns the forecasts after each frame, of the same shape, and the state after the last one.
        """
        x = _each_step(self._embed, frames)
        steps = torch.arange(state.position, state.position + x.shape[1], device="cpu")  # some devices lack float64
        x = x + positions(steps, x.shape[2]).to(x)[:, :, None, None]
        layers = []
        for layer, kept in zip(self.layers, state.layers, strict=True):
            x, kept = layer(x, kept)
            layers.append(kept)
        return _each_step(self._paint, x), TctnState(state.position + frames.shape[1], tuple(layers))

    def _embed(self, frames: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, hidden, h, w)."""
        x = F.leaky_relu(self.embed(to_patches(frames, self.patch)), 0.2)
        return x + F.leaky_relu(self.refine(x), 0.2)

    def _paint(self, x: Tensor) -> Tensor:
        """(N, hidden, h, w) -> (N, C, H, W)."""
        return from_patches(self.readout(self.norm(x)), self.patch)


def _each_step(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`f` on every time step by itself: (B, T, C, h, w) -> (B, T, C', h', w')."""
    y = f(x.flatten(0, 1))
    return y.view(*x.shape[:2], *y.shape[1:])


ARCHITECTURE = Architecture(
    name="tctn",
    kind="sequential",
    config=TctnConfig,
    module=Tctn,
    reads_clips=True,
    colour="last",  # as `to_patches` folds
    recompute=(TctnLayer,),
)
