"""PIL images, animated GIF/PNG/WebP files and folders of images <-> frames."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageSequence, UnidentifiedImageError
from torch import Tensor

from stzoo.errors import FramesError
from stzoo.spec import ModelSpec

_MODES = {1: "L", 3: "RGB"}
_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV")
_ANIMATED = (".gif", ".png", ".apng", ".webp")
_STILL = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def images_to_tensor(images: list[Image.Image], spec: ModelSpec) -> Tensor:
    """(T, C, H, W) uint8, gray or RGB as the spec wants. Raises `FramesError` for mixed sizes and deep pixels."""
    if spec.channels not in _MODES:
        raise FramesError(f"images are gray or RGB; this model has {spec.channels} channels, so pass an array")
    for i, image in enumerate(images):
        if image.mode not in _EIGHT_BIT:
            raise FramesError(f"image {i} has mode {image.mode}, which has no 8-bit scale; pass an array instead")
        if image.size != images[0].size:
            raise FramesError(
                f"image {i} is {image.size[0]}x{image.size[1]}, image 0 is {images[0].size[0]}x{images[0].size[1]}"
            )
    arrays = [np.asarray(image.convert(_MODES[spec.channels])) for image in images]
    stack = torch.from_numpy(np.stack(arrays))
    return stack[:, None] if spec.channels == 1 else stack.permute(0, 3, 1, 2)


def tensor_to_image(frame: Tensor) -> Image.Image:
    """(C, H, W) uint8 with one or three channels -> a gray or an RGB image."""
    array = frame.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def read_images(path: Path) -> list[Image.Image]:
    """All frames of an animated GIF, PNG or WebP, or all images of a folder in natural order (2 before 10).

    Raises:
        FramesError: nothing there, nothing that is an image, or a damaged file; the message names it.
    """
    if path.is_dir():
        files = sorted((p for p in path.iterdir() if p.suffix.lower() in _STILL), key=_natural)
        if not files:
            raise FramesError(f"{path} holds no images ({', '.join(_STILL)})")
        return [_read(file)[0] for file in files]
    if not path.is_file():
        raise FramesError(f"{path} does not exist")
    return _read(path)


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


def check_writable(path: Path) -> None:
    """Raises `FramesError` where `write_images` would refuse: another suffix, no such folder, or a folder in use."""
    if path.suffix and path.suffix.lower() not in _ANIMATED:
        raise FramesError(f"cannot write {path.name}; use {', '.join(_ANIMATED)}, or a folder")
    if not path.parent.is_dir():
        raise FramesError(f"the folder {path.parent} does not exist")
    if not path.suffix and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FramesError(f"{path} exists; name an empty or a new folder")


def write_images(path: Path, images: list[Image.Image], seconds: float = 0.1) -> None:
    """An animation (``.gif``, ``.png``, ``.webp``) or, where `path` has no suffix, a folder of numbered PNGs.

    PNG and WebP keep every value; GIF does for gray frames and has 256 colours for others.
    """
    check_writable(path)
    if not path.suffix:
        path.mkdir(exist_ok=True)
        for i, image in enumerate(images):
            image.save(path / f"{i:05d}.png")
        return
    lossless = path.suffix.lower() == ".webp"  # the other writers do not know the word
    duration = round(seconds * 1000)
    images[0].save(path, save_all=True, append_images=images[1:], duration=duration, loop=0, lossless=lossless)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name.lower())]
