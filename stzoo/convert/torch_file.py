"""Files that `torch.save` wrote, read without `torch.load`: what a file claims is known before any memory is taken.

Such a file is a pickle that describes tensors, and the bytes of their storages: in a zip file, or one after the other
in the format that torch wrote before version 1.6. The pickle is followed here step by step, and nothing that it names
is imported or called. So no code in it can run, and a tensor is only a claim (`StoredTensor`) until its caller has
checked it and asks for its values.
"""

from __future__ import annotations

import io
import math
import os
import pickletools
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from stzoo.errors import WeightsError, printable
from stzoo.spec import shown

MAX_DESCRIPTION = 2**26  # bytes of the pickle, which holds names and shapes; a thousand tensors take 10^5
MAX_DIMENSIONS, MAX_SIDE = 8, 2**40  # of a tensor
_MOST_RECORDS = 2**16  # files in the zip file, one for each storage
_MAGIC = 0x1950A86A20F9469CFC6C  # what a file of the older format begins with
_STORAGES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "ByteStorage": torch.uint8, "CharStorage": torch.int8,
    "ShortStorage": torch.int16, "IntStorage": torch.int32, "LongStorage": torch.int64, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128, "UntypedStorage": torch.uint8,
    "QInt8Storage": torch.int8, "QInt32Storage": torch.int32, "QUInt8Storage": torch.uint8,
}  # fmt: skip
_PLAIN = ("collections.OrderedDict", "collections.Counter", "_codecs.encode", "torch.Size", "torch.device",
          "torch.Tensor", "torch.nn.parameter.Parameter", "torch._tensor._rebuild_from_type_v2",
          "torch.serialization._get_layout", *(f"{module}.{name}" for module in ("builtins", "__builtin__")
          for name in ("bytearray", "set", "frozenset", "complex")))  # fmt: skip
_DAMAGES = (  # what follows from damaged bytes
    ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, RecursionError, OverflowError,
    MemoryError, NotImplementedError, RuntimeError, OSError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class StoredStorage:
    """The memory of one or more tensors, as the file claims it: `count` values of `dtype` under the name `key`."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the file claims it: a view of a storage. `offset` and `stride` count values of `dtype`."""

    storage: StoredStorage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """How much memory the tensor takes on its own."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Name:
    """The name of a class or a function in the pickle, such as "torch.FloatStorage". It is not looked up."""

    text: str


@dataclass(frozen=True)
class Other:
    """An object that is neither a dense tensor nor plain data. `maker` names what would have made it."""

    maker: str


@dataclass(frozen=True)
class TorchFile:
    """An open file that `torch.save` wrote.

    Attributes:
        path: where it lies.
        content: what was saved: mappings, lists, numbers and text, with a `StoredTensor` for each dense tensor and an
            `Other` for each object of another class.
        size: bytes of the file.
        unpacked: bytes of all storages together, by the file's own account.
        read: a storage -> its bytes, in this machine's byte order. Raises ValueError if they are not there.
    """

    path: Path
    content: Any
    size: int
    unpacked: int
    read: Callable[[StoredStorage], Tensor]

    def tensor(self, stored: StoredTensor) -> Tensor:
        """The tensor with its values. Tensors of one storage share their memory, as they did when they were saved.

        Raises:
            WeightsError: the tensor reaches outside its storage, or the storage is absent, damaged or of another size.
        """
        try:
            _check_view(stored)
            if not stored.nbytes:
                return torch.empty(stored.shape, dtype=stored.dtype)
            values = self.read(stored.storage).view(stored.dtype)
            return values.as_strided(stored.shape, stored.stride, stored.offset)
        except _DAMAGES as error:
            raise WeightsError(f"{self.path} is damaged: {_reason(error)}") from error


@contextmanager
def open_torch_file(path: Path) -> Iterator[TorchFile]:
    """Open a file that `torch.save` wrote, in either format. Its description is read, but no tensor.

    Raises:
        WeightsError: it is no regular file, or no checkpoint of pure tensors: it is damaged, has another format, or
            names classes or functions other than those that tensors are made with.
        OSError: the file cannot be opened.
    """
    # Opening a FIFO would wait for a writer without this flag.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise WeightsError(f"{path} is no regular file; give the path of a checkpoint")
    with open(descriptor, "rb") as file:
        try:
            if not found.st_size:  # also what files of /proc say, some of which cannot be read to their end
                raise ValueError("it is empty")
            is_zip = file.read(4) == b"PK\3\4"
            opened = (_open_zip if is_zip else _open_old)(path, file, found.st_size)
        except _DAMAGES as error:
            raise WeightsError(
                f"{path} is not a checkpoint of pure tensors, and nothing else is read: {_reason(error)}"
            ) from error
        yield opened


def _reason(error: Exception) -> str:
    """Why a file was refused, on one short line."""
    if not isinstance(error, (ValueError, OSError, zipfile.BadZipFile, zlib.error)):
        return "it is damaged or has another format"  # what the error says is of no use without the code
    text = str(error).split("\n", 1)[0]
    return printable(text if len(text) <= 200 else f"{text[:200]}...")


def _open_zip(path: Path, file: BinaryIO, size: int) -> TorchFile:
    """The format since torch 1.6: the description is the record ``data.pkl``, and each storage has its own record."""
    packed = zipfile.ZipFile(file)
    sizes = {record.filename: record.file_size for record in packed.infolist()}
    if len(sizes) != len(packed.infolist()) or not sizes:
        raise ValueError("it has no records, or two of the same name")
    if any(record.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for record in packed.infolist()):
        raise ValueError("its records are packed in a way that torch does not read")
    if len(sizes) > _MOST_RECORDS:
        raise ValueError(f"it has {len(sizes):,} records; at most {_MOST_RECORDS:,} are read")
    root = next(iter(sizes)).partition("/")[0]
    if f"{root}/data.pkl" not in sizes or f"{root}/constants.pkl" in sizes:
        raise ValueError("it is a TorchScript program or another zip file, without the record data.pkl alone")

    def record(name: str, most: int) -> bytes:
        with packed.open(f"{root}/{name}") as stream:
            content = stream.read(most + 1)  # unpacks no more than that, whatever the record claims
        if len(content) > most:
            raise ValueError(f"its record {name} has more than {most:,} bytes")
        return content

    swapped = f"{root}/byteorder" in sizes and record("byteorder", 16) != _byte_order()

    @cache
    def read(storage: StoredStorage) -> Tensor:
        expected = storage.count * storage.dtype.itemsize
        claimed = sizes.get(f"{root}/data/{storage.key}")
        if claimed is None:
            raise ValueError(f"storage {storage.key} is absent")
        content = record(f"data/{storage.key}", min(expected, claimed))
        return _memory(content, storage, swapped)

    content = _followed(io.BytesIO(record("data.pkl", MAX_DESCRIPTION)), {})
    unpacked = sum(each for name, each in sizes.items() if name.startswith(f"{root}/data/"))
    return TorchFile(path, content, size, unpacked, read)


def _open_old(path: Path, file: BinaryIO, size: int) -> TorchFile:
    """The format before torch 1.6: four pickles, the last of which is the description, a list of storages, and these.

    Each storage is its number of values, in 8 bytes, and the values.
    """
    file.seek(0)
    start = io.BytesIO(file.read(MAX_DESCRIPTION))  # in memory, because it is followed byte by byte
    if _followed(start, {}) != _MAGIC:
        raise ValueError("it does not begin as files of torch.save do")
    _followed(start, {})  # the version of the format
    system = _followed(start, {})
    claimed: dict[str, StoredStorage] = {}
    content = _followed(start, claimed)
    places, at = {}, 0
    keys = _followed(start, {})
    at = start.tell()
    for key in keys:
        places[claimed[key]] = at + 8
        at += 8 + claimed[key].count * claimed[key].dtype.itemsize
    if at > size:
        raise ValueError(f"its storages need {at:,} bytes, the file has {size:,}")
    swapped = system["little_endian"] is not (_byte_order() == b"little")

    @cache
    def read(storage: StoredStorage) -> Tensor:
        file.seek(places[storage])
        return _memory(file.read(storage.count * storage.dtype.itemsize), storage, swapped)

    return TorchFile(path, content, size, at - start.tell(), read)


def _byte_order() -> bytes:
    return b"little" if np.little_endian else b"big"


def _memory(content: bytes, storage: StoredStorage, swapped: bool) -> Tensor:
    """The bytes of a storage, uint8. Raises `ValueError` if there are more or fewer than the storage claims."""
    expected = storage.count * storage.dtype.itemsize
    if len(content) != expected:
        raise ValueError(f"storage {storage.key} has {len(content):,} bytes and not {expected:,}")
    word = storage.dtype.itemsize // (2 if storage.dtype.is_complex else 1)
    if swapped and word > 1:
        content = np.frombuffer(content, f"u{word}").byteswap().tobytes()
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _check_view(stored: StoredTensor) -> None:
    """Raises `ValueError` unless the tensor lies inside its storage."""
    last = stored.offset + sum((side - 1) * step for side, step in zip(stored.shape, stored.stride, strict=True))
    if stored.nbytes and (last + 1) * stored.dtype.itemsize > stored.storage.count * stored.storage.dtype.itemsize:
        raise ValueError("a tensor reaches outside its storage")


def _followed(file: BinaryIO, storages: dict[str, StoredStorage]) -> Any:
    """What the pickle at the current position describes. The file is left where the pickle ends.

    Args:
        file: the bytes.
        storages: every storage that the pickle mentions is entered here, by its key.

    Raises:
        ValueError: a step of the pickle is damaged, or one that files of torch.save do not have. Damaged pickles also
            raise IndexError, KeyError, TypeError or AttributeError.
    """
    stack: list[Any] = []
    below: list[list[Any]] = []  # stacks that were set aside by marks
    memo: dict[int, Any] = {}
    value: Any
    for step, value, _ in pickletools.genops(file):
        match step.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack[-1]
            case "MARK":
                below.append(stack)
                stack = []
            case "POP":
                stack.pop()
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[step.name])
            case (
                "BININT" | "BININT1" | "BININT2" | "LONG1" | "LONG4" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE"
                | "SHORT_BINBYTES" | "BINBYTES" | "SHORT_BINSTRING" | "BINSTRING"
            ):  # fmt: skip
                stack.append(value)
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE" | "EMPTY_SET":
                stack.append({"DICT": dict, "LIST": list, "TUPLE": tuple, "SET": set}[step.name[6:]]())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(step.name[-1])
                stack[-count:] = [tuple(stack[-count:])] if len(stack) >= count else [stack[-count]]
            case "TUPLE" | "APPENDS" | "SETITEMS" | "ADDITEMS":
                items, stack = stack, below.pop()
                if step.name == "TUPLE":
                    stack.append(tuple(items))
                elif step.name == "APPENDS":
                    stack[-1].extend(items)
                elif step.name == "ADDITEMS":
                    stack[-1].update(map(_key, items))
                else:
                    stack[-1].update((_key(k), v) for k, v in zip(items[::2], items[1::2], strict=True))
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "SETITEM":
                item, key = stack.pop(), stack.pop()
                stack[-1].update({_key(key): item})
            case "BINPUT" | "LONG_BINPUT":
                memo[value] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[value])
            case "GLOBAL":
                module, name = value.split(" ", 1)
                stack.append(_named(module, name, stack, below))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_named(module, name, stack, below))
            case "REDUCE" | "NEWOBJ":
                arguments, maker = stack.pop(), stack.pop()
                stack.append(_made(maker, arguments))
            case "BUILD":  # attributes, such as the versions that a state_dict carries
                stack.pop()
            case "BINPERSID":
                storage = _storage(stack.pop())
                storages[storage.key] = storage
                stack.append(storage)
            case _:
                raise ValueError(f"its pickle has the step {step.name}")
    raise ValueError("its pickle has no end")


def _key(value: Any) -> Any:
    """`value` itself, if it may be the key of a mapping: hashing tuples inside tuples may take for ever."""
    flat = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(each, str | bytes | int | float | Name | None) for each in flat):
        raise ValueError("a mapping in it has a key that is neither text nor a number")
    return value


def _place(stack: list[Any], below: list[list[Any]]) -> str:
    """Where a pickle stands that is about to fill a mapping, for messages: the key of the next value; "" elsewhere."""
    several = len(stack) % 2 == 1 and below and below[-1] and isinstance(below[-1][-1], dict)
    one = len(stack) > 1 and isinstance(stack[-2], dict)
    is_key = (several or one) and isinstance(stack[-1], str | int)
    return f", under the key {shown(stack[-1])}" if is_key else ""


def _named(module: str, name: str, stack: list[Any], below: list[list[Any]]) -> Name:
    """The name of something that tensors are made with.

    Raises:
        ValueError: it is another name; the message says it, and where the pickle stands (see `_place`).
    """
    text = f"{module}.{name}"
    is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
    is_kind = module in ("torch", "torch.cuda", "torch.storage") and (name in _STORAGES or name.endswith("Tensor"))
    rebuilds = module == "torch._utils" and name.startswith("_rebuild_")
    if not (text in _PLAIN or is_dtype or is_kind or rebuilds):
        raise ValueError(f"it names {text}, which may be code{_place(stack, below)}")
    return Name(text)


def _storage(claim: tuple[Any, ...]) -> StoredStorage:
    kind, storage, key, _, count = claim[:5]
    if kind != "storage" or (len(claim) > 5 and claim[5] is not None) or not isinstance(key, str):
        raise ValueError("a storage in it is described in an unknown way")
    return StoredStorage(key, _STORAGES[storage.text.rpartition(".")[2]], _size(count))


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_SIDE:
        raise ValueError("a tensor in it has an absurd size")
    return value


def _made(maker: Name, arguments: tuple[Any, ...]) -> Any:
    """What the call of `maker` would have returned: a claim, plain data, or an `Other`. Nothing is called."""
    name = maker.text.removeprefix("torch._utils.")
    if name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
        storage, offset, shape, stride = arguments[:4]
        dtype = getattr(torch, arguments[6].text.removeprefix("torch.")) if name[-1] == "3" else storage.dtype
        changed = name[-1] == "2" and len(arguments) > 6 and bool(arguments[6])  # conjugated or negated when it is read
        if len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS:
            raise ValueError(f"a tensor has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are read")
        sides, steps = tuple(map(_size, shape)), tuple(map(_size, stride))
        return Other(name) if changed else StoredTensor(storage, dtype, _size(offset), sides, steps)
    if name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
        return arguments[0]
    if name == "torch._tensor._rebuild_from_type_v2" and arguments[1].text in _PLAIN:
        return _made(arguments[0], arguments[2])
    if name == "torch.Size":
        return tuple(arguments[0])
    if name == "collections.OrderedDict":
        return {_key(key): value for key, value in (arguments[0] if arguments else ())}
    return Other(name)
