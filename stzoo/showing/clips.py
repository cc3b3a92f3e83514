"""Frames of any kind, without a model that says what they mean -> one clip, as images or as numbers to draw."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stzoo.errors import FramesError
from stzoo.frames.arrays import open_array
from stzoo.frames.axes import axes_of, time_of
from stzoo.frames.colour import GRAY, RGB, RGBA
from stzoo.frames.dataarray import is_dataarray
from stzoo.frames.drawing import Shades, drawable
from stzoo.frames.fields import check_map_options, chosen_map, open_field
from stzoo.frames.gathering import gathered
from stzoo.frames.images import SIXTEEN_BIT, eight_bit, given_images, resized
from stzoo.frames.layout import LAYOUTS, check_layout, check_pixels
from stzoo.frames.moving import moving_pictures
from stzoo.frames.rain import DBR, RainUnit, checked_unit, rain_unit
from stzoo.frames.reading import kind_of, path_of
from stzoo.frames.values import ROUNDING

if TYPE_CHECKING:
    import xarray as xr

_GRAY_MODES = ("1", "L", "LA", *SIXTEEN_BIT)
_OF_NUMPY = (torch.float16, torch.float32, torch.float64)  # NumPy has no other floats of torch
_OF_A_SPEED = 1e-5  # how much 1 mm/h is in a unit of speed is less: 2.8e-7 m/s
_BRIGHT = 0.5  # fractions, none of which is larger, are drawn in their own range: they may be no gray levels at all


@dataclass(frozen=True)
class Wanted:
    """Which frames of what is given are read, and how.

    Attributes:
        which: the last ones (``slice(-n, None)``), or the first ones (``slice(n)``).
        layout, units, variable, time: as in `stzoo.show`.
        converts: rain becomes dBR; otherwise its numbers stay in their unit.
    """

    which: slice
    layout: str | None
    units: str | None
    variable: str | None
    time: str | None
    converts: bool


@dataclass(frozen=True)
class Numbers:
    """One clip that is not drawn yet.

    Attributes:
        values: (T, C, H, W) with one or three channels, in the caller's dtype; or rain in dBR, in float32.
        is_rain: whether they are dBR.
    """

    values: np.ndarray
    is_rain: bool

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        height, width = self.values.shape[2:]
        return height, width

    def shades(self) -> Shades:
        """Which of these numbers become black and white, if nobody says so. Gray levels need no words for it."""
        dtype = self.values.dtype
        if self.is_rain:
            return Shades(*DBR, "the range of models of rain, in dBR")
        if dtype == np.uint8:
            return Shades(0, 255, "")
        if dtype == np.bool_:
            return Shades(0, 1, "")
        known = self.values[np.isfinite(self.values)]
        least, most = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        if dtype.kind == "f" and least >= -ROUNDING and _BRIGHT <= most <= 1 + ROUNDING:
            return Shades(0, 1, "")
        return Shades.between(least, most, "the range of these frames")


def read_clip(frames: Any, wanted: Wanted) -> list[Image.Image] | Numbers:
    """One clip: images of 8 bits, gray or RGB, or numbers.

    Args:
        frames: whatever `Forecaster.rollout` takes or returns; or single frames, as `Forecaster.stream` yields them, in
            a list or an iterator. Of several clips the first one is taken.
        wanted: what of it is read.

    Raises:
        FramesError: they cannot be read or drawn.
        MissingExtraError: the package that reads such a file is not installed.
    """
    unit = None if wanted.units is None else checked_unit(wanted.units)
    unit = unit if wanted.converts else None
    if isinstance(frames, (str, os.PathLike)):
        return _of_path(path_of(frames), wanted, unit)
    frames = chosen_map(frames, wanted.variable, wanted.time)
    if isinstance(frames, (list, tuple)) and frames and all(isinstance(frame, Image.Image) for frame in frames):
        return _of_images(given_images(frames, wanted.which, len(frames)))
    if isinstance(frames, (list, tuple, Iterator)):
        frames = _of_single(frames, wanted.which)
        if isinstance(frames, list):
            return _of_images(given_images(frames, slice(None), len(frames)))
    if is_dataarray(frames):
        return _of_map(frames, wanted, unit)
    if isinstance(frames, Tensor):
        frames = _as_array(frames)
    if isinstance(frames, np.ndarray):
        return _of_array(frames, wanted, unit)
    raise FramesError(
        "expected a NumPy array, a torch tensor, a list of PIL images, a DataArray or a path, given a "
        f"{type(frames).__name__}"
    )


def _of_path(path: Path, wanted: Wanted, unit: RainUnit | None) -> list[Image.Image] | Numbers:
    if not path.exists():
        raise FramesError(f"{path} does not exist")
    check_map_options(path, wanted.variable, wanted.time)
    kind = kind_of(path)
    if kind == "array":
        return _of_array(open_array(path, named=wanted.variable), wanted, unit)
    if kind == "field":
        with open_field(path, wanted.variable, wanted.time) as field:
            return _of_map(field, wanted, unit)
    first, last = wanted.which.start, wanted.which.stop
    return _of_images(list(islice(moving_pictures(path, last=None if first is None else -first), last)))


def _of_images(images: list[Image.Image]) -> list[Image.Image]:
    if not images:
        raise FramesError("there are no frames")
    first = images[0].size
    for number, image in enumerate(images):
        if image.size != first:
            raise FramesError(
                f"image {number} is {image.width}x{image.height}, and image 0 is {first[0]}x{first[1]}; bring all to "
                "one size"
            )
    drawn = [
        eight_bit(resized(image, GRAY if image.mode in _GRAY_MODES else RGB, image.height, image.width))
        for image in images
    ]
    return [image.convert("L") for image in drawn] if all(map(_is_gray, drawn)) else drawn


def _is_gray(image: Image.Image) -> bool:
    """Whether there is no colour to be seen: animations of gray frames are often read in RGB."""
    return image.mode == "L" or bool((np.ptp(np.asarray(image), -1) == 0).all())


def _of_single(frames: Any, which: slice) -> Any:
    """Single frames -> one array or tensor, or a list of images. Those of several clips each have an axis before the
    channels, which goes to the front."""
    frames = gathered(islice(frames, which.stop), 1, None if which.start is None else -which.start)
    return frames.swapaxes(0, 1) if not isinstance(frames, list) and frames.ndim == 5 else frames


def _as_array(frames: Tensor) -> np.ndarray:
    if frames.layout != torch.strided or frames.is_meta:
        raise FramesError("expected a dense tensor that holds values, given a sparse tensor or one on the meta device")
    if frames.is_quantized:
        raise FramesError(f"{frames.dtype} values cannot be drawn; pass integers or floats, such as with .dequantize()")
    if frames.is_floating_point() and frames.dtype not in _OF_NUMPY:
        frames = frames.float()
    return frames.numpy(force=True)  # which leaves the device, the gradient and a sign not yet applied behind


def _of_array(frames: np.ndarray, wanted: Wanted, unit: RainUnit | None) -> Numbers:
    if frames.dtype.kind not in "buif":
        raise FramesError(f"{frames.dtype} values cannot be drawn; pass integers or floats")
    layout = _layout_of(frames, wanted.layout)
    taken = {"B": slice(1), "T": wanted.which}
    some = frames[tuple(taken.get(axis, slice(None)) for axis in layout)]
    if isinstance(some, np.ma.MaskedArray):
        some = np.ma.filled(some.astype(np.float64), np.nan)
    absent = [axis for axis in "BTCHW" if axis not in layout]
    order = layout + "".join(absent)
    values = some.reshape(*some.shape, *(1 for _ in absent)).transpose([order.index(axis) for axis in "BTCHW"])[0]
    return _numbers(values[:, :RGB], unit)


def _layout_of(frames: np.ndarray, layout: str | None) -> str:
    """The axes of an array, as the caller names them, or by which of them may be one or three channels."""
    check_layout(layout, LAYOUTS)
    shape = frames.shape
    if 0 in shape:
        raise FramesError(f"the frames have the shape {shape}, which is empty")
    candidates = [each for each in LAYOUTS if len(each) == len(shape)] if layout is None else [layout]
    if not candidates or len(candidates[0]) != len(shape):
        expected = f"layout {layout} has {len(layout)} axes" if layout else "expected (T, H, W), (T, C, H, W), (T, H, "
        expected += "" if layout else "W, C) or (B, T, C, H, W)"
        raise FramesError(f"{expected}, given {shape}")

    def channels(each: str) -> int:
        return shape[each.index("C")] if "C" in each else GRAY

    alpha = frames.dtype == np.uint8  # four channels at the end are then RGBA, of which the fourth is left out
    drawn = {each: (GRAY, RGB, RGBA) if alpha and each[-1] == "C" else (GRAY, RGB) for each in candidates}
    fitting = [each for each in candidates if (layout or each != "BTHW") and channels(each) in drawn[each]]
    if len(fitting) > 1:
        one, other = fitting
        raise FramesError(f"{shape} can be read as {one} or as {other}; say which: layout={one!r} or layout={other!r}")
    if not fitting:
        named = "; if these are clips of gray frames, say layout='BTHW'" if len(shape) == 4 and layout is None else ""
        raise FramesError(
            f"frames of 1 or 3 channels can be drawn, given {shape}; of others pass one channel, such as frames[:, :1]"
            f"{named}"
        )
    return fitting[0]


def _of_map(frames: xr.DataArray, wanted: Wanted, unit: RainUnit | None) -> Numbers:
    along = time_of(frames, wanted.time)
    axes = axes_of(frames, GRAY, along)
    some = frames.isel({along: wanted.which} | ({axes["B"]: slice(1)} if "B" in axes else {}))
    values = drawable(some, "", GRAY, wanted.time)
    if unit is not None or not wanted.converts:
        return _numbers(values, unit)
    try:
        return _numbers(values, _stated(frames.attrs.get("units")))
    except FramesError:  # they are no rain, whatever the attribute says
        return _numbers(values, None)


def _stated(units: Any) -> RainUnit | None:
    """The unit of rain that the attribute of a map names; None if it names none. Metres a second are a speed."""
    unit = rain_unit(units) if isinstance(units, str) else None
    return None if unit is None or (unit.scale == "rate" and unit.of_a_rate < _OF_A_SPEED) else unit


def _numbers(values: np.ndarray, unit: RainUnit | None) -> Numbers:
    """(T, C, H, W) numbers in a unit of rain, or in no known one."""
    if len(values) == 0:
        raise FramesError("there are no frames")
    check_pixels(values.shape[3], values.shape[2])
    if unit is None:
        return Numbers(values, False)
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    return Numbers(unit.to_dbr(torch.from_numpy(native)).numpy(), True)
