"""TaxiBJ (Zhang, Zheng and Qi, AAAI 2017): taxis that enter and leave each cell of a 32x32 grid of Beijing.

There are four files, ``BJ13_M32x32_T30_InOut.h5`` to ``BJ16_...``. Each has ``data`` (N, 2, 32, 32), the inflow and
outflow of half an hour, and ``date`` (N,), such as b"2013070101": a day and its half hour, 01 to 48.

As in the published code (ST-ResNet), days that lack a half hour are left out, negative counts become 0, the last four
weeks are the test, windows never cross a gap, and values are scaled by the extremes of the training part.

The differences are on purpose. The 28 days before the test validate, so neither the weights nor the scale have seen
them. The windows of each part lie wholly within it, while the published samples take their past from the training part.
The four weeks are counted in days of BJ16, while the published code counts samples. Papers on 4 -> 4 share arrays that
are already cut into clips; we found no description of how, so these clips may differ from theirs.

Values are float32 in [0, 1], the range that such models are made for. Values beyond the extremes of the training part
are clipped, in past and future alike; `describe` tells how often.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType

import numpy as np

from stzoo.data import Reading, Split
from stzoo.data.flow_file import h5py_module, read_flow
from stzoo.data.recordings import RecordedClips, Recording, sliding_clips
from stzoo.errors import DataError

FILES = tuple(f"BJ{year}_M32x32_T30_InOut.h5" for year in (13, 14, 15, 16))
WHAT = f"TaxiBJ is the four files {', '.join(FILES)}"
FRAME = (2, 32, 32)
SLOTS = 48  # half hours in a day
MOST = 366 * SLOTS  # rows that a file may have; each file covers less than a year
TEST_DAYS = VALIDATION_DAYS = 28  # of the last file

_DATE = re.compile(rb"(\d{4})(\d\d)(\d\d)(0[1-9]|[1-3]\d|4[0-8])")


def open_folder(folder: Path, reading: Reading) -> TaxiBJ:
    """Read the four files of the folder into memory (about 170 MB).

    With `skip_bad`, a file that is absent or damaged is left out. Without BJ16 there is no validation and no test.

    Raises:
        MissingExtraError: h5py is not installed.
        DataError: the model reads other frames than 2x32x32, or not every frame; a file is absent or has other content;
            or there are too few days.
    """
    h5py_module()
    if (reading.channels, reading.height, reading.width, reading.every) != (*FRAME, 1):
        raise DataError(
            f"TaxiBJ has frames of 2x32x32, and all of them are read; asked for {reading.channels}x{reading.height}x"
            f"{reading.width}, every {reading.every}"
        )
    found: dict[str, WholeDays] = {}
    for name in FILES:
        try:
            found[name] = _whole_days(folder / name, *read_flow(folder / name, FRAME, MOST, WHAT))
        except DataError as error:
            if not reading.skip_bad:
                raise
            warnings.warn(f"left out: {error}", stacklevel=2)
    if not found:
        raise DataError(f"{folder} holds none of {', '.join(FILES)} that can be read")
    days = _joined(tuple(found.values()))
    tested = found[FILES[-1]].ordinals if FILES[-1] in found else np.array([], np.int64)
    return _scaled(folder, days, tested)


@dataclass(frozen=True)
class WholeDays:
    """D days that lack no half hour.

    Attributes:
        ordinals: (D,) integers, rising: the days, counted as `date.toordinal` does.
        flow: (D, 48, 2, 32, 32) float32: taxis in half an hour, or these scaled to [0, 1].
    """

    ordinals: np.ndarray
    flow: np.ndarray


@dataclass(frozen=True)
class TaxiBJ:
    """The dataset: flows scaled to [0, 1].

    Attributes:
        folder: where the files lie.
        parts: the days of each part.
        low, high: taxis in half an hour that the values 0 and 1 stand for.
        clipped: for each part, the share of values that were beyond these.
    """

    folder: Path
    parts: Mapping[Split, WholeDays]
    low: float
    high: float
    clipped: Mapping[Split, float]

    def split(self, name: Split, frames_in: int, frames_out: int) -> RecordedClips:
        """Every window of consecutive half hours in the part. Raises `DataError` if there is none."""
        if not len(self.parts[name].ordinals):
            raise DataError(f"{self.folder}: the {name} part is empty, for {FILES[-1]} was left out")
        return sliding_clips(_runs(self.parts[name]), frames_in, frames_out, 1)

    def describe(self) -> str:
        lines = [f"TaxiBJ in {self.folder}", f"  0 and 1      {self.low:g} and {self.high:g} taxis in half an hour"]
        for name, days in self.parts.items():
            what = "nothing"
            if len(days.ordinals):
                first, last = (date.fromordinal(int(o)) for o in days.ordinals[[0, -1]])
                what = f"{len(days.ordinals)} whole days from {first} to {last}, {self.clipped[name]:.3%} clipped"
            lines.append(f"  {name:<12} {what}")
        return "\n".join(lines)


def _whole_days(path: Path, flow: np.ndarray, dates: np.ndarray) -> WholeDays:
    """The days whose 48 half hours are in 48 consecutive rows, in order."""
    slots = np.array([_slot(path, row, text) for row, text in enumerate(dates)], np.int64)
    starts = np.flatnonzero(slots[: max(len(slots) - SLOTS + 1, 0)] % SLOTS == 0)
    rows = starts[:, None] + np.arange(SLOTS)
    whole = (slots[rows] == slots[starts][:, None] + np.arange(SLOTS)).all(1)
    return WholeDays(slots[starts[whole]] // SLOTS, flow[rows[whole]])


def _slot(path: Path, row: int, text: object) -> int:
    """A date such as b"2013070101" -> half hours since day 0. Raises `DataError`, which names file and row."""
    raw = text.encode("ascii", "replace") if isinstance(text, str) else text
    match = _DATE.fullmatch(raw) if isinstance(raw, bytes) else None
    try:
        if match is None:
            raise ValueError
        year, month, day, slot = (int(part) for part in match.groups())
        return date(year, month, day).toordinal() * SLOTS + slot - 1
    except ValueError:
        raise DataError(f"{path}: date {row} is {text!s}; expected YYYYMMDD and a half hour 01 to 48") from None


def _joined(files: tuple[WholeDays, ...]) -> WholeDays:
    """All days in the order of time, each once."""
    ordinals, first = np.unique(np.concatenate([each.ordinals for each in files]), return_index=True)
    return WholeDays(ordinals, np.concatenate([each.flow for each in files])[first])


def _scaled(folder: Path, days: WholeDays, last_file: np.ndarray) -> TaxiBJ:
    """Split the days, and scale them to [0, 1] by the extremes of the training part. `last_file`: the days of BJ16."""
    test, validation = last_file[-TEST_DAYS:], last_file[-TEST_DAYS - VALIDATION_DAYS : -TEST_DAYS]
    tests, validates = np.isin(days.ordinals, test), np.isin(days.ordinals, validation)
    masks: dict[Split, np.ndarray] = {"train": ~tests & ~validates, "validation": validates, "test": tests}
    parts = {name: WholeDays(days.ordinals[mask], days.flow[mask]) for name, mask in masks.items()}
    if not masks["train"].any() or 0 < len(last_file) < TEST_DAYS + VALIDATION_DAYS:
        raise DataError(
            f"{folder}: {len(days.ordinals)} whole days, {len(last_file)} of them in {FILES[-1]}; validation and test "
            f"take the last {TEST_DAYS + VALIDATION_DAYS} of those, and training needs some of the others"
        )
    low, high = float(parts["train"].flow.min()), float(parts["train"].flow.max())
    if low == high:
        raise DataError(f"{folder}: every flow to train on is {low:g}, so the values cannot be scaled")
    clipped: dict[Split, float] = {}
    for name, part in parts.items():
        flow = part.flow
        flow -= low
        flow /= high - low
        clipped[name] = float(((flow < 0) | (flow > 1)).mean()) if len(flow) else 0.0
        np.clip(flow, 0, 1, out=flow)
    return TaxiBJ(folder, MappingProxyType(parts), low, high, MappingProxyType(clipped))


def _runs(days: WholeDays) -> Iterator[Recording]:
    """Days that follow one another without a gap, as one recording."""
    breaks = np.flatnonzero(np.diff(days.ordinals) != 1) + 1
    for first, last in zip([0, *breaks], [*breaks, len(days.ordinals)], strict=True):
        name = f"{date.fromordinal(int(days.ordinals[first]))} and {last - first - 1} more days"
        yield Recording(name, days.flow[first:last].reshape(-1, *FRAME))
