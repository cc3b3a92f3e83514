"""In which order training sees clips, and how the next ones are made while the current ones are learned from."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stzoo.data import Clip, ClipSource
from stzoo.data.joined import together
from stzoo.data.mmnist import MovingDigits
from stzoo.data.recordings import RecordedClips
from stzoo.spec import ModelSpec

Flips = Literal["none", "horizontal", "all"]
ENDLESS = 1 << 40  # clips: more than any run reaches
LISTS_APART = 1 << 20  # the lists of moving digits that validation and tests use have smaller numbers


def endless(source: ClipSource, spec: ModelSpec, flips: Flips, seed: int, device: str) -> ClipSource:
    """The training part of any dataset as the loop needs it: without an end.

    Moving digits are endless already, and are drawn on `device`: `seed` chooses one of many endless lists of them, so
    that a second stage with another seed sees other sequences. The clips of every other dataset are shuffled, see
    `Shuffled`, and stay on the CPU.
    """
    if isinstance(source, MovingDigits) and len(source) >= ENDLESS:
        return replace(source.to(device), seed=source.seed + LISTS_APART * seed)
    return Shuffled(source, flips, seed, (spec.height, spec.width))


@dataclass(frozen=True)
class Shuffled:
    """A finite set of n clips as an endless one: in a new order every epoch, cropped and mirrored at random.

    Clip i is number i % n in the order of epoch i // n, and what is drawn for it depends on `seed` and i alone. There
    is no state, so a run that goes on sees the same clips.

    Attributes:
        source: the n clips.
        flips: "horizontal" mirrors half of the clips left to right (people); "all" also mirrors half of them top to
            bottom and, if clips are square, swaps rows and columns of half of them (rain seen from above).
        seed: of the orders and of what is drawn for each clip.
        size: height and width of the clips that come out. From larger clips a window of at least this size is cut at a
            random place, and is shrunk to it.
    """

    source: ClipSource
    flips: Flips
    seed: int
    size: tuple[int, int]

    def __len__(self) -> int:
        return ENDLESS

    def clips(self, start: int, stop: int) -> Clip:
        """Clips start to stop - 1. Raises IndexError beyond the end."""
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
        """(B, T, C, H, W) and six numbers from [0, 1) for each clip -> (B, T, C, *size)."""
        return torch.stack([self._mirrored(self._window(x, d), d) for x, d in zip(frames, draws, strict=True)])

    def _window(self, x: Tensor, draw: np.ndarray) -> Tensor:
        """(T, C, H, W) -> (T, C, *size). The last three draws choose the window's size and its place."""
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
        """(T, C, H, W) -> the same shape. The first three draws choose the mirror images."""
        if self.flips == "none":
            return x
        across, down, swap = draw[:3] < 0.5
        square = x.shape[-1] == x.shape[-2]
        x = x.flip(-1) if across else x
        if self.flips == "all":
            x = x.flip(-2) if down else x
            x = x.transpose(-1, -2) if swap and square else x
        return x


def _gathered(source: ClipSource, which: list[int]) -> Clip:
    """The clips of these numbers, in this order."""
    if isinstance(source, RecordedClips):
        return source.pick(np.array(which))
    return together([source.clips(i, i + 1) for i in which])


class Ahead:
    """A `ClipSource`, used as a context manager, whose thread makes the next clips before they are asked for.

    After clips start..stop-1 it makes those `stride` further on, but none from `end` on. The clips are the same as
    without it. An error of `source` is raised when its clips are asked for. If `source` draws from torch's global
    generator, nothing is made ahead, since the order of the draws would change.

    Args:
        source: makes the clips.
        end: the number of clips that the run will use.
        stride: the number of clips in a step. One process of several asks only for its share of them.
        pinned: give clips in page-locked memory, from which a GPU copies while it computes.
    """

    def __init__(self, source: ClipSource, end: int, stride: int, pinned: bool):
        self.source, self.end, self.stride, self.pinned = source, end, stride, pinned
        self.thread = ThreadPoolExecutor(1, "stzoo-clips")
        self.next: tuple[range, Future[Clip]] | None = None
        self.draws = False

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.thread.shutdown(cancel_futures=True)

    def __len__(self) -> int:
        return len(self.source)

    def clips(self, start: int, stop: int) -> Clip:
        """Clips start to stop - 1, and the next ones are begun. Raises what `source` raises."""
        made, self.next = self.next, None
        if made is not None and made[0] == range(start, stop):
            clip = made[1].result()
        else:
            if made is not None:
                made[1].exception()  # waits: a source is asked by one thread at a time
            state = torch.get_rng_state()
            clip = self._make(start, stop)
            self.draws = self.draws or not torch.equal(state, torch.get_rng_state())
        following = range(start + self.stride, min(stop + self.stride, self.end))
        if following and not self.draws:
            self.next = following, self.thread.submit(self._make, following.start, following.stop)
        return clip

    def _make(self, start: int, stop: int) -> Clip:
        clip = self.source.clips(start, stop)
        if not self.pinned:
            return clip
        return Clip(_pin(clip.past), _pin(clip.future), None if clip.valid is None else _pin(clip.valid))


def _pin(x: Tensor) -> Tensor:
    return x if x.is_cuda else x.pin_memory()
