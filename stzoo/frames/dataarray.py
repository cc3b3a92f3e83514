"""xarray's DataArrays, in memory or in netCDF and Zarr files (extra `array`), <-> frames.

xarray is imported only where a file is to be read: who passes a DataArray has imported it already.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from torch import Tensor

from stzoo.errors import FramesError, MissingExtraError
from stzoo.files import replacing
from stzoo.frames.arrays import Source, Wanted, read_array
from stzoo.frames.fields import check_netcdf, check_zarr
from stzoo.frames.layout import find_layout

if TYPE_CHECKING:
    import xarray as xr

FIELDS = (".nc", ".nc4", ".zarr")
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
    """Raises `FramesError` for a Dataset, of which one variable must be chosen."""
    xarray = sys.modules.get("xarray")
    if xarray is None:
        return False
    if isinstance(frames, xarray.Dataset):
        example = next((name for name, each in frames.data_vars.items() if "time" in each.dims), "name")
        raise FramesError(f"expected a DataArray, given a Dataset; choose a variable of it: dataset[{example!r}]")
    return isinstance(frames, xarray.DataArray)


def read_dataarray(frames: xr.DataArray, wanted: Wanted) -> Source:
    """A DataArray with a dimension `time`, two of space, perhaps one of channels and one of samples, in any order.

    Space is what names such as (y, x) or (latitude, longitude) say, else the dimensions that remain, in their order.
    Only the wanted frames are loaded. A time coordinate is continued at its step; other coordinates are kept, except
    those that vary with time.

    Raises:
        FramesError: dimensions, shape, dtype, range, a missing value, or times that have no constant step.
    """
    axes = axes_of(frames, wanted.spec.channels)
    layout = "".join(axes)
    find_layout(tuple(frames.sizes[name] for name in axes.values()), wanted.spec, wanted.stride, layout)
    which = wanted.of(frames.sizes["time"])
    times = _times(frames, wanted)
    try:
        last = frames.isel(time=which).compute().transpose(*axes.values())
    except Exception as error:  # of a file: whatever its library raises on damaged bytes
        raise FramesError(f"the values cannot be read: {error}") from error
    source = read_array(last.to_numpy(), wanted.taken(), layout)

    varying = [name for name, coordinate in last.coords.items() if "time" in coordinate.dims]
    template = last.drop_vars(varying).isel(time=0).drop_encoding()  # how a file packed its values may not fit ours
    order = [name for name in frames.dims if name != "time"]

    def frame(units: Tensor) -> xr.DataArray:
        one = template.copy(data=source.frame(units)).transpose(*order)
        return one if times is None else one.assign_coords(time=((), next(times), frames["time"].attrs))

    return Source(source.past, frame, lambda collected: _joined(collected, frames))


def _joined(collected: list[xr.DataArray], frames: xr.DataArray) -> xr.DataArray:
    joined = sys.modules["xarray"].concat(
        collected, "time", coords="minimal", compat="override", join="override", combine_attrs="override"
    )
    return joined.transpose(*frames.dims).astype(frames.dtype, copy=False)  # joining loses a byte order


def axes_of(frames: xr.DataArray, channels: int) -> dict[str, Hashable]:
    """Letters of a layout, in the order BTCHW -> the names of those dimensions."""
    given = f"given {', '.join(f'{name}: {size}' for name, size in frames.sizes.items())}"
    if "time" not in frames.dims:
        raise FramesError(f"expected a dimension named time, {given}; rename the one that is: .rename(t='time')")
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
            "rename them, or select one place along those that are too many: .isel(level=0)"
        )
    return dict(
        zip("B" * len(batch) + "T" + "C" * len(channel) + "HW", [*batch, "time", *channel, *space], strict=True)
    )


def _space(names: list[Hashable]) -> list[Hashable]:
    """The two names that every reader takes for rows and columns, in that order; nothing where there are none."""
    known = {str(name).lower(): name for name in names}
    for pair in _SPATIAL:
        if known.keys() >= set(pair):
            return [known[name] for name in pair]
    return []


def _times(frames: xr.DataArray, wanted: Wanted) -> Iterator[Any] | None:
    """The time of each frame to come, without end; or of each frame given, where all are read. None without times."""
    if "time" not in frames.coords:
        return None
    times = frames["time"].to_numpy()[:: wanted.every]
    return iter(times) if wanted.last is None else _continued(times[-max(2, wanted.last) :])


def _continued(times: np.ndarray) -> Iterator[Any]:
    """The times after the last one, at the one step between those given."""
    kind = times.dtype.kind
    ticks = (times.astype(np.int64) if kind in "mM" else times).tolist()
    step = _step(ticks) if kind in "mMiufO" and not (kind in "mM" and np.isnat(times).any()) else None
    if step is None:
        raise FramesError(
            f"the times {times[0]} to {times[-1]} cannot be continued: they must be at least two, rising, at equal "
            "steps; resample them, or leave them out: .drop_vars('time')"
        )
    return (_time(ticks[-1] + (round(k * step) if kind in "mMiu" else k * step), times.dtype) for k in count(1))


def _step(ticks: list[Any]) -> Any:
    """What lies between neighbours, as numbers or, of dates, as a timedelta; None where that is not always the same.

    A thousandth of a step is let pass: times that a file holds as hours or days come back rounded.
    """
    try:
        steps = [later - earlier for earlier, later in pairwise(ticks)]
        first = steps[0] if steps else 0
        if not first > 0 * first or not all(abs(step - first) <= 0.001 * first for step in steps):  # NaN is neither
            return None
        return first if all(step == first for step in steps) else (ticks[-1] - ticks[0]) / len(steps)
    except TypeError:  # names of days, tuples of a MultiIndex
        return None


def _time(tick: Any, dtype: np.dtype) -> np.ndarray:
    try:
        if dtype.kind in "iu" and not np.iinfo(dtype).min <= tick <= np.iinfo(dtype).max:
            dtype = np.dtype(np.int64)
        return np.array(tick, np.int64).astype(dtype) if dtype.kind in "mM" else np.array(tick, dtype)
    except OverflowError as error:
        raise FramesError(f"the time coordinate, {dtype}, cannot go on so far") from error


@contextmanager
def opened(path: Path) -> Iterator[xr.DataArray]:
    """The one variable of a netCDF or Zarr file that has a dimension `time` and two more; loaded by who needs it.

    What a file wants beyond itself is refused (`stzoo.frames.fields`). Whatever the libraries raise on bytes that
    nobody has checked (it is of many kinds), the file is damaged.

    Raises:
        MissingExtraError: xarray, or what it reads such files with, is absent.
        FramesError: no such file, a damaged one, or not one such variable.
    """
    xarray, options = _xarray(path)
    zarr = path.suffix.lower() == ".zarr"
    if not (path.is_dir() if zarr else path.is_file()):
        raise FramesError(f"{path} {f'is no {path.suffix} store' if path.exists() else 'does not exist'}")
    try:
        (check_zarr if zarr else check_netcdf)(path)
        dataset = xarray.open_dataset(path, **options)
    except FramesError:
        raise
    except Exception as error:
        raise FramesError(f"{path} is damaged or no {path.suffix} file: {error}") from error
    with dataset:
        names = [name for name, each in dataset.data_vars.items() if "time" in each.dims and each.ndim >= 3]
        if len(names) != 1:
            others = "none among " + (", ".join(map(str, dataset.data_vars)) or "no variables")
            raise FramesError(
                f"expected one variable over time and space, there are {', '.join(map(str, names)) or others}; "
                f"open it, and pass the one that is meant: xarray.open_dataset({path.name!r})[NAME]"
            )
        yield dataset[names[0]]


def write_dataarray(path: Path, array: xr.DataArray) -> None:
    """A netCDF or, by the suffix ``.zarr``, a Zarr file. Raises `FramesError` for what the format cannot hold."""
    try:
        with replacing(path) as partial:
            if path.suffix.lower() == ".zarr":
                array.to_zarr(partial, consolidated=False)  # no part of the format's third version
            else:
                array.to_netcdf(partial, engine="netcdf4")
    except (ValueError, TypeError, KeyError) as error:
        raise FramesError(f"cannot write {path.name}: {error}") from error


def check_extra(path: Path) -> None:
    """Raises `MissingExtraError` where a file of that suffix could be neither read nor written."""
    _xarray(path)


def _xarray(path: Path) -> tuple[Any, dict[str, Any]]:
    """The module, and how it opens such a file."""
    zarr = path.suffix.lower() == ".zarr"
    try:
        for name in ("zarr",) if zarr else ("netCDF4", "h5py"):
            import_module(name)
        xarray = import_module("xarray")
    except ImportError as error:
        raise MissingExtraError(f'{path.suffix} files need an extra: pip install "stzoo[array]"') from error
    return xarray, {"engine": "zarr", "consolidated": False} if zarr else {"engine": "netcdf4"}
