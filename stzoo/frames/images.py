"""PIL images, animated GIF/PNG/WebP files and folders of images <-> frames."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from stzoo.errors import FramesError
from stzoo.files import replacing
from stzoo.frames.layout import check_pixels, find_layout
from stzoo.spec import ModelSpec

_MODES = {1: "L", 3: "RGB"}
_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV")
ANIMATED = (".gif", ".png", ".apng", ".webp")
STILL = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MAX_FRAMES, MAX_ANIMATION_PIXELS = 2**16, 2**30  # of one animation, which is decoded from its start; then it is a video
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")  # not all of Pillow's, which runs Ghostscript for one of them
_KEPT_PIXELS = 2**24  # of frames that are in memory before it is known which of them are wanted
_LONGEST = 1000  # shortest frames that one frame may last


def fit(image: Image.Image, channels: int, height: int, width: int) -> np.ndarray:
    """(C, H, W) uint8: what `resized` makes of an image."""
    array = np.asarray(resized(image, channels, height, width))
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def resized(image: Image.Image, channels: int, height: int, width: int) -> Image.Image:
    """Gray or RGB, without aliasing.

    Raises:
        FramesError: deep pixels, or an image that was opened but cannot be read.
    """
    if image.mode not in _EIGHT_BIT:
        raise FramesError(f"an image has mode {image.mode}, which has no 8-bit scale; pass an array instead")
    try:
        return image.convert(_MODES[channels]).resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, ValueError, TypeError, SyntaxError) as error:  # one of the caller's, read from its file only now
        raise FramesError(f"an image cannot be read: {error}") from error


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
    """What `iterate_images` yields."""
    return list(iterate_images(path, every, last))


def iterate_images(path: Path, every: int = 1, last: int | None = None) -> Iterator[Image.Image]:
    """The frames of an animated GIF, PNG or WebP, or the images of a folder in natural order (2 before 10).

    Of these the first of each `every`, and of these the `last` so many; None: all. No more than one is in memory.

    Raises:
        FramesError: nothing there, nothing that is an image, a damaged file, or one that claims to hold absurdly much;
            the message names it.
    """
    if not path.is_dir():
        yield from _played(path, every, last)
        return
    files = sorted((p for p in path.iterdir() if p.suffix.lower() in STILL), key=natural)
    if not files:
        raise FramesError(f"{path} holds no images ({', '.join(STILL)})")
    for file in _kept(range(len(files)), every, last):
        yield next(_stored(files[file]))[0]


def _kept(numbers: range, every: int, last: int | None) -> range:
    every_kth = numbers[::every]
    return every_kth if last is None else every_kth[-last:]


def _played(path: Path, every: int, last: int | None) -> Iterator[Image.Image]:
    """Frames of one animation at equal intervals.

    Writers store a still moment as one frame that lasts longer: it counts as often. So only at the end is known which
    frames are wanted. Where these are few and small they are kept on the way, else the file is decoded once more.
    """
    durations: list[float] = []
    kept: deque[Image.Image] = deque(maxlen=0)
    for image, duration in _stored(path):
        if not durations and last is not None and last * every * image.width * image.height <= _KEPT_PIXELS:
            kept = deque(maxlen=last * every)  # each lasts an interval or more, so those wanted are among these
        durations.append(duration)
        kept.append(image)
    ends = np.cumsum(_repeats(durations))  # of each, in intervals
    chosen = _kept(range(int(ends[-1])), every, last)
    if len(chosen) > MAX_FRAMES:
        raise FramesError(f"{path}: its {len(ends)} frames last for {len(chosen)} of the shortest, too many to read")
    wanted = Counter(np.searchsorted(ends, chosen, side="right").tolist())
    again = enumerate(kept, len(durations) - len(kept)) if kept else enumerate(each for each, _ in _stored(path))
    for number, image in again:
        for _ in range(wanted[number]):
            yield image


def _repeats(durations: list[float]) -> list[int]:
    shortest = min(durations)
    if shortest <= 0 or any(duration % shortest for duration in durations):
        return [1] * len(durations)
    return [min(round(duration / shortest), _LONGEST) for duration in durations]


def _stored(path: Path) -> Iterator[tuple[Image.Image, float]]:
    """The frames that a file holds, and for how long each is shown: 0 where the file does not say.

    Sizes are looked at before pixels are decoded. Whatever Pillow raises on bytes that nobody has checked (it is of
    many kinds), the file is damaged.
    """
    if not path.is_file():
        raise FramesError(f"{path} {'is no file' if path.exists() else 'does not exist'}")
    pixels = 0
    try:
        with Image.open(path, formats=_FORMATS) as file:
            for number in range(MAX_FRAMES + 1):
                try:
                    file.seek(number)
                except EOFError:
                    if number == 0:
                        raise
                    return
                check_pixels(file.width, file.height)
                pixels += file.width * file.height
                if number == MAX_FRAMES or pixels > MAX_ANIMATION_PIXELS:
                    raise FramesError(
                        f"an animation of more than {MAX_FRAMES:,} frames or {MAX_ANIMATION_PIXELS:,} pixels; "
                        "make it a video, which may be of any length"
                    )
                image = file.copy()
                duration = file.info.get("duration", 0)
                image.info = {}  # a file's own words, some of which mean something to Pillow
                yield image, duration if isinstance(duration, (int, float)) else 0
    except FramesError as error:
        raise FramesError(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        raise FramesError(f"{path} is no image that can be read ({', '.join(_FORMATS)})") from error
    except Exception as error:
        raise FramesError(f"{path} is damaged: {error}") from error


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
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name.lower())]
