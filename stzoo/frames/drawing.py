"""The numbers of arrays and maps -> pictures of 8 bits, for files that hold pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from stzoo.errors import FramesError
from stzoo.frames.axes import as_layout, axes_of, side_of, time_of
from stzoo.frames.colour import GRAY, RGB
from stzoo.frames.dataarray import is_dataarray
from stzoo.frames.images import tensor_to_image
from stzoo.frames.layout import to_btchw
from stzoo.frames.rain import is_rain
from stzoo.frames.values import largest
from stzoo.spec import ModelSpec

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Shades:
    """Which numbers are drawn black (0) and white (255); those between become shades, and those beyond are clipped.

    Attributes:
        black, white: two different numbers.
        meaning: what lies between them, in words.
    """

    black: float
    white: float
    meaning: str

    @classmethod
    def between(cls, least: float, most: float, meaning: str) -> Shades:
        """Those of numbers from `least` to `most`. If the two are equal, all that is drawn is black."""
        return cls(least, most if most > least else least + max(1.0, abs(least)), meaning)

    def __str__(self) -> str:
        return f"values from {self.black:g} to {self.white:g}, {self.meaning}, are drawn from black to white"

    def images(self, frames: np.ndarray) -> list[Image.Image]:
        """Frames (T, C, H, W) of numbers, with one or three channels -> T images, gray or RGB. NaN becomes black."""
        return [self._image(frame) for frame in frames]

    def _image(self, frame: np.ndarray) -> Image.Image:
        half = self.white / 2 - self.black / 2  # halves, for the distance of very large numbers would be infinite
        shares = (frame.astype(np.float64) / 2 - self.black / 2) / half
        values = np.rint(np.nan_to_num(shares.clip(0, 1)) * 255).astype(np.uint8)
        return tensor_to_image(torch.from_numpy(values))


def shades_of(past: np.ndarray, spec: ModelSpec, bits: int | None) -> Shades:
    """The shades in which the forecast of an array or a map is drawn.

    They are those of the model's range of values, to which integers are scaled. Without such a range, they are those of
    the past frames. Integers of 8 bits are pictures already.

    Args:
        past: the past frames, in the caller's dtype and units.
        spec: the spec of the model.
        bits: how many bits integers have; None means all of their dtype.
    """
    if past.dtype == np.uint8 and bits is None:
        return Shades(0, 255, "as they are")
    if spec.value_range is None:
        return Shades.between(float(np.nanmin(past)), float(np.nanmax(past)), "the range of the past frames")
    if past.dtype.kind in "iu":
        top = largest(torch.from_numpy(past[:0]).dtype, bits)
        return Shades(0, top, f"the range of {bits} bits" if bits else f"the range of {past.dtype}")
    meaning = "the range of the model" + (", in dBR" if is_rain(spec.value_range) else "")
    return Shades(*spec.value_range, meaning)


def drawable(frames: np.ndarray | xr.DataArray, layout: str, channels: int, time: str | None = None) -> np.ndarray:
    """One clip (T, C, H, W) of an array or a map, in its own dtype and units.

    Rows of a map whose latitude ascends are turned round, so that north is up.

    Args:
        frames: what `Forecaster.rollout` returned.
        layout: the axes of an array; those of a map are found out.
        channels: how many channels the frames have, by which a dimension of a map is found whose name does not tell.
        time: the name of the dimension of time of a map; None finds it out.

    Raises:
        FramesError: there are several clips, or another number of channels than pictures have.
    """
    if is_dataarray(frames):
        axes = axes_of(frames, channels, time_of(frames, time))
        rows = frames.coords.get(axes["H"])
        frames, layout = as_layout(frames, axes), "".join(axes)
        if rows is not None and side_of(frames, axes["H"]) == "Y" and _ascends_north(rows):
            frames = frames.isel({axes["H"]: slice(None, None, -1)})
    array = np.ascontiguousarray(frames)
    clips = to_btchw(torch.from_numpy(array.astype(array.dtype.newbyteorder("="))), layout)
    if len(clips) != 1 or clips.shape[2] not in (GRAY, RGB):
        found = f"{len(clips)} clips" if len(clips) != 1 else f"{clips.shape[2]} channels"
        raise FramesError(
            f"the frames are no pictures: there are {found}, and pictures are of one clip with 1 or 3 channels; write "
            "the forecast to a file of the input's kind"
        )
    return clips[0].numpy()


def _ascends_north(rows: xr.DataArray) -> bool:
    """Whether the coordinate of the rows is a latitude that ascends."""
    north = str(rows.attrs.get("units", "")).lower().startswith("degree") or str(rows.name).lower().startswith("lat")
    return north and rows.ndim == 1 and rows.size > 1 and rows.dtype.kind == "f" and bool(rows[0] < rows[-1])
