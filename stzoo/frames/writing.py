"""Forecasts -> files: an animation, a folder of images, a video, an array file, or a netCDF or Zarr file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from stzoo.errors import FramesError
from stzoo.files import check_name, writing_errors_named
from stzoo.frames.arrays import ARRAYS, open_array, write_array
from stzoo.frames.dataarray import is_dataarray
from stzoo.frames.fields import FIELDS, check_field_extra, write_field
from stzoo.frames.images import ANIMATED, STILL, array_to_images, check_folder, eight_bit, write_images
from stzoo.frames.reading import kind_of
from stzoo.frames.video import WRITTEN, check_video_extra, write_video

if TYPE_CHECKING:
    import xarray as xr

LONGEST = 60.0  # seconds that a frame is shown, if frames lie further apart: files count in small units
UNTIMED = 0.1  # seconds that a frame is shown, if nothing says how far the frames of the past are apart


def check_writable(path: Path, given: Path, *, drawn: bool = False) -> None:
    """Check whether `write` can write to `path` what a model makes of the file `given`, as far as can be told before.

    Args:
        path: what will be written.
        given: what is forecast.
        drawn: maps and arrays of any kind can be written as pictures, because the caller draws them first.

    Raises:
        FramesError: the suffix of `path` cannot hold such a forecast, its parent folder does not exist, it is a folder
            with content, or it is `given` itself or one of its images.
        MissingExtraError: a package that writes such a file is not installed.
    """
    suffix, kind = path.suffix.lower(), kind_of(given)
    pictures = kind != "field" or drawn
    suffixes = (*(FIELDS if kind == "field" else ()), *((*ANIMATED, *WRITTEN) if pictures else ()), *ARRAYS)
    check_name(path, given, suffixes, folder=pictures)
    _check_apart(path, given)
    if suffix in ("", ".zarr"):
        check_folder(path)
    elif path.is_dir():
        raise FramesError(f"{path} is a folder; name a file")
    if suffix in FIELDS:
        check_field_extra(path)
    if suffix in WRITTEN:
        check_video_extra()
    if kind == "array" and kind_of(path) == "pictures" and not drawn:
        array_to_images(open_array(given)[:1])


def _check_apart(path: Path, given: Path) -> None:
    """Raises `FramesError` if the forecast would overwrite what it is made from, by whatever name that goes."""
    if not (path.exists() and given.exists()):
        return
    if path.samefile(given):
        raise FramesError(f"{path} is the input itself; name another file for the forecast")
    if path.is_file() and path.suffix.lower() in STILL and given.resolve() in path.resolve().parents:
        raise FramesError(f"{path} is one of the images of the input; name another file for the forecast")


def write(
    path: Path,
    frames: list[Image.Image] | np.ndarray | xr.DataArray,
    seconds: float | None = None,
    *,
    issued: xr.DataArray | None = None,
) -> None:
    """Write a forecast to a file of the kind that its suffix names, or to a folder of PNGs. It is written whole or not.

    Args:
        path: a file name that ends in .gif, .png, .webp, .mp4, .avi, .npy, .npz, .nc, .nc4 or .zarr, or a folder's
            name, which has no suffix.
        frames: what `Forecaster.rollout` returned.
        seconds: how long each frame of an animation or a video is shown, at most `LONGEST`; None means a tenth of a
            second.
        issued: the date of the last past frame, as `CallerFrames.issued` has it, from which files of maps tell how far
            ahead each time is.

    Raises:
        FramesError: files with this suffix cannot hold these frames.
        MissingExtraError: a package that writes such a file is not installed.
        OSError: the disk is full, or does not take the file for another reason; the message names the file.
    """
    with writing_errors_named(path):
        _write(path, frames, min(seconds or UNTIMED, LONGEST), issued)


def _write(
    path: Path, frames: list[Image.Image] | np.ndarray | xr.DataArray, seconds: float, issued: xr.DataArray | None
) -> None:
    kind = kind_of(path)
    if kind == "field":
        if not is_dataarray(frames):
            raise FramesError(f"cannot write {path.name}: the frames have no coordinates; use {' or '.join(ARRAYS)}")
        write_field(path, frames, issued)
    elif kind == "array":
        write_array(path, np.stack([np.asarray(f) for f in frames]) if isinstance(frames, list) else np.asarray(frames))
    else:
        images = frames if isinstance(frames, list) else array_to_images(np.asarray(frames))
        suffix = path.suffix.lower()
        if suffix in WRITTEN:
            write_video(path, [eight_bit(image) for image in images], seconds)
        else:
            write_images(path, images, seconds)
