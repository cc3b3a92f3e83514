"""What is known of a published file's content, and where the sha256 of the first download is kept.

Few publishers state a hash. So the first download of a file, once it has proved to be a checkpoint of the right model,
is pinned: its sha256 is written to the folder `pins` below $STZOO_HOME, and every later download must have it. `stzoo
cache clear` leaves the pins alone. Whoever knows the right sha256 gives it to `stzoo.load`.

Imports neither torch nor NumPy.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from stzoo import environment
from stzoo.errors import DownloadError, IntegrityError, SpecError
from stzoo.files import make_way, write_atomically
from stzoo.hashing import PIECE, open_regular
from stzoo.published.records import PublishedCheckpoint
from stzoo.spec import from_mapping, required, shown

_MOST = 1 << 16  # bytes that a pin may have


@dataclass(frozen=True, kw_only=True)
class Pin:
    """The content of a publisher's file, as it came the first time.

    Attributes:
        url: where it came from.
        size: bytes.
        sha256: 64 hexadecimal digits.
    """

    url: str
    size: int = required(1, 1 << 40)
    sha256: str

    def __post_init__(self) -> None:
        check_sha256(self.sha256)


def check_sha256(text: object) -> None:
    """Raises `SpecError` if a value is not a sha256 in hexadecimal, in small letters."""
    if not isinstance(text, str) or not re.fullmatch(r"[0-9a-f]{64}", text):
        raise SpecError(f"sha256 is {shown(text)}; it must be 64 hexadecimal digits")


def pin_file(name: str) -> Path:
    """Where the pin of a published checkpoint is kept."""
    return environment.home() / "pins" / f"{name}.json"


def read_pin(name: str) -> Pin | None:
    """The pin of a published checkpoint; None if its file has not come to this machine yet.

    Raises:
        IntegrityError: the pin is damaged; the message says where it lies.
    """
    path = pin_file(name)
    try:
        with open_regular(path) as (file, _):
            return from_mapping(Pin, json.loads(file.read(_MOST) or b""), "pin")
    except FileNotFoundError:
        if not os.path.lexists(path):
            return None
        raise IntegrityError(f"{path}, which should keep a sha256, is a link that leads nowhere; remove it") from None
    except NotADirectoryError:
        return None  # nothing is kept there yet, and nothing can be
    except (OSError, SpecError, ValueError, RecursionError) as error:
        raise IntegrityError(
            f"{path}, which keeps the sha256 of the first download of {name}, is damaged: {error}. Remove it to trust "
            "the next download"
        ) from error


def write_pin(name: str, pin: Pin) -> None:
    """Keep a pin. Raises `DownloadError` if it cannot be written."""
    path = pin_file(name)
    try:
        make_way(path.parent, folder=True)
        environment.made(path.parent)
        write_atomically(path, (json.dumps(asdict(pin), indent=2) + "\n").encode())
    except OSError as error:
        raise DownloadError(f"cannot keep the sha256 of {name} in {path}: {error.strerror or error}") from error


def expected_sha256(name: str, pin: Pin | None, asked: str | None) -> str | None:
    """The sha256 that the publisher's file must have; None if nobody knows one yet.

    Args:
        name: of the published file, as `read_pin` takes it.
        pin: what is pinned of it.
        asked: what the user gave as sha256, in small letters or capitals.

    Raises:
        SpecError: `asked` is no sha256. IntegrityError: it is not that of the first download.
    """
    if asked is not None:
        asked = asked.lower() if isinstance(asked, str) else asked
        check_sha256(asked)
        if pin is not None and pin.sha256 != asked:
            raise IntegrityError(
                f"the first download of {name} had sha256 {pin.sha256}, not {asked}. If {asked} is right, "
                f"remove {pin_file(name)} and load again"
            )
        return asked
    return None if pin is None else pin.sha256


def check_by_hand(record: PublishedCheckpoint, file: Path, sha256: str) -> bool:
    """Whether anything is known of the content of a record's file, which somebody says that `file` is.

    Raises `IntegrityError` if it is another file, by git's id or by the sha256 of the first download.
    """
    own = (
        f"it is not {record.name}, as --model says; to convert a file of your own, leave out --model and give "
        f"--dataset {record.dataset}, or name a .json file with its spec (--model)"
    )
    check_git(record, file, str(file), own)
    pin = read_pin(record.name)
    if pin is not None and pin.sha256 != sha256:
        raise IntegrityError(
            f"{file} has sha256 {sha256}, and the first download of {record.name} had {pin.sha256}; {own}. If you "
            f"trust a new file of the publisher, remove {pin_file(record.name)}"
        )
    return record.git is not None or pin is not None


def check_git(record: PublishedCheckpoint, file: Path, called: str, remedy: str = "the download was discarded") -> None:
    """Raises `IntegrityError`, which calls the file `called` and ends in `remedy`, if git knows another file."""
    if record.git is None:
        return
    found = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with file.open("rb") as stream:
        while piece := stream.read(PIECE):
            found.update(piece)
    if record.git != found.hexdigest():
        raise IntegrityError(f"{called} is git object {found.hexdigest()}, expected {record.git}; {remedy}")
