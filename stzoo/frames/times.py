"""The times of a map's frames: which coordinate holds them, and how they go on."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Hashable, Iterator
from datetime import datetime, timedelta
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stzoo.errors import FramesError, printable
from stzoo.frames.axes import is_clock

if TYPE_CHECKING:
    import xarray as xr

_DIGITS = {
    6: "%Y%m",
    7: "%Y%j",
    8: "%Y%m%d",
    10: "%Y%m%d%H",
    12: "%Y%m%d%H%M",
    14: "%Y%m%d%H%M%S",
}  # dates that are written as one number
_DAYS = ("%Y%m%d", "%Y%j")  # those of whole days
_DAY = 86_400  # seconds
_YEARS = range(1900, 2200)  # of such dates; other numbers are counts of something
_LAST = np.datetime64("10000-01-01", "s")
_SURE_DAY = 28  # every month has this day
_OFFSET = re.compile(r":\d\d(\.\d+)? ?[+-]\d\d:?(\d\d)?$")  # of a zone's time from UTC
_NO_DATE = re.compile(rf"{_OFFSET.pattern}|^\d{{5}}")  # what NumPy would read as the year 20240 or with a warning
_SEPARATORS = ("T", " ", "_")  # between the day and the hour of a written time


def clock_of(field: xr.DataArray, time: Hashable) -> Hashable | None:
    """The name of the coordinate that holds the times of the dimension `time`; None if there is none.

    It is the one with the name of the dimension, or else the first one along it whose values are dates, such as WRF's
    `XTIME` along `Time`.
    """
    if time in field.coords:
        return time
    along = [name for name, each in field.coords.items() if each.dims == (time,)]
    return next((name for name in along if is_clock(field.coords[name], own=False)), None)


def dates_in_text(times: np.ndarray) -> np.ndarray | None:
    """Times written as ISO 8601 or as WRF writes them, "2000-01-24_12:00:00" -> datetime64; None for other text."""
    read = _text_format(times)
    return None if read is None else read[0]


def continued(times: np.ndarray, name: Hashable, *, counted: bool) -> Iterator[Any]:
    """The times after the last one, without end, in the kind and the form of those given.

    Times at equal steps go on at that step. Dates that are one or several calendar months apart, at the same day of the
    month, go on by calendar months. Dates that are written as text or as one number, such as 20240131, 202401 for a
    month or 2024031 for a day of the year, are read as dates.

    Args:
        times: (N,) numbers, datetime64, timedelta64, dates of cftime, or text.
        name: of their coordinate, for the error.
        counted: the numbers have a unit, such as "hours since 2000-01-01", so that they are no dates.

    Raises:
        FramesError: they cannot be continued.
    """
    read = None if counted else _number_format(times)
    read = read or _text_format(times)
    dates = times if read is None else read[0]
    found = None if not counted and _are_short_dates(times) else _by_months(dates) or _by_steps(dates)
    if found is None:
        raise FramesError(
            f"the times {printable(str(times[0]))} to {printable(str(times[-1]))} cannot be continued: "
            f"{printable(_fault(times, dates, counted=counted))}. They must be at least two, rising, at equal steps or "
            "at the same day of every month; resample the frames, or leave the times out: "
            f".drop_vars({printable(repr(name))})"
        )
    return found if read is None else map(read[1], found)


def _fault(times: np.ndarray, dates: np.ndarray, *, counted: bool) -> str:
    """What keeps the times from being continued. `dates` are the same times, as dates where they could be read so."""
    if len(times) < 2:
        return "there is only one"
    if not counted and _are_short_dates(times):
        return f"{times[0]} may be a date with a year of two digits, or a count; write years with four digits"
    texts = _texts(times)
    if texts and dates is times:
        zone = next(filter(_OFFSET.search, texts), None)
        if zone is not None:
            return f"the time zone of {zone!r} is not read; write the times in UTC, such as 2024-01-31T18:00Z"
        return f"the form of {texts[0]!r} is not read; write dates as 2024-01-31 or 2024-01-31T18:00, alike"
    missing = next((at for at, date in enumerate(dates.tolist()) if date is None or date != date), None)
    if missing is not None or (dates.dtype.kind in "mM" and np.isnat(dates).any()):
        at = int(np.isnat(dates).argmax()) if dates.dtype.kind in "mM" else missing
        return f"number {at} of them, counted from 0, is missing ({times[at]})"
    try:
        ticks = list(dates) if dates.dtype.kind in "mM" else dates.tolist()
        steps = list(map(operator.sub, ticks[1:], ticks[:-1]))
        pair = [f"{earlier} and {later}" for earlier, later in pairwise(times)]
        if all(step < 0 * step for step in steps):
            return "they descend; sort them with .sortby"
        for step, both in zip(steps, pair, strict=True):
            if step == 0 * step:
                return f"two neighbours are the same, {both}"
            if step < 0 * step:
                return f"{both} are in falling order"
        usual = sorted(steps)[len(steps) // 2]
        odd = next(at for at, step in enumerate(steps) if abs(step - usual) > 0.001 * usual)
        return f"{pair[odd]} are {_length(steps[odd])} apart, and most are {_length(usual)} apart"
    except (TypeError, StopIteration):
        return "they are no numbers or dates at equal steps"


def _length(step: Any) -> str:
    return str(step.astype("timedelta64[us]").item() if isinstance(step, np.timedelta64) else step)


def _are_short_dates(times: np.ndarray) -> bool:
    """Whether all may be dates of the form yymmdd, whose continuation as numbers would be no dates."""
    whole = times.dtype.kind in "iuf" and bool((times % 1 == 0).all())  # not so where there is NaN
    texts = [str(int(time)) for time in times.tolist()] if whole else _texts(times)
    if not texts or _number_format(times) is not None or not all(len(t) == 6 and t.isdecimal() for t in texts):
        return False
    try:
        return all(datetime.strptime(text, "%y%m%d") for text in texts)
    except ValueError:
        return False


def _by_steps(times: np.ndarray) -> Iterator[Any] | None:
    """The times after the last one, at the one step between those given; None if there is no such step."""
    kind = times.dtype.kind
    ticks = (times.astype(np.int64) if kind in "mM" else times).tolist()
    step = _step(ticks) if kind in "mMiufO" and not (kind in "mM" and np.isnat(times).any()) else None
    if step is None:
        return None
    return (_time(ticks[-1] + (round(k * step) if kind in "mMiu" else k * step), times.dtype) for k in count(1))


def _step(ticks: list[Any]) -> Any:
    """The step between neighbours, as a number or, for dates, as a timedelta; None if the steps differ.

    Differences of a thousandth of a step are accepted: times that a file holds as hours or days come back rounded.
    """
    try:
        steps = [later - earlier for earlier, later in pairwise(ticks)]
        first = steps[0] if steps else 0
        if not first > 0 * first or not all(abs(step - first) <= 0.001 * first for step in steps):  # so NaN is refused
            return None
        return first if all(step == first for step in steps) else (ticks[-1] - ticks[0]) / len(steps)
    except TypeError:  # times that cannot be subtracted, such as names of days or tuples of a MultiIndex
        return None


def _time(tick: Any, dtype: np.dtype) -> np.ndarray:
    try:
        if dtype.kind in "iu" and not np.iinfo(dtype).min <= tick <= np.iinfo(dtype).max:
            dtype = np.dtype(np.int64)
        return np.array(tick, np.int64).astype(dtype) if dtype.kind in "mM" else np.array(tick, dtype)
    except OverflowError as error:
        raise FramesError(
            f"the time coordinate is {dtype}, which cannot hold times so far ahead; ask for fewer steps"
        ) from error


def _by_months(times: np.ndarray) -> Iterator[Any] | None:
    """The dates after the last one, by calendar months; None if they are not so many whole months apart.

    The days 29 to 31 are not continued, because not every month has them.
    """
    if len(times) < 2:
        return None
    if times.dtype.kind == "M":
        if np.isnat(times).any():
            return None
        months = times.astype("datetime64[M]")
        rest = times - months
        numbers = months.astype(np.int64).tolist()
        day = times[0].astype("datetime64[D]") - months[0].astype("datetime64[D]")  # 0 for the first of the month
        if not (rest == rest[0]).all() or day >= np.timedelta64(_SURE_DAY, "D"):
            return None

        def at(number: int) -> np.ndarray:
            return np.array(np.datetime64(number, "M") + rest[0], times.dtype)
    else:
        dates = times.tolist()
        if times.dtype.kind != "O" or not all(hasattr(date, "calendar") for date in dates):
            return None
        if (
            any(date.day > _SURE_DAY for date in dates)
            or len({str(date.replace(year=1, month=1)) for date in dates}) > 1
        ):
            return None
        numbers = [12 * date.year + date.month - 1 for date in dates]

        def at(number: int) -> np.ndarray:
            return np.array(dates[0].replace(year=number // 12, month=number % 12 + 1), object)

    step = _step(numbers)
    if not isinstance(step, int):
        return None
    return (at(numbers[-1] + k * step) for k in count(1))


def _number_format(times: np.ndarray) -> tuple[np.ndarray, Callable[[Any], np.ndarray]] | None:
    """Dates that are written as one number each: the dates, and what writes a date so. None if they are no dates."""
    kind = times.dtype.kind
    if kind not in "iufUSO" or not len(times):
        return None
    seconds = [0] * len(times)  # since midnight: in "day as %Y%m%d.%f" the fraction of a day follows a point
    if kind in "iuf":
        if not np.isfinite(times).all():
            return None
        texts = [str(int(time)) for time in times.tolist()]
        seconds = [round((time - int(time)) * _DAY) for time in times.tolist()]
    else:
        texts = _texts(times)
    pattern = _DIGITS.get(len(texts[0])) if texts else None
    if pattern is None or not all(len(text) == len(texts[0]) and text.isdecimal() for text in texts):
        return None
    if any(seconds) and pattern not in _DAYS:
        return None
    try:
        days = [datetime.strptime(text, pattern) for text in texts]
    except ValueError:
        return None
    if not all(day.year in _YEARS for day in days):
        return None

    def form(date: Any) -> np.ndarray:
        at: datetime = _writable(date).astype("datetime64[s]").item()
        text = at.strftime(pattern)
        if kind == "f":
            rest = (at - at.replace(hour=0, minute=0, second=0)).seconds if pattern in _DAYS else 0
            return np.array(float(text) + rest / _DAY, times.dtype)
        return np.array(int(text) if kind in "iu" else text, times.dtype)

    dates = [day + timedelta(seconds=second) for day, second in zip(days, seconds, strict=True)]
    return np.array(dates, "datetime64[s]"), form


def _writable(date: Any) -> Any:
    """The same date. Raises `FramesError` if its year has more than the four digits that a written date has."""
    if not date < _LAST:
        raise FramesError("the times reach the year 10000, which has no form of four digits; ask for fewer steps")
    return date


def _text_format(times: np.ndarray) -> tuple[np.ndarray, Callable[[Any], np.ndarray]] | None:
    """The same for text with separators, such as "2024-01-31T12:00Z"."""
    texts = _texts(times)
    if not texts or not all(text[:4].isdecimal() for text in texts) or any(map(_NO_DATE.search, texts)):
        return None
    zone = "Z" if texts[0].endswith("Z") else ""
    separator = next((each for each in _SEPARATORS if each in texts[0]), "T")
    try:
        dates = np.array([text.removesuffix(zone).replace(separator, "T") for text in texts], "datetime64")
    except ValueError:
        return None

    def written(date: Any) -> str:
        return str(np.datetime_as_string(_writable(date))).replace("T", separator) + zone

    if np.isnat(dates).any() or any(written(date) != text for date, text in zip(dates, texts, strict=True)):
        return None
    return dates, lambda date: np.array(written(date), times.dtype)


def _texts(times: np.ndarray) -> list[str]:
    """The times as text; empty if they are something else."""
    found = [time.decode("ascii", "replace") if isinstance(time, bytes) else time for time in times.tolist()]
    return [text.strip() for text in found] if all(isinstance(text, str) for text in found) else []
