"""Video files, through PyAV (extra `video`), one frame at a time: a file of any length fits into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from stzoo.errors import FramesError, MissingExtraError
from stzoo.frames.files import replacing

VIDEO = (".avi", ".mp4", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".m4v")
WRITTEN = (".mp4", ".avi")
_FEW = 3  # frames that a header may promise too many: writers count those they left out as unchanged


def read_video(path: Path, every: int = 1) -> Iterator[Image.Image]:
    """The frames 0, every, 2 * every, ... of the first video stream as RGB images, decoded as they are asked for.

    Raises:
        MissingExtraError: PyAV is absent.
        FramesError: no file, no video, a damaged one, or one that ends before its header says.
    """
    av = _pyav()
    if not path.is_file():
        raise FramesError(f"{path} does not exist")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise FramesError(f"{path} holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            count = 0
            for count, frame in enumerate(container.decode(stream), 1):
                if (count - 1) % every == 0:
                    yield frame.to_image()
            if count + max(_FEW, stream.frames // 20) < stream.frames or not count:
                raise FramesError(f"{path} is cut short: its header promises {stream.frames} frames, {count} are there")
    except (av.FFmpegError, OSError) as error:
        raise FramesError(f"{path} is damaged or no video: {error}") from error


def write_video(path: Path, images: Iterable[Image.Image], seconds: float = 0.1) -> None:
    """A ``.mp4`` or ``.avi`` file that shows each image for `seconds`, encoded as the images come.

    The codec is H.264 where PyAV was built with it, else MPEG-4; both are lossy. They know even sizes only: a last odd
    row or column is there twice.

    Raises:
        MissingExtraError: PyAV is absent.
        FramesError: another suffix, no images, or images of several sizes.
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
        # hardly visible losses; and no frames that wait for later ones, which an .avi has no way to say
        stream.options = {"crf": "17", "bf": "0"} if codec == "libx264" else {"qmin": "1", "qmax": "3"}
        for image in chain([first], images):
            if image.size != first.size:
                raise FramesError(f"cannot write {path.name}: images of {first.size} and of {image.size}")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_even(image), format="rgb24")))
        container.mux(stream.encode(None))


def _even(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8."""
    array = np.asarray(image.convert("RGB"))
    return np.pad(array, ((0, array.shape[0] % 2), (0, array.shape[1] % 2), (0, 0)), mode="edge")


def check_extra() -> None:
    """Raises `MissingExtraError` where videos can be neither read nor written."""
    _pyav()


def _pyav() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError('video files need an extra: pip install "stzoo[video]"') from error
    return av
