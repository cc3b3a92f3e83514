"""netCDF files, looked at before the netCDF library opens them: both of its formats, netCDF-3 and HDF5.

That library believes what a file says of itself. A link that leads back to its own group makes it read without end,
too many groups abort the process, and a header can claim any amount of memory. HDF5 also opens other files if a file
refers to them. So the structure is walked here first, within bounds that no file of frames comes near.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from stzoo.errors import FramesError
from stzoo.frames.packed import check_block, may_grow
from stzoo.spec import shown

MAX_COORDINATE = 2**24  # values along one axis: three centuries of ten-minute data
MAX_COORDINATES = 2**29  # bytes of all coordinates that are read at once
MAX_CHUNK = 2**27  # values of one chunk, which is unpacked at once
MAX_CHUNK_BYTES = 2**30
MAX_ITEMS = 20_000  # groups and arrays of a file, counted once for each path to them, or items of a netCDF-3 header
MAX_DEPTH = 32  # of groups inside groups
_MAX_TYPE_DEPTH, _MAX_MEMBERS = 8, 1000  # of a type made of types
_MAX_ATTRIBUTES = 2**26  # bytes of all attributes of a file
_OVERHEAD = 2**10  # bytes that an attribute counts at least
_FILTERS: Mapping[int, str] = MappingProxyType(  # HDF5's numbers of what packs chunks
    {1: "deflate", 4: "szip", 307: "bz2", 32001: "blosc", 32004: "hdf5-lz4", 32015: "zstd"}
)
_SHUFFLE, _FLETCHER, _NBIT, _SCALEOFFSET = 2, 3, 5, 6  # filters that pack with another one, or that cannot grow
_SIZES = (0, 1, 1, 2, 4, 4, 8, 1, 2, 4, 8, 8)  # bytes of netCDF-3's types, by their numbers


def check_netcdf(path: Path) -> Path:
    """Look at a netCDF file before it is opened.

    Returns:
        The path to open it by. It is absolute, because the library takes some relative paths for network addresses.

    Raises:
        FramesError: it refers to another file or is cut short, or its structure, an axis or a chunk is absurd. Damaged
            files raise errors of many other kinds.
    """
    import h5py
    import netCDF4

    if not path.stat().st_size:  # also what files of /proc say, some of which cannot be read to their end
        raise ValueError("it is empty")
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            check_structure(path, file)
            arrays = [item for name in file if isinstance(item := file.get(name), h5py.Dataset)]
            axes = [item for item in arrays if _is_axis(item)]
            for item in axes:
                check_sizes(path, item.name.removeprefix("/"), item.shape, (), item.dtype)
            check_coordinates(path, sum(coordinate_bytes(item.shape, item.dtype) for item in axes))
            for item in arrays:
                _check_coordinate(path, item)
    else:
        with path.open("rb") as stream:
            _Header(path, stream).check()
    held = 0  # bytes of the coordinates that xarray reads as soon as it opens the file
    with netCDF4.Dataset(path.absolute()) as dataset:
        for name, variable in dataset.variables.items():
            chunks = variable.chunking()
            check_sizes(path, name, variable.shape, chunks if isinstance(chunks, list) else [], variable.dtype)
            if name in variable.dimensions:
                held += coordinate_bytes(variable.shape, variable.dtype)
        if dataset.data_model.startswith("NETCDF3"):  # this format reads absent values as zeros
            claimed = sum(math.prod(each.shape) * each.dtype.itemsize for each in dataset.variables.values())
            if claimed > path.stat().st_size:
                raise FramesError(
                    f"{path} is cut short: its header promises {claimed:,} bytes of values; copy or download it again"
                )
    check_coordinates(path, held)
    return path.absolute()


def check_structure(path: Path, file: Any) -> None:
    """Walk an HDF5 file, which h5py has opened.

    Raises:
        FramesError: it refers to another file, has groups in a circle, or more of something than a file of frames has.
    """
    import h5py

    _Walk(path, h5py).groups(file.id)


def check_sizes(path: Path, name: str, shape: Sequence[int], chunks: Sequence[int], dtype: Any) -> None:
    """Check how large an array claims to be, for what is read at once: a coordinate, or one chunk.

    Args:
        path, name: what errors call the array.
        shape: of the array.
        chunks: the shape of its chunks; empty if there are none.
        dtype: of its values, a NumPy dtype, or a class such as `str`.

    Raises:
        FramesError: an axis or a chunk is absurd.
    """
    itemsize = _itemsize(dtype)
    is_text = itemsize > 16 or getattr(dtype, "kind", "") in "SU"  # an axis of letters is a part of the coordinate
    values = math.prod(shape) if is_text and len(shape) < 3 else shape[0] if len(shape) == 1 else 0
    most = 8 * MAX_COORDINATE // max(8, itemsize)
    if values > most:
        raise FramesError(f"{path}: {shown(name)} has {values:,} values along one axis; at most {most:,} are read")
    if math.prod(chunks) > MAX_CHUNK or math.prod(chunks) * itemsize > MAX_CHUNK_BYTES:
        raise FramesError(
            f"{path}: {shown(name)} is stored in chunks of {math.prod(chunks):,} values; at most {MAX_CHUNK:,} are "
            f"read at once, of {MAX_CHUNK_BYTES:,} bytes, so write it in smaller chunks"
        )


def coordinate_bytes(shape: Sequence[int], dtype: Any) -> int:
    """How many bytes a coordinate takes in memory; 0 if it has more axes than one of values and one of letters."""
    return math.prod(shape) * max(8, _itemsize(dtype)) if len(shape) < 3 else 0  # 8: times and scaled values widen


def _itemsize(dtype: Any) -> int:
    return 64 if isinstance(dtype, type) else getattr(dtype, "itemsize", 64)  # an object takes about so much


def check_coordinates(path: Path, held: int) -> None:
    """Raises `FramesError` if the coordinates that are read at once take too many bytes, `held`, together."""
    if held > MAX_COORDINATES:
        raise FramesError(
            f"{path} has coordinates of {held:,} bytes together; at most {MAX_COORDINATES:,} are read, so copy the "
            "variable that you need into a file of its own, with its own coordinates"
        )


def check_chunks(path: Path, name: str, times: slice, time: str = "time") -> None:
    """Look into the chunks of one array, at the top of an HDF5 file, that are about to be read.

    Args:
        path: of a netCDF file of either format; netCDF-3 packs nothing.
        name: of a variable. If there is no array of this name, nothing is checked.
        times: which of its values are read, along the axis of the dimension of time, if it has one.
        time: the name of that dimension.

    Raises:
        FramesError: a chunk unpacks to more than its description states.
    """
    import h5py

    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            item = file.get(name, file.get(f"_nc4_non_coord_{name}"))
            if isinstance(item, h5py.Dataset):
                _check_stored(path, item, times, time)


def _is_axis(item: Any) -> bool:
    """Whether an HDF5 array is an axis with values. A dimension without values is an array, too, but is never read."""
    from h5py import h5ds

    empty = b"This is a netCDF dimension but not a netCDF variable"
    return item.ndim == 1 and h5ds.is_scale(item.id) and not h5ds.get_scale_name(item.id).startswith(empty)


def _check_coordinate(path: Path, item: Any) -> None:
    """Look into the chunks of an array that xarray reads as soon as it opens a file: a coordinate, or times."""
    if item.ndim < 3 or "since" in str(item.attrs.get("units", "")):
        _check_stored(path, item, slice(None))


def _check_stored(path: Path, array: Any, times: slice, time: str = "time") -> None:
    """Raises `FramesError` if a chunk of an HDF5 array that holds some of `times` unpacks to more than it should."""
    packings = [_FILTERS[code] for code in _packers(array.id.get_create_plist()) if code in _FILTERS]
    if not packings or array.chunks is None:
        return
    (packing,) = packings
    size = path.stat().st_size
    most = math.prod(array.chunks) * array.dtype.itemsize + 2**12  # with what checksums add
    if not may_grow(packing, min(size, array.id.get_storage_size()), most):
        return
    axis = _time_axis(array, time)
    first, last = (0, math.inf)
    if axis is not None:
        which = range(array.shape[axis])[times]
        first, last = (which[0] // array.chunks[axis] * array.chunks[axis], which[-1]) if which else (0, -1)
    found: list[tuple[int, ...]] = []

    def note(chunk: Any) -> None:
        place = chunk.chunk_offset
        if may_grow(packing, chunk.size, most) and (axis is None or first <= place[axis] <= last):
            found.append(place)

    array.id.chunk_iter(note)
    for place in found:
        if array.id.get_chunk_info_by_coord(place).size > size:
            raise FramesError(f"{path} is cut short: {shown(array.name)} has a chunk that is larger than the file")
        try:
            check_block(packing, array.id.read_direct_chunk(place)[1], most)
        except ValueError as error:
            raise FramesError(f"{path}: {shown(array.name)} is damaged: {error}") from error


def _time_axis(array: Any, time: str) -> int | None:
    """The axis of the dimension that is called `time`; None if the array names none so."""
    for axis in range(array.ndim):
        if any(scale.name.rpartition("/")[2] == time for scale in array.dims[axis].values()):
            return axis
    return None


def _packers(plist: Any) -> list[int]:
    """The numbers of those filters of an HDF5 array that can make a chunk larger when it is read."""
    codes = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
    return [code for code in codes if code not in (_SHUFFLE, _FLETCHER, _NBIT, _SCALEOFFSET)]


class _Walk:
    """The groups, arrays, types and attributes of one HDF5 file, as netCDF-C will see them, counted on the way.

    netCDF-C follows links as if each led to a group of its own. So they are followed here, too, and a circle ends at
    the bound for the depth.
    """

    def __init__(self, path: Path, h5py: Any):
        self.path, self.h5py = path, h5py
        self.items = self.attributes = 0

    def groups(self, top: Any) -> None:
        """Walk the whole file. Raises `FramesError`."""
        todo = [(self.h5py.h5g.open(top, b"/"), 0)]
        while todo:
            group, depth = todo.pop()
            self.items += group.get_num_objs()
            if depth > MAX_DEPTH or self.items > MAX_ITEMS:
                what = f"groups more than {MAX_DEPTH} deep, or in a circle"
                if depth <= MAX_DEPTH:
                    what = f"more than {MAX_ITEMS:,} groups and arrays"
                raise FramesError(f"{self.path} has {what}; copy the variable that you need into a file of its own")
            self._check_attributes(group)
            todo += [(item, depth + 1) for item in self._inside(group) if self._is_group(item)]

    def _inside(self, group: Any) -> Iterator[Any]:
        """What the links of a group lead to. A link to nothing is left out."""
        links = self.h5py.h5l
        for name in group:
            kind = group.links.get_info(name).type
            if kind not in (links.TYPE_HARD, links.TYPE_SOFT):
                raise self._elsewhere()
            try:
                yield self.h5py.h5o.open(group, name)
            except (KeyError, RuntimeError, OSError):
                if kind == links.TYPE_HARD:
                    raise

    def _is_group(self, item: Any) -> bool:
        """Whether it is a group; an array or a type is checked at once."""
        if isinstance(item, self.h5py.h5d.DatasetID):
            self._check_array(item)
        elif isinstance(item, self.h5py.h5t.TypeID):
            self._check_type(item)
        return isinstance(item, self.h5py.h5g.GroupID)

    def _check_array(self, array: Any) -> None:
        plist = array.get_create_plist()
        if plist.get_layout() == self.h5py.h5d.VIRTUAL or plist.get_external_count():
            raise self._elsewhere()
        self._check_attributes(array)
        self._check_type(array.get_type())
        if plist.get_layout() != self.h5py.h5d.CHUNKED:
            return
        if len(_packers(plist)) > 1:
            raise FramesError(f"{self.path} holds an array that is packed more than once; write it with one filter")
        for number in range(plist.get_nfilters()):
            code, _, values, _ = plist.get_filter(number)
            if code in (_NBIT, _SCALEOFFSET) and len(values) > 2 and values[2] > math.prod(plist.get_chunk()):
                raise FramesError(f"{self.path} is damaged: a filter claims more values than a chunk has")

    def _check_attributes(self, item: Any) -> None:
        h5a = self.h5py.h5a
        self.attributes += _OVERHEAD * h5a.get_num_attrs(item)
        names: list[bytes] = []
        if self.attributes <= _MAX_ATTRIBUTES:
            h5a.iterate(item, names.append)
        for name in names:
            attribute = h5a.open(item, name)
            self._check_type(attribute.get_type())
            self.attributes += attribute.get_storage_size()
        if self.attributes > _MAX_ATTRIBUTES:
            raise FramesError(f"{self.path} has attributes of more than {_MAX_ATTRIBUTES:,} bytes; leave them out")

    def _check_type(self, of: Any, depth: int = 0) -> None:
        """Raises `FramesError` if types are nested too deep or have too many members."""
        h5t = self.h5py.h5t
        members = of.get_nmembers() if isinstance(of, h5t.TypeCompoundID) else 0
        if depth > _MAX_TYPE_DEPTH or members > _MAX_MEMBERS:
            raise FramesError(
                f"{self.path} has types nested more than {_MAX_TYPE_DEPTH} deep or with more than {_MAX_MEMBERS:,} "
                "members; copy the variable into a file of its own"
            )
        for number in range(members):
            self._check_type(of.get_member_type(number), depth + 1)
        if isinstance(of, h5t.TypeArrayID | h5t.TypeVlenID):
            self._check_type(of.get_super(), depth + 1)

    def _elsewhere(self) -> FramesError:
        return FramesError(f"{self.path} refers to another file, which is not opened; copy that file's data into it")


class _Header:
    """The header of a netCDF-3 file: every count in it is compared with what the file can hold."""

    def __init__(self, path: Path, stream: BinaryIO):
        self.path, self.stream = path, stream
        self.size = os.fstat(stream.fileno()).st_size
        self.items = 0

    def check(self) -> None:
        """Read the whole header. Raises `FramesError` if it claims more than the file holds, or is none."""
        magic = self.stream.read(4)
        if magic[:3] != b"CDF" or magic[3:] not in (b"\1", b"\2", b"\5"):
            raise FramesError(f"{self.path} is damaged or no netCDF file")
        self.word = 8 if magic[3] == 5 else 4  # bytes of a count
        self.place = 4 if magic[3] == 1 else 8  # bytes of a position in the file
        self._number(self.word)  # of records
        for _ in self._list():
            self._skip(self._number(self.word))
            self._number(self.word)
        self._attributes()
        for _ in self._list():
            self._skip(self._number(self.word))
            self._skip(self._number(self.word) * self.word)
            self._attributes()
            self._number(4)
            self._number(self.word)
            self._number(self.place)

    def _attributes(self) -> None:
        for _ in self._list():
            self._skip(self._number(self.word))
            kind = self._number(4)
            self._skip(self._number(self.word) * (_SIZES[kind] if kind < len(_SIZES) else 1))

    def _list(self) -> Iterator[int]:
        """The numbers of the items of a list, which the caller reads."""
        self._number(4)  # what is listed
        count = self._number(self.word)
        self.items += count
        if self.items > MAX_ITEMS:
            raise self._absurd()
        return iter(range(count))

    def _number(self, length: int) -> int:
        content = self.stream.read(length)
        if len(content) < length:
            raise self._absurd()
        return int.from_bytes(content, "big")

    def _skip(self, length: int) -> None:
        """Skip bytes, and those that fill the last word of four."""
        at = self.stream.tell() + length + -length % 4
        if at > self.size:
            raise self._absurd()
        self.stream.seek(at)

    def _absurd(self) -> FramesError:
        return FramesError(
            f"{self.path} is damaged or cut short: its header claims more than the file holds, or more than "
            f"{MAX_ITEMS:,} items"
        )
