"""Frames in memory or in a file, of any kind -> `CallerFrames`: a checked tensor, and the way back to that kind."""

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
from stzoo.frames.arrays import ARRAYS, CallerFrames, FrameSelection, open_array, read_array, read_tensor
from stzoo.frames.dataarray import is_dataarray, read_dataarray
from stzoo.frames.fields import FIELDS, check_read, open_field
from stzoo.frames.gathering import gathered
from stzoo.frames.images import check_image, images_to_tensor, iterate_images, resized, tensor_to_image
from stzoo.frames.video import VIDEO, read_video
from stzoo.spec import ModelSpec

if TYPE_CHECKING:
    import xarray as xr

_MAX_VALUES = 2**26  # of the frames read from one file: a tiny file can claim any number of equal values


def read(
    frames: Any,
    spec: ModelSpec,
    stride: int | None,
    layout: str | None = None,
    *,
    whole: bool = False,
    resize: bool = False,
    every: int = 1,
) -> CallerFrames:
    """Read NumPy arrays, torch tensors, DataArrays, lists of PIL images, and paths of files that hold any of these.

    Args:
        frames: what to read. A path leads to a video, an animation, a folder of images, or a ``.npy``, ``.npz``,
            netCDF or Zarr file. An iterator of single frames, see `gathering`, is read to its end.
        spec: the spec of the model that will see the frames.
        stride: height and width must be multiples of this; with None they must be those of the spec.
        layout: the axes of an array, such as "TCHW" (one of `stzoo.frames.layout.LAYOUTS`); None finds them out.
        whole: keep all frames, and give the answer the times of these frames. Otherwise only the last `frames_in` are
            kept (so the memory used does not grow with the length of a video), and the answer follows them in time.
        resize: bring images and videos to the spec's height and width, bilinearly, whatever size they have.
        every: use the frames 0, every, 2 * every, ... The last frame used is the last of these.

    Raises:
        FramesError: the kind, shape, dtype, range or times do not fit the model, or a value is missing. The message
            says what was expected.
        MissingExtraError: a package that reads such a file is not installed. The message says how to install it.
    """
    if isinstance(frames, Iterator):
        frames, every = gathered(frames, whole_number("every", every), None if whole else spec.frames_in), 1
    selection = FrameSelection(spec, stride, None if whole else spec.frames_in, whole_number("every", every))
    if isinstance(frames, (str, os.PathLike)):
        if not os.fspath(frames):
            raise FramesError("the path is empty; give the path of a video, an animation, images or an array file")
        path = Path(os.path.expanduser(frames))
        try:
            path.exists()
        except OSError as error:
            raise FramesError(f"{str(path)[:300]}: {error.strerror}") from error
        return _read_path(path, selection, layout, resize)
    if isinstance(frames, (list, tuple)) and frames and all(isinstance(f, Image.Image) for f in frames):
        return _read_images(list(frames)[selection.slice_of(len(frames))], selection, resize)
    if isinstance(frames, Tensor):
        _refuse_resizing(resize)
        return read_tensor(frames, selection, layout)
    if isinstance(frames, np.ndarray):
        _refuse_resizing(resize)
        return read_array(frames, selection, layout)
    if is_dataarray(frames):
        _refuse_resizing(resize)
        return read_dataarray(frames, selection)
    what = f"a {type(frames).__name__}"
    if isinstance(frames, (list, tuple)):
        what += f" of {type(frames[0]).__name__}" if frames else " without elements"
        if frames and isinstance(frames[0], np.ndarray | Tensor):
            stack = "numpy.stack" if isinstance(frames[0], np.ndarray) else "torch.stack"
            what += f"; make one array of them with {stack}(frames)"
    raise FramesError(
        f"expected a NumPy array, a torch tensor, a list of PIL images or a path, or a DataArray, given {what}"
    )


def _read_path(path: Path, selection: FrameSelection, layout: str | None, resize: bool) -> CallerFrames:
    kind = kind_of(path)
    try:
        if kind == "array":
            array = open_array(path)
            _refuse_resizing(resize)
            return read_array(array, selection, layout)
        if kind == "field":
            with open_field(path) as field:
                _check_volume(field, selection)
                _refuse_resizing(resize)
                check_read(path, field, selection.slice_of(field.sizes["time"]))
                return read_dataarray(field, selection)
        if path.suffix.lower() in VIDEO and not path.is_dir():
            images = read_video(path, selection.every)
        else:
            images = iterate_images(path, selection.every, selection.last)
        return _read_images(_last_images(images, selection, resize), selection, resize)
    except FramesError as error:
        raise error if str(path) in str(error) else FramesError(f"{path}: {error}") from error


def _check_volume(field: xr.DataArray, selection: FrameSelection) -> None:
    """Raises `FramesError` if the frames that the model reads, of all samples together, hold too many values."""
    values = field.size // max(1, field.sizes["time"]) * (selection.last or field.sizes["time"])
    if values > _MAX_VALUES:
        raise FramesError(
            f"the frames to read hold {values:,} values; at most {_MAX_VALUES:,} are read at once, "
            "so select fewer samples or a part of the area"
        )


def _last_images(images: Iterator[Image.Image], selection: FrameSelection, resize: bool) -> list[Image.Image]:
    """The images that the model reads. One image more than these is in memory at a time.

    An image of the wrong size raises at the first one. If images are resized, that happens at once: it may make them
    much smaller.
    """
    kept: deque[Image.Image] = deque(maxlen=selection.last)
    spec = selection.spec
    for image in images:
        if not kept:
            check_image(image, spec, selection.stride, resize)
        kept.append(resized(image, spec.channels, spec.height, spec.width) if resize else image)
    return list(kept)


def _read_images(images: list[Image.Image], selection: FrameSelection, resize: bool) -> CallerFrames:
    """`CallerFrames` of images that are selected already; the answer is a list of images."""
    check_image(images[0], selection.spec, selection.stride, resize)
    tensor = images_to_tensor(images, selection.spec, resize)
    given = read_tensor(tensor, selection.already_selected(), "TCHW")
    return CallerFrames(given.past, lambda frame: tensor_to_image(given.frame(frame)), list)


def _refuse_resizing(resize: bool) -> None:
    if resize:
        raise FramesError("only images and videos are resized; bring an array to the model's size before you pass it")


def whole_number(name: str, value: Any) -> int:
    """`value` as an int. Raises `FramesError`, which calls it `name`, unless it is one of 1, 2, 3, ..."""
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if count < 1 or isinstance(value, bool):
        raise FramesError(f"{name} is {value!r}; it must be a whole number, at least 1")
    return count


def kind_of(path: Path) -> Literal["pictures", "array", "field"]:
    """What a path holds, judged by its suffix: pictures, plain numbers, or numbers with coordinates (a field)."""
    suffix = path.suffix.lower()
    return "array" if suffix in ARRAYS else "field" if suffix in FIELDS else "pictures"
