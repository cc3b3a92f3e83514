"""Opening a video file safely: FFmpeg gets one open file, reads only formats that hold video, and opens nothing else.

FFmpeg, which decodes videos, also reads playlists and scripts, whatever the name of their file, and opens what they
name, on this machine or in the network. So it is given an open file and no way to open another one, it may use only
formats that hold video themselves, and it is told how large a frame may be before it decodes one.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from stzoo.errors import FramesError
from stzoo.frames.layout import MAX_PIXELS, check_pixels
from stzoo.spec import shown

MAX_DECODED = str(MAX_PIXELS * 9 // 8)  # pixels, with the margins that FFmpeg adds
_MOV = ("mov", "mp4")  # FFmpeg's names of the formats that are read
_OTHERS = ("avi", "matroska", "webm", "mpeg", "mpegts", "mpegvideo", "m4v", "flv", "asf", "ogg")
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"sidx")  # how a .mp4 begins
_RIFF_SLACK = 16  # bytes by which writers of .avi files get their own size wrong
_LARGE = 2**23  # pixels: more than 3840x2160 has


@contextmanager
def opened(av: ModuleType, path: Path) -> Iterator[tuple[Any, Any]]:
    """PyAV's container of a video file and the video stream that players show, set up for decoding.

    Raises:
        FramesError: the file holds no video, none that can be decoded, or one with absurdly large frames.
        ValueError: the file is empty, or a table in it claims more than the file can hold.
    """
    if not path.stat().st_size:  # also what files of /proc say, some of which cannot be read to their end
        raise ValueError("it is empty")
    with path.open("rb") as file:
        head = file.read(8)
        formats = _MOV if head[4:] in _BOXES else _OTHERS
        if formats is _MOV:
            _check_boxes(file)
        file.seek(0)
        options = {
            "format_whitelist": ",".join(formats), "protocol_whitelist": "none", "max_pixels": MAX_DECODED
        }  # fmt: skip
        with av.open(file, "r", options=options, io_open=_nothing_else) as container:
            stream = _shown_stream(path, container)
            context = stream.codec_context
            width, height = context.width, context.height  # 0 if no header says
            check_pixels(max(1, width), max(1, height))
            stream.thread_type = "AUTO" if width * height <= _LARGE else "SLICE"  # AUTO holds several frames in memory
            context.options = {"max_pixels": MAX_DECODED}  # the size may change within a video
            yield container, stream


def _shown_stream(path: Path, container: Any) -> Any:
    """The video stream that players show: the one marked as default, then the largest, then the first.

    Pictures of the cover and thumbnails, which some formats store as video streams, are never it.
    """
    streams = [s for s in container.streams.video if not _has(s, "attached_pic") and not _has(s, "timed_thumbnails")]
    if not streams:
        raise FramesError(f"{path} holds no video")
    decodable = [s for s in streams if s.codec_context is not None]
    if not decodable:
        raise FramesError(f"{path} holds a video whose codec cannot be decoded here; convert it to H.264")
    return max(decodable, key=lambda s: (_has(s, "default"), s.codec_context.width * s.codec_context.height))


def _has(stream: Any, disposition: str) -> bool:
    return bool(stream.disposition & getattr(type(stream.disposition), disposition, 0))


def _nothing_else(url: str, flags: int, options: dict[str, str]) -> BinaryIO:
    raise PermissionError(f"it refers to {shown(url)}, which is not opened")


def ends_early(path: Path) -> bool:
    """Whether a .mp4 or .avi file is shorter than its own outermost parts say, as a broken download is.

    A part of a .mp4 that says no length may go on to any end, so a file with frames in such a part counts as well.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[4:8] in _BOXES:
            *_, (name, start, length) = _boxes(content)
            return start + length > len(content) or (name == b"mdat" and not length)
        start = 0
        while content[start : start + 4] == b"RIFF":  # a large .avi has several
            start += 8 + int.from_bytes(content[start + 4 : start + 8], "little")
            start += start % 2
        return start > len(content) + _RIFF_SLACK


def _check_boxes(file: BinaryIO) -> None:
    """Refuse absurd frame tables: a short one can claim any number of frames, and FFmpeg allocates memory for each.

    Raises:
        ValueError: a table claims more frames than the file has bytes, or a part is packed, so that it may hold a table
            that cannot be checked.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:

        def number(at: int) -> int:
            return int.from_bytes(content[at : at + 4], "big")

        for start, end in _outside_frames(content):
            for name in (b"stsz", b"trun", b"cmov"):
                found = content.find(name, start, end)
                while found >= 0:
                    count = number(found + 12) * max(1, number(found + 8)) if name == b"stsz" else number(found + 8)
                    is_box = number(max(0, found - 4)) <= end - found + 4  # otherwise the letters are there by chance
                    if is_box and (count > len(content) or name == b"cmov"):
                        raise ValueError(f"its part {name.decode()} claims more than the file can hold")
                    found = content.find(name, found + 1, end)


def _outside_frames(content: mmap.mmap) -> Iterator[tuple[int, int]]:
    """(start, end) of the parts of a .mp4 file without its frames, among whose bytes any four letters may occur."""
    for name, start, length in _boxes(content):
        if name != b"mdat":
            yield start, min(len(content), start + length) if length else len(content)


def _boxes(content: mmap.mmap) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, length) of the outermost parts of a .mp4 file. Length 0 means that it says none: it is the last."""
    start, size = 0, len(content)
    while start < size:
        length, name = int.from_bytes(content[start : start + 4], "big"), content[start + 4 : start + 8]
        if length == 1:
            length = int.from_bytes(content[start + 8 : start + 16], "big")
        length = length if length >= 8 else 0
        yield name, start, length
        if not length:
            return
        start += length
