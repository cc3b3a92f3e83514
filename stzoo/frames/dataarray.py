"""xarray's DataArrays <-> frames. Files that hold them are opened and written in `stzoo.frames.fields`.

xarray is not imported here: whoever passes a DataArray has imported it already.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from torch import Tensor

from stzoo.errors import FramesError, printable
from stzoo.frames.arrays import CallerFrames, FrameSelection, read_array

if TYPE_CHECKING:
    import xarray as xr

_BATCH = ("batch", "sample", "member", "ensemble", "realization", "number")
_CHANNEL = ("channel", "channels", "band", "bands", "variable")
_SPATIAL = (
    ("y", "x"),
    ("lat", "lon"),
    ("latitude", "longitude"),
    ("row", "column"),
    ("row", "col"),
    ("height", "width"),
)


def is_dataarray(frames: Any) -> TypeGuard[xr.DataArray]:
    """Whether `frames` is an xarray DataArray.

    Raises:
        FramesError: it is a Dataset; the caller must choose one of its variables.
    """
    xarray = sys.modules.get("xarray")
    if xarray is None:
        return False
    if isinstance(frames, xarray.Dataset):
        example = next((name for name, each in frames.data_vars.items() if "time" in each.dims), "name")
        raise FramesError(f"expected a DataArray, given a Dataset; choose one of its variables: dataset[{example!r}]")
    return isinstance(frames, xarray.DataArray)


def read_dataarray(frames: xr.DataArray, selection: FrameSelection) -> CallerFrames:
    """A DataArray -> `CallerFrames` that answer with DataArrays of the same dimensions, attributes and coordinates.

    The dimensions are `time`, two of space, and perhaps one of channels and one of samples, in any order (`axes_of`).
    Only the selected frames are loaded. The time coordinate is continued at its step. Other coordinates are kept,
    except those that vary with time.

    Raises:
        FramesError: the dimensions, shape, dtype or range do not fit the spec, a value is missing, or the times have no
            constant step.
    """
    axes = axes_of(frames, selection.spec.channels)
    layout = "".join(axes)
    selection.layout_of(tuple(frames.sizes[name] for name in axes.values()), layout)
    which = selection.slice_of(frames.sizes["time"])
    times = _times(frames, selection)
    try:
        last = frames.isel(time=which).compute().transpose(*axes.values())
    except Exception as error:  # the array may lie in a file, whose library raises anything on damaged bytes
        raise FramesError(f"the values cannot be read: {printable(str(error)) or type(error).__name__}") from error
    given = read_array(last.to_numpy(), selection.already_selected(), layout)

    varying = [name for name, coordinate in last.coords.items() if "time" in coordinate.dims]
    template = (
        last.drop_vars(varying).isel(time=0).drop_encoding()
    )  # the file's packing may not fit the forecast's values
    order = [name for name in frames.dims if name != "time"]

    def frame(units: Tensor) -> xr.DataArray:
        one = template.copy(data=given.frame(units)).transpose(*order)
        return one if times is None else one.assign_coords(time=((), next(times), frames["time"].attrs))

    return CallerFrames(given.past, frame, lambda collected: _joined(collected, frames))


def _joined(collected: list[xr.DataArray], frames: xr.DataArray) -> xr.DataArray:
    joined = sys.modules["xarray"].concat(
        collected, "time", coords="minimal", compat="override", join="override", combine_attrs="override"
    )
    return joined.transpose(*frames.dims).astype(frames.dtype, copy=False)  # joining loses a byte order


def axes_of(frames: xr.DataArray, channels: int) -> dict[str, Hashable]:
    """Which dimension is which: letters of the layout, in the order BTCHW -> names of the dimensions.

    Space is what well-known names say, such as (y, x) or (latitude, longitude); otherwise it is the two dimensions that
    remain, in their order.

    Args:
        frames: a DataArray with a dimension `time`, two of space, and perhaps one of channels and one of samples.
        channels: a third dimension of this size is taken for the channels if no name says which is.

    Raises:
        FramesError: `time` is absent, or the other dimensions cannot be told apart.
    """
    given = printable(f"given {', '.join(f'{name}: {size}' for name, size in frames.sizes.items())}")
    if "time" not in frames.dims:
        raise FramesError(f"expected a dimension named time, {given}; rename yours, such as .rename(t='time')")
    rest = [name for name in frames.dims if name != "time"]
    batch = [name for name in rest if str(name).lower() in _BATCH]
    rest = [name for name in rest if name not in batch]
    channel = [name for name in rest if str(name).lower() in _CHANNEL]
    space = _space([name for name in rest if name not in channel])
    if not channel and len(rest) == 3:
        channel = [name for name in rest if name not in space and frames.sizes[name] == channels]
    space = space or [name for name in rest if name not in channel]
    if len(batch) > 1 or len(channel) > 1 or len(space) != 2 or len(batch + channel + space) + 1 != frames.ndim:
        raise FramesError(
            f"expected the dimensions time, two of space and at most one named channel and one named sample, {given}; "
            "rename dimensions, or select one place along each that is too many, such as .isel(level=0)"
        )
    return dict(
        zip("B" * len(batch) + "T" + "C" * len(channel) + "HW", [*batch, "time", *channel, *space], strict=True)
    )


def _space(names: list[Hashable]) -> list[Hashable]:
    """The two of `names` that are well known for rows and columns, in that order; empty if there are no such names."""
    known = {str(name).lower(): name for name in names}
    for pair in _SPATIAL:
        if known.keys() >= set(pair):
            return [known[name] for name in pair]
    return []


def _times(frames: xr.DataArray, selection: FrameSelection) -> Iterator[Any] | None:
    """The times of the frames to come, without end, or of the given frames if all are read. None if there are none."""
    if "time" not in frames.coords:
        return None
    times = frames["time"].to_numpy()[:: selection.every]
    return iter(times) if selection.last is None else _continued(times[-max(2, selection.last) :])


def _continued(times: np.ndarray) -> Iterator[Any]:
    """The times after the last one, at the one step between those given."""
    kind = times.dtype.kind
    ticks = (times.astype(np.int64) if kind in "mM" else times).tolist()
    step = _step(ticks) if kind in "mMiufO" and not (kind in "mM" and np.isnat(times).any()) else None
    if step is None:
        raise FramesError(
            f"the times {times[0]} to {times[-1]} cannot be continued: they must be at least two, rising, at equal "
            "steps; resample the frames, or leave the times out: .drop_vars('time')"
        )
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
