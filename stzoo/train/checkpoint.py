"""A checkpoint file: what `torch.save` writes, and behind it a line with the sha256 sum of those bytes.

`torch.load` reads the file as it is, since it does not look at what follows. Checkpoints of earlier versions have no
such line. Of them the checksums are compared that their zip format has for each tensor.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from stzoo.errors import TrainingError
from stzoo.files import flush

_LINE = b"\nstzoo sha256 %s\n"
_LENGTH = len(_LINE) - len("%s") + 64
_ZIP_END = 22  # bytes of the record that ends a zip file
_BLOCK = 1 << 20


def write_checkpoint(file: Path, state: dict[str, Any]) -> None:
    """Write `state` to `file`, and wait until it is on disk. Raises `OSError`."""
    try:
        torch.save(state, file)
    except RuntimeError as error:  # how torch reports a full disk
        raise OSError(f"{file} cannot be written; is the disk full? ({str(error).splitlines()[0][:200]})") from error
    digest = hashlib.sha256()
    with file.open("r+b") as written:
        while block := written.read(_BLOCK):
            digest.update(block)
        written.write(_LINE % digest.hexdigest().encode())
    flush(file)


def read_checkpoint(file: Path) -> dict[str, Any]:
    """What `write_checkpoint` wrote, its tensors on the CPU. The bytes that are read are those that were checked.

    Raises:
        TrainingError: the file is damaged. OSError: it cannot be read.
    """
    with file.open("rb") as opened:
        body = opened.read(max(0, file.stat().st_size - _LENGTH))
        body = _checked(file, body, opened.read())
    try:
        state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; its advice, to load without checks, must not be followed
        raise TrainingError(f"{file} is damaged: torch cannot read it ({type(error).__name__})") from error
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise TrainingError(f"{file} is damaged: it holds no training run")
    return state


def _checked(file: Path, body: bytes, line: bytes) -> bytes:
    """The part of a checkpoint file that torch reads. Raises `TrainingError` if it is not what was written.

    Args:
        file: for the message.
        body: all of the file but its last `_LENGTH` bytes, which are `line`.
    """
    if re.fullmatch(re.escape(_LINE).replace(b"%s", b"[0-9a-f]{64}"), line):
        if _LINE % hashlib.sha256(body).hexdigest().encode() != line:
            raise TrainingError(f"{file} is damaged: its sha256 sum is not the one that was written with it")
        return body
    content = body + line  # of an earlier version
    if content[-_ZIP_END:][:4] != b"PK\5\6":
        raise TrainingError(f"{file} is damaged: its end is missing or was changed")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            broken = archive.testzip()
    except Exception as error:  # zipfile raises many kinds, for it trusts the numbers in its headers
        raise TrainingError(f"{file} is damaged: it is no whole zip file ({type(error).__name__})") from error
    if broken is not None:
        raise TrainingError(f"{file} is damaged: a checksum in it is wrong")
    return content
