"""Writing that leaves nothing half-written, and folders that one process holds at a time."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a place beside `path` where a file or a folder of the same name can be written.

    It takes the place of `path` when the block ends without an error, and is on disk by then; otherwise `path` stays
    as it was. A process that is killed inside the block leaves a hidden folder, which `remove_leftovers` clears away.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        partial = Path(folder) / path.name
        yield partial
        if partial.is_dir() and path.is_dir():
            path.rmdir()  # empty, or this raises
        if partial.is_file():
            _flush(partial)
        os.replace(partial, path)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to the file `path`, which then has either all of it or what it had before."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left beside `path` while they wrote it."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, busy: Exception) -> Iterator[None]:
    """Make `folder` and hold it for this process until the block ends; raise `busy` where another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise busy from None
    try:
        yield
    finally:
        lock.release()


def _flush(path: Path) -> None:
    """Wait until the content of a file is on disk, so that a power cut cannot leave its name without it."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
