"""Recordings of any length -> clips: what datasets of videos, images and arrays have in common."""

from __future__ import annotations

import errno
import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from stzoo import environment
from stzoo.data import Clip, Reading, Split
from stzoo.errors import DataError, FramesError
from stzoo.files import flush, replacing
from stzoo.frames.images import fit
from stzoo.frames.video import read_video

_VERSION = 2  # of what `fit` and the readers make of a file: with another number, old files of the cache are not read

T = TypeVar("T")
Decode = Callable[[Path], Iterator[Image.Image]]


@dataclass(frozen=True)
class StoredFrames:
    """The frames first, first + every, ... before `last` of a file of raw uint8 frames of one size (C, H, W).

    It is read like an array (T, C, H, W). The file is open only while a clip is read from it, because a dataset may
    have more files than a process may hold open.
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
        frames: (T, C, H, W) uint8 or float32: in memory, mapped from a file, or in a file that is opened for each clip.
        valid: (T, 1, H, W) booleans, true where something was observed; None if everything was.
    """

    name: str
    frames: np.ndarray | StoredFrames
    valid: np.ndarray | None = None


@dataclass(frozen=True)
class RecordedClips:
    """Clips that are windows of recordings, in time and space. It is a `ClipSource`.

    Attributes:
        recordings: what the windows are cut from.
        places: (n, 4) integers, one row for each clip: number of the recording, first frame, top row, left column.
        frames_in, frames_out: numbers of past and future frames.
        height, width: of a window, in pixels.
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
        """The clips start, start + 1, ... stop - 1 as one batch. Raises IndexError if there are not so many."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"clips {start} to {stop} of {len(self)}")
        return self.pick(np.arange(start, stop))

    def pick(self, which: np.ndarray) -> Clip:
        """The clips with these numbers (n,), in this order, as one batch."""
        places = self.places[which]
        frames = np.stack([self._cut(self.recordings[r].frames, t, y, x) for r, t, y, x in places])
        future = slice(self.frames_in, None)
        clip = torch.from_numpy(frames)
        if all(self.recordings[r].valid is None for r in places[:, 0]):
            return Clip(clip[:, : self.frames_in], clip[:, future])
        observed = torch.from_numpy(np.stack([self._valid(r, t, y, x) for r, t, y, x in places]))
        return Clip(clip[:, : self.frames_in], clip[:, future], observed[:, future], observed[:, : self.frames_in])

    def _cut(self, frames: np.ndarray | StoredFrames, t: int, y: int, x: int) -> np.ndarray:
        return frames[t : t + self.frames_in + self.frames_out, :, y : y + self.height, x : x + self.width]

    def _valid(self, recording: int, t: int, y: int, x: int) -> np.ndarray:
        valid = self.recordings[recording].valid
        if valid is None:
            return np.ones((self.frames_in + self.frames_out, 1, self.height, self.width), bool)
        return self._cut(valid, t, y, x)


def sliding_clips(recordings: Iterable[Recording], frames_in: int, frames_out: int, hop: int) -> RecordedClips:
    """Clips of whole frames, which start at every `hop`-th frame of each recording.

    Raises:
        DataError: no recording is long enough for a clip, or the recordings differ in dtype or in size.
    """
    kept = tuple(recordings)
    length = frames_in + frames_out
    unlike = next((each for each in kept if each.frames.dtype != kept[0].frames.dtype), None)
    if unlike is not None:
        raise DataError(
            f"{kept[0].name} holds {kept[0].frames.dtype}, {unlike.name} {unlike.frames.dtype}; keep them apart, or "
            "convert them to one dtype"
        )
    wider = next((each for each in kept if each.frames.shape[2:] != kept[0].frames.shape[2:]), None)
    if wider is not None:
        sizes = ["x".join(map(str, each.frames.shape[2:])) for each in (kept[0], wider)]
        raise DataError(
            f"{kept[0].name} has frames of {sizes[0]}, {wider.name} of {sizes[1]}; keep sizes apart, each in a folder "
            "of its own, or bring all to the model's (in commands --size model)"
        )
    places = [(r, t, 0, 0) for r, each in enumerate(kept) for t in range(0, len(each.frames) - length + 1, hop)]
    if not places:
        if not kept:
            raise DataError("every recording was left out, so there are no clips")
        longest = max(kept, key=lambda each: len(each.frames))
        raise DataError(f"no recording has {length} frames; the longest, {longest.name}, has {len(longest.frames)}")
    height, width = kept[0].frames.shape[2:]
    return RecordedClips(kept, np.array(places), frames_in, frames_out, height, width)


@dataclass(frozen=True)
class Segment:
    """The frames first, ... last - 1 of a file or of a folder of images; to its end if `last` is None."""

    path: Path
    first: int = 0
    last: int | None = None


@dataclass(frozen=True)
class RecordedDataset:
    """A dataset of videos, or of anything else that can be decoded frame by frame, split by file or by time.

    Attributes:
        title: the first line of `describe`.
        segments: what belongs to each part.
        reading: what the frames are like.
        hop: for each part, the number of frames from the start of one clip to the start of the next.
        decode: takes a file and yields its frames as images.
    """

    title: str
    segments: Mapping[Split, tuple[Segment, ...]]
    reading: Reading
    hop: Mapping[Split, int]
    decode: Decode

    def split(self, name: Split, frames_in: int, frames_out: int) -> RecordedClips:
        """Every clip of the part that starts at a multiple of its hop within a segment.

        Raises:
            DataError: the part is empty, no segment is long enough, or a file cannot be read.
        """
        segments = self.segments.get(name, ())
        if not segments:
            raise DataError(f"{self.title}: the {name} part is empty")
        reading = self.reading.larger() if name == "train" else self.reading
        return sliding_clips(self._recordings(segments, reading), frames_in, frames_out, self.hop[name])

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
            return Recording(str(segment.path), decode_once(segment.path, r, self.decode, segment.first, segment.last))

        return read_each(segments, read, r.skip_bad)


def video_dataset(title: str, segments: Iterable[tuple[Split, Segment]], reading: Reading, hop: int) -> RecordedDataset:
    """A dataset of videos: clips to train on start at every frame, and measured clips at every `hop`-th frame.

    Args:
        title: the first line of `describe`.
        segments: pairs of a part and a segment that belongs to it.
        reading: what the frames shall be like.
        hop: frames from the start of one measured clip to the next, in validation and test.
    """
    parts: dict[Split, list[Segment]] = {"train": [], "validation": [], "test": []}
    for part, segment in segments:
        parts[part].append(segment)
    return RecordedDataset(
        title,
        MappingProxyType({name: tuple(found) for name, found in parts.items()}),
        reading,
        MappingProxyType({"train": 1, "validation": hop, "test": hop}),
        read_video,
    )


def read_each(items: Iterable[T], read: Callable[[T], Recording], skip_bad: bool) -> Iterator[Recording]:
    """Read each item, one after the other.

    Raises:
        DataError: an item cannot be read; the message names the file. With `skip_bad` such an item is left out, and a
            warning names it.
    """
    for item in items:
        try:
            yield read(item)
        except (DataError, FramesError, OSError) as error:
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EMFILE, errno.ENFILE)
            if not skip_bad or full:  # a full disk or too many open files are not the fault of this one
                raise error if isinstance(error, DataError) else DataError(str(error)) from error
            warnings.warn(f"left out: {error}", stacklevel=2)


def decode_once(path: Path, reading: Reading, decode: Decode, first: int = 0, last: int | None = None) -> StoredFrames:
    """The frames of a video or of images, (T, C, H, W) uint8, in a file of the cache.

    The first time, `path` is decoded into that file frame by frame. The cache is the folder `frames` in $STZOO_HOME (by
    default ~/.cache/stzoo). The name of a cached file depends on path, size and date of what it was made from, so a
    changed video is decoded again.

    Args:
        path: what `decode` takes.
        reading: size and channels of the frames, and `every`.
        decode: takes a path and yields images.
        first, last: only the frames first, ... last - 1 are used; to the end if `last` is None.

    Raises:
        DataError: there are no frames, or the model reads neither gray nor RGB.
        FramesError: the file cannot be decoded.
    """
    size = (reading.channels, reading.height, reading.width)
    folder = environment.home() / "frames"
    if reading.channels not in (1, 3):
        raise DataError(
            f"{path} holds pictures, which are read in gray or RGB; this model reads {reading.channels} channels"
        )
    made = folder / f"{_identity(path, size, decode)}.uint8"
    if not made.is_file() or made.stat().st_size % prod(size) or not made.stat().st_size:
        environment.made(folder)
        with replacing(made) as partial:
            with partial.open("wb") as file:
                before, fitted = None, b""
                for image in decode(path):
                    if image is not before:  # the same image again is a moment in which nothing changes
                        before, fitted = image, fit(image, *size).tobytes()
                    file.write(fitted)
            if not partial.stat().st_size:
                raise DataError(f"{path} holds no frames")
            flush(partial)
    count = made.stat().st_size // prod(size)
    return StoredFrames(made, size, first, count if last is None else min(last, count), reading.every)


def _identity(path: Path, size: tuple[int, int, int], decode: Decode) -> str:
    """The name of a cached file. It tells the decoding function, too: another one may cut or thin frames otherwise."""
    function = getattr(decode, "func", decode)
    how = (function.__module__, function.__qualname__, getattr(decode, "args", ()), getattr(decode, "keywords", {}))
    files = sorted(f for f in path.rglob("*") if f.exists()) if path.is_dir() else [path]  # no links to nothing
    facts = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.sha256(repr((_VERSION, facts, size, how)).encode()).hexdigest()[:32]
