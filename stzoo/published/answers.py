"""What an address sent instead of a checkpoint: a web page, a pointer, the half of a file.

A portal of a hotel answers with a page and status 200, a mirror of a git tree with a pointer, and a proxy may end early
a body that has no stated length. Each of them should be called what it is, before anybody reads it as a checkpoint.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from stzoo.hashing import open_regular

_START = 512  # bytes that are looked at
_ZIP, _PICKLE = b"PK\3\4", b"\x80"  # how files of torch.save begin


def unlike_a_checkpoint(file: Path) -> str | None:
    """What a downloaded file is, in a phrase, if that is no checkpoint; None if it may be one."""
    with open_regular(file) as (stream, size):
        start = stream.read(_START) or b""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not start:
        return "an empty answer"
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return "a pointer of git-lfs, which stands for the file and is not the file itself"
    if text.startswith(b"<"):
        return "a web page, as a login or a proxy sends it, and not the file"
    if start.startswith(_ZIP):
        if not zipfile.is_zipfile(file):
            return f"the beginning of a checkpoint, which was cut off after {size:,} bytes"
    elif not start.startswith(_PICKLE):
        return "a text, and not the file" if _is_text(start) else "a file of another format than torch.save writes"
    return None


def _is_text(start: bytes) -> bool:
    """Whether the bytes are UTF-8, but for a character that was cut at their end, and nothing that text has not."""
    return b"\0" not in start and "\ufffd" not in start.decode("utf-8", "replace").rstrip("\ufffd")
