"""Clips from several sources, such as radars, whose frames may differ in size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from stzoo.data import Clip, ClipSource, FirstClips
from stzoo.errors import DataError


@dataclass(frozen=True)
class Part:
    """One of several sources.

    Attributes:
        name: what reports call it.
        source: its clips.
        step_minutes: from one frame to the next; None if the files do not say it.
    """

    name: str
    source: ClipSource
    step_minutes: float | None = None


@dataclass(frozen=True)
class JoinedClips:
    """The clips of several sources, one source after the other. It is a `ClipSource`."""

    parts: tuple[Part, ...]

    def __len__(self) -> int:
        return sum(len(part.source) for part in self.parts)

    def clips(self, start: int, stop: int) -> Clip:
        """As `ClipSource.clips`.

        Raises:
            DataError: the clips are not of one size.
        """
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"clips {start} to {stop} of {len(self)}")
        found = []
        for offset, part in zip(self._offsets(), self.parts, strict=True):
            first, last = max(start - offset, 0), min(stop - offset, len(part.source))
            if first < last:
                found.append(part.source.clips(first, last))
        sizes = ["x".join(map(str, clip.past.shape[-2:])) for clip in found]
        if len(set(sizes)) > 1:
            raise DataError(f"clips {start} to {stop} have frames of {' and '.join(sizes)}; take those of one size")
        return together(found)

    def _offsets(self) -> list[int]:
        """The number of the first clip of each part."""
        return [0, *accumulate(len(part.source) for part in self.parts)][:-1]


def together(clips: Sequence[Clip]) -> Clip:
    """One batch of several, all of one size."""
    if len(clips) == 1:
        return clips[0]
    past, future = (torch.cat([getattr(clip, name) for clip in clips]) for name in ("past", "future"))
    return Clip(
        past,
        future,
        _masks([(clip.valid, clip.future) for clip in clips]),
        _masks([(clip.seen, clip.past) for clip in clips]),
    )


def _masks(parts: Sequence[tuple[Tensor | None, Tensor]]) -> Tensor | None:
    """The masks of frames (B, T, C, H, W), one after the other, true where one is lacking; None if all of them lack."""
    if all(mask is None for mask, _ in parts):
        return None
    return torch.cat([torch.ones_like(x[:, :, :1], dtype=torch.bool) if mask is None else mask for mask, x in parts])


def parts_of(clips: ClipSource) -> tuple[Part, ...]:
    """The sources that clips were joined from; a source that was not joined is one part without a name."""
    return clips.parts if isinstance(clips, JoinedClips) else (Part("", clips),)


def first_clips(clips: ClipSource, count: int) -> ClipSource:
    """The first `count` clips of a source, which has at least so many; in the parts that have any of them."""
    if not isinstance(clips, JoinedClips):
        return FirstClips(clips, count)
    kept, left = [], count
    for part in clips.parts:
        there = min(left, len(part.source))
        if there:
            kept.append(replace(part, source=FirstClips(part.source, there)))
        left -= there
    return JoinedClips(tuple(kept))
