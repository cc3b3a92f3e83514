"""Frames in memory or in a file, of any kind -> `CallerFrames`: a checked tensor, and the way back to that kind."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image
from torch import Tensor

from stzoo.errors import FramesError, printable
from stzoo.frames.arrays import ARRAYS, CallerFrames, FrameSelection, open_array, read_array, read_tensor
from stzoo.frames.axes import time_of
from stzoo.frames.dataarray import is_dataarray, read_dataarray
from stzoo.frames.fields import FIELDS, check_map_options, check_read, chosen_map, open_field
from stzoo.frames.gathering import gathered
from stzoo.frames.images import given_images
from stzoo.frames.moving import moving_pictures, seconds_between
from stzoo.frames.options import ReadingOptions
from stzoo.frames.pictures import read_pictures
from stzoo.frames.rain import asked_unit
from stzoo.spec import ModelSpec

if TYPE_CHECKING:
    import xarray as xr

_AS_GIVEN = ReadingOptions()
_MAX_VALUES = 2**26  # of the frames read from one file: a tiny file can claim any number of equal values


def read(
    frames: Any,
    spec: ModelSpec,
    stride: int | None,
    options: ReadingOptions = _AS_GIVEN,
    *,
    whole: bool = False,
    exact: bool = False,
    progress: bool = False,
    extra: int = 0,
) -> CallerFrames:
    """Read NumPy arrays, torch tensors, DataArrays, lists of PIL images, and paths of files that hold any of these.

    Args:
        frames: what to read. A path leads to a video, an animation, a folder of images, or a ``.npy``, ``.npz``,
            netCDF or Zarr file. An iterator of single frames, see `gathering`, is read to its end.
        spec: the spec of the model that will see the frames.
        stride: what the model's height and width must be multiples of, to which `stzoo.engine` pads frames of any size;
            None if the model takes no other size than the spec's.
        options: how they are read.
        whole: keep all frames, and give the answer the times of these frames. Otherwise only the last `frames_in` are
            kept (so the memory used does not grow with the length of a video), and the answer follows them in time.
        exact: refuse what must be padded or converted to be read: other channels than the spec's, and sides that
            `stride` does not divide. Pictures become gray or RGB as the spec says.
        progress: show a bar if reading a video takes longer than a second.
        extra: keep up to so many frames more than the model reads, where there are any: those before the others, or
            with `start` those after them.

    Raises:
        FramesError: the kind, shape, dtype, range or times do not fit the model, or a value is missing. The message
            says what was expected.
        MissingExtraError: a package that reads such a file is not installed. The message says how to install it.
    """
    last = None if whole else spec.frames_in + extra
    gathers = isinstance(frames, Iterator)
    if gathers:
        frames, options = gathered(frames, options.every, last), replace(options, every=1)
    unit = asked_unit(options.units, spec.value_range)
    selection = FrameSelection(spec, stride, last, options, exact=exact, progress=progress, unit=unit)
    if isinstance(frames, (str, os.PathLike)):
        return _read_path(path_of(frames), selection)
    frames = chosen_map(frames, options.variable, options.time)
    if isinstance(frames, (list, tuple)) and frames and all(isinstance(f, Image.Image) for f in frames):
        which = selection.slice_of(len(frames))
        images = given_images(frames, which, spec.frames_in)
        return read_pictures(images, selection, None if gathers else range(len(frames))[which])
    if isinstance(frames, Tensor):
        return read_tensor(frames, selection, options.layout)
    if isinstance(frames, np.ndarray):
        return read_array(frames, selection, options.layout)
    if is_dataarray(frames):
        _check_map(selection)
        return read_dataarray(frames, selection)
    what = f"a {type(frames).__name__}"
    if isinstance(frames, (list, tuple)):
        what += f" of {type(frames[0]).__name__}" if frames else " without elements"
        what += _remedy(frames[0]) if frames else ""
    raise FramesError(
        f"expected a NumPy array, a torch tensor, a list of PIL images or a path, or a DataArray, given {what}"
    )


def path_of(frames: str | os.PathLike[str]) -> Path:
    """The path at which a caller's frames are. Whether anything lies there is seen when it is read.

    Raises:
        FramesError: it is empty, no path that this system can have, or the address of a page or a file on the web.
    """
    if not os.fspath(frames):
        raise FramesError("the path is empty; give the path of a video, an animation, images or an array file")
    path = Path(os.path.expanduser(frames))
    try:
        if not path.exists():
            refuse_address(os.fspath(frames))
    except OSError as error:
        raise FramesError(f"{str(path)[:300]}: {error.strerror}") from error
    return path


def _remedy(frame: Any) -> str:
    """How a list whose first element is `frame` becomes something that can be read; nothing if no way is known."""
    if isinstance(frame, np.ndarray):
        return "; make one array of them with numpy.stack(frames)"
    if isinstance(frame, Tensor):
        return "; make one array of them with torch.stack(frames)"
    if is_dataarray(frame):
        return '; make one map of them with xarray.concat(frames, "time")'
    if isinstance(frame, (str, os.PathLike)):
        return "; netCDF files of one time each become one map with xarray.open_mfdataset(paths)"
    return ""


def _read_path(path: Path, selection: FrameSelection) -> CallerFrames:
    kind, options = kind_of(path), selection.options
    check_map_options(path, options.variable, options.time)
    try:
        if kind == "array":
            return read_array(open_array(path, named=options.variable), selection, options.layout)
        if kind == "field":
            with open_field(path, options.variable, options.time) as field:
                along = time_of(field, options.time)
                _check_volume(field, selection, field.sizes[along])
                _check_map(selection)
                check_read(path, field, selection.slice_of(field.sizes[along]), along)
                return read_dataarray(field, selection)
        images = moving_pictures(
            path,
            options.every,
            last=selection.last,
            start=options.start,
            fps=options.fps,
            progress=selection.progress,
        )
        return read_pictures(images if options.start is None else _enough(images, path, selection), selection)
    except FramesError as error:
        raise error if str(path) in str(error) else FramesError(f"{path}: {error}") from error


def _enough(images: Iterator[Image.Image], path: Path, selection: FrameSelection) -> Iterator[Image.Image]:
    """The images. Raises `FramesError` at their end if `options.start` leaves fewer than the model reads."""
    count, needed, start = 0, selection.spec.frames_in, selection.options.start
    for image in images:
        count += 1
        yield image
    if start is None or count >= needed:
        return
    found = "1 frame follows" if count == 1 else f"{count} frames follow"
    step = seconds_between(path, selection.options.every, selection.options.fps)
    latest = start - (needed - count) * (step or math.inf)
    remedy = f"use at most start={math.floor(100 * latest + 0.01) / 100}" if latest >= 0 else "there are too few in all"
    raise FramesError(f"{path}: {found} start={start:g}, and the model reads {needed}; {remedy}")


def _check_volume(field: xr.DataArray, selection: FrameSelection, total: int) -> None:
    """Raises `FramesError` if those of `total` frames that the model reads, of all samples, hold too many values."""
    values = field.size // max(1, total) * (selection.last or total)
    if values > _MAX_VALUES:
        raise FramesError(
            f"the frames to read hold {values:,} values; at most {_MAX_VALUES:,} are read at once, "
            "so select fewer samples or a part of the area"
        )


def _check_map(selection: FrameSelection) -> None:
    """Raises `FramesError` if a map is to change its size or its channels, which its coordinates describe."""
    if selection.options.resize:
        raise FramesError(
            "a map is not resized, since its coordinates would be wrong: leave out resize=True (in commands --size "
            "model), or interpolate the map yourself, such as with DataArray.interp"
        )
    if selection.options.color is not None:
        raise FramesError(
            f"color={selection.options.color!r} (in commands --color) is for pictures and arrays; of a map take the "
            "mean over its channels yourself: .mean('channel')"
        )


def refuse_address(text: str) -> None:
    """Raises `FramesError` if the text is an address such as https://example.org/a.mp4. A path has lost a "/" of it."""
    scheme, colon, rest = text.partition(":/")
    if not (colon and len(scheme) > 1 and scheme.isascii() and scheme.replace("+", "").isalnum()):
        return
    address = printable(f"{scheme}://{rest.lstrip('/')}")[:300]
    remedy = f"download the file first, for instance with: curl -LO '{address}'" if rest.strip("/") else "name a file"
    if scheme.lower() == "file":
        remedy = f"leave out {scheme}://"
    raise FramesError(f"{address} is an address, and only files on this machine are read; {remedy}, and give its path")


def kind_of(path: Path) -> Literal["pictures", "array", "field"]:
    """What a path holds, judged by its suffix: pictures, plain numbers, or numbers with coordinates (a field)."""
    suffix = path.suffix.lower()
    return "array" if suffix in ARRAYS else "field" if suffix in FIELDS else "pictures"
