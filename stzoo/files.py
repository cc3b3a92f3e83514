"""Files that are written whole or not at all, and folders that one process holds at a time."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stzoo.errors import FramesError, StzooError

# Files that older versions left. No word that a person writes: six or eight characters with a digit among them.
_OF_OLD = re.compile(r"\..+\.(?=[a-z_]*[0-9])([a-z0-9_]{6}|[a-z0-9_]{8})", re.DOTALL)
_LONGEST = 245  # bytes of a name that the name of its hidden folder repeats: that may have 255


def check_name(path: Path, given: Path, suffixes: Collection[str], *, folder: bool) -> None:
    """Check that what is made of the file `given` can be written to a file called `path`, as far as names tell.

    Args:
        path: the file or the folder to be written.
        given: the input, for the message.
        suffixes: those that `path` may have.
        folder: a name without a suffix will do as well: it is that of a folder.

    Raises:
        FramesError: `path` has another suffix, or the folder that it is to lie in does not exist.
    """
    suffix = path.suffix.lower()
    if suffix not in suffixes and (suffix or not folder):
        rest = ", or a folder" if folder else ""
        raise FramesError(f"cannot write {path.name} from {given.name}; use {', '.join(suffixes)}{rest}")
    if not path.parent.is_dir():
        raise FramesError(f"the folder {path.parent} does not exist; create it first")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file or a folder whole: yields a path, of the same name, to write it to inside the block.

    When the block ends without an error, what was written there takes the place of `path`. After an error, `path` stays
    as it was. A process that is killed inside the block leaves a hidden folder beside `path`, which
    `remove_leftovers` removes.

    Raises:
        OSError: the file cannot be written, or `path` is a folder with content.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_prefix(path.name)) as folder:
        partial = Path(folder) / path.name
        yield partial
        if partial.is_dir() and path.is_dir():
            path.rmdir()  # raises unless the folder is empty
        os.replace(partial, path)


def write_atomically(path: Path, *content: bytes | memoryview) -> None:
    """Write one or more pieces of content to the file `path`. If that fails, the file has what it had before.

    Raises `OSError`.

    The content is on disk before the file has its name, and everybody may read it, whatever this process's umask is.
    """
    with replacing(path) as partial:
        with partial.open("wb") as file:
            for piece in content:
                file.write(piece)
        partial.chmod(0o644)
        flush(partial)


@contextmanager
def writing_errors_named(path: Path) -> Iterator[None]:
    """An `OSError` raised inside the block, such as of a full disk, becomes one whose message names the file `path`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StzooError):
            raise
        reason = error.strerror or "not all of it fits there; is the disk full?"  # as NumPy and netCDF4 do not say
        named = OSError(f"{path} cannot be written: {reason}")
        named.errno = error.errno
        raise named from error


def remove_leftovers(path: Path, holding: Collection[str] = ()) -> None:
    """Remove what processes that were killed while they wrote `path` left beside it, and nothing that others made.

    Args:
        path: the file or folder.
        holding: the names of further files that such a hidden folder may hold, as `is_leftover` takes them.
    """
    if not path.parent.is_dir():
        return
    for beside in path.parent.iterdir():
        if _start(beside.name) != _prefix(path.name):
            continue
        names = {path.name, *holding}  # all of a name, for long names are cut
        if is_leftover(beside, holding) and all(
            inside.name in names or (holding and is_leftover(inside)) for inside in beside.iterdir()
        ):
            shutil.rmtree(beside, ignore_errors=True)
        elif _OF_OLD.fullmatch(beside.name) and beside.is_file() and not beside.is_symlink():
            beside.unlink(missing_ok=True)


def is_leftover(path: Path, holding: Collection[str] = ()) -> bool:
    """Whether `path` is what `replacing` leaves when its process is killed.

    That is a folder called .NAME. and a few random characters, which holds a thing called NAME, or nothing yet. A file,
    or a folder that holds anything else, was made by somebody else, whatever it is called. The files called as
    `holding` says may be in it too, whole or half-written.
    """
    if re.fullmatch(r"\..+\.[a-z0-9_]{6,8}", path.name, re.DOTALL) is None or path.is_symlink() or not path.is_dir():
        return False
    return all(
        _prefix(inside.name) == _start(path.name)
        or inside.name in holding
        or (_start(inside.name) in map(_prefix, holding) and is_leftover(inside))
        for inside in path.iterdir()
    )


def _prefix(name: str) -> str:
    """How the name of the hidden folder begins in which the thing called `name` is written.

    Random characters follow, so a long name is cut.
    """
    short = name if len(os.fsencode(name)) <= _LONGEST else os.fsencode(name)[:_LONGEST].decode("utf-8", "ignore")
    return f".{short}."


def _start(hidden: str) -> str:
    """The name of a hidden folder without the random characters at its end."""
    return hidden[: hidden.rfind(".") + 1]


def set_aside(path: Path) -> Path:
    """Rename what is in the way at `path`, and return its new path, which ends in .aside or .aside-2, and so on."""
    for number in itertools.count(1):
        aside = path.with_name(f"{path.name}.aside" + (f"-{number}" if number > 1 else ""))
        if not os.path.lexists(aside):
            break
    path.rename(aside)
    return aside


def make_way(path: Path, *, folder: bool = False) -> None:
    """Rename, with a warning, what is called `path` and is no regular file, or with `folder` no folder."""
    if os.path.lexists(path) and not (path.is_dir() if folder else path.is_file()):
        what, aside = "folder" if folder else "file", set_aside(path).name
        warnings.warn(f"{path} is in the way of a {what} of this run; it is now called {aside}", stacklevel=3)


@contextmanager
def locked(folder: Path, busy: Exception) -> Iterator[None]:
    """Create `folder` if needed, and hold it for this process until the block ends.

    Raises:
        busy: another process holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    make_way(folder / ".lock")
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise busy from None
    try:
        yield
    finally:
        lock.release()


def flush(path: Path) -> None:
    """Wait until the content of a file is on disk, so that a power cut cannot leave its name without it."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
