"""xarray's DataArrays <-> frames. Files that hold them are opened and written in `stzoo.frames.fields`.

xarray is not imported here: whoever passes a DataArray has imported it already.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from torch import Tensor

from stzoo.errors import FramesError, printable
from stzoo.frames.arrays import CallerFrames, FrameSelection, read_array
from stzoo.frames.axes import axes_of, single_dimensions, time_of
from stzoo.frames.rain import asked_unit
from stzoo.frames.times import clock_of, continued
from stzoo.frames.units import unit_of

if TYPE_CHECKING:
    import xarray as xr


def is_dataarray(frames: Any) -> TypeGuard[xr.DataArray]:
    """Whether `frames` is an xarray DataArray.

    Raises:
        FramesError: it is a Dataset; the caller must choose one of its variables.
    """
    xarray = sys.modules.get("xarray")
    if xarray is None:
        return False
    if isinstance(frames, xarray.Dataset):
        example = next((name for name, each in frames.data_vars.items() if each.ndim > 2), "name")
        raise FramesError(
            f"expected a DataArray, given a Dataset; choose one of its variables: dataset[{example!r}], or "
            f"variable={example!r}"
        )
    return isinstance(frames, xarray.DataArray)


def read_dataarray(frames: xr.DataArray, selection: FrameSelection) -> CallerFrames:
    """A DataArray -> `CallerFrames` that answer with DataArrays of the same dimensions, attributes and coordinates.

    The dimensions are one of time, two of space, and perhaps one of channels and one of samples, in any order
    (`axes_of`). Only the selected frames are loaded. The times are continued at their step (`continued`). Other
    coordinates are kept, except those that vary with time.

    Args:
        frames: the map.
        selection: which frames are read.

    Raises:
        FramesError: the dimensions, shape, dtype, units or range do not fit the spec, a value is missing, or the times
            have no constant step.
    """
    time = selection.options.time
    along = time_of(frames, time)
    axes = axes_of(frames, selection.spec.channels, along)
    singles = single_dimensions(frames, axes)
    layout = "".join(axes)
    _check_unpacked(frames)
    options, spec = selection.options, selection.spec
    unit = unit_of(frames, spec.value_range, asked_unit(options.units, spec.value_range), options.bits)
    selection.layout_of(tuple(frames.sizes[name] for name in axes.values()), layout)
    which = selection.slice_of(frames.sizes[along])
    clock = time if time is not None and time in frames.coords else clock_of(frames, along)
    times = None if clock is None else _times(frames[clock], selection)
    try:
        last = frames.isel({along: which}).compute().transpose(*singles, *axes.values())
    except Exception as error:  # the array may lie in a file, whose library raises anything on damaged bytes
        raise FramesError(f"the values cannot be read: {printable(str(error)) or type(error).__name__}") from error
    chosen = replace(selection.already_selected(), unit=unit)
    given = read_array(last.to_numpy()[(0,) * len(singles)], chosen, layout)

    varying = [name for name, coordinate in last.coords.items() if along in coordinate.dims]
    template = last.drop_vars(varying).isel({along: 0}).drop_encoding()  # its packing may not fit the forecast's values
    template.encoding = {name: value for name, value in frames.encoding.items() if name == "grid_mapping"}
    if unit is not None:
        template.attrs["units"] = unit.name
    order = [name for name in frames.dims if name != along]

    def frame(units: Tensor) -> xr.DataArray:
        one = template.copy(data=given.frame(units)[(np.newaxis,) * len(singles)]).transpose(*order)
        return one if times is None else one.assign_coords({clock: ((), next(times), frames[clock].attrs)})

    issued = None if clock is None else _date(frames[clock][which][-1])
    return replace(
        given, frame=frame, collect=lambda coming, count: _joined(coming, count, frames, along, clock), issued=issued
    )


def _check_unpacked(frames: xr.DataArray) -> None:
    """Raises `FramesError` if the values are integers that stand for others, as files hold them."""
    packed = [name for name in ("scale_factor", "add_offset") if name in frames.attrs]
    if packed and frames.dtype.kind in "iu":
        raise FramesError(
            f"the values are packed integers, as the attribute {packed[0]} says; unpack them: "
            "xarray.decode_cf(dataset), or open the file without mask_and_scale=False"
        )


def _date(time: xr.DataArray) -> xr.DataArray | None:
    """A single time, if it is a date, of NumPy or of cftime."""
    return time if time.dtype.kind == "M" or hasattr(time.item(), "calendar") else None


def _joined(
    coming: Iterable[xr.DataArray], count: int, frames: xr.DataArray, along: Hashable, clock: Hashable | None
) -> xr.DataArray:
    """`count` maps of one time each as one map with the dimensions of `frames`. Each goes to its place as it comes."""
    axis, times, joined = frames.dims.index(along), [], None
    for number, one in enumerate(coming):
        if joined is None:
            whole = np.empty((*one.shape[:axis], count, *one.shape[axis:]), frames.dtype)
            timeless = one if clock is None else one.drop_vars([clock])
            joined = timeless.expand_dims({along: count}, axis).copy(data=whole)
            del timeless
        whole[(slice(None),) * axis + (number,)] = one
        if clock is not None:
            times.append(one[clock].to_numpy())
    assert joined is not None, "at least one frame is forecast"
    return joined if clock is None else joined.assign_coords({clock: (along, np.stack(times), frames[clock].attrs)})


def _times(clock: xr.DataArray, selection: FrameSelection) -> Iterator[Any]:
    """The times of the frames to come, without end, or of the given frames if all are read."""
    times = clock.to_numpy()[:: selection.options.every]
    if selection.last is None:
        return iter(times)
    return continued(times[-max(2, selection.last) :], clock.name, counted=" since " in str(clock.attrs.get("units")))
