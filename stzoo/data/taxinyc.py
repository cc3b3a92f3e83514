"""TaxiNYC: taxis that enter and leave each cell of a 16x8 grid of New York in an hour, 2010 to 2014.

There are five files, ``taxinyc_10.h5`` to ``taxinyc_14.h5``. Each has ``data`` (N, 2, 16, 8), the inflow and outflow of
an hour, and ``date`` (N,), such as b"2010010100": a day and its hour of New York's clocks, 00 to 23.

The files come from monthly lists of trips. A trip that ends after its month adds to an hour of the next list, so many
hours are there twice, and one of the two rows is zero or holds a few trips. The rows of an hour are added up. In
September there are but such left-over trips. A day counts if at most one of its hours is zero everywhere: the hour that
the clocks skip in March is. All other days are left out, and no window crosses a gap.

The last 40 days test, and the 40 before them validate. A window belongs to the part in which all hours to forecast lie.
Its past may begin before, in an earlier part, as it does when a forecast is made. So models with pasts of different
lengths are measured on the same hours. Values are float32 counts.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from types import MappingProxyType

import numpy as np

from stzoo.data import Reading, Split
from stzoo.data.flow_file import h5py_module, read_flow
from stzoo.data.recordings import RecordedClips, Recording, sliding_clips
from stzoo.errors import DataError

FILES = tuple(f"taxinyc_{year}.h5" for year in (10, 11, 12, 13, 14))
WHAT = f"TaxiNYC is the five files {', '.join(FILES)}"
FRAME = (2, 16, 8)
HOURS = 24
MOST = 2 * 366 * HOURS  # rows that a file may have: a year, each hour twice
TEST_DAYS = VALIDATION_DAYS = 40  # of the last file

_DATE = re.compile(rb"(\d{4})(\d\d)(\d\d)([01]\d|2[0-3])")


def open_folder(folder: Path, reading: Reading) -> TaxiNYC:
    """Read the five files of the folder into memory (about 42 MB).

    With `skip_bad`, a file that is absent or damaged is left out. Without the last one there is no validation and no
    test.

    Raises:
        MissingExtraError: h5py is not installed.
        DataError: the model reads other frames than 2x16x8, or not every frame; a file is absent or has other content;
            or there are too few days.
    """
    h5py_module()
    if (reading.channels, reading.height, reading.width, reading.every) != (*FRAME, 1):
        raise DataError(
            f"TaxiNYC has frames of 2x16x8, and all of them are read; asked for {reading.channels}x{reading.height}x"
            f"{reading.width}, every {reading.every}"
        )
    days: dict[int, np.ndarray] = {}
    last: list[int] = []  # the days of the last file
    for name in FILES:
        try:
            found = _days(folder / name, *read_flow(folder / name, FRAME, MOST, WHAT))
        except DataError as error:
            if not reading.skip_bad:
                raise
            warnings.warn(f"left out: {error}", stacklevel=2)
            continue
        days |= found
        last = sorted(found) if name == FILES[-1] else []
    if not days:
        raise DataError(f"{folder} holds none of {', '.join(FILES)} that can be read")
    test, validation = last[-TEST_DAYS:], last[-TEST_DAYS - VALIDATION_DAYS : -TEST_DAYS]
    training = sorted(days.keys() - {*test, *validation})
    if not training or 0 < len(last) < TEST_DAYS + VALIDATION_DAYS:
        raise DataError(
            f"{folder}: {len(days)} whole days, {len(last)} of them in {FILES[-1]}; validation and test take the last "
            f"{TEST_DAYS + VALIDATION_DAYS} of those, and training needs some of the others"
        )
    parts: dict[Split, list[int]] = {"train": training, "validation": validation, "test": test}
    whole = {day: days[day] for day in sorted(days)}
    return TaxiNYC(
        folder, MappingProxyType(whole), MappingProxyType({name: tuple(part) for name, part in parts.items()})
    )


@dataclass(frozen=True)
class TaxiNYC:
    """The dataset: counts of taxis in an hour.

    Attributes:
        folder: where the files lie.
        days: every day in order, counted as `date.toordinal` does, with its flow (24, 2, 16, 8).
        parts: the days of each part, which are later than those of the part before.
    """

    folder: Path
    days: Mapping[int, np.ndarray]
    parts: Mapping[Split, tuple[int, ...]]

    def split(self, name: Split, frames_in: int, frames_out: int) -> RecordedClips:
        """Every window of consecutive hours whose future lies in the part. Raises `DataError` if there is none."""
        part = self.parts[name]
        if not part:
            raise DataError(f"{self.folder}: the {name} part is empty, for {FILES[-1]} was left out")
        runs = list(_runs({day: flow for day, flow in self.days.items() if day <= part[-1]}))
        clips = sliding_clips((run for _, run in runs), frames_in, frames_out, 1)
        recordings, first = clips.places[:, 0], clips.places[:, 1]
        begins = np.array([HOURS * day for day, _ in runs])[recordings] + first + frames_in
        kept = clips.places[begins >= HOURS * part[0]]
        if not len(kept):
            raise DataError(
                f"{self.folder}: no hour of the {name} part has {frames_in} hours without a gap before it and "
                f"{frames_out} from it on"
            )
        return replace(clips, places=kept)

    def describe(self) -> str:
        lines = [f"TaxiNYC in {self.folder}, taxis in an hour"]
        for name, days in self.parts.items():
            ends = f" from {date.fromordinal(days[0])} to {date.fromordinal(days[-1])}" if days else ""
            lines.append(f"  {name:<12} {len(days)} whole days{ends}")
        return "\n".join(lines)


def _days(path: Path, flow: np.ndarray, dates: np.ndarray) -> dict[int, np.ndarray]:
    """The days of which at most one hour is zero everywhere, each with its flow (24, 2, 16, 8)."""
    hours = np.array([_hour(path, row, text) for row, text in enumerate(dates)], np.int64)
    days, place = np.unique(hours // HOURS, return_inverse=True)
    summed = np.zeros((len(days), HOURS, *FRAME), np.float32)
    np.add.at(summed, (place, hours % HOURS), flow)
    whole = summed.any((2, 3, 4)).sum(1) >= HOURS - 1
    return {int(day): each for day, each in zip(days[whole], summed[whole], strict=True)}


def _hour(path: Path, row: int, text: object) -> int:
    """A date such as b"2010010123" -> hours since day 0. Raises `DataError`, which names file and row."""
    raw = text.encode("ascii", "replace") if isinstance(text, str) else text
    match = _DATE.fullmatch(raw) if isinstance(raw, bytes) else None
    try:
        if match is None:
            raise ValueError
        year, month, day, hour = (int(part) for part in match.groups())
        return date(year, month, day).toordinal() * HOURS + hour
    except ValueError:
        raise DataError(f"{path}: date {row} is {text!s}; expected YYYYMMDD and an hour 00 to 23") from None


def _runs(days: Mapping[int, np.ndarray]) -> Iterator[tuple[int, Recording]]:
    """Days that follow one another without a gap, as one recording, with the first of them."""
    ordinals = np.array(list(days))
    for run in np.split(ordinals, np.flatnonzero(np.diff(ordinals) != 1) + 1):
        name = f"{date.fromordinal(int(run[0]))} and {len(run) - 1} more days"
        yield int(run[0]), Recording(name, np.concatenate([days[int(day)] for day in run]))
