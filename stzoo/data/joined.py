"""Clips from several sources, such as radars, whose frames may differ in size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

import torch

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
        if len(found) == 1:
            return found[0]
        past, future = (torch.cat([getattr(clip, name) for clip in found]) for name in ("past", "future"))
        if all(clip.valid is None for clip in found):
            return Clip(past, future)
        masks = [torch.ones_like(c.future[:, :, :1], dtype=torch.bool) if c.valid is None else c.valid for c in found]
        return Clip(past, future, torch.cat(masks))

    def _offsets(self) -> list[int]:
        """The number of the first clip of each part."""
        return [0, *accumulate(len(part.source) for part in self.parts)][:-1]


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
