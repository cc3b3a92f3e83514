"""Norpix ``.seq`` containers of JPEG frames, as Caltech Pedestrian was published. They need no video codec, no extra.

The header has 1024 bytes, with all numbers little endian: at 0 the magic 0xFEED, at 4 "Norpix seq" in UTF-16, at 28
version and header size, at 36 a description, at 548 six words of which the last is the image format, at 572 the number
of frames. The frames follow one after the other: a word with the frame's size, which counts this word too; the JPEG; a
time stamp of 8 bytes; and 8 empty bytes in files of some writers. A header that counts 0 frames belongs to a recording
that was never closed: such a file is read to its end.
"""

from __future__ import annotations

import io
import itertools
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from stzoo.errors import DataError, printable

HEADER = 1024
JPEG = (102, 201)  # image formats: gray, colour
_FIELDS = struct.Struct("<I20s4xii512x20xII")  # magic, name, version, header size, image format, frames
_STAMP = 8


def read_seq(path: Path, every: int = 1) -> Iterator[Image.Image]:
    """The frames 0, every, 2 * every, ... as gray or RGB images, each decoded when it is asked for.

    Sizes are checked against that of the file before anything is read, so no header makes it read or allocate more.

    Raises:
        DataError: the file does not exist, has another format, is damaged or is cut short. The message names it.
    """
    if not path.is_file():  # reading a FIFO would wait for ever
        raise DataError(f"{path} cannot be read: {'it is no regular file' if path.exists() else 'it does not exist'}")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            promised = _promised(path, file.read(HEADER))
            position = HEADER
            for number in range(promised) if promised else itertools.count():
                if not promised and position + _STAMP >= size:
                    return
                file.seek(position)
                length = _word(file)
                if not length and number:
                    position += _STAMP
                    length = _word(file, skip=4)
                if length <= 4 or position + length > size:
                    of = f" of the {promised} that its header promises" if promised else ""
                    raise DataError(
                        f"{path} is damaged or cut short: frame {number}{of} should start at byte {position} "
                        f"of {size}; copy or download it again"
                    )
                if number % every == 0:
                    yield _image(path, number, file.read(length - 4))
                position += length + _STAMP
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _promised(path: Path, header: bytes) -> int:
    """The number of frames that the header states. Raises `DataError` if frames of this kind cannot be read."""
    if len(header) < HEADER:
        raise DataError(
            f"{path} is cut short: a .seq file starts with {HEADER} bytes of header, this one has {len(header)}"
        )
    magic, name, _, header_size, image_format, frames = _FIELDS.unpack_from(header)
    if magic != 0xFEED or name != "Norpix seq".encode("utf-16-le") or header_size != HEADER:
        raise DataError(f"{path} is no Norpix .seq file of the kind that Caltech Pedestrian is published in")
    if image_format not in JPEG:
        raise DataError(f"{path} has image format {image_format}; only JPEG frames (102 or 201) can be read")
    return int(frames)


def _word(file: io.BufferedReader, skip: int = 0) -> int:
    """The number in the next 32 bits after `skip` bytes; 0 at the end of the file."""
    file.seek(skip, os.SEEK_CUR)
    return int.from_bytes(file.read(4), "little")


def _image(path: Path, number: int, data: bytes) -> Image.Image:
    """Decode a JPEG. Raises `DataError`, which names the file and the frame's number, if it is damaged."""
    try:
        image = Image.open(io.BytesIO(data), formats=["JPEG"])
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: frame {number} is a damaged JPEG: {printable(str(error))}") from error
    return image
