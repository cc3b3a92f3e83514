"""A finite set of clips -> an endless one: shuffled anew every epoch, mirrored where that makes as good a clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stzoo.data import Clip, ClipSource
from stzoo.data.mmnist import MovingDigits
from stzoo.data.recordings import RecordedClips
from stzoo.spec import ModelSpec

Flips = Literal["none", "horizontal", "all"]
ENDLESS = 1 << 40


@dataclass(frozen=True)
class Shuffled:
    """Clip i is the i % n-th of the order of epoch i // n, varied by a draw of its own: no state, so exact resume.

    Attributes:
        source: the n clips.
        flips: "horizontal" mirrors left and right (people); "all" also mirrors up and down and, where clips are square,
            swaps rows with columns (rain seen from above).
        seed: of orders and coins.
        size: height and width of a clip; of larger ones a window is cut, of that size or more, and shrunk to it.
    """

    source: ClipSource
    flips: Flips
    seed: int
    size: tuple[int, int]

    def __len__(self) -> int:
        return ENDLESS

    def clips(self, start: int, stop: int) -> Clip:
        if not 0 <= start <= stop <= ENDLESS:
            raise IndexError(f"clips {start} to {stop} of {ENDLESS}")
        n = len(self.source)
        epochs = range(start // n, (stop - 1) // n + 1)
        order = np.concatenate([np.random.default_rng((self.seed, e)).permutation(n) for e in epochs])
        offset = epochs.start * n
        clip = _gathered(self.source, order[start - offset : stop - offset].tolist())
        draws = [np.random.default_rng((self.seed, i, 1)).random(6) for i in range(start, stop)]
        past, future = (self._varied(x, draws) for x in (clip.past, clip.future))
        return Clip(past, future, None if clip.valid is None else self._varied(clip.valid, draws))

    def _varied(self, frames: Tensor, draws: list[np.ndarray]) -> Tensor:
        return torch.stack([self._mirrored(self._window(x, d), d) for x, d in zip(frames, draws, strict=True)])

    def _window(self, x: Tensor, draw: np.ndarray) -> Tensor:
        """(T, C, H, W) -> (T, C, *size)."""
        if x.shape[-2:] == self.size:
            return x
        size, top, left = draw[3:]
        sides = [side + round(size * (there - side)) for side, there in zip(self.size, x.shape[-2:], strict=True)]
        y, x0 = (
            int(place * (there - side + 1)) for place, side, there in zip((top, left), sides, x.shape[-2:], strict=True)
        )
        window = x[..., y : y + sides[0], x0 : x0 + sides[1]]
        if x.dtype == torch.bool:
            return F.interpolate(window.float(), self.size, mode="bilinear", antialias=True) == 1
        return F.interpolate(window, self.size, mode="bilinear", antialias=True)

    def _mirrored(self, x: Tensor, draw: np.ndarray) -> Tensor:
        if self.flips == "none":
            return x
        across, down, swap = draw[:3] < 0.5
        square = x.shape[-1] == x.shape[-2]
        x = x.flip(-1) if across else x
        if self.flips == "all":
            x = x.flip(-2) if down else x
            x = x.transpose(-1, -2) if swap and square else x
        return x


def endless(source: ClipSource, spec: ModelSpec, flips: Flips, seed: int, device: str) -> ClipSource:
    """The training part of any dataset as the loop wants it: clips without end.

    What is endless already, digits that are drawn, is drawn on `device`; the clips of anything else are shuffled.
    """
    if isinstance(source, MovingDigits) and len(source) >= ENDLESS:
        return source.to(device)
    return Shuffled(source, flips, seed, (spec.height, spec.width))


def _gathered(source: ClipSource, which: list[int]) -> Clip:
    if isinstance(source, RecordedClips):
        return source.pick(np.array(which))
    found = [source.clips(i, i + 1) for i in which]
    past, future = (torch.cat([getattr(clip, part) for clip in found]) for part in ("past", "future"))
    masks = [torch.ones_like(c.future[:, :, :1], dtype=torch.bool) if c.valid is None else c.valid for c in found]
    return Clip(past, future, None if all(c.valid is None for c in found) else torch.cat(masks))
