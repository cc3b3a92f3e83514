"""Zarr stores, read within their own folder: what describes an array is checked, and each chunk before it is unpacked.

A store is a folder of small files. Any of them may be a link that leads elsewhere, a FIFO that is never written to, or
a chunk that unpacks to far more than its array says.
"""

from __future__ import annotations

import base64
import json
import math
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stzoo.errors import FramesError, printable
from stzoo.frames.netcdf import check_coordinates, check_sizes, coordinate_bytes
from stzoo.frames.packed import check_block, may_grow
from stzoo.spec import shown

MAX_ARRAYS = 2**11  # arrays and groups in a store: the library opens each, which takes milliseconds
MAX_METADATA = 2**20  # bytes that describe one Zarr array
MAX_ATTRIBUTES = 2**24  # bytes of any other description in a store
_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
MAX_CHUNKS = 2**18  # chunks of a coordinate, and chunks inside one shard
_CHUNK_COST = 2**10  # bytes that a chunk of a coordinate counts at least: each is looked for, however small it is
_MOST_UNKNOWN = 2**28  # bytes of a chunk whose values have no fixed size, such as text
_PACKINGS = ("gzip", "zlib", "zstd", "blosc", "lz4", "bz2", "lzma")
_PLAIN = ("bytes", "transpose", "sharding_indexed", "crc32", "crc32c", "adler32", "fletcher32", "shuffle")
_WIDER = 8  # times as many bytes may go into one of these codecs as come out
_FILTERS = ("delta", "fixedscaleoffset", "bitround", "quantize", "packbits", "astype", "vlen-utf8", "vlen-bytes")


@dataclass(frozen=True)
class Packing:
    """How the chunks of one array are packed.

    Attributes:
        name: of the packing, such as "zstd"; None if chunks are not packed.
        most: bytes that a chunk may unpack to.
        index: bytes of the index of a shard, a file of many chunks; 0 if each chunk is a file.
        index_first: the index stands at the start of the shard, otherwise at its end.
    """

    name: str | None
    most: int
    index: int = 0
    index_first: bool = False

    def check(self, content: np.ndarray, *, is_chunk: bool) -> None:
        """Look into the bytes (N,) of a file of the array, or of one chunk of a shard. Raises ValueError."""
        if self.name is None:
            return
        chunks = [content]
        if self.index and not is_chunk:
            index = content[: self.index] if self.index_first else content[-self.index :]
            places = index[: len(index) // 16 * 16].view("<u8").reshape(-1, 2).tolist()
            chunks = [content[start : start + size] for start, size in places if start + size <= len(content)]
        for chunk in chunks:
            if may_grow(self.name, len(chunk), self.most):
                check_block(self.name, chunk.tobytes(), self.most)


def check_zarr(path: Path) -> dict[str, Packing]:
    """Look at what describes the arrays of a store; returns how each is packed, by its name.

    Raises:
        FramesError: an array is packed in an unknown way or twice, has an axis or a chunk of absurd size, there are too
            many arrays, their coordinates are too large together, or a file leads out of the store. Damaged
            descriptions raise errors of many other kinds.
    """
    packings = {}
    items = held = 0
    for folder in sorted(path.iterdir()):
        for file in (folder / ".zarray", folder / "zarr.json"):
            if not file.exists() and not file.is_symlink():
                continue
            items += 1
            if items > MAX_ARRAYS:
                raise FramesError(
                    f"{path} has more than {MAX_ARRAYS:,} arrays and groups; copy the variable that you need into a "
                    "store of its own"
                )
            array = _description(path, file, MAX_METADATA)
            if array.get("node_type") != "group":
                packings[folder.name] = _packing(path, folder.name, array)
                if _is_coordinate(path, folder, array):
                    held += _cost(array)
    check_coordinates(path, held)
    return packings


def stated_fill_values(path: Path) -> dict[str, Any]:
    """For each array at the top of a store that `check_zarr` has looked at: the value that marks missing data in it.

    Arrays are left out whose attributes name no such value. In format 2, xarray writes the value of `_FillValue` as the
    array's fill value alone. So a fill value of that format counts as well if nobody would choose it for another
    purpose: a number such as -9999 or 1e20, or any but 0 for packed numbers.
    """
    stated: dict[str, Any] = {}
    for folder in sorted(path.iterdir()):
        if (folder / "zarr.json").is_file():
            array = _description(path, folder / "zarr.json", MAX_METADATA)
            attributes = array.get("attributes") or {}
        elif (folder / ".zarray").is_file():
            array = _description(path, folder / ".zarray", MAX_METADATA)
            has_some = (folder / ".zattrs").is_file()
            attributes = _description(path, folder / ".zattrs", MAX_ATTRIBUTES) if has_some else {}
        else:
            continue
        if array.get("node_type") == "group":
            continue
        dtype = _dtype_of(array)
        value = _number(attributes.get("_FillValue"))
        if value is None and "_FillValue" not in attributes and array.get("zarr_format") == 2:
            fill = _number(array.get("fill_value"))
            is_packed = "scale_factor" in attributes or "add_offset" in attributes
            value = fill if fill is not None and (_is_mark(fill) or (is_packed and fill != 0)) else None
        if value is not None and isinstance(dtype, np.dtype) and dtype.kind in "iuf":
            stated[folder.name] = dtype.newbyteorder("=").type(value)
    return stated


def _is_mark(value: float) -> bool:
    """Whether a fill value can only stand for missing data."""
    return value <= -999 or value > 1e15


def _number(stated: Any) -> float | int | None:
    """A fill value as a number; None for NaN, which needs no mask, for none, and for what is no number.

    JSON holds it as a number, as text such as "Infinity" or, as xarray writes those of floats, as the eight bytes of a
    float64 in base64.
    """
    if isinstance(stated, list) and len(stated) == 1:
        stated = stated[0]
    if isinstance(stated, str):
        try:
            stated = float(stated)
        except ValueError:
            try:
                (stated,) = struct.unpack("<d", base64.b64decode(stated, validate=True))
            except (ValueError, struct.error):
                return None
    if isinstance(stated, bool) or not isinstance(stated, int | float) or math.isnan(stated):
        return None
    return stated


def _description(store: Path, file: Path, most: int) -> Any:
    """What a JSON file of the store says. Raises `FramesError` if it is no regular file of at most `most` bytes."""
    inside(store, file)
    if not file.is_file() or file.stat().st_size > most:
        raise FramesError(f"{file} is no description of an array")
    return json.loads(file.read_bytes())


def _is_coordinate(store: Path, folder: Path, array: Any) -> bool:
    """Whether xarray reads the array as soon as it opens the store: it is called as its one dimension is."""
    if len(array["shape"]) != 1:
        return False
    names, attributes = array.get("dimension_names"), folder / ".zattrs"
    if names is None and (attributes.exists() or attributes.is_symlink()):
        names = _description(store, attributes, MAX_ATTRIBUTES).get("_ARRAY_DIMENSIONS")
    return names is None or folder.name in names


def _cost(array: Any) -> int:
    """What reading a whole array of one axis takes, in bytes."""
    chunk = _outer(array)
    count = -(-array["shape"][0] // chunk[0]) if chunk else 1
    return max(coordinate_bytes(array["shape"], _dtype_of(array)), count * _CHUNK_COST)


def _dtype_of(array: Any) -> Any:
    return _dtype(array.get("dtype", array.get("data_type")))


def _outer(array: Any) -> list[int]:
    """The sides of what lies in one file, a chunk or a shard. Empty if the description has none."""
    return array.get("chunks") or array.get("chunk_grid", {}).get("configuration", {}).get("chunk_shape") or []


def _packing(path: Path, name: str, array: Any) -> Packing:
    """How an array is packed. Raises `FramesError` if that is not known here, or a size is absurd."""
    codecs = list(_codecs([array.get("compressor"), *(array.get("filters") or []), *(array.get("codecs") or [])]))
    packed = [codec for codec, _, _ in codecs if codec in _PACKINGS]
    known = (*_PACKINGS, *_PLAIN, *_FILTERS)
    unknown = [codec for codec, _, of_index in codecs if codec not in known or (of_index and codec in packed)]
    if unknown or len(packed) > 1:
        how = f"with {shown(unknown[0])}" if unknown else f"more than once, with {' and '.join(packed[:9])}"
        raise FramesError(
            f"{path}: {printable(name)} is packed {how}, which is not unpacked here; "
            "write it with another codec, such as zstd"
        )
    dtype, outer = _dtype_of(array), _outer(array)
    shards = [configuration for codec, configuration, _ in codecs if codec == "sharding_indexed"]
    inner = shards[-1]["chunk_shape"] if shards else outer
    if not all(type(side) is int and side > 0 for side in (*outer, *inner)):
        raise FramesError(f"{path} is damaged: {printable(name)} has chunks with a side that is no positive number")
    if not all(type(side) is int and side >= 0 for side in array["shape"]):
        raise FramesError(f"{path} is damaged: {printable(name)} has an axis of a negative size, or one without a size")
    check_sizes(path, name, array["shape"], outer, dtype)
    inside_shard = math.prod(-(-large // small) for large, small in zip(outer, inner, strict=True)) if shards else 0
    along = -(-array["shape"][0] // outer[0]) if len(array["shape"]) == len(outer) == 1 else 0
    if len(shards) > 1 or max(inside_shard, along) > MAX_CHUNKS:
        raise FramesError(
            f"{path}: {printable(name)} is stored in shards inside shards, or in more than {MAX_CHUNKS:,} small "
            "chunks; write it in larger chunks"
        )
    most = _MOST_UNKNOWN
    if isinstance(dtype, np.dtype):
        widens = any(codec in _FILTERS for codec, _, _ in codecs)
        most = math.prod(inner) * dtype.itemsize * (_WIDER if widens else 1) + 2**12  # with what checksums add
    checksum = 4 * sum(of_index and codec.startswith("crc32") for codec, _, of_index in codecs)
    first = bool(shards) and shards[0].get("index_location") == "start"
    return Packing(packed[0] if packed else None, most, 16 * inside_shard + checksum if shards else 0, first)


def _codecs(parts: Iterable[Any], of_index: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """All codecs, nested ones included: the name, the configuration, and whether it packs the index of a shard.

    Versions 2 and 3 of the format name codecs differently.
    """
    for part in parts:
        if part is not None:
            inside = part.get("configuration") or {}
            yield str(part.get("id") or part.get("name")).removeprefix("numcodecs."), inside, of_index
            yield from _codecs(inside.get("codecs") or [], of_index)
            yield from _codecs(inside.get("index_codecs") or [], True)


def _dtype(stated: Any) -> Any:
    """NumPy's dtype for what a description states; `object` for values without a fixed size, or of an unknown kind."""
    try:
        found = np.dtype(stated if isinstance(stated, str) else [tuple(field) for field in stated])
    except (TypeError, ValueError):
        return object
    return object if found.hasobject else found


def guarded_store(path: Path, packings: Mapping[str, Packing]) -> Any:
    """Zarr's store of a local folder, to read only, which looks at each file before it hands on what is in it.

    Args:
        path: the folder.
        packings: what `check_zarr` returned for it.
    """
    from zarr.abc.store import RangeByteRequest, SuffixByteRequest
    from zarr.storage import LocalStore

    def checked(key: str, content: Any, part: Any) -> Any:
        array = packings.get(key.partition("/")[0])
        metadata = key.rpartition("/")[2] in _METADATA
        if content is not None and metadata and len(content) > MAX_ATTRIBUTES:
            raise FramesError(f"{path / key} has more than {MAX_ATTRIBUTES:,} bytes")
        if content is None or metadata or array is None:
            return content
        start = part.start if isinstance(part, RangeByteRequest) else None
        if array.index and (isinstance(part, SuffixByteRequest) or (array.index_first and start == 0)):
            return content  # the index of a shard, which is not packed
        array.check(content.as_numpy_array(), is_chunk=part is not None)
        return content

    class GuardedStore(LocalStore):
        """Zarr reads through one of these methods, which one depends on its version."""

        async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
            inside(path, path / key)
            return checked(key, await super().get(key, prototype, byte_range), byte_range)

        def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Any:
            inside(path, path / key)
            found = super().get_sync(key, prototype=prototype, byte_range=byte_range)
            return checked(key, found, byte_range)

        async def get_partial_values(self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]) -> list[Any]:
            return [await self.get(key, prototype, part) for key, part in key_ranges]

    return GuardedStore(path, read_only=True)


def inside(root: Path, file: Path) -> None:
    """Raises `FramesError` unless `file` is a regular file, or nothing, within the folder `root`."""
    real = Path(os.path.realpath(file))
    if not real.is_relative_to(os.path.realpath(root)):
        raise FramesError(f"{file} leads out of the store, to {real}; put a copy there instead")
    try:
        mode = real.stat().st_mode
    except OSError:
        return  # a chunk that was never written
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise FramesError(f"{file} is no regular file")
