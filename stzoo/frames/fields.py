"""Gridded fields in netCDF and Zarr files (extra `array`): opened, checked and written.

xarray reads the coordinates of a file as soon as it opens it, and HDF5 reads other files if one refers to them. So each
file is checked first: does it refer to other files, or claim an absurd size?
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stzoo.errors import FramesError, MissingExtraError
from stzoo.files import replacing
from stzoo.spec import shown

if TYPE_CHECKING:
    import xarray as xr

FIELDS = (".nc", ".nc4", ".zarr")
MAX_COORDINATE = 2**24  # values along one axis: three centuries of ten-minute data
MAX_CHUNK = 2**27  # values of one chunk, which is unpacked at once
MAX_METADATA = 2**20  # bytes that describe one Zarr array
_CODECS = (  # the packings of Zarr that are read; Zarr knows more: one runs stored code, others need other packages
    "bytes", "transpose", "sharding_indexed", "gzip", "zlib", "zstd", "blosc", "lz4", "bz2", "lzma", "crc32", "crc32c",
    "adler32", "fletcher32", "delta", "fixedscaleoffset", "shuffle", "bitround", "quantize", "packbits", "astype",
    "vlen-utf8", "vlen-bytes",
)  # fmt: skip


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
        (_check_zarr if zarr else _check_netcdf)(path)
        dataset = xarray.open_dataset(path, **options)
    except FramesError:
        raise
    except Exception as error:  # the libraries raise errors of many kinds on damaged bytes
        raise FramesError(f"{path} is damaged or no {path.suffix} file: {error}") from error
    with dataset:
        names = [name for name, each in dataset.data_vars.items() if "time" in each.dims and each.ndim >= 3]
        if len(names) != 1:
            others = "none among " + (", ".join(map(str, dataset.data_vars)) or "no variables")
            raise FramesError(
                f"expected one variable over time and space, there are {', '.join(map(str, names)) or others}; "
                f"open the file, choose the variable NAME and pass it: xarray.open_dataset({path.name!r})[NAME]"
            )
        yield dataset[names[0]]


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
        raise FramesError(f"cannot write {path.name}: {error}") from error


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


def _check_netcdf(path: Path) -> None:
    """Raises `FramesError` if a file refers to another one, is cut short, or has an axis or chunk of absurd size."""
    import h5py
    import netCDF4

    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            outside = file.id.links.visit(lambda _, link: link.type == h5py.h5l.TYPE_EXTERNAL or None, info=True)
            if outside or file.visititems(lambda _, item: _stored_elsewhere(h5py, item)):
                raise FramesError(f"{path} refers to another file, which is not opened; copy that file's data into it")
    with netCDF4.Dataset(path) as dataset:
        for name, variable in dataset.variables.items():
            chunks = variable.chunking()
            _check_sizes(path, name, variable.shape, chunks if isinstance(chunks, list) else [])
        if dataset.data_model.startswith("NETCDF3"):  # this format reads absent values as zeros
            held = sum(math.prod(each.shape) * each.dtype.itemsize for each in dataset.variables.values())
            if held > path.stat().st_size:
                raise FramesError(
                    f"{path} is cut short: its header promises {held:,} bytes of values; copy or download it again"
                )


def _stored_elsewhere(h5py: Any, item: Any) -> bool | None:
    """True for an array whose values lie in another file; None makes h5py go on to the next item."""
    return True if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual) else None


def _check_zarr(path: Path) -> None:
    """Raises `FramesError` if an array is packed in an unknown way, or has an axis or a chunk of absurd size."""
    for folder in sorted(path.iterdir()):
        for file in (folder / ".zarray", folder / "zarr.json"):
            if not file.exists():
                continue
            if not file.is_file() or file.stat().st_size > MAX_METADATA:
                raise FramesError(f"{file} is no description of an array")
            array = json.loads(file.read_bytes())
            if array.get("node_type") == "group":
                continue
            unknown = [name for name in _codecs(array) if name not in _CODECS]
            if unknown:
                raise FramesError(
                    f"{path}: {folder.name} is packed with {shown(unknown[0])}, which is not unpacked here; "
                    "write it with another codec, such as zstd"
                )
            grid = array.get("chunk_grid", {}).get("configuration", {}).get("chunk_shape")
            _check_sizes(path, folder.name, array["shape"], array.get("chunks") or grid or [])


def _codecs(array: Any) -> Iterator[str]:
    """The names of all codecs of an array, nested ones included. Versions 2 and 3 of the format keep them apart."""
    inside = array.get("configuration") or {}
    parts = [array.get("compressor"), *(array.get("filters") or []), *(array.get("codecs") or [])]
    for part in (*parts, *(inside.get("codecs") or []), *(inside.get("index_codecs") or [])):
        if part is not None:
            yield str(part.get("id") or part.get("name")).removeprefix("numcodecs.")
            yield from _codecs(part)


def _check_sizes(path: Path, name: str, shape: Sequence[int], chunks: Sequence[int]) -> None:
    if len(shape) == 1 and shape[0] > MAX_COORDINATE:
        raise FramesError(
            f"{path}: {shown(name)} has {shape[0]:,} values along one axis; at most {MAX_COORDINATE:,} are read"
        )
    if math.prod(chunks) > MAX_CHUNK:
        raise FramesError(
            f"{path}: {shown(name)} is stored in chunks of {math.prod(chunks):,} values; at most {MAX_CHUNK:,} are "
            "read at once, so write it in smaller chunks"
        )
