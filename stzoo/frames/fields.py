"""Gridded fields in netCDF and Zarr files (extra `array`): opened, checked and written.

xarray reads the coordinates of a file as soon as it opens it, and the libraries below it believe what a file says. So
`netcdf` or `zarr_store` looks at each file first: does it refer to other files, or claim an absurd size?
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stzoo.errors import FramesError, MissingExtraError, printable
from stzoo.files import replacing
from stzoo.frames.axes import has_time, time_of
from stzoo.frames.cf import cf_dataset
from stzoo.frames.netcdf import check_chunks, check_coordinates, check_netcdf
from stzoo.frames.times import clock_of, dates_in_text
from stzoo.frames.zarr_store import check_zarr, guarded_store, stated_fill_values

if TYPE_CHECKING:
    import xarray as xr

FIELDS = (".nc", ".nc4", ".zarr")
_MAX_TEXT = 2**20  # times that are written as text
_PACKED = MappingProxyType({"zlib": True, "shuffle": True, "complevel": 1})
MAX_CHUNKS = 2**18  # chunks that are read at once: each costs time, however small it is


@contextmanager
def open_field(path: Path, variable: str | None = None, time: str | None = None) -> Iterator[xr.DataArray]:
    """A map in a netCDF or Zarr file: a variable over time and space, open in the block. Its values are not loaded yet.

    Args:
        path: of the file, or of the folder of a Zarr store.
        variable: its name; None if the file has only one.
        time: the name of the dimension of time; None finds it out (`stzoo.frames.axes.time_of`).

    Raises:
        MissingExtraError: xarray or a package that it reads such files with is not installed.
        FramesError: the file does not exist, is damaged, refers to other files, claims an absurd size, or has no such
            variable or several.
    """
    xarray = _xarray(path)
    zarr = path.suffix.lower() == ".zarr"
    if not (path.is_dir() if zarr else path.is_file()):
        raise FramesError(f"{path} {f'is no {path.suffix} store' if path.exists() else 'does not exist'}")
    try:
        if zarr:
            store = xarray.backends.ZarrStore.open_group(
                guarded_store(path, check_zarr(path)),
                mode="r",
                consolidated=False,
                use_zarr_fill_value_as_mask=True,  # else xarray refuses attributes `_FillValue` that it did not write
            )
            stored = xarray.open_dataset(store, decode_cf=False)
        else:
            stored = xarray.open_dataset(check_netcdf(path), decode_cf=False, engine="netcdf4")
        try:
            if zarr:
                _mask_as_stated(path, stored)
            dataset = _decoded(xarray, stored)
        except Exception:
            stored.close()
            raise
    except FramesError:
        raise
    except Exception as error:  # the libraries raise errors of many kinds on damaged bytes
        raise FramesError(f"{path} is damaged or no {path.suffix} file: {printable(str(error))}") from error
    with dataset:
        try:
            field = _complete(choose_variable(dataset, variable, time), dataset, time)
        except FramesError as error:
            raise FramesError(f"{path}: {error}") from error
        yield field


def _mask_as_stated(path: Path, stored: xr.Dataset) -> None:
    """Put the stated `_FillValue` of each variable in place of the one that xarray makes of a Zarr store's fill value.

    A fill value says what chunks hold that were never written. It marks missing data only where the attributes say so.
    """
    stated = stated_fill_values(path)
    for name, variable in stored.variables.items():
        variable.attrs.pop("_FillValue", None)
        if name in stated:
            variable.attrs["_FillValue"] = stated[str(name)]


def _decoded(xarray: Any, stored: xr.Dataset) -> xr.Dataset:
    """The dataset with numbers unpacked, missing values masked, and times as dates.

    Times in a unit that xarray cannot turn into dates, such as "months since 2000-01-15", stay the numbers that they
    are, and keep that unit.
    """
    kept = {}
    for name, variable in stored.variables.items():
        units = variable.attrs.get("units")
        if isinstance(units, str) and " since " in units and not _has_dates(xarray, variable):
            kept[name] = variable.attrs.pop("units")
    dataset = xarray.decode_cf(stored)
    for name, units in kept.items():
        dataset[name].attrs["units"] = units
    return dataset


def _has_dates(xarray: Any, variable: xr.Variable) -> bool:
    """Whether xarray can turn the numbers of a time variable into dates."""
    if (
        re.match(r"\s*(month|year)s?\s", variable.attrs["units"], re.IGNORECASE)
        and variable.attrs.get("calendar") != "360_day"
    ):
        return False  # of no constant length
    try:
        xarray.conventions.decode_cf_variable("time", variable)
    except (ValueError, OverflowError):
        return False
    return True


def choose_variable(dataset: xr.Dataset, variable: str | None, time: str | None = None) -> xr.DataArray:
    """The variable of a dataset that is a map, or the one that the caller names.

    Bounds of coordinates, grid mappings, masks and flags are no candidates, unless there is nothing else.

    Raises:
        FramesError: there is no such variable, or there are several. The message lists them.
    """
    likely = {name: each for name, each in dataset.data_vars.items() if each.ndim >= 3 and each.dtype.kind in "iuf"}
    timed = {dims: has_time(each, time) for dims, each in {each.dims: each for each in likely.values()}.items()}
    maps = [name for name, each in likely.items() if timed[each.dims]]
    referred = _referred(dataset)
    fields = [name for name in maps if str(name) not in referred and not _is_auxiliary(dataset, name)] or maps
    fields.sort(key=str)  # Zarr stores hold them in no order
    how = "choose one with variable=NAME (on the command line --variable NAME), or write it to a file of its own"
    if variable is not None:
        if variable in dataset.variables and dataset[variable].ndim >= 3:
            return dataset[variable]
        what = "is no map over time and two dimensions of space" if variable in dataset.variables else "is not there"
        there = f"there are {_listed(fields)}" if fields else "there is no such map"
        raise FramesError(f"the variable {printable(repr(variable))} {what}; {there}")
    if len(fields) == 1:
        return dataset[fields[0]]
    if fields:
        raise FramesError(f"expected one variable over time and space, there are {_listed(fields)}; {how}")
    for each in likely.values():
        time_of(each, time)  # which raises, and says which dimensions there are
    raise FramesError(
        "expected one variable over time and space, there are none among "
        f"{_listed(dataset.data_vars) or 'no variables'}; a map has a dimension of time, such as time or valid_time, "
        "and at least two of space"
    )


_MASKS = {"mask", "lsm", "land_mask", "landmask", "land_sea_mask", "sea_mask", "xland", "lakemask"}
_PLACES = {"latitude", "longitude", "lat", "lon", "xlat", "xlong", "grid_latitude", "grid_longitude"}


def _referred(dataset: xr.Dataset) -> set[str]:
    """The variables that attributes of others name as their bounds, grid mapping or quality."""
    roles = ("bounds", "climatology", "grid_mapping", "ancillary_variables", "cell_measures")
    said = [attributes for each in dataset.variables.values() for attributes in (each.attrs, each.encoding)]
    return {word for attributes in said for role in roles for word in str(attributes.get(role, "")).split()}


def _is_auxiliary(dataset: xr.Dataset, name: Hashable) -> bool:
    """Whether a variable only describes others: bounds, a mask, a flag, or where the cells lie."""
    each = dataset[name]
    called = str(name).lower()
    return (
        called.endswith(("_bnds", "_bounds", "_vertices"))
        or called in _MASKS | _PLACES
        or called.startswith(("xlat_", "xlong_"))
        or each.attrs.get("standard_name") in ("land_binary_mask", "sea_binary_mask", "latitude", "longitude")
        or "flag_values" in each.attrs
        or "flag_masks" in each.attrs
        or "flag_meanings" in each.attrs
    )


def _complete(field: xr.DataArray, dataset: xr.Dataset, time: str | None) -> xr.DataArray:
    """The map with what other variables of the dataset say of it: its times, and what its grid is."""
    mapping = str(field.attrs.get("grid_mapping", field.encoding.get("grid_mapping", "")))
    named = {word.removesuffix(":") for word in mapping.split()} & {*dataset.data_vars}
    grids = {name: dataset[name] for name in named if not dataset[name].ndim}
    return _with_clock(field.assign_coords(grids), dataset, time)


def _with_clock(field: xr.DataArray, dataset: xr.Dataset, time: str | None) -> xr.DataArray:
    """The map with a coordinate of times, if another variable of the file holds them as text, as WRF's `Times` does."""
    if not has_time(field, time):
        return field
    along = time_of(field, time)
    if clock_of(field, along) is not None:
        return field
    for each in dataset.data_vars.values():
        if each.dims == (along,) and each.dtype.kind in "SUO" and each.size <= _MAX_TEXT:
            dates = dates_in_text(each.to_numpy())
            if dates is not None:
                return field.assign_coords({along: (along, dates.astype("datetime64[ns]"))})
    return field


def check_read(path: Path, field: xr.DataArray, times: slice, time: Hashable = "time") -> None:
    """Check what reading frames of an open field takes, before they are read.

    Args:
        path: of the file.
        field: what `open_field` yielded for it.
        times: which frames are going to be read.
        time: the name of the dimension of time.

    Raises:
        FramesError: they lie in very many chunks, their coordinates are too large together, or a chunk unpacks to more
            than the file says of it.
    """
    chunks = field.encoding.get("chunksizes") or field.encoding.get("chunks") or ()
    if len(chunks) == field.ndim:
        frames = len(range(field.sizes[time])[times])
        sides = [frames if name == time else size for name, size in field.sizes.items()]
        count = math.prod(math.ceil(side / chunk) for side, chunk in zip(sides, chunks, strict=True))
        if count > MAX_CHUNKS:
            raise FramesError(
                f"the frames to read lie in {count:,} chunks; at most {MAX_CHUNKS:,} are read at once, so write the "
                "file in larger chunks"
            )
    check_coordinates(path, sum(each.nbytes for each in field.isel({time: times}).coords.values()))
    if path.suffix.lower() != ".zarr":
        for name in (field.name, *field.coords):
            check_chunks(path, str(name), times, str(time))


def _listed(names: Iterable[Hashable]) -> str:
    text = printable(", ".join(map(str, names)))
    return text if len(text) <= 300 else f"{text[:300]}..."


def write_field(path: Path, array: xr.DataArray, issued: xr.DataArray | None = None) -> None:
    """Write a Zarr file if the suffix is ``.zarr``, and a netCDF file otherwise, as `cf_dataset` describes the array.

    A netCDF file is packed without loss.

    Raises:
        FramesError: the format cannot hold the array, its names or its attributes.
        OSError: the disk is full, or does not take the file for another reason.
    """
    try:
        dataset = cf_dataset(array, issued)
        with replacing(path) as partial:
            if path.suffix.lower() == ".zarr":
                dataset.to_zarr(partial, consolidated=False)  # version 3 of the format has no consolidated metadata
            else:
                for each in dataset.data_vars.values():
                    each.encoding |= dict(_PACKED) if each.dtype.kind in "iuf" and each.ndim else {}
                dataset.to_netcdf(partial, engine="netcdf4")
    except RuntimeError as error:  # netCDF4's, for everything that its C library cannot do
        if "HDF error" in str(error):  # which it says of a full disk, too
            raise OSError(f"not all of {path} was written") from error
        raise FramesError(f"cannot write {path.name}: {error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise FramesError(f"cannot write {path.name}: {printable(str(error))}") from error


def chosen_map(frames: Any, variable: str | None, time: str | None) -> Any:
    """The variable of a Dataset that the caller names, or the only one; whatever else is passed comes back as it is.

    Raises:
        FramesError: the Dataset has no such variable, or several and none is named; or there is nothing to which
            `variable` or `time` applies.
    """
    xarray = sys.modules.get("xarray")
    if xarray is not None and isinstance(frames, xarray.Dataset):
        return _complete(choose_variable(frames, variable, time), frames, time)
    if xarray is not None and isinstance(frames, xarray.DataArray):
        if variable not in (None, frames.name):
            raise FramesError(f"variable is {variable!r}, but a DataArray is one variable already; leave it out")
        return frames
    if variable is not None or time is not None:
        raise FramesError(
            "variable and time choose from a map: a DataArray, a Dataset, or the path of a netCDF or Zarr file; given "
            f"a {type(frames).__name__}, so leave them out"
        )
    return frames


def check_map_options(path: Path, variable: str | None, time: str | None) -> None:
    """Check that a path leads to what can be read, and to what `variable` and `time` apply to.

    Raises:
        FramesError: it is a map in a format that is not read, or one of the two is given for a file that is no map.
    """
    suffix = path.suffix.lower()
    if suffix in _UNREAD:
        raise FramesError(f"{path} {'does not exist, and ' if not path.exists() else ''}{_UNREAD[suffix]}")
    if suffix in FIELDS:
        return
    if time is not None:
        raise FramesError(f"time names a dimension of a map, and {path.name} is none ({', '.join(FIELDS)})")
    if variable is not None and suffix != ".npz":
        raise FramesError(
            f"variable chooses from the variables of a map or the arrays of a .npz file, and {path.name} is neither"
        )


_GRIB = (
    "is a GRIB file, which is not read; convert it to netCDF: xarray.open_dataset(PATH, engine='cfgrib')"
    ".to_netcdf('map.nc') with pip install cfgrib, or grib_to_netcdf -o map.nc PATH of ecCodes"
)
_HDF5 = (
    "is an HDF5 file, which does not name its axes; if it is netCDF-4, let its name end in .nc, and otherwise pass the "
    "array in it: h5py.File(PATH)[NAME][...]"
)
_UNREAD: Mapping[str, str] = MappingProxyType(
    dict.fromkeys((".grib", ".grib2", ".grb", ".grb2", ".grib1", ".grb1"), _GRIB)
    | dict.fromkeys((".h5", ".hdf5", ".hdf", ".he5"), _HDF5)
)


def check_field_extra(path: Path) -> None:
    """Raises `MissingExtraError` if a package that reads and writes files with this suffix is not installed."""
    _xarray(path)


def _xarray(path: Path) -> Any:
    """The module xarray, if it can read such a file."""
    zarr = path.suffix.lower() == ".zarr"
    try:
        for name in ("zarr",) if zarr else ("netCDF4", "h5py"):
            import_module(name)
        xarray = import_module("xarray")
    except ImportError as error:
        raise MissingExtraError(f'{path.suffix} files need an extra: pip install "stzoo[array]"') from error
    return xarray
