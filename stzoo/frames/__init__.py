"""A caller's frames, of whatever kind, -> one checked tensor, and forecasts back to the same kind."""

from __future__ import annotations

import operator
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image
from torch import Tensor

from stzoo.errors import FramesError
from stzoo.frames import dataarray, video
from stzoo.frames.arrays import ARRAYS, Source, Wanted, open_array, read_array, read_tensor, write_array
from stzoo.frames.dataarray import FIELDS, is_dataarray, opened, read_dataarray, write_dataarray
from stzoo.frames.images import (
    ANIMATED,
    array_to_images,
    check_folder,
    check_image,
    images_to_tensor,
    iterate_images,
    resized,
    tensor_to_image,
    write_images,
)
from stzoo.frames.video import VIDEO, read_video, write_video
from stzoo.spec import ModelSpec

if TYPE_CHECKING:
    import xarray as xr

_MAX_VALUES = 2**26  # read from a file that may hold next to nothing, and says that the rest is all the same


def read(
    frames: Any,
    spec: ModelSpec,
    stride: int | None,
    layout: str | None = None,
    *,
    whole: bool = False,
    resize: bool = False,
    every: int = 1,
) -> Source:
    """Read NumPy arrays, torch tensors, DataArrays, lists of PIL images, and the paths of files that hold such.

    Args:
        frames: what to read. A path is one of a video, an animation, a folder of images, or a ``.npy``, ``.npz``,
            netCDF or Zarr file.
        spec: of the model that will see them.
        stride: what height and width must be multiples of; None: they must be the spec's.
        layout: names the axes of an array.
        whole: keep all frames, which come back at their own times. Else the last `frames_in` are kept, in flat memory
            however long a video is, and what comes back follows them.
        resize: bring images and videos to the spec's height and width, bilinearly, whatever their own.
        every: use frames 0, every, 2 * every, ...; the last one used is the last of these that exists.

    Raises:
        FramesError: kind, shape, dtype, range, times or a missing value; the message says what was expected.
        MissingExtraError: what reads such a file is not installed; the message says how to.
    """
    wanted = Wanted(spec, stride, None if whole else spec.frames_in, whole_number("every", every))
    if isinstance(frames, (str, os.PathLike)):
        if not os.fspath(frames):
            raise FramesError("the path is empty")
        path = Path(os.path.expanduser(frames))
        try:
            path.exists()
        except OSError as error:
            raise FramesError(f"{str(path)[:300]}: {error.strerror}") from error
        return _read_path(path, wanted, layout, resize)
    if isinstance(frames, (list, tuple)) and frames and all(isinstance(f, Image.Image) for f in frames):
        return _read_images(list(frames)[wanted.of(len(frames))], wanted, resize)
    if isinstance(frames, Tensor):
        return read_tensor(frames, _unresized(wanted, resize), layout)
    if isinstance(frames, np.ndarray):
        return read_array(frames, _unresized(wanted, resize), layout)
    if is_dataarray(frames):
        return read_dataarray(frames, _unresized(wanted, resize))
    what = f"a {type(frames).__name__}"
    if isinstance(frames, (list, tuple)):
        what += f" of {type(frames[0]).__name__}" if frames else " without elements"
    raise FramesError(
        f"expected a NumPy array, a torch tensor, a list of PIL images or a path, or a DataArray, given {what}"
    )


def _read_path(path: Path, wanted: Wanted, layout: str | None, resize: bool) -> Source:
    kind = kind_of(path)
    try:
        if kind == "array":
            return read_array(open_array(path), _unresized(wanted, resize), layout)
        if kind == "field":
            with opened(path) as field:
                _check_volume(field, wanted)
                return read_dataarray(field, _unresized(wanted, resize))
        if path.suffix.lower() in VIDEO and not path.is_dir():
            images = read_video(path, wanted.every)
        else:
            images = iterate_images(path, wanted.every, wanted.last)
        return _read_images(_last_images(images, wanted, resize), wanted, resize)
    except FramesError as error:
        raise error if str(path) in str(error) else FramesError(f"{path}: {error}") from error


def _check_volume(field: xr.DataArray, wanted: Wanted) -> None:
    """Raises `FramesError` where the frames that the model reads, of all samples, are too many values to read."""
    values = field.size // max(1, field.sizes["time"]) * (wanted.last or field.sizes["time"])
    if values > _MAX_VALUES:
        raise FramesError(f"the frames to read hold {values:,} values; at most {_MAX_VALUES:,} are read at once")


def _last_images(images: Iterator[Image.Image], wanted: Wanted, resize: bool) -> list[Image.Image]:
    """Those that the model reads, one more than these in memory; resized ones at once, for they may be much smaller.

    A wrong size is found at the first image.
    """
    kept: deque[Image.Image] = deque(maxlen=wanted.last)
    spec = wanted.spec
    for image in images:
        if not kept:
            check_image(image, spec, wanted.stride, resize)
        kept.append(resized(image, spec.channels, spec.height, spec.width) if resize else image)
    return list(kept)


def _read_images(images: list[Image.Image], wanted: Wanted, resize: bool) -> Source:
    check_image(images[0], wanted.spec, wanted.stride, resize)
    source = read_tensor(images_to_tensor(images, wanted.spec, resize), wanted.taken(), "TCHW")
    return Source(source.past, lambda frame: tensor_to_image(source.frame(frame)), list)


def _unresized(wanted: Wanted, resize: bool) -> Wanted:
    if resize:
        raise FramesError("only images and videos are resized; bring an array to the model's size before it is passed")
    return wanted


def whole_number(name: str, value: Any) -> int:
    """`value`, which errors call `name`. Raises `FramesError` where it is none of 1, 2, 3, ..."""
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if count < 1 or isinstance(value, bool):
        raise FramesError(f"{name} is {value!r}; it must be a whole number, at least 1")
    return count


def kind_of(path: Path) -> Literal["pictures", "array", "field"]:
    """What a path holds, by its suffix: numbers without or with coordinates, or pictures."""
    suffix = path.suffix.lower()
    return "array" if suffix in ARRAYS else "field" if suffix in FIELDS else "pictures"


def check_writable(path: Path, given: Path) -> None:
    """Whether `write` will write to `path` what a model makes of the file `given`, as far as can be told before.

    Raises:
        FramesError: a suffix that cannot hold it, no such folder, or a folder in use.
        MissingExtraError: what writes such a file is not installed.
    """
    suffix, kind = path.suffix.lower(), kind_of(given)
    suffixes = (*FIELDS, *ARRAYS) if kind == "field" else (*ANIMATED, *video.WRITTEN, *ARRAYS)
    if suffix not in suffixes and (suffix or kind == "field"):
        folder = "" if kind == "field" else ", or a folder"
        raise FramesError(f"cannot write {path.name} from {given.name}; use {', '.join(suffixes)}{folder}")
    if not path.parent.is_dir():
        raise FramesError(f"the folder {path.parent} does not exist")
    if suffix in ("", ".zarr"):
        check_folder(path)
    elif path.is_dir():
        raise FramesError(f"{path} is a folder")
    if suffix in FIELDS:
        dataarray.check_extra(path)
    if suffix in video.WRITTEN:
        video.check_extra()
    if kind == "array" and kind_of(path) == "pictures":
        array_to_images(open_array(given)[:1])


def write(path: Path, frames: list[Image.Image] | np.ndarray | xr.DataArray, seconds: float = 0.1) -> None:
    """A forecast -> a file of the kind its suffix names, or a folder of PNGs; nothing is left half-written.

    Args:
        path: .gif, .png, .webp, .mp4, .avi, .npy, .npz, .nc, .nc4, .zarr, or without a suffix.
        frames: what `Forecaster.rollout` returned.
        seconds: each frame is shown for, in an animation or a video.

    Raises:
        FramesError: a suffix that cannot hold these frames.
        MissingExtraError: what writes such a file is not installed.
    """
    kind = kind_of(path)
    if kind == "field":
        if not is_dataarray(frames):
            raise FramesError(f"cannot write {path.name}: the frames have no coordinates; use {' or '.join(ARRAYS)}")
        write_dataarray(path, frames)
    elif kind == "array":
        write_array(path, np.stack([np.asarray(f) for f in frames]) if isinstance(frames, list) else np.asarray(frames))
    else:
        images = frames if isinstance(frames, list) else array_to_images(np.asarray(frames))
        (write_video if path.suffix.lower() in video.WRITTEN else write_images)(path, images, seconds)
