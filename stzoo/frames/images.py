"""PIL images, animated GIF/PNG/WebP files and folders of images <-> frames."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageSequence, UnidentifiedImageError
from torch import Tensor

from stzoo.errors import FramesError
from stzoo.frames.files import replacing
from stzoo.frames.layout import find_layout
from stzoo.spec import ModelSpec

_MODES = {1: "L", 3: "RGB"}
_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV")
ANIMATED = (".gif", ".png", ".apng", ".webp")
STILL = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def fit(image: Image.Image, channels: int, height: int, width: int) -> np.ndarray:
    """(C, H, W) uint8: gray or RGB, resized without aliasing. Raises `FramesError` for deep pixels."""
    if image.mode not in _EIGHT_BIT:
        raise FramesError(f"an image has mode {image.mode}, which has no 8-bit scale; pass an array instead")
    image = image.convert(_MODES[channels]).resize((width, height), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def check_image(image: Image.Image, spec: ModelSpec, stride: int | None, resize: bool) -> None:
    """Raises `FramesError` where no number of such images can be frames of the model."""
    if spec.channels not in _MODES:
        raise FramesError(f"images are gray or RGB; this model has {spec.channels} channels, so pass an array")
    if not resize:
        try:
            find_layout((spec.frames_in, spec.channels, image.height, image.width), spec, stride, "TCHW")
        except FramesError as error:
            size = f"{spec.height}x{spec.width}"
            raise FramesError(f"{error}; or have images brought to the model's own {size}: resize=True") from error


def images_to_tensor(images: list[Image.Image], spec: ModelSpec, resize: bool = False) -> Tensor:
    """(T, C, H, W) uint8, gray or RGB as the spec wants, of the images' own size or of the spec's.

    Raises:
        FramesError: deep pixels; mixed sizes, unless they are resized.
    """
    for i, image in enumerate(images):
        if not resize and image.size != images[0].size:
            raise FramesError(
                f"image {i} is {image.size[0]}x{image.size[1]}, image 0 is {images[0].size[0]}x{images[0].size[1]}"
            )
    width, height = (spec.width, spec.height) if resize else images[0].size
    return torch.from_numpy(np.stack([fit(image, spec.channels, height, width) for image in images]))


def tensor_to_image(frame: Tensor) -> Image.Image:
    """(C, H, W) uint8 with one or three channels -> a gray or an RGB image."""
    array = frame.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def array_to_images(array: np.ndarray) -> list[Image.Image]:
    """(T, H, W), or with one or three channels (T, C, H, W) or (T, H, W, C); uint8. Raises `FramesError` for others."""
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim == 4 and array.shape[1] not in _MODES:
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in _MODES or array.dtype != np.uint8:
        raise FramesError(f"{array.dtype} frames of shape {array.shape[1:]} are no pictures; write them to a .npy file")
    return [tensor_to_image(torch.from_numpy(frame)) for frame in array]


def read_images(path: Path, every: int = 1, last: int | None = None) -> list[Image.Image]:
    """All frames of an animated GIF, PNG or WebP, or all images of a folder in natural order (2 before 10).

    Of these the first of each `every`, and of these the `last` so many; None: all.

    Raises:
        FramesError: nothing there, nothing that is an image, or a damaged file; the message names it.
    """
    kept = slice(None if last is None else -last, None)
    if path.is_dir():
        files = sorted((p for p in path.iterdir() if p.suffix.lower() in STILL), key=natural)
        if not files:
            raise FramesError(f"{path} holds no images ({', '.join(STILL)})")
        return [_read(file)[0] for file in files[::every][kept]]
    if not path.is_file():
        raise FramesError(f"{path} does not exist")
    return _read(path)[::every][kept]


def iterate_images(path: Path) -> Iterator[Image.Image]:
    """Like `read_images`; of a folder no more than one image in memory."""
    if not path.is_dir():
        yield from _read(path)
        return
    for file in sorted((p for p in path.iterdir() if p.suffix.lower() in STILL), key=natural):
        yield _read(file)[0]


def _read(path: Path) -> list[Image.Image]:
    try:
        with Image.open(path) as file:
            return _evenly([(frame.copy(), frame.info.get("duration", 0)) for frame in ImageSequence.Iterator(file)])
    except UnidentifiedImageError as error:
        raise FramesError(f"{path} is no image that Pillow can read") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise FramesError(f"{path} is damaged: {error}") from error


def _evenly(frames: list[tuple[Image.Image, float]]) -> list[Image.Image]:
    """Frames at equal intervals. Writers store a still moment as one frame that lasts longer: it counts as often."""
    shortest = min(duration for _, duration in frames)
    if shortest <= 0 or any(duration % shortest for _, duration in frames):
        return [image for image, _ in frames]
    return [image for image, duration in frames for _ in range(min(round(duration / shortest), 1000))]


def check_folder(path: Path) -> None:
    """Raises `FramesError` where a folder to be written has content already."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FramesError(f"{path} exists; name an empty or a new folder")


def write_images(path: Path, images: list[Image.Image], seconds: float = 0.1) -> None:
    """An animation (``.gif``, ``.png``, ``.webp``) or, where `path` has no suffix, a folder of numbered PNGs.

    PNG and WebP keep every value; GIF does for gray frames and has 256 colours for others.

    Raises:
        FramesError: another suffix, or a folder that has content.
    """
    if not path.suffix:
        check_folder(path)
        with replacing(path) as partial:
            partial.mkdir()
            for i, image in enumerate(images):
                image.save(partial / f"{i:05d}.png")
        return
    if path.suffix.lower() not in ANIMATED:
        raise FramesError(f"cannot write {path.name}; use {', '.join(ANIMATED)}, or a folder")
    lossless = path.suffix.lower() == ".webp"  # the other writers do not know the word
    duration = round(seconds * 1000)
    with replacing(path) as partial:
        images[0].save(partial, save_all=True, append_images=images[1:], duration=duration, loop=0, lossless=lossless)


def natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name.lower())]
