"""Videos, animations and folders of images -> the pictures that a model reads, whatever file they are in."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import Any

from PIL import Image

from stzoo.errors import FramesError
from stzoo.frames.clock import even_clock
from stzoo.frames.images import frame_interval, iterate_images, played
from stzoo.frames.video import VIDEO, read_video, video_clock


def moving_pictures(
    path: Path,
    every: int = 1,
    *,
    last: int | None = None,
    start: float | None = None,
    fps: float | None = None,
    progress: bool = False,
) -> Iterator[Image.Image]:
    """The frames of a video or an animation, or the images of a folder, as `read_video` and `iterate_images` do.

    Args:
        path: of the video, the animation or the folder.
        every: only the frames 0, every, 2 * every, ... come.
        last: only so many frames come: the last ones, or with `start` the first ones from there.
        start: seconds from the beginning to the first frame that comes.
        fps: sample a video or an animation at so many frames a second, before `every` thins them. The images of a
            folder say no times: of them it tells how many make a second.
        progress: show a bar if reading a video takes longer than a second.

    Raises:
        FramesError: the frames cannot be read; `start` or `fps` is no number of seconds or frames, or `start` lies
            behind the last frame; or `start` is given for images that say no times, without `fps`.
        MissingExtraError: PyAV, which reads videos, is not installed.
    """
    _check_number("start", start, least=0)
    _check_number("fps", fps, least=1e-6)
    if is_video(path):
        yield from read_video(path, every, last=last, start=start, fps=fps, progress=progress)
        return
    if not path.is_dir():
        yield from played(path, every, last, start, fps)
        return
    if start is None and fps is None:
        yield from iterate_images(path, every, last)
        return
    if fps is None:
        raise FramesError(f"{path} does not say when its images are shown; say how many make a second: fps (--fps)")
    clock = even_clock(Fraction(str(fps)))
    timed = ((number * float(clock.step), image) for number, image in enumerate(iterate_images(path)))
    try:
        seen = clock.seen(timed, every, start, fps)
        yield from deque(seen, maxlen=last) if start is None else itertools.islice(seen, last)
    except FramesError as error:
        raise error if str(path) in str(error) else FramesError(f"{path}: {error}") from error


def seconds_between(path: Path, every: int = 1, fps: float | None = None) -> float | None:
    """Seconds from one frame that `moving_pictures` reads to the next; None if nothing says how long that is.

    Raises:
        FramesError: the file cannot be read, or `fps` is no number of frames.
        MissingExtraError: PyAV, which reads videos, is not installed.
    """
    _check_number("fps", fps, least=1e-6)
    if fps is None and not is_video(path):
        step = frame_interval(path)
        return None if step is None else float(every * step)
    clock = video_clock(path) if is_video(path) else even_clock(Fraction(str(fps)))
    return float(clock.interval(every, fps))


def is_video(path: Path) -> bool:
    """Whether the path is that of a video, judged by its suffix; a folder is none, whatever its name."""
    return path.suffix.lower() in VIDEO and not path.is_dir()


def _check_number(name: str, value: Any, least: float) -> None:
    """Raises `FramesError`, which calls the value `name`, unless it is None or a finite number of at least `least`."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < least:
        what = "seconds from the beginning, at least 0" if name == "start" else "frames a second, above 0"
        raise FramesError(f"{name} is {value!r}; it must be a number of {what}")
