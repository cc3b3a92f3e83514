"""A publisher's file that is kept here in another form: looked for first, then fetched, by one process of several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from stzoo import environment
from stzoo.addresses import without_secrets
from stzoo.download import AnotherSizeError, download, lock
from stzoo.errors import DownloadError, IntegrityError, SpecError, WeightsError
from stzoo.files import make_way
from stzoo.published.trust import Pin, expected_sha256, read_pin

T = TypeVar("T")
Look = Callable[[Pin | None, str | None], T]  # what is pinned of the file, the sha256 that it must have -> what it is


def kept_or_made(
    name: str,
    called: str,
    file: Path,
    asked: str | None,
    *,
    kept: Look[T | None],
    check_allowed: Callable[[], None],
    made: Look[T],
) -> T:
    """What `kept` finds, or else what `made` makes. Of several processes that ask at once, one makes it.

    Args:
        name: of the published file, as `stzoo.published.trust.read_pin` takes it.
        called: what it is, for the message.
        file: where it is kept; its folder is made if need be.
        asked: the sha256 of the publisher's file, if the user gave one.
        kept: looks for it, and returns None if it is not there, not whole, or made of another file.
        check_allowed: called before anything is fetched; raises an error if that may not be.
        made: fetches it.

    Raises:
        DownloadError: it cannot be kept. SpecError, IntegrityError: as `stzoo.published.trust.expected_sha256` does.
    """

    def look() -> tuple[Pin | None, str | None, T | None]:
        pin = read_pin(name)
        expected = expected_sha256(name, pin, asked)
        return pin, expected, kept(pin, expected)

    *_, found = look()
    if found is not None:
        return found
    check_allowed()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with lock(file):
            pin, expected, found = look()  # another process may have been here meanwhile
            return found if found is not None else made(pin, expected)
    except (OSError, NotImplementedError) as error:  # a full disk; a file system without locks
        raise DownloadError(f"cannot keep {called} in {file.parent}: {error}") from error


@contextmanager
def fetched(
    name: str,
    address: str,
    folder: Path,
    expected: str | None,
    *,
    progress: bool,
    read: Callable[[Path, Pin], T],
    failure: Callable[[list[tuple[str, Exception]]], Exception],
) -> Iterator[tuple[T, Pin]]:
    """What `read` makes of the first right file, and what can be pinned of that file, which is gone after the block.

    Args:
        name: of the published file.
        address: the publisher's; where it fails, the mirrors in STZOO_MIRRORS are asked for a file of the same name.
        folder: what comes is put into a hidden folder inside this one, see `scratch`.
        expected: the sha256 that the file must have; None if nobody knows it. If it is the pinned one, the file must
            have the pinned size, too: without it, a body that was cut could not be told from another file.
        progress: show a bar while it is downloaded.
        read: raises `WeightsError` or `SpecError` if the file is a wrong one.
        failure: addresses and what was wrong with each -> the error to raise if none has the right file.
    """
    tried: list[tuple[str, Exception]] = []
    pin = read_pin(name)
    size = pin.size if pin is not None and pin.sha256 == expected else None
    with scratch(folder, name) as file:
        for place in (address, *(f"{base}/{address.rpartition('/')[2]}" for base in environment.mirrors())):
            url = without_secrets(place)
            try:
                file.unlink(missing_ok=True)  # what another address sent
                sha256 = download(place, file, size, expected, progress=progress)
                came = Pin(url=url, size=file.stat().st_size, sha256=sha256)
                found = read(file, came)
            except AnotherSizeError as error:  # so its sha256 is another one
                tried.append((url, IntegrityError(str(error))))
                continue
            except (WeightsError, SpecError) as error:
                tried.append((url, error))
                continue
            yield found, came
            return
    raise failure(tried)


@contextmanager
def scratch(folder: Path, name: str) -> Iterator[Path]:
    """Where a publisher's file comes to: a hidden folder inside `folder` that nobody else fills, gone afterwards.

    It stays if a part of a download lies in it, for the next attempt to go on with.
    """
    hidden = folder / f".{name}.download"
    make_way(hidden, folder=True)
    hidden.mkdir(exist_ok=True)
    file = hidden / f"{name}.pth"
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)  # nothing but its tensors is of use
        with suppress(OSError):
            file.with_name(f".{file.name}.lock").unlink(missing_ok=True)
            hidden.rmdir()
