"""Video files, through PyAV (extra `video`), one frame at a time: a file of any length fits into memory.

Frames are read as a player shows them: the right stream, upright, in the displayed shape, at equal intervals of time.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from stzoo.errors import FramesError, MissingExtraError, printable
from stzoo.files import replacing
from stzoo.frames.clock import Clock, clock_of, even_clock, joined, warn_of_uneven
from stzoo.frames.container import ends_early, opened
from stzoo.frames.layout import check_pixels
from stzoo.progress import tqdm

VIDEO = (
    ".avi", ".mp4", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".m4v", ".ts", ".mts", ".m2ts", ".m2v", ".vob", ".flv",
    ".f4v", ".3gp", ".3g2", ".wmv", ".asf", ".ogv",
)  # fmt: skip
WRITTEN = (".mp4", ".avi")
_NO_TIMES = 0x80  # FFmpeg's flag of formats that store no times, such as a bare stream of MPEG frames
_RESTARTS = 0x200  # FFmpeg's flag of formats whose time stamps may start again, such as .ts and .mpg
_FEW = 3  # surplus frames that a header may promise: writers also count unchanged frames that they left out
_TURNS = {  # (columns become rows, mirrored left and right, mirrored top and bottom) -> what makes the picture so
    (False, True, False): Image.Transpose.FLIP_LEFT_RIGHT,
    (False, False, True): Image.Transpose.FLIP_TOP_BOTTOM,
    (False, True, True): Image.Transpose.ROTATE_180,
    (True, False, False): Image.Transpose.TRANSPOSE,
    (True, True, False): Image.Transpose.ROTATE_270,
    (True, False, True): Image.Transpose.ROTATE_90,
    (True, True, True): Image.Transpose.TRANSVERSE,
}

_Shown = tuple[Any, Fraction, Image.Transpose | None]  # PyAV's frame, width of a pixel over its height, how to turn it


def read_video(
    path: Path,
    every: int = 1,
    *,
    last: int | None = None,
    start: float | None = None,
    fps: float | None = None,
    progress: bool = False,
) -> Iterator[Image.Image]:
    """The frames 0, every, 2 * every, ... as RGB images, upright, as players show them, each made when it is asked for.

    They come from the stream that is marked as default, or else the largest. If they are unevenly spaced in time, they
    are sampled at their usual rate, a warning says so, and one that is shown for long comes several times. What edit
    lists hide is no frame. Pixels that are not square are stretched along their longer side. Interlaced frames stay
    woven, as they are stored.

    Args:
        path: the video.
        every: only each `every`-th frame comes.
        last: only so many frames come: the last ones, or with `start` the first ones from there.
        start: seconds from the beginning of the video to the first frame that comes; that is the one which is shown
            at this moment.
        fps: sample the video at so many frames a second, before `every` thins them.
        progress: show a bar if it takes longer than a second.

    Raises:
        MissingExtraError: PyAV is not installed.
        FramesError: the file does not exist, holds no video, is damaged, or ends before its header says; or `start`
            lies behind its end.
    """
    with _errors_named(path):
        av = _pyav(path)
        times = _times(av, path)
        clock = times.clock
        warn_of_uneven(path, clock, fps)
        chosen = clock.seen(_decoded(av, path, times, progress), every, start, fps)
        if last is not None:  # what is left out is never made an image
            chosen = iter(deque(chosen, maxlen=last)) if start is None else itertools.islice(chosen, last)
        before, image = None, None
        for shown in chosen:
            if image is None or shown is not before:
                before, image = shown, _picture(*shown)
            yield image


def video_clock(path: Path) -> Clock:
    """When the frames of a video are shown. Raises `FramesError` and `MissingExtraError` as `read_video` does."""
    with _errors_named(path):
        return _times(_pyav(path), path).clock


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Errors raised inside the block become `FramesError`, whose message names the file."""
    try:
        yield
    except FramesError as error:
        raise error if str(path) in str(error) else FramesError(f"{path}: {error}") from error
    except MissingExtraError:
        raise
    except Exception as error:  # PyAV raises errors of many kinds on damaged bytes
        raise FramesError(f"{path} is damaged or no video: {printable(str(error))}") from error


@dataclass(frozen=True)
class _Times:
    """When the frames of a file are shown.

    Attributes:
        clock: of all of them.
        listed: (n,) seconds of each frame in the order of showing, if the file knows no other order; else None.
        restarts: time stamps may start again, as where recordings were joined.
    """

    clock: Clock
    listed: np.ndarray | None = None
    restarts: bool = False


def _times(av: ModuleType, path: Path) -> _Times:
    """When frames are shown, found by going through the packets of the file without decoding them."""
    with opened(av, path) as (container, stream):
        base = float(stream.time_base or 0)
        packets = [(p.pts, p.dts) for p in container.demux(stream) if p.size and not p.is_discard]
        # .avi files store no times, but an order of decoding; what FFmpeg says of the order of showing is a guess
        listed = container.format.name == "avi"
        times = [dts if pts is None or listed else pts for pts, dts in packets]
        rates = [stream.guessed_rate, stream.average_rate, stream.base_rate]
        known = [time for time in times if time is not None]
        flags = int(container.format.flags)
        if flags & _NO_TIMES or not base or not known or len(known) < len(times):
            return _Times(even_clock(next((rate for rate in rates[1:] if rate), None), len(times)))
        seconds = (np.array(known, np.float64) - min(known)) * base
        restarts = bool(flags & _RESTARTS)
        if restarts:
            seconds = joined(np.split(seconds, _starts([dts for _, dts in packets])))
        return _Times(clock_of(seconds, rates), np.sort(seconds) if listed else None, restarts)


def _starts(order: list[int | None]) -> list[int]:
    """Where the times of decoding go back, although nothing is decoded before what precedes it."""
    starts, before = [], None
    for number, time in enumerate(order):
        if time is not None and before is not None and time < before:
            starts.append(number)
        before = before if time is None else time
    return starts


def _decoded(av: ModuleType, path: Path, times: _Times, progress: bool) -> Iterator[tuple[float, _Shown]]:
    """(time in seconds, what is shown from then on) of every frame that is shown, in order.

    Raises:
        FramesError: the file is cut short, or has frames of absurd size.
    """
    clock, listed = times.clock, times.listed
    with opened(av, path) as (container, stream):
        aspect = stream.sample_aspect_ratio or Fraction(1)
        step, base = float(clock.step), float(stream.time_base or 0)
        time, count, restarted, turn = 0.0, 0, 0.0, None
        frames = container.decode(stream)
        for frame in tqdm(
            frames, f"reading {path.name}", clock.count or None, unit="frame", delay=1, disable=not progress
        ):
            check_pixels(frame.width, frame.height)
            if clock.even:
                time = count * step
            elif listed is not None and count < len(listed):
                time = float(listed[count])
            elif listed is None and frame.pts is not None:
                stamp = frame.pts * base + restarted
                if count and times.restarts and stamp < time:
                    restarted += time + step - stamp
                    stamp = time + step
                time = max(time, stamp) if count else stamp
            else:
                time += step
            count += 1
            turn = _turn(frame, turn)
            yield time, (frame, aspect, turn)
        if not count:
            raise FramesError(f"{path} holds no frames that can be decoded; copy or download it again")
        if count + max(_FEW, stream.frames // 20) < stream.frames and ends_early(path):
            raise FramesError(
                f"{path} is cut short: its header promises {stream.frames} frames, {count} are there; "
                "copy or download it again"
            )


def _picture(frame: Any, aspect: Fraction, turn: Image.Transpose | None) -> Image.Image:
    """A decoded frame as an RGB image, as it is displayed: with square pixels, and upright.

    Args:
        frame: PyAV's.
        aspect: width of a pixel over its height.
        turn: what turns it upright.
    """
    plane = frame.reformat(format="rgb24").planes[0]
    size = (plane.width, plane.height)
    image = Image.frombuffer("RGB", size, plane, "raw", "RGB", plane.line_size, 1)
    wide, high = round(size[0] * max(aspect, Fraction(1))), round(size[1] / min(aspect, Fraction(1)))
    if (wide, high) != size:
        check_pixels(wide, high)
        image = image.resize((wide, high), Image.Resampling.BILINEAR)
    return image if turn is None else image.transpose(turn)


def _turn(frame: Any, before: Image.Transpose | None) -> Image.Transpose | None:
    """How the frame's display matrix turns or mirrors it; None if it leaves it as it is.

    Without a matrix of its own a frame is turned as the one `before`: H.264 need not repeat it.

    The matrix (a, b, u, c, d, v, x, y, w) of 32-bit integers shows the pixel (column p, row q) of the frame at column
    ap + cq and row bp + dq. Other angles than quarter turns count as the nearest of these.
    """
    found = frame.side_data.get("DISPLAYMATRIX")
    matrix = b"" if found is None else bytes(found)
    if len(matrix) != 36:
        return before
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return _TURNS.get((False, a < 0, d < 0))
    return _TURNS[True, c < 0, b < 0]


def write_video(path: Path, images: Iterable[Image.Image], seconds: float = 0.1, *, at_once: bool = False) -> None:
    """Write a ``.mp4`` or ``.avi`` file that shows each image for `seconds`, encoding the images as they come.

    With `at_once` none of them is kept until others have come, so that little is left to do at the end.

    The codec is H.264 if PyAV was built with it, and MPEG-4 otherwise; both are lossy. Both need even sizes, so the
    last row or column of an odd size is repeated.

    Raises:
        MissingExtraError: PyAV is not installed.
        FramesError: the file name ends in another suffix, there are no images, or they differ in size.
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
        stream = container.add_stream(codec, rate=Fraction(1 / seconds).limit_denominator(1001))  # as in 30000/1001
        stream.width, stream.height = first.width + first.width % 2, first.height + first.height % 2
        stream.pix_fmt = "yuv420p"  # what every player shows
        # losses that are hardly visible; and no frames that refer to later ones, which an .avi cannot hold
        stream.options = {"crf": "17", "bf": "0"} if codec == "libx264" else {"qmin": "1", "qmax": "3"}
        if at_once and codec == "libx264":
            stream.options |= {"tune": "zerolatency"}
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


def _pyav(reads: Path | None = None) -> ModuleType:
    """PyAV. Raises `FramesError` if it is to read what is no file, and `MissingExtraError` if it is not installed."""
    if reads is not None and not reads.is_file():
        raise FramesError(f"{reads} {'is no file' if reads.exists() else 'does not exist'}")
    try:
        import av
    except ImportError as error:
        raise MissingExtraError('video files need an extra: pip install "stzoo[video]"') from error
    return av
