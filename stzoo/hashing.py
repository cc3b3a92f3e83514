"""The sha256 of a file, and the bytes that it is of: whoever checks a hash must then use the very bytes checked.

This module imports neither torch nor NumPy.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

MAX_KEPT = 64 << 20  # bytes: the content of a larger file is not kept in memory after it was hashed
PIECE = 1 << 18  # bytes that are read and hashed at once, while the processor's cache still holds them
_START = 8 << 20  # bytes of a larger file that are kept: more than the header of any file that is accepted


@dataclass(frozen=True)
class Hashed:
    """A file as it was when it was hashed.

    Attributes:
        path: where the file was.
        size: bytes that were read.
        sha256: of these bytes, 64 hexadecimal digits.
        start: the first of these bytes, all of them if there are at most `MAX_KEPT`.
    """

    path: Path
    size: int
    sha256: str
    start: bytearray = field(repr=False)

    @property
    def content(self) -> bytearray | None:
        """All the bytes; None if they were too many to be kept. Then the file must be read, and hashed, once more."""
        return self.start if len(self.start) == self.size else None


def hashed(path: Path) -> Hashed:
    """Read a file once, and hash it. Raises `OSError` if it cannot be read, or is no regular file."""
    with open_regular(path) as (file, size):
        digest, count = hashlib.sha256(), 0
        kept, rest = bytearray(size if size <= MAX_KEPT else _START), bytearray(PIECE)
        while True:
            piece = memoryview(kept)[count : count + PIECE] if count < len(kept) else memoryview(rest)
            more = file.readinto(piece)
            if not more:
                break
            digest.update(piece[:more])
            count += more
        return Hashed(path, count, digest.hexdigest(), kept if count >= len(kept) else kept[:count])


def file_sha256(path: Path) -> str:
    """The sha256 of a file in hexadecimal. Raises `OSError` if it cannot be read, or is no regular file."""
    with open_regular(path) as (file, _):
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_in_name(path: Path) -> str | None:
    """The sha256 in which the name of a file ends, before its suffix; None if there is none."""
    match = re.fullmatch(r"(?:.*-)?([0-9a-f]{64})", path.name.partition(".")[0])
    return None if match is None else match[1]


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[FileIO, int]]:
    """A regular file, open for reading, and its size in bytes.

    Raises:
        OSError: it cannot be opened, or is something else: a FIFO, which would block, or a device, which has no end.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, "it is no file", str(path)) from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file", str(path))
    with FileIO(descriptor, "rb") as file:
        yield file, facts.st_size
