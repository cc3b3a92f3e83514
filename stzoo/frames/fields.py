"""Gridded fields in netCDF and Zarr files (extra `array`): opened, checked and written.

xarray reads the coordinates of a file as soon as it opens it, and the libraries below it believe what a file says. So
`netcdf` or `zarr_store` looks at each file first: does it refer to other files, or claim an absurd size?
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stzoo.errors import FramesError, MissingExtraError, printable
from stzoo.files import replacing
from stzoo.frames.netcdf import check_chunks, check_coordinates, check_netcdf
from stzoo.frames.zarr_store import check_zarr, guarded_store

if TYPE_CHECKING:
    import xarray as xr

FIELDS = (".nc", ".nc4", ".zarr")
MAX_CHUNKS = 2**18  # chunks that are read at once: each costs time, however small it is


@contextmanager
def open_field(path: Path) -> Iterator[xr.DataArray]:
    """The one variable of a netCDF or Zarr file that has a dimension `time` and at least two more, open in the block.

    Its values are not loaded yet.

    Raises:
        MissingExtraError: xarray or a package that it reads such files with is not installed.
        FramesError: the file does not exist, is damaged, refers to other files, claims an absurd size, or has no such
            variable or several.
    """
    xarray, options = _xarray(path)
    zarr = path.suffix.lower() == ".zarr"
    if not (path.is_dir() if zarr else path.is_file()):
        raise FramesError(f"{path} {f'is no {path.suffix} store' if path.exists() else 'does not exist'}")
    try:
        source = guarded_store(path, check_zarr(path)) if zarr else check_netcdf(path)
        dataset = xarray.open_dataset(source, **options)
    except FramesError:
        raise
    except Exception as error:  # the libraries raise errors of many kinds on damaged bytes
        raise FramesError(f"{path} is damaged or no {path.suffix} file: {printable(str(error))}") from error
    with dataset:
        names = [name for name, each in dataset.data_vars.items() if "time" in each.dims and each.ndim >= 3]
        if len(names) != 1:
            others = "none among " + (_listed(dataset.data_vars) or "no variables")
            raise FramesError(
                f"expected one variable over time and space, there are {_listed(names) or others}; "
                f"open the file, choose the variable NAME and pass it: xarray.open_dataset({path.name!r})[NAME]"
            )
        yield dataset[names[0]]


def check_read(path: Path, field: xr.DataArray, times: slice) -> None:
    """Check what reading frames of an open field takes, before they are read.

    Args:
        path: of the file.
        field: what `open_field` yielded for it.
        times: which frames are going to be read.

    Raises:
        FramesError: they lie in very many chunks, their coordinates are too large together, or a chunk unpacks to more
            than the file says of it.
    """
    chunks = field.encoding.get("chunksizes") or field.encoding.get("chunks") or ()
    if len(chunks) == field.ndim:
        frames = len(range(field.sizes["time"])[times])
        sides = [frames if name == "time" else size for name, size in field.sizes.items()]
        count = math.prod(math.ceil(side / chunk) for side, chunk in zip(sides, chunks, strict=True))
        if count > MAX_CHUNKS:
            raise FramesError(
                f"the frames to read lie in {count:,} chunks; at most {MAX_CHUNKS:,} are read at once, so write the "
                "file in larger chunks"
            )
    check_coordinates(path, sum(each.nbytes for each in field.isel(time=times).coords.values()))
    if path.suffix.lower() != ".zarr":
        for name in (field.name, *field.coords):
            check_chunks(path, str(name), times)


def _listed(names: Iterable[Hashable]) -> str:
    text = printable(", ".join(map(str, names)))
    return text if len(text) <= 300 else f"{text[:300]}..."


def write_field(path: Path, array: xr.DataArray) -> None:
    """Write a Zarr file if the suffix is ``.zarr``, and a netCDF file otherwise.

    Raises:
        FramesError: the format cannot hold the array, its names or its attributes.
        OSError: the disk is full, or does not take the file for another reason.
    """
    try:
        with replacing(path) as partial:
            if path.suffix.lower() == ".zarr":
                array.to_zarr(partial, consolidated=False)  # version 3 of the format has no consolidated metadata
            else:
                array.to_netcdf(partial, engine="netcdf4")
    except RuntimeError as error:  # netCDF4's, for everything that its C library cannot do
        if "HDF error" in str(error):  # which it says of a full disk, too
            raise OSError(f"not all of {path} was written") from error
        raise FramesError(f"cannot write {path.name}: {error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise FramesError(f"cannot write {path.name}: {printable(str(error))}") from error


def check_field_extra(path: Path) -> None:
    """Raises `MissingExtraError` if a package that reads and writes files with this suffix is not installed."""
    _xarray(path)


def _xarray(path: Path) -> tuple[Any, dict[str, Any]]:
    """The module xarray, and the options with which it opens such a file."""
    zarr = path.suffix.lower() == ".zarr"
    try:
        for name in ("zarr",) if zarr else ("netCDF4", "h5py"):
            import_module(name)
        xarray = import_module("xarray")
    except ImportError as error:
        raise MissingExtraError(f'{path.suffix} files need an extra: pip install "stzoo[array]"') from error
    return xarray, {"engine": "zarr", "consolidated": False} if zarr else {"engine": "netcdf4"}
