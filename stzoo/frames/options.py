"""How a caller wants frames to be read: all choices in one record, which is passed on as it is."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from stzoo.errors import FramesError
from stzoo.frames.colour import check_color
from stzoo.frames.rain import checked_unit
from stzoo.spec import shown

MISSING = ("keep", "fill")


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """The choices of whoever passes frames, as the arguments of `Forecaster.rollout` name them.

    Attributes:
        layout: the axes of an array, such as "TCHW" (one of `stzoo.frames.layout.LAYOUTS`); None finds them out.
        resize: True brings images, videos and arrays to the spec's height and width, where the answer stays. False
            leaves everything at its own size. With None arrays and maps stay at their own size, and images and videos
            come to the spec's and the answer goes back to theirs.
        color: "gray" makes one gray forecast of frames in colour. With None, a model that reads gray forecasts each of
            their channels as a clip of its own, and a warning says so.
        every: use the frames 0, every, 2 * every, ... The last frame used is the last of these.
        start: of a video or an animation, seconds from the beginning to the first frame that is kept; from there the
            first `frames_in` are kept, instead of the last.
        fps: sample a video or an animation at so many frames a second, before `every` thins them.
        bits: scale integers from 0 to 2^bits - 1 instead of to the largest value of their dtype, as 12 bits in uint16.
        variable: which variable of a netCDF or Zarr file or of a Dataset, or which array of a .npz file; None if there
            is only one.
        time: the name of the dimension of time of a map; None finds it out.
        units: of a model of rain, the unit of the numbers: "mm/h", "dBZ", "dBR" or another spelling of these. None goes
            by the attribute `units` of a map, and takes numbers without one as dBR.
        missing: of a model of rain, what a forecast in floats holds where nothing was observed along the path of the
            rain: NaN ("keep"), or what the model makes of it ("fill").

    Raises:
        FramesError: there is no such `resize`, `color`, `units` or `missing`, or `every` or `bits` is no whole number
            of at least 1.
    """

    layout: str | None = None
    resize: bool | None = None
    color: str | None = None
    every: int = 1
    start: float | None = None
    fps: float | None = None
    bits: int | None = None
    variable: str | None = None
    time: str | None = None
    units: str | None = None
    missing: str = "keep"

    def __post_init__(self) -> None:
        check_color(self.color)
        if self.resize is not None and not isinstance(self.resize, bool):
            raise FramesError(
                f"resize is {self.resize!r}; it may be True, for the model's size, False, for the frames' own, or None"
            )
        object.__setattr__(self, "every", whole_number("every", self.every))
        if self.bits is not None:
            object.__setattr__(self, "bits", whole_number("bits", self.bits))
        if self.units is not None:
            checked_unit(self.units)
        if self.missing not in MISSING:
            raise FramesError(f"missing is {shown(self.missing)}; it may be {' or '.join(map(repr, MISSING))}")


def whole_number(name: str, value: Any) -> int:
    """`value` as an int. Raises `FramesError`, which calls it `name`, unless it is one of 1, 2, 3, ..."""
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if count < 1 or isinstance(value, bool):
        raise FramesError(f"{name} is {value!r}; it must be a whole number, at least 1")
    return count
