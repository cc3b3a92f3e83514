"""The times of a map's frames: which coordinate holds them, and how they go on."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from datetime import datetime, timedelta
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stzoo.errors import FramesError, printable
from stzoo.frames.axes import is_clock

if TYPE_CHECKING:
    import xarray as xr

_DIGITS = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}  # dates that are written as one number
_DAY = 86_400  # seconds
_YEARS = range(1900, 2200)  # of such dates; other numbers are counts of something
_SURE_DAY = 28  # every month has this day
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
    month, go on by calendar months. Dates that are written as text or as one number, such as 20240131, are read as
    dates.

    Args:
        times: (N,) numbers, datetime64, timedelta64, dates of cftime, or text.
        name: of their coordinate, for the error.
        counted: the numbers have a unit, such as "hours since 2000-01-01", so that they are no dates.

    Raises:
        FramesError: they cannot be continued.
    """
    found = _written(times, counted) or _by_months(times) or _by_steps(times)
    if found is None:
        raise FramesError(
            f"the times {printable(str(times[0]))} to {printable(str(times[-1]))} cannot be continued: they must be at "
            "least two, rising, at equal steps or at the same day of every month; resample the frames, or leave the "
            f"times out: .drop_vars({printable(repr(name))})"
        )
    return found


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


def _written(times: np.ndarray, counted: bool) -> Iterator[Any] | None:
    """The dates after the last one, in the form in which those given are written; None if they are not written out."""
    read = None if counted else _number_format(times)
    read = read or _text_format(times)
    if read is None:
        return None
    dates, form = read
    found = _by_months(dates) or _by_steps(dates)
    return None if found is None else (form(date) for date in found)


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
    if any(seconds) and pattern != "%Y%m%d":
        return None
    try:
        days = [datetime.strptime(text, pattern) for text in texts]
    except ValueError:
        return None
    if not all(day.year in _YEARS for day in days):
        return None

    def form(date: Any) -> np.ndarray:
        at: datetime = date.astype("datetime64[s]").item()
        text = at.strftime(pattern)
        if kind == "f":
            rest = (at - at.replace(hour=0, minute=0, second=0)).seconds if pattern == "%Y%m%d" else 0
            return np.array(float(text) + rest / _DAY, times.dtype)
        return np.array(int(text) if kind in "iu" else text, times.dtype)

    dates = [day + timedelta(seconds=second) for day, second in zip(days, seconds, strict=True)]
    return np.array(dates, "datetime64[s]"), form


def _text_format(times: np.ndarray) -> tuple[np.ndarray, Callable[[Any], np.ndarray]] | None:
    """The same for text with separators, such as "2024-01-31T12:00Z"."""
    texts = _texts(times)
    if not texts or not all(text[:4].isdecimal() for text in texts):
        return None
    zone = "Z" if texts[0].endswith("Z") else ""
    separator = next((each for each in _SEPARATORS if each in texts[0]), "T")
    try:
        dates = np.array([text.removesuffix(zone).replace(separator, "T") for text in texts], "datetime64")
    except ValueError:
        return None

    def written(date: Any) -> str:
        return str(np.datetime_as_string(date)).replace("T", separator) + zone

    if np.isnat(dates).any() or any(written(date) != text for date, text in zip(dates, texts, strict=True)):
        return None
    return dates, lambda date: np.array(written(date), times.dtype)


def _texts(times: np.ndarray) -> list[str]:
    """The times as text; empty if they are something else."""
    found = [time.decode("ascii", "replace") if isinstance(time, bytes) else time for time in times.tolist()]
    return [text.strip() for text in found] if all(isinstance(text, str) for text in found) else []
