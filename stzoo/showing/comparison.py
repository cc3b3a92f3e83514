"""`show`: a forecast beside what is known, whatever kind of frames they are."""

from __future__ import annotations

import math
import os
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stzoo.errors import FramesError
from stzoo.frames.drawing import Shades
from stzoo.frames.moving import seconds_between
from stzoo.frames.options import whole_number
from stzoo.frames.reading import kind_of
from stzoo.frames.writing import UNTIMED
from stzoo.showing.animation import Animation
from stzoo.showing.clips import Numbers, Wanted, read_clip
from stzoo.spec import shown
from stzoo.viz import side_by_side

_PAST = 40  # of more past frames, as of a long video, the last ones are shown
_MOST = 2000  # frames of a forecast
_PIXELS = 2**27  # of all images of an animation together
_LONGEST = 60  # seconds that an image is shown

_Clips = dict[str, list[Image.Image] | Numbers]  # "past", "forecast" and perhaps "truth" -> what was read


def show(
    past: Any,
    forecast: Any,
    truth: Any = None,
    *,
    seconds: float | None = None,
    scale: int | None = None,
    shades: tuple[float, float] | None = None,
    layout: str | None = None,
    units: str | None = None,
    variable: str | None = None,
    time: str | None = None,
) -> Animation:
    """A forecast as an animation of two panels: in the left one what is known, in the right one past and forecast.

    In a notebook it is played where it is the last expression of a cell; ``show(...).save("forecast.gif")`` writes a
    file.

    Args:
        past: the frames that were forecast, of any kind that `Forecaster.rollout` takes. Of more than 40 the last ones
            are shown, and of several clips the first one.
        forecast: what `Forecaster.predict` or `rollout` returned, or the frames that `stream` yields; at most 2,000.
        truth: what really followed. With None the left panel keeps the last past frame.
        seconds: how long each frame is shown; by default as long as in the video or the animation whose path `past` is,
            or else a tenth of a second.
        scale: each pixel is drawn as a square of scale x scale pixels. By default small frames are enlarged so that
            captions fit above them, and large ones reduced, to at most 1280 pixels for both panels.
        shades: the two numbers that are drawn black and white. By default integers of 8 bits are drawn as they are,
            floats that look like gray levels from 0 to 1, rain from -10.4 to 40.6 dBR, and other numbers in the range
            of the past frames.
        layout: the axes of an array whose shape alone is ambiguous, as in `Forecaster.rollout`; of all arrays here.
        units: of rain, the unit of the numbers: "mm/h", "dBZ", "dBR", or another spelling of these; by default that of
            a map's attribute `units`. With `shades` the two are in this unit too.
        variable, time: of files and maps, as in `Forecaster.rollout`.

    Raises:
        FramesError: the frames cannot be read, are no pictures, or differ in size; or `seconds`, `scale` or `shades`
            is wrong.
        MissingExtraError: the package that reads such a file is not installed; the message holds the pip command.
    """
    given = [("past", past, slice(-_PAST, None)), ("forecast", forecast, slice(_MOST + 1))]
    given += [] if truth is None else [("truth", truth, slice(_MOST))]
    clips = {
        name: _read(name, frames, Wanted(which, layout, units, variable, time, shades is None))
        for name, frames, which in given
    }
    _check_sizes(clips)
    images, note = _drawn(clips, shades)
    future, before = images["forecast"], images["past"]
    scale = None if scale is None else whole_number("scale", scale)
    _check_amount(before, future, scale)
    lasts = _seconds_of(past) if seconds is None else _checked_seconds(seconds)
    return Animation(tuple(side_by_side(before, images.get("truth", []), future, scale)), lasts, note)


def _read(name: str, frames: Any, wanted: Wanted) -> list[Image.Image] | Numbers:
    try:
        return read_clip(frames, wanted)
    except FramesError as error:
        raise FramesError(f"{name}: {error}") from error


def _check_sizes(clips: _Clips) -> None:
    """Raises `FramesError` unless all frames have the size of the past ones."""

    def size_of(clip: list[Image.Image] | Numbers) -> str:
        height, width = clip.size if isinstance(clip, Numbers) else clip[0].size[::-1]
        return f"{height}x{width}"

    first = size_of(clips["past"])
    for name, clip in clips.items():
        if size_of(clip) != first:
            raise FramesError(
                f"the frames of {name} are {size_of(clip)} (height x width), and those of past {first}; bring all to "
                "one size"
            )


def _drawn(clips: _Clips, asked: tuple[float, float] | None) -> tuple[dict[str, list[Image.Image]], str]:
    """The images of each clip, and a line that says which numbers are black and white, if that must be said.

    All numbers of one dtype are drawn alike, in the shades of the first clip that has it; rain is apart.
    """
    chosen = None if asked is None else _checked_shades(asked)
    shades: dict[tuple[np.dtype, bool], Shades] = {}
    images = {}
    for name, clip in clips.items():
        if isinstance(clip, Numbers):
            own = shades.setdefault((clip.values.dtype, clip.is_rain), chosen or clip.shades())
            images[name] = own.images(clip.values)
        else:
            images[name] = clip
    return images, "; ".join(dict.fromkeys(str(each) for each in shades.values() if each.meaning))


def _check_amount(past: list[Image.Image], future: list[Image.Image], scale: int | None) -> None:
    """Raises `FramesError` if there would be too many images, or too large ones."""
    if len(future) > _MOST:
        raise FramesError(f"the forecast has more than {_MOST:,} frames; show a part of it")
    if scale is None:
        width, height = side_by_side(past[-1:], [], future[:1])[0].size
    else:
        width, height = 2 * scale * future[0].width, scale * future[0].height
    count = len(past) + len(future)
    if count * width * height > _PIXELS:
        raise FramesError(
            f"{count} images of {width}x{height} pixels are too many for one animation; show fewer frames, or choose a "
            "smaller scale"
        )


def _seconds_of(past: Any) -> float:
    """How long the frames at a path are shown, if that says so."""
    if not isinstance(past, (str, os.PathLike)):
        return UNTIMED
    path = Path(os.path.expanduser(past))
    return (seconds_between(path) if kind_of(path) == "pictures" else None) or UNTIMED


def _checked_seconds(seconds: float) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, Real) or not 0 < seconds <= _LONGEST:
        raise FramesError(f"seconds is {shown(seconds)}; it must be a number above 0, and at most {_LONGEST}")
    return float(seconds)


def _checked_shades(asked: Any) -> Shades:
    try:
        black, white = map(float, asked)
    except (TypeError, ValueError, OverflowError):
        black = white = math.nan
    if not math.isfinite(white - black) or black == white:
        raise FramesError(f"shades is {shown(asked)}; it must be two different numbers, for black and for white")
    return Shades(black, white, "as asked for")
