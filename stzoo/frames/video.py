"""Video files, through PyAV (extra `video`), one frame at a time: a file of any length fits into memory.

FFmpeg, which decodes them, also reads playlists and scripts, whatever the name of their file, and opens what they name,
on this machine or in the network. So it is given an open file and no way to open another one, it may use only formats
that hold video themselves, and it is told how large a frame may be before it decodes one.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from stzoo.errors import FramesError, MissingExtraError, printable
from stzoo.files import replacing
from stzoo.frames.layout import MAX_PIXELS, check_pixels
from stzoo.spec import shown

VIDEO = (".avi", ".mp4", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".m4v")
WRITTEN = (".mp4", ".avi")
_MOV = ("mov", "mp4")  # FFmpeg's names of the formats that are read
_OTHERS = ("avi", "matroska", "webm", "mpeg", "mpegts", "mpegvideo", "m4v")
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"sidx")  # how a .mp4 begins
_MAX_DECODED = str(MAX_PIXELS * 9 // 8)  # with the margins that FFmpeg adds
_LARGE = 2**23  # pixels: more than 3840x2160 has
_FEW = 3  # surplus frames that a header may promise: writers also count unchanged frames that they left out


def read_video(path: Path, every: int = 1) -> Iterator[Image.Image]:
    """The frames 0, every, 2 * every, ... of the first video stream as RGB images, each decoded when it is asked for.

    Raises:
        MissingExtraError: PyAV is not installed.
        FramesError: the file does not exist, holds no video, is damaged, or ends before its header says.
    """
    av = _pyav()
    if not path.is_file():
        raise FramesError(f"{path} {'is no file' if path.exists() else 'does not exist'}")
    try:
        if not path.stat().st_size:  # also what files of /proc say, some of which cannot be read to their end
            raise ValueError("it is empty")
        with path.open("rb") as file, _opened(av, file) as container:
            if not container.streams.video:
                raise FramesError(f"{path} holds no video")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise FramesError(f"{path} holds a video whose codec cannot be decoded here; convert it to H.264")
            width, height = stream.codec_context.width, stream.codec_context.height  # 0 if no header says
            check_pixels(max(1, width), max(1, height))
            stream.thread_type = "AUTO" if width * height <= _LARGE else "SLICE"  # AUTO holds several frames in memory
            stream.codec_context.options = {"max_pixels": _MAX_DECODED}  # the size may change within a video
            count = 0
            for count, frame in enumerate(container.decode(stream), 1):
                check_pixels(frame.width, frame.height)
                if (count - 1) % every == 0:
                    yield frame.to_image()
            if count + max(_FEW, stream.frames // 20) < stream.frames or not count:
                raise FramesError(
                    f"{path} is cut short: its header promises {stream.frames} frames, {count} are there; "
                    "copy or download it again"
                )
    except FramesError as error:
        raise error if str(path) in str(error) else FramesError(f"{path}: {error}") from error
    except Exception as error:  # PyAV raises errors of many kinds on damaged bytes
        raise FramesError(f"{path} is damaged or no video: {printable(str(error))}") from error


def _opened(av: ModuleType, file: BinaryIO) -> Any:
    """The video container in an open file, in one of the formats above. FFmpeg can open nothing else from it."""
    head = file.read(8)
    formats = _MOV if head[4:] in _BOXES else _OTHERS
    if formats is _MOV:
        _check_boxes(file)
    file.seek(0)
    options = {
        "format_whitelist": ",".join(formats), "protocol_whitelist": "none", "max_pixels": _MAX_DECODED
    }  # fmt: skip
    return av.open(file, "r", options=options, io_open=_nothing_else)


def _nothing_else(url: str, flags: int, options: dict[str, str]) -> BinaryIO:
    raise PermissionError(f"it refers to {shown(url)}, which is not opened")


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
    start, size = 0, len(content)
    while start < size:
        length, name = int.from_bytes(content[start : start + 4], "big"), content[start + 4 : start + 8]
        if length == 1:
            length = int.from_bytes(content[start + 8 : start + 16], "big")
        end = min(size, start + length) if length >= 8 else size  # a length of 0 means the rest of the file
        if name != b"mdat":
            yield start, end
        start = end


def write_video(path: Path, images: Iterable[Image.Image], seconds: float = 0.1) -> None:
    """Write a ``.mp4`` or ``.avi`` file that shows each image for `seconds`, encoding the images as they come.

    The codec is H.264 if PyAV was built with it, and MPEG-4 otherwise; both are lossy. Both need even sizes, so the
    last row or column of an odd size is repeated.

    Raises:
        MissingExtraError: PyAV is not installed.
        FramesError: the suffix is another one, there are no images, or they differ in size.
    """
    av = _pyav()
    if path.suffix.lower() not in WRITTEN:
        raise FramesError(f"cannot write {path.name}; use {' or '.join(WRITTEN)}")
    images = iter(images)
    first = next(images, None)
    if first is None:
        raise FramesError(f"cannot write {path.name}: there are no images")
    with replacing(path) as partial, av.open(str(partial), "w") as container:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream = container.add_stream(codec, rate=Fraction(1 / seconds).limit_denominator(1000))
        stream.width, stream.height = first.width + first.width % 2, first.height + first.height % 2
        stream.pix_fmt = "yuv420p"  # what every player shows
        # losses that are hardly visible; and no frames that refer to later ones, which an .avi cannot hold
        stream.options = {"crf": "17", "bf": "0"} if codec == "libx264" else {"qmin": "1", "qmax": "3"}
        for image in chain([first], images):
            if image.size != first.size:
                raise FramesError(
                    f"cannot write {path.name}: images of {first.size} and of {image.size} pixels; resize them to one"
                )
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_even(image), format="rgb24")))
        container.mux(stream.encode(None))


def _even(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 with even H and W: the last row or column is repeated if needed."""
    array = np.asarray(image.convert("RGB"))
    return np.pad(array, ((0, array.shape[0] % 2), (0, array.shape[1] % 2), (0, 0)), mode="edge")


def check_video_extra() -> None:
    """Raises `MissingExtraError` if PyAV, which reads and writes videos, is not installed."""
    _pyav()


def _pyav() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError('video files need an extra: pip install "stzoo[video]"') from error
    return av
