"""Precipitation seen by radar and satellite: events, each a ``.npz`` file with ``frames`` (T, H, W) uint8.

A cell is 0 if nothing was observed, 1 if the rain rate is below 0.1 mm/h, and otherwise 10 log10(rain rate in mm/h) in
steps of 0.2 from -10 on. Read as uint8 of the range `DBR`, that is exactly dBR, and "dry" is -10.2. Cells that were not
observed read as dry and are marked as not `valid`, so that neither a loss nor a figure counts them.

The split is by event. A clip of the dataset `radar`, which this file makes, is a crop; crops that are mostly unobserved
or mostly dry are left out of every part. `stzoo.data.radar_crops` keeps the dry ones, and `stzoo.data.radar_fields`
makes clips of whole fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stzoo.data import Reading, Split
from stzoo.data.recordings import RecordedClips, Recording, read_each
from stzoo.errors import DataError, FramesError
from stzoo.frames.arrays import open_array

DBR = (-10.4, 40.6)  # dBR that the values 0 and 255 stand for
NOTHING, DRY = 0, 1
_MOST_BYTES = 2**32  # that an event may unpack to: a month of five-minute frames of 700x700
_MOST_OF_NUMBER = 1000  # bytes that a file of one number may unpack to
TEST, VALIDATION = ("bom2_20180616", "mch_20160711"), ("fmi_20160928",)
OBSERVED, WET = 0.75, 0.1  # least shares of the cells of a clip that were observed, and that have rain
HOP: dict[Split, tuple[int, int]] = {
    "train": (1, 32),
    "validation": (1, 32),
    "test": (3, 64),
}  # between clips: frames, pixels


def open_folder(folder: Path, reading: Reading) -> RadarDataset:
    """Every ``.npz`` file of the folder is an event. Raises `DataError` as `open_events`."""
    return RadarDataset(open_events(folder, reading))


@dataclass(frozen=True)
class RadarDataset:
    """Crops of the reading's size in which it rains, on a grid in space and time."""

    events: RadarEvents

    def split(self, name: Split, frames_in: int, frames_out: int) -> RecordedClips:
        reading, length = self.events.reading, frames_in + frames_out
        window = (length, reading.height, reading.width)
        recordings = tuple(self.events.recordings(name))
        places = places_of(recordings, window, *HOP[name], wet=WET)
        if not len(places):
            raise DataError(
                f"{self.events.folder}: the {name} part has no crop of {length} frames of "
                f"{reading.height}x{reading.width} of which at least {OBSERVED:.0%} was observed and at least "
                f"{WET:.0%} has rain"
            )
        return RecordedClips(recordings, places, frames_in, frames_out, reading.height, reading.width)

    def describe(self) -> str:
        return self.events.describe()


def open_events(folder: Path, reading: Reading) -> RadarEvents:
    """Every ``.npz`` file of the folder is an event.

    Raises:
        DataError: there is no such file, or the model reads more than one channel.
    """
    files = tuple(sorted(folder.glob("*.npz")))
    if not files:
        raise DataError(f"{folder} holds no .npz of radar frames")
    if reading.channels != 1:
        raise DataError(f"radar frames have one channel; this model reads {reading.channels}")
    return RadarEvents(folder, files, reading)


@dataclass(frozen=True)
class RadarEvents:
    """Events, one in each file, and which part each belongs to."""

    folder: Path
    files: tuple[Path, ...]
    reading: Reading

    def recordings(self, name: Split) -> Iterator[Recording]:
        """The events of a part, whole. Raises `DataError` if one cannot be read, unless such files are left out."""

        def read(file: Path) -> Recording:
            frames = _read(file)[:: self.reading.every]
            return Recording(file.stem, np.maximum(frames, DRY)[:, None], (frames != NOTHING)[:, None])

        return read_each((file for file in self.files if _part(file) == name), read, self.reading.skip_bad)

    def step_minutes(self, event: str) -> float | None:
        """Minutes from one frame of the event of this name to the next; None if its file does not say it."""
        path = self.folder / f"{event}.npz"
        with np.load(path, allow_pickle=False) as file:
            if "step_minutes" not in file.files or file.zip.getinfo("step_minutes.npy").file_size > _MOST_OF_NUMBER:
                return None
            return float(file["step_minutes"].item()) * self.reading.every

    def describe(self) -> str:
        lines = [f"radar events in {self.folder}"]
        for name in ("train", "validation", "test"):
            lines.append(f"  {name:<12} {', '.join(p.stem for p in self.files if _part(p) == name) or 'nothing'}")
        return "\n".join(lines)


def _part(file: Path) -> Split:
    return "test" if file.stem in TEST else "validation" if file.stem in VALIDATION else "train"


def _read(file: Path) -> np.ndarray:
    """The frames of an event, (T, H, W) uint8. Raises `DataError`, which names the file, if they cannot be read."""
    try:
        frames = open_array(file, named="frames", most=_MOST_BYTES)
    except FramesError as error:
        raise DataError(str(error)) from error
    if frames.ndim != 3 or frames.dtype != np.uint8:
        raise DataError(f"{file}: frames are {frames.shape} {frames.dtype}; expected (T, H, W) uint8")
    return frames


def places_of(
    recordings: Sequence[Recording], window: tuple[int, int, int], hop: int, grid: int, *, wet: float = 0.0
) -> np.ndarray:
    """The crops of events that were observed well enough, at every `hop`-th frame and on a grid of `grid` cells.

    Args:
        recordings: events, as `RadarEvents.recordings` yields them.
        window: frames, height and width of a crop.
        wet: the least share of the cells of a crop that have rain.

    Returns:
        (n, 4) integers: number of the recording, first frame, top row, left column.
    """
    found = [_places(i, each, window, hop, grid, wet) for i, each in enumerate(recordings)]
    return np.concatenate([*found, np.empty((0, 4), np.int64)])


def _places(
    number: int, recording: Recording, window: tuple[int, int, int], hop: int, grid: int, wet: float
) -> np.ndarray:
    """`places_of` of the one recording with this number."""
    observed, rain = recording.valid[:, 0], recording.frames[:, 0] > DRY  # type: ignore[index]
    if any(size < wanted for size, wanted in zip(rain.shape, window, strict=True)):
        return np.empty((0, 4), np.int64)
    enough = _shares(observed, *window, grid) >= OBSERVED
    if wet:
        enough &= _shares(rain, *window, grid) >= wet
    found = np.argwhere(enough[::hop]) * (hop, grid, grid)
    return np.column_stack([np.full(len(found), number), found])


def _shares(mask: np.ndarray, length: int, height: int, width: int, grid: int) -> np.ndarray:
    """The share of true cells in windows of that size, which start at every time and every `grid`-th row and column."""
    for axis, size, step in ((2, width, grid), (1, height, grid), (0, length, 1)):
        total = np.cumsum(mask, axis, dtype=np.float64)
        start = np.take(total, range(0, mask.shape[axis] - size + 1, step), axis)
        end = np.take(total, range(size - 1, mask.shape[axis], step), axis)
        first = np.take(mask, range(0, mask.shape[axis] - size + 1, step), axis)
        mask = end - start + first
    return mask / (length * height * width)
