"""What is looked at before a netCDF or Zarr file is opened: does it want more than itself, or absurdly much?

xarray reads the coordinates of a file when it opens it, and HDF5 reads other files where one refers to them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stzoo.errors import FramesError
from stzoo.spec import shown

MAX_COORDINATE = 2**24  # values along one axis: ten-minute data of three centuries
MAX_CHUNK = 2**27  # values of a part that is unpacked at once
MAX_METADATA = 2**20  # bytes, of one Zarr array
_CODECS = (  # of Zarr, which knows more: one would run what is stored, others come with other packages
    "bytes", "transpose", "sharding_indexed", "gzip", "zlib", "zstd", "blosc", "lz4", "bz2", "lzma", "crc32", "crc32c",
    "adler32", "fletcher32", "delta", "fixedscaleoffset", "shuffle", "bitround", "quantize", "packbits", "astype",
    "vlen-utf8", "vlen-bytes",
)  # fmt: skip


def check_netcdf(path: Path) -> None:
    """Raises `FramesError` where a file refers to another one, is cut short, or has an axis or chunk of absurd size."""
    import h5py
    import netCDF4

    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            outside = file.id.links.visit(lambda _, link: link.type == h5py.h5l.TYPE_EXTERNAL or None, info=True)
            if outside or file.visititems(lambda _, item: _stored_elsewhere(h5py, item)):
                raise FramesError(f"{path} refers to another file, which is not opened; copy what it means into it")
    with netCDF4.Dataset(path) as dataset:
        for name, variable in dataset.variables.items():
            chunks = variable.chunking()
            _check_sizes(path, name, variable.shape, chunks if isinstance(chunks, list) else [])
        if dataset.data_model.startswith("NETCDF3"):  # in which values that are not there read as zeros
            held = sum(math.prod(each.shape) * each.dtype.itemsize for each in dataset.variables.values())
            if held > path.stat().st_size:
                raise FramesError(f"{path} is cut short: its header promises {held:,} bytes of values")


def _stored_elsewhere(h5py: Any, item: Any) -> bool | None:
    """None goes on to the next."""
    return True if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual) else None


def check_zarr(path: Path) -> None:
    """Raises `FramesError` where an array is packed in an unknown way, or has an axis or a chunk of absurd size."""
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
                    f"{path}: {folder.name} is packed with {shown(unknown[0])}, which is not unpacked here"
                )
            grid = array.get("chunk_grid", {}).get("configuration", {}).get("chunk_shape")
            _check_sizes(path, folder.name, array["shape"], array.get("chunks") or grid or [])


def _codecs(array: Any) -> Iterator[str]:
    """Names of all, those inside others too; version 2 of the format calls them otherwise than version 3."""
    inside = array.get("configuration") or {}
    parts = [array.get("compressor"), *(array.get("filters") or []), *(array.get("codecs") or [])]
    for part in (*parts, *(inside.get("codecs") or []), *(inside.get("index_codecs") or [])):
        if part is not None:
            yield str(part.get("id") or part.get("name")).removeprefix("numcodecs.")
            yield from _codecs(part)


def _check_sizes(path: Path, name: str, shape: Sequence[int], chunks: Sequence[int]) -> None:
    if len(shape) == 1 and shape[0] > MAX_COORDINATE:
        raise FramesError(f"{path}: {shown(name)} has {shape[0]:,} values along one axis; {MAX_COORDINATE:,} are read")
    if math.prod(chunks) > MAX_CHUNK:
        raise FramesError(
            f"{path}: {shown(name)} is stored in chunks of {math.prod(chunks):,} values, too many at once"
        )
