"""Your own clips: a folder of videos, animations, folders of images and array files, or one such file.

If the folder has sub-folders ``train``, ``validation`` and ``test``, these are the parts. Otherwise three files or more
are split by file, in the order of the numbers in their names (`stzoo.frames.order`): the last tenth is for testing, the
tenth before it for validation, each at least one file. One or two files are split by time: the first eight tenths of
each are for training, the next tenth for validation, the last one for testing. Hidden files are left out.

Pictures are resized to the model's frames. An array is cropped to its middle; its values keep their dtype and units.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from stzoo.data import Reading, Split
from stzoo.data.recordings import RecordedClips, Recording, decode_once, read_each, sliding_clips
from stzoo.errors import DataError, FramesError
from stzoo.frames.arrays import ARRAYS, open_array
from stzoo.frames.axes import as_layout, axes_of, time_of
from stzoo.frames.fields import FIELDS, check_read, open_field
from stzoo.frames.images import ANIMATED, PAGED, STILL, holds_pages, iterate_images
from stzoo.frames.order import in_order, is_hidden
from stzoo.frames.rain import RainUnit, asked_unit
from stzoo.frames.units import unit_of
from stzoo.frames.values import beyond_rounding
from stzoo.frames.video import VIDEO, read_video

PARTS: tuple[Split, ...] = ("train", "validation", "test")
HOP = 5  # frames from the start of one measured clip to the next


def open_folder(folder: Path, reading: Reading) -> OwnClips:
    """The clips in `folder`, which may also be a single file.

    Raises:
        DataError: nothing there can be read, or the folder has only some of the sub-folders of the three parts.
        FramesError: the reading names a unit of rain, and its range of values is none of rain.
    """
    asked_unit(reading.units, reading.value_range)  # which raises
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if 0 < len(missing) < len(PARTS):
        raise DataError(
            f"{folder} has parts but no {' and no '.join(missing)}; create it, or keep all files in one folder"
        )
    if not missing:
        return OwnClips(folder, MappingProxyType({part: _sources(folder / part) for part in PARTS}), reading, False)
    sources = _sources(folder)
    if len(sources) < 3:
        return OwnClips(folder, MappingProxyType(dict.fromkeys(PARTS, sources)), reading, True)
    tenth = max(1, len(sources) // 10)
    bounds = {"train": (0, -2 * tenth), "validation": (-2 * tenth, -tenth), "test": (-tenth, None)}
    parts: dict[Split, tuple[Path, ...]] = {part: sources[slice(*bounds[part])] for part in PARTS}
    return OwnClips(folder, MappingProxyType(parts), reading, False)


@dataclass(frozen=True)
class OwnClips:
    """Files of any kind, split by file or, if `by_time`, each of them by time.

    Attributes:
        folder: where they lie.
        files: the files of each part.
        reading: what the frames are like.
        by_time: every part has the same files, and its own share of each.
    """

    folder: Path
    files: Mapping[Split, tuple[Path, ...]]
    reading: Reading
    by_time: bool

    def split(self, name: Split, frames_in: int, frames_out: int) -> RecordedClips:
        found = read_each(self.files[name], lambda path: self._recording(path, name), self.reading.skip_bad)
        return sliding_clips(found, frames_in, frames_out, 1 if name == "train" else HOP)

    def describe(self) -> str:
        r = self.reading
        how = "by time" if self.by_time else "by file"
        lines = [f"{self.folder}, split {how}", f"  frames       {r.channels}x{r.height}x{r.width}, every {r.every}"]
        for part, files in self.files.items():
            lines.append(f"  {part:<12} {', '.join(f.name for f in files[:5])}{', ...' * (len(files) > 5)}")
        return "\n".join(lines)

    def _recording(self, path: Path, part: Split) -> Recording:
        """A file, or the part's share of it if files are split by time."""
        suffix = path.suffix.lower()
        if suffix not in (*ARRAYS, *FIELDS):
            if self.reading.units is not None:
                raise DataError(f"{path} holds pictures, whose shades are in no unit; leave out --units, or the file")
            reading = self.reading.larger() if part == "train" else self.reading
            decode = read_video if suffix in VIDEO else iterate_images
            if reading.own_size:
                first_image = next(iter(decode(path)))
                reading = dataclasses.replace(reading, height=first_image.height, width=first_image.width)
            whole = decode_once(path, reading, decode)
            first, last = self._share(part, whole.last)
            return Recording(self._name(path, part), dataclasses.replace(whole, first=first, last=last))
        asked = asked_unit(self.reading.units, self.reading.value_range)
        array, unit = (open_array(path), asked) if suffix in ARRAYS else _field(path, self.reading)
        first, last = self._share(part, len(array))
        return _cropped(self._name(path, part), array[first : last : self.reading.every], self.reading, unit)

    def _share(self, part: Split, count: int) -> tuple[int, int]:
        """The part's frames of a file that has `count`: the first one, and the one after the last."""
        first, last = (round(count * share) for share in _SHARES[part])
        return (first, last) if self.by_time else (0, count)

    def _name(self, path: Path, part: Split) -> str:
        return f"the {part} part of {path}, split by time" if self.by_time else str(path)


_SHARES: Mapping[Split, tuple[float, float]] = MappingProxyType(
    {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}
)


def _sources(folder: Path) -> tuple[Path, ...]:
    if folder.is_file():
        return (folder,)
    if _is_source(folder):
        return (folder,)
    found = tuple(in_order(p for p in _inside(folder) if _is_source(p)))
    if not found:
        raise DataError(f"{folder} holds no video, animation, array file or folder of images")
    return found


def _is_source(path: Path, entered: set[str] | None = None) -> bool:
    """A file of a known kind, a Zarr store, or a folder of images that holds no other such files or folders.

    A TIFF file is a source if it holds several pages, and one of the images of its folder otherwise.

    Args:
        path: the file or the folder.
        entered: real paths of folders that were looked into already, and hold no source: links may lead back to them.
    """
    suffix = path.suffix.lower()
    if not path.is_dir() or suffix in FIELDS:
        return suffix in (*VIDEO, *ANIMATED, *ARRAYS, *FIELDS) or (suffix in PAGED and holds_pages(path))
    entered, real = set() if entered is None else entered, os.path.realpath(path)
    if real in entered:
        return False
    entered.add(real)
    try:
        inside = _inside(path)
    except DataError as error:
        warnings.warn(f"left out: {error}", stacklevel=2)
        return False
    images = [p for p in inside if p.suffix.lower() in STILL and not p.is_dir()]
    if any(p.suffix.lower() in PAGED and holds_pages(p) for p in images):
        return False
    return len(images) > 0 and not any(_is_source(p, entered) for p in inside if p not in images)


def _inside(folder: Path) -> list[Path]:
    """What lies in a folder and is not hidden. Raises `DataError` if this process may not look into it."""
    try:
        return [path for path in folder.iterdir() if not is_hidden(path.name)]
    except OSError as error:
        raise DataError(f"{folder} cannot be looked into: {error.strerror}") from error


def _field(path: Path, reading: Reading) -> tuple[np.ndarray, RainUnit | None]:
    """The values of a netCDF or Zarr file, (T, H, W) or (T, C, H, W), whatever the order of its dimensions.

    With them comes the unit that they are in, if they are rain.
    """
    with open_field(path) as field:
        try:
            time = time_of(field)
            axes = axes_of(field, reading.channels, time)
            unit = unit_of(field, reading.value_range, asked_unit(reading.units, reading.value_range))
        except FramesError as error:
            raise DataError(f"{path}: {error}") from error
        if "B" in axes:
            raise DataError(f"{path} holds several samples; select one, and write it to its own file")
        check_read(path, field, slice(None), time)
        try:
            return as_layout(field, axes).to_numpy(), unit
        except RuntimeError as error:
            raise DataError(f"{path} is damaged: {error}") from error


def _cropped(name: str, array: np.ndarray, reading: Reading, unit: RainUnit | None) -> Recording:
    """The middle of an array, of the size of the model's frames; all of it if the reading keeps frames at their size.

    Args:
        name: what errors call the array.
        array: (T, H, W), (T, C, H, W) or, if only that fits, (T, H, W, C); uint8, floats in the model's units, or
            numbers in `unit`.
        reading: what the frames shall be like.
        unit: of the numbers, which are converted; None if they are in the model's units, or stand for its range.

    Raises:
        DataError: the array has another shape or dtype, is too small, has values outside the model's range, or holds
            NaN although the model has no fill value.
    """
    channels = reading.channels
    frames = array[:, None] if array.ndim == 3 else array
    if frames.ndim == 4 and frames.shape[1] != channels and frames.shape[3] == channels:
        frames = frames.transpose(0, 3, 1, 2)
    there = frames.shape[1:] if frames.ndim == 4 else (0, 0, 0)
    height, width = there[1:] if reading.own_size else (reading.height, reading.width)
    expected = f"{name} has shape {array.shape}; expected (T, H, W) or (T, C, H, W) with {channels} channels"
    if there[0] != channels:
        raise DataError(f"{expected}, given {there[0]}" if frames.ndim == 4 else expected)
    if there[1] < height or there[2] < width:
        raise DataError(
            f"{expected}, of at least {height}x{width}, which is the model's size and is cut from their middle; "
            "enlarge or pad these frames, or to measure a model let it run at their own size (stzoo evaluate --size "
            "own)"
        )
    top, left = (there[1] - height) // 2, (there[2] - width) // 2
    frames = frames[..., top : top + height, left : left + width]
    if unit is not None:
        frames = _converted(name, frames, unit)
    if frames.dtype == np.uint8:
        return Recording(name, frames)
    if frames.dtype.kind != "f":
        raise DataError(f"{name} holds {frames.dtype}; expected uint8 or floats in the model's units")
    frames = frames.astype(np.float32, copy=False)
    known = ~np.isnan(frames).any(1, keepdims=True)
    largest = float(np.finfo(np.float32).max)
    frames = _in_range(name, frames, reading.value_range or (-largest, largest))
    if known.all():
        return Recording(name, frames)
    if reading.fill is None:
        raise DataError(f"{name} holds NaN; the model's spec names no fill value for missing data, so replace it")
    return Recording(name, np.where(known, frames, np.float32(reading.fill)), known)


def _converted(name: str, frames: np.ndarray, unit: RainUnit) -> np.ndarray:
    """Numbers in a unit of rain -> dBR in float32. Raises `DataError` if some are no rain."""
    dbr = np.empty(frames.shape, np.float32)
    try:
        for number, frame in enumerate(frames):  # each alone, so that no second copy of a long recording is made
            dbr[number] = unit.to_dbr(torch.from_numpy(np.array(frame, np.float64)))
    except FramesError as error:
        raise DataError(f"{name}: {error}") from error
    return dbr


def _in_range(name: str, frames: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Floats, of which some may be NaN; what lies outside the model's range by rounding alone is clipped.

    Raises:
        DataError: a value lies farther outside.
    """
    low, high = np.float32(value_range[0]), np.float32(value_range[1])
    least, most = np.nanmin(frames, initial=np.inf), np.nanmax(frames, initial=-np.inf)
    if least >= low and most <= high:
        return frames
    if given := beyond_rounding(float(least), float(most), value_range):
        raise DataError(f"{name} has values from {given[0]} to {given[1]}; the model's lie in [{low:g}, {high:g}]")
    return frames.clip(low, high)
