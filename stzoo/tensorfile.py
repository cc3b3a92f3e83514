"""A safetensors file, read in one pass: the bytes that are hashed are the bytes that become tensors. And one written.

A file may be swapped, overwritten or cut at any moment, also between two looks at it. So it is opened once, its header
is checked before a tensor is made of it, and every byte goes from the file into a tensor's own memory and from there
into the hash. Nothing is mapped: a file that is cut meanwhile is an error, not the end of the process.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from stzoo.errors import WeightsError
from stzoo.hashing import PIECE, Hashed, open_regular
from stzoo.spec import shown

MAX_HEADER = 4 << 20  # bytes; the largest header of a packaged checkpoint has a hundredth of it
_LFS = b"version "  # what a pointer of Git LFS begins with, where a safetensors file has the length of its header
MAX_DIMENSIONS, MAX_SIDE = 8, 2**40  # of a tensor: torch fails, or is slow, if an empty tensor has an absurd shape
DTYPES: Mapping[str, torch.dtype] = MappingProxyType(  # not float8, complex or sub-byte types
    {
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F32": torch.float32,
        "F64": torch.float64,
        "BOOL": torch.bool,
        "I8": torch.int8,
        "U8": torch.uint8,
        "I16": torch.int16,
        "I32": torch.int32,
        "I64": torch.int64,
    }
)
_ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "I16", "I8", "U8", "BOOL")  # of the bytes of tensors in a file
_RANKS: Mapping[torch.dtype, int] = MappingProxyType({DTYPES[name]: rank for rank, name in enumerate(_ORDER)})


@dataclass(frozen=True)
class Stored:
    """What the header says of one tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class TensorFile:
    """A file that was read.

    Attributes:
        metadata: the text in its header, by name.
        tensors: by name, on the CPU, in the dtypes of the file.
        sha256: of exactly the bytes that the other two were made of, 64 hexadecimal digits.
        borrowed: whether the tensors are views of bytes that somebody else holds, and not memory of their own.
    """

    metadata: Mapping[str, str]
    tensors: dict[str, Tensor]
    sha256: str
    borrowed: bool


def read(
    path: Path, check: Callable[[Mapping[str, Stored]], None] = lambda header: None, known: Hashed | None = None
) -> TensorFile:
    """Read a whole file.

    Args:
        path: the file.
        check: called with what the header says of each tensor, before memory is taken for any. What it raises, this
            function raises.
        known: the same file as it was when it was hashed; if it has kept its bytes, these are taken.

    Raises:
        WeightsError: the file cannot be read, is damaged, or holds a tensor of a dtype or shape that no model has.
    """
    content = None if known is None else known.content
    with _opened(path, None if content is None else known) as (file, size):
        digest = hashlib.sha256()
        metadata, stored = _header(file, size, digest)
        for name, tensor in stored.items():
            if len(tensor.shape) > MAX_DIMENSIONS or any(side > MAX_SIDE for side in tensor.shape):
                raise WeightsError(f"{path}: {shown(name)} has the shape {shown([*tensor.shape])}, which no model has")
        check(stored)
        if known is not None and content is not None:
            return TensorFile(metadata, _views(content, file.tell(), stored), known.sha256, True)
        tensors = {name: _filled(file, tensor, digest) for name, tensor in stored.items()}
        return TensorFile(metadata, tensors, digest.hexdigest(), False)


def packed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """The bytes of a safetensors file, in pieces: the header, and the memory of each tensor itself.

    They are the library's, and keys of the metadata always come in the order given.

    Args:
        tensors: by name, on the CPU and contiguous, of the dtypes in `DTYPES`.
    """
    order = sorted(tensors, key=lambda name: (_RANKS[tensors[name].dtype], name.encode()))
    names, header, end = {dtype: name for name, dtype in DTYPES.items()}, {}, 0
    for name in order:
        begin, end = end, end + tensors[name].nbytes
        described = {"dtype": names[tensors[name].dtype], "shape": [*tensors[name].shape]}
        header[name] = described | {"data_offsets": [begin, end]}
    text = json.dumps({"__metadata__": dict(metadata)} | header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    filled = [tensors[name] for name in order if tensors[name].nbytes]
    memory = [memoryview(cast(Any, t.reshape(-1).view(torch.uint8).numpy())) for t in filled]
    return [len(text).to_bytes(8, "little") + text, *memory]


def metadata_of(file: Hashed) -> Mapping[str, str]:
    """The metadata of a file that was hashed. Raises `WeightsError` if the file is damaged."""
    with _opened(file.path, file) as (start, size):
        return _header(start, size, hashlib.sha256())[0]


def names_in(file: Hashed) -> Collection[str]:
    """The names of the tensors of a file that was hashed. Raises `WeightsError` if the file is damaged."""
    with _opened(file.path, file) as (start, size):
        return _header(start, size, hashlib.sha256())[1].keys()


@contextmanager
def _opened(path: Path, known: Hashed | None) -> Iterator[tuple[BinaryIO, int]]:
    """The open file, or the header of a known one as if it were a file, and the size of the file in bytes.

    Raises:
        WeightsError: the file cannot be opened; or the block found out that it is damaged, by a `ValueError`.
    """
    try:
        os.fspath(path).encode("utf-8")  # a program could not print a name that is no text
        if known is not None:
            length = int.from_bytes(known.start[:8], "little")
            yield io.BytesIO(known.start[: 8 + min(length, MAX_HEADER)]), known.size
        else:
            with open_regular(path) as opened:
                yield opened
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {error}") from error


def _header(file: BinaryIO, size: int, digest: Any) -> tuple[Mapping[str, str], dict[str, Stored]]:
    """The metadata, and what is said of the tensors in the order of their bytes. The file stands after the header.

    Raises:
        ValueError: the header is absent, too long or wrong, or the tensors do not fill the rest of the file exactly.
    """
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if start == _LFS:
        raise ValueError("it is a Git LFS pointer, which only names the weights; fetch them with: git lfs pull")
    if len(start) < 8 or length > size - 8:
        raise ValueError(f"its header is said to have {length} bytes, the file has {size}")
    if length > MAX_HEADER:
        raise ValueError(f"its header has {length} bytes; at most {MAX_HEADER} are read")
    text = bytearray(length)
    _fill(file, memoryview(text))
    digest.update(start)
    digest.update(text)
    header = json.loads(text.decode("utf-8"))
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not text by name")
    places = sorted((_place(name, said), name) for name, said in header.items())
    end = 0
    for (begin, after), name in places:
        if begin != end:
            raise ValueError(f"the bytes of {shown(name)} begin at {begin}, those of the tensor before it end at {end}")
        end = after
    if end != size - 8 - length:
        raise ValueError(f"its tensors have {end} bytes, and {size - 8 - length} bytes follow its header")
    return metadata, {name: Stored(DTYPES[header[name]["dtype"]], tuple(header[name]["shape"])) for _, name in places}


def _place(name: str, said: Any) -> tuple[int, int]:
    """Where the bytes of a tensor begin and end behind the header. Raises `ValueError` if that is impossible."""
    name.encode("utf-8")  # a lone surrogate is no text
    if not isinstance(said, dict) or set(said) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{shown(name)} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{shown(name)} is stored as {shown(dtype)}; it may be {', '.join(DTYPES)}")
    for what, numbers in (("shape", shape), ("data_offsets", offsets)):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
            raise ValueError(f"{shown(name)} has the {what} {shown(numbers)}; it must be a list of counts")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{shown(name)} has the data_offsets {shown(offsets)}; they must be two, in order")
    if len(shape) <= MAX_DIMENSIONS and offsets != [offsets[0], offsets[0] + math.prod(shape) * DTYPES[dtype].itemsize]:
        raise ValueError(f"{shown(name)} has the shape {shown(shape)} and the data_offsets {shown(offsets)}")
    return offsets[0], offsets[1]


def _views(content: bytearray, begin: int, stored: Mapping[str, Stored]) -> dict[str, Tensor]:
    """Tensors that share the memory of `content`, whose header ends at `begin`."""
    tensors = {}
    for name, each in stored.items():
        count = math.prod(each.shape)
        flat = (
            torch.frombuffer(content, dtype=each.dtype, count=count, offset=begin)
            if count
            else torch.empty(0, device="cpu")
        )
        tensors[name] = flat.to(each.dtype).view(each.shape)
        begin += count * each.dtype.itemsize
    return tensors


def _filled(file: BinaryIO, stored: Stored, digest: Any) -> Tensor:
    """The next tensor of the file."""
    try:
        tensor = torch.empty(stored.shape, dtype=stored.dtype, device="cpu")
    except RuntimeError as error:  # there is no such amount of memory
        raise MemoryError(f"there is no memory for a tensor of the shape {list(stored.shape)}") from error
    content = memoryview(cast(Any, tensor.view(-1).view(torch.uint8).numpy()))
    for start in range(0, len(content), PIECE):
        piece = content[start : start + PIECE]
        _fill(file, piece)
        digest.update(piece)
    return tensor


def _fill(file: BinaryIO, content: memoryview) -> None:
    """Read until `content` is full. Raises `ValueError` if the file ends before that: it was cut meanwhile."""
    count = 0
    while count < len(content):
        more: int = file.readinto(content[count:])  # type: ignore[attr-defined]
        if not more:
            raise ValueError("it was cut while it was read")
        count += more
