"""Files that `torch.save` wrote, read without `torch.load`: what a file claims is known before any memory is taken.

Such a file is a pickle that describes tensors, and the bytes of their storages: in a zip file, or one after the other
in the format that torch wrote before version 1.6. The pickle is followed by `stzoo.convert.pickled`, which runs nothing
of it. So a tensor is only a claim (`StoredTensor`) until its caller has checked it and asks for its values.
"""

from __future__ import annotations

import io
import os
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

from stzoo.convert.other_formats import AGAIN, RESAVE, RESAVE_PROGRAM, ZIP, other_format
from stzoo.convert.pickled import StoredStorage, StoredTensor, followed
from stzoo.errors import MemoryNeededError, WeightsError, printable

MAX_DESCRIPTION = 2**26  # bytes of the pickle, which holds names and shapes; a thousand tensors take 10^5
_MOST_RECORDS = 2**16  # files in the zip file, one for each storage
_MAGIC = 0x1950A86A20F9469CFC6C  # what a file of the older format begins with
_DAMAGES = (  # what follows from damaged bytes
    ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, RecursionError, OverflowError,
    NotImplementedError, RuntimeError, OSError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


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
            MemoryNeededError: there is not enough memory for it.
        """
        try:
            _check_view(stored)
            if not stored.nbytes:
                return torch.empty(stored.shape, dtype=stored.dtype)
            with memory_told(f"a tensor of {stored.nbytes:,} bytes in {self.path}"):
                values = self.read(stored.storage).view(stored.dtype)
            return values.as_strided(stored.shape, stored.stride, stored.offset)
        except _DAMAGES as error:
            raise WeightsError(f"{self.path} is damaged: {_reason(error)}") from error


@contextmanager
def open_torch_file(path: Path) -> Iterator[TorchFile]:
    """Open a file that `torch.save` wrote, in either format. Its description is read, but no tensor.

    Raises:
        WeightsError: it does not exist, is no regular file, is damaged, or has another format; the message says what to
            do.
        MemoryNeededError: there is not enough memory for its description.
        OSError: the file cannot be opened.
    """
    # Opening a FIFO would wait for a writer without this flag.
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise WeightsError(f"{path} does not exist; give the path of a checkpoint") from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise WeightsError(f"{path} is no regular file; give the path of a checkpoint")
    with open(descriptor, "rb") as file:
        start = b""
        try:
            if not found.st_size:  # also what files of /proc say, some of which cannot be read to their end
                raise ValueError(f"it is empty; {AGAIN}")
            start = file.read(512)
            with memory_told(f"the description of the tensors in {path}"):
                opened = (_open_zip if start.startswith(ZIP) else _open_old)(path, file, found.st_size)
        except _DAMAGES as error:
            reason = other_format(start, found.st_size) or _reason(error)
            raise WeightsError(f"{path} is not a checkpoint of pure tensors: {reason}") from error
        yield opened


@contextmanager
def memory_told(what: str) -> Iterator[None]:
    """Inside the block, a lack of memory becomes a `MemoryNeededError`, because it is no fault of the file.

    That of torch is a RuntimeError, as those are which damaged bytes lead to; only its text tells them apart.
    """
    try:
        yield
    except MemoryNeededError:
        raise
    except (MemoryError, RuntimeError) as error:
        lacking = ("allocate memory", "not enough memory")  # of Linux and macOS, of Windows
        if not isinstance(error, MemoryError) and not any(text in str(error) for text in lacking):
            raise
        raise MemoryNeededError(
            f"there is not enough memory for {what}; end other programs, or convert the file on a machine with more"
        ) from error


def _reason(error: Exception) -> str:
    """Why a file was refused, on one short line, and what to do."""
    if isinstance(error, zipfile.BadZipFile):
        return f"it is a damaged or incomplete zip file; {AGAIN}"
    if not isinstance(error, (ValueError, OSError, zlib.error)):
        return f"it is damaged or has another format; {AGAIN}"  # what the error says is of no use without the code
    text = str(error).split("\n", 1)[0]
    text = printable(text if len(text) <= 200 else f"{text[:200]}...")
    return text if "; " in text else f"{text}; {AGAIN}, or {RESAVE}"


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
        if any(name.endswith("/constants.pkl") for name in sizes):
            raise ValueError(f"it is a TorchScript program; {RESAVE_PROGRAM}")
        raise ValueError("it is a zip file that torch.save did not write; unpack it if the checkpoint lies in it")

    def record(name: str, most: int) -> bytes:
        with packed.open(f"{root}/{name}") as stream:
            content = stream.read(most + 1)  # unpacks no more than that, whatever the record claims
        if len(content) > most:
            raise ValueError(f"its record {name} has more than {most:,} bytes; {RESAVE}")
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

    content = followed(io.BytesIO(record("data.pkl", MAX_DESCRIPTION)), {})
    unpacked = sum(each for name, each in sizes.items() if name.startswith(f"{root}/data/"))
    return TorchFile(path, content, size, unpacked, read)


def _open_old(path: Path, file: BinaryIO, size: int) -> TorchFile:
    """The format before torch 1.6: four pickles, the last of which is the description, a list of storages, and these.

    Each storage is its number of values, in 8 bytes, and the values.
    """
    file.seek(0)
    if file.read(1) not in (b"\x80", b"L"):  # a pickle's protocol, or a number in the oldest ones
        raise ValueError(f"it has a format that torch.save does not write; {AGAIN}")
    file.seek(0)
    start = io.BytesIO(file.read(MAX_DESCRIPTION))  # in memory, because it is followed byte by byte
    if followed(start, {}) != _MAGIC:
        raise ValueError(f"it does not begin as files of torch.save do; {RESAVE}")
    followed(start, {})  # the version of the format
    system = followed(start, {})
    claimed: dict[str, StoredStorage] = {}
    content = followed(start, claimed)
    places, at = {}, 0
    keys = followed(start, {})
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
