"""What is known of a published file's content, and where the sha256 of the first download is kept.

Few publishers state a hash. So the first download of a file, once it has proved to be a checkpoint of the right model,
is pinned: its sha256 is written to the folder `pins` below $STZOO_HOME, and every later download must have it. `stzoo
cache clear` leaves the pins alone. Whoever knows the right sha256 gives it to `stzoo.load`.

Imports neither torch nor NumPy.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from stzoo import environment
from stzoo.errors import IntegrityError, SpecError
from stzoo.files import write_atomically
from stzoo.published.records import PublishedCheckpoint
from stzoo.spec import from_mapping, required, shown

PIECE = 1 << 20  # bytes that are read and hashed at once
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
    """Raises `SpecError` if a value is not a sha256 in hexadecimal."""
    if not isinstance(text, str) or not re.fullmatch(r"[0-9a-f]{64}", text):
        raise SpecError(f"sha256 is {shown(text)}; it must be 64 hexadecimal digits in small letters")


def pin_file(name: str) -> Path:
    """Where the pin of a published checkpoint is kept."""
    return environment.home() / "pins" / f"{name}.json"


def read_pin(name: str) -> Pin | None:
    """The pin of a published checkpoint; None if its file has not come to this machine yet.

    Raises:
        IntegrityError: the pin is damaged; the message says where it lies.
    """
    path = pin_file(name)
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return from_mapping(Pin, json.loads(file.read(_MOST)), "pin")
    except (SpecError, ValueError, RecursionError) as error:
        raise IntegrityError(
            f"{path}, which keeps the sha256 of the first download of {name}, is damaged: {error}. Remove it to trust "
            "the next download"
        ) from error


def write_pin(name: str, pin: Pin) -> None:
    """Keep a pin. Raises `OSError` if it cannot be written."""
    path = pin_file(name)
    environment.made(path.parent)
    write_atomically(path, (json.dumps(asdict(pin), indent=2) + "\n").encode())


def expected_sha256(record: PublishedCheckpoint, pin: Pin | None, asked: str | None) -> str | None:
    """The sha256 that the publisher's file must have; None if nobody knows one yet.

    Args:
        asked: what the user gave as sha256.

    Raises:
        SpecError: `asked` is no sha256. IntegrityError: it is not that of the first download.
    """
    if asked is not None:
        check_sha256(asked)
        if pin is not None and pin.sha256 != asked:
            raise IntegrityError(
                f"the first download of {record.name} had sha256 {pin.sha256}, not {asked}. If {asked} is right, "
                f"remove {pin_file(record.name)} and load again"
            )
        return asked
    return None if pin is None else pin.sha256


def checked(record: PublishedCheckpoint, file: Path, url: str) -> Pin:
    """What a downloaded file is, hashed once.

    Raises:
        IntegrityError: it is not the object that git has under the record's id.
    """
    size = file.stat().st_size
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with file.open("rb") as stream:
        while piece := stream.read(PIECE):
            sha256.update(piece)
            if record.git is not None:
                git.update(piece)
    if record.git not in (None, git.hexdigest()):
        raise IntegrityError(
            f"{url} is git object {git.hexdigest()}, expected {record.git}; the download was discarded"
        )
    return Pin(url=url, size=size, sha256=sha256.hexdigest())
