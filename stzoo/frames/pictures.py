"""Pictures of any size, gray or in colour -> `CallerFrames`; and forecasts back to pictures of that size.

Where they come from, such as a video or a folder, says `stzoo.frames.reading`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stzoo.errors import FramesError
from stzoo.frames.arrays import CallerFrames, FrameSelection, read_tensor
from stzoo.frames.colour import GRAY, RGB, can_convert, channels_equal
from stzoo.frames.images import SIXTEEN_BIT, pixels, resized, tensor_to_image

_GRAY_MODES = ("1", "L", "LA", *SIXTEEN_BIT)
_KEPT_PIXELS = 2**25  # of pictures that are kept as they are until the last has come; more are resized as they come


def read_pictures(
    images: Iterable[Image.Image], selection: FrameSelection, numbers: Sequence[int] | None = None
) -> CallerFrames:
    """The last `selection.last` of some pictures -> `CallerFrames` that answer with pictures.

    The option `resize` decides about sizes. With None the model sees the pictures in its own size, and the answer comes
    back in theirs; with True it stays in the model's; with False the model runs at their size.

    A model that reads gray answers with gray pictures (mode L) if the three channels of the given ones are equal, and
    else with RGB. A model that reads colour answers with gray if each of the given ones has a mode that is gray.

    Args:
        images: at least one, from which the option `every` has been taken already. At most `selection.last` and one
            more are in memory at the same time.
        selection: what the model reads, and how sizes and colour are brought to it.
        numbers: of the images, as the caller counts them; None if that is not known.

    Raises:
        FramesError: there are too few pictures, one has no agreed scale or cannot be read, they differ in
            size, or the model takes neither this size nor pictures.
    """
    kept: deque[tuple[Image.Image, tuple[str, tuple[int, int]]]] = deque(maxlen=selection.last)  # its name and size
    as_they_are = True
    for place, image in enumerate(images):
        if not kept:
            _check_first(image, selection)
            as_they_are = selection.last is not None and selection.last * image.width * image.height <= _KEPT_PIXELS
        name = image.info.get("name", "an image") if numbers is None else f"image {numbers[place]}"
        kept.append((image if as_they_are else _fitted(image, selection), (name, image.size)))
    own = _one_size([as_given for _, as_given in kept], selection)
    fitted = [_fitted(image, selection) for image, _ in kept]
    given = read_tensor(_tensor(fitted, selection), selection.already_selected(), "TCHW")

    def frame(units: Tensor) -> Image.Image:
        image = tensor_to_image(given.frame(units))
        if selection.options.resize is not None or image.size == own:
            return image
        return image.resize(own, Image.Resampling.BICUBIC)

    returned = own[::-1] if selection.options.resize is None else None
    return replace(given, frame=frame, collect=lambda coming, _: list(coming), returned=returned)


def _check_first(image: Image.Image, selection: FrameSelection) -> None:
    """Raises `FramesError` if pictures like this one cannot be frames of the model, however many there are."""
    spec = selection.spec
    if selection.unit is not None:
        raise FramesError(
            f"units={selection.unit.name!r} (in commands --units) is for arrays and maps, and pictures hold shades: "
            "0 to 255 stand for the range of the model. Leave it out, or save the numbers themselves"
        )
    if spec.channels not in (GRAY, RGB):
        raise FramesError(f"images are gray or RGB; this model has {spec.channels} channels, so pass an array instead")
    if selection.options.resize is False:
        shape = (spec.frames_in, spec.channels, image.height, image.width)
        selection.layout_of(shape, "TCHW")


def _one_size(sizes: list[tuple[str, tuple[int, int]]], selection: FrameSelection) -> tuple[int, int]:
    """The (width, height) of the last picture; `sizes` holds what errors call each, and its size.

    Raises:
        FramesError: the others must have that size and have not.
    """
    first, wanted = sizes[0]
    for name, size in sizes:
        if size != wanted and selection.options.resize is not True:
            first = "another" if name == first else first
            raise FramesError(
                f"{name} is {size[0]}x{size[1]} but {first} is {wanted[0]}x{wanted[1]}; bring all to one size, "
                "or pass resize=True (in commands --size model), which brings all to the model's size"
            )
    return sizes[-1][1]


def _fitted(image: Image.Image, selection: FrameSelection) -> Image.Image:
    """The picture in mode L, RGB or, of 16 bits, I;16, in the size in which the model sees it."""
    spec = selection.spec
    width, height = image.size if selection.options.resize is False else (spec.width, spec.height)
    channels = GRAY if selection.options.color == "gray" or image.mode in _GRAY_MODES else RGB
    converts = can_convert(spec) and not selection.exact
    return resized(image, channels if converts else spec.channels, height, width)


def _tensor(images: list[Image.Image], selection: FrameSelection) -> Tensor:
    """What `_fitted` returned, of one size -> (T, C, H, W) uint8, or uint16 if C is 1 and an image has 16 bits a value.

    C is 1 if all are gray, or look so to the model. No picture in colour has 16 bits a value.
    """
    gray = all(image.mode != "RGB" for image in images)
    frames = [pixels(image, GRAY if gray else RGB) for image in images]
    if len({frame.dtype for frame in frames}) > 1:  # 257 is 65535 / 255
        frames = [frame if frame.dtype == np.uint16 else frame.astype(np.uint16) * np.uint16(257) for frame in frames]
    stacked = np.stack(frames)
    if not gray and selection.spec.channels == GRAY and channels_equal(torch.from_numpy(stacked)[None]):
        stacked, gray = stacked[:, :GRAY], True
    if not gray and stacked.dtype == np.uint16:
        stacked = np.rint(stacked / 257).astype(np.uint8)
    return torch.from_numpy(stacked)
