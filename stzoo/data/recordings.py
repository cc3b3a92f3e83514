"""Recordings of any length -> clips. What video, image and array datasets have in common."""

from __future__ import annotations

import errno
import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from stzoo import environment
from stzoo.data import Clip, Reading, Split
from stzoo.errors import DataError, FramesError
from stzoo.files import replacing
from stzoo.frames.images import fit

_VERSION = 1  # of what `fit` makes of an image; another number leaves the old files of the cache alone

T = TypeVar("T")
Decode = Callable[[Path], Iterator[Image.Image]]


@dataclass(frozen=True)
class Stored:
    """Frames first, first + every, ... below last of a file of raw uint8 frames of one size (C, H, W).

    The file is open only while a clip is read from it: a dataset may have more files than a process may hold open.
    """

    path: Path
    size: tuple[int, int, int]
    first: int
    last: int
    every: int

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self), *self.size)

    def __len__(self) -> int:
        return len(range(self.first, self.last, self.every))

    def __getitem__(self, key: Any) -> np.ndarray:
        mapped = np.memmap(self.path, np.uint8, "r").reshape(-1, *self.size)
        return np.array(mapped[self.first : self.last : self.every][key])


@dataclass(frozen=True)
class Recording:
    """Frames in order, and where they come from.

    Attributes:
        name: what errors call it.
        frames: (T, C, H, W) uint8 or float32, in memory, mapped from a file, or in a file that is opened for each clip.
        valid: (T, 1, H, W) booleans, true where something was observed; None where all was.
    """

    name: str
    frames: np.ndarray | Stored
    valid: np.ndarray | None = None


@dataclass(frozen=True)
class Windows:
    """Windows of recordings, each cut into past and future.

    Attributes:
        recordings: what the windows lie in.
        places: (n, 4) integers: which recording, first frame, top, left.
        frames_in, frames_out: lengths of past and future.
        height, width: of a window.
    """

    recordings: tuple[Recording, ...]
    places: np.ndarray
    frames_in: int
    frames_out: int
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.places)

    def clips(self, start: int, stop: int) -> Clip:
        """Clips start..stop-1."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"clips {start} to {stop} of {len(self)}")
        return self.chosen(np.arange(start, stop))

    def chosen(self, which: np.ndarray) -> Clip:
        """The clips of those numbers, in that order."""
        places = self.places[which]
        frames = np.stack([self._cut(self.recordings[r].frames, t, y, x) for r, t, y, x in places])
        future = slice(self.frames_in, None)
        clip = torch.from_numpy(frames)
        if all(self.recordings[r].valid is None for r in places[:, 0]):
            return Clip(clip[:, : self.frames_in], clip[:, future])
        valid = np.stack([self._valid(r, t, y, x) for r, t, y, x in places])
        return Clip(clip[:, : self.frames_in], clip[:, future], torch.from_numpy(valid)[:, future])

    def _cut(self, frames: np.ndarray | Stored, t: int, y: int, x: int) -> np.ndarray:
        return frames[t : t + self.frames_in + self.frames_out, :, y : y + self.height, x : x + self.width]

    def _valid(self, recording: int, t: int, y: int, x: int) -> np.ndarray:
        valid = self.recordings[recording].valid
        if valid is None:
            return np.ones((self.frames_in + self.frames_out, 1, self.height, self.width), bool)
        return self._cut(valid, t, y, x)


def sliding(recordings: Iterable[Recording], frames_in: int, frames_out: int, hop: int) -> Windows:
    """Whole-frame windows, one every `hop` frames. Raises `DataError` where no recording is long enough."""
    kept = tuple(recordings)
    length = frames_in + frames_out
    unlike = next((each for each in kept if each.frames.dtype != kept[0].frames.dtype), None)
    if unlike is not None:
        raise DataError(
            f"{kept[0].name} holds {kept[0].frames.dtype}, {unlike.name} {unlike.frames.dtype}; keep them apart, or "
            "bring all to one kind"
        )
    places = [(r, t, 0, 0) for r, each in enumerate(kept) for t in range(0, len(each.frames) - length + 1, hop)]
    if not places:
        if not kept:
            raise DataError("every recording was left out")
        longest = max(kept, key=lambda each: len(each.frames))
        raise DataError(f"no recording has {length} frames; the longest, {longest.name}, has {len(longest.frames)}")
    height, width = kept[0].frames.shape[2:]
    return Windows(kept, np.array(places), frames_in, frames_out, height, width)


@dataclass(frozen=True)
class Segment:
    """Frames first..last-1 of a file (or a folder of images); all of them where `last` is None."""

    path: Path
    first: int = 0
    last: int | None = None


@dataclass(frozen=True)
class RecordedDataset:
    """Videos, or anything else that becomes frames one after the other, split by file or by time.

    Attributes:
        title: the first line of `describe`.
        segments: what belongs to each part.
        reading: size and channels of the frames.
        hop: frames from one window of a part to the next.
        decode: a file -> its frames as images, lazily.
    """

    title: str
    segments: Mapping[Split, tuple[Segment, ...]]
    reading: Reading
    hop: Mapping[Split, int]
    decode: Decode

    def split(self, name: Split, frames_in: int, frames_out: int) -> Windows:
        """Every window of the part that starts a multiple of its hop into a segment."""
        segments = self.segments.get(name, ())
        if not segments:
            raise DataError(f"{self.title}: the {name} part is empty")
        reading = self.reading.larger() if name == "train" else self.reading
        return sliding(self._recordings(segments, reading), frames_in, frames_out, self.hop[name])

    def describe(self) -> str:
        r = self.reading
        lines = [self.title, f"  frames       {r.channels}x{r.height}x{r.width}, every {r.every}"]
        lines += [
            f"  {name:<12} {len(parts)} segments of {len({p.path for p in parts})} files, a clip every "
            f"{self.hop[name]} frames"
            for name, parts in self.segments.items()
        ]
        return "\n".join(lines)

    def _recordings(self, segments: tuple[Segment, ...], r: Reading) -> Iterator[Recording]:
        def read(segment: Segment) -> Recording:
            return Recording(str(segment.path), decoded(segment.path, r, self.decode, segment.first, segment.last))

        return readable(segments, read, r.skip_bad)


def readable(items: Iterable[T], read: Callable[[T], Recording], skip_bad: bool) -> Iterator[Recording]:
    """Each item read; without those that cannot be, where `skip_bad`, else a `DataError` that names the file."""
    for item in items:
        try:
            yield read(item)
        except (DataError, FramesError, OSError) as error:
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EMFILE, errno.ENFILE)
            if not skip_bad or full:  # no fault of the file
                raise error if isinstance(error, DataError) else DataError(str(error)) from error
            warnings.warn(f"left out: {error}", stacklevel=2)


def decoded(path: Path, reading: Reading, decode: Decode, first: int = 0, last: int | None = None) -> Stored:
    """(T, C, H, W) uint8 in a file of the cache; the first time, `path` is decoded into it frame by frame.

    The cache is `frames` below $STZOO_HOME (by default ~/.cache/stzoo). A file's name tells size, date and place of
    what it was made from, so a changed video is decoded anew.
    """
    size = (reading.channels, reading.height, reading.width)
    folder = environment.home() / "frames"
    if reading.channels not in (1, 3):
        raise DataError(f"{path} holds pictures, gray or in colour; this model reads {reading.channels} channels")
    made = folder / f"{_identity(path, size, decode)}.uint8"
    if not made.is_file() or made.stat().st_size % prod(size) or not made.stat().st_size:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(made) as partial:
            with partial.open("wb") as file:
                for image in decode(path):
                    file.write(fit(image, *size).tobytes())
            if not partial.stat().st_size:
                raise DataError(f"{path} holds no frames")
    count = made.stat().st_size // prod(size)
    return Stored(made, size, first, count if last is None else min(last, count), reading.every)


def _identity(path: Path, size: tuple[int, int, int], decode: Decode) -> str:
    """Of the same file the same frames: decoded by another function they may be cut or thinned in another way."""
    function = getattr(decode, "func", decode)
    how = (function.__module__, function.__qualname__, getattr(decode, "args", ()), getattr(decode, "keywords", {}))
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    facts = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.sha256(repr((_VERSION, facts, size, how)).encode()).hexdigest()[:32]
