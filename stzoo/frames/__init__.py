"""A caller's frames of any kind -> one checked tensor, and forecasts back to the same kind.

`reading` finds out what the caller passed and hands it to `arrays`, `dataarray`, `fields` or `pictures`, and `writing`
does the same for files to write; `drawing` makes pictures of numbers. `moving` reads whatever pictures there are, from
`images` or `video`, whose times are the business of `clock`. `layout` says which axis is which, `values` what the
numbers mean.
"""

from stzoo.frames.arrays import CallerFrames, FrameSelection
from stzoo.frames.drawing import drawable, shades_of
from stzoo.frames.gathering import gathered
from stzoo.frames.moving import moving_pictures, seconds_between
from stzoo.frames.options import ReadingOptions, whole_number
from stzoo.frames.reading import kind_of, read, refuse_address
from stzoo.frames.writing import check_writable, write

__all__ = [
    "CallerFrames", "FrameSelection", "ReadingOptions", "check_writable", "drawable", "gathered", "kind_of",
    "moving_pictures", "read", "refuse_address", "seconds_between", "shades_of", "whole_number", "write",
]  # fmt: skip
