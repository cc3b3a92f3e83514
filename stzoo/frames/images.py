"""PIL images, animated GIF/PNG/WebP files and folders of images <-> frames."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from stzoo.errors import FramesError, printable
from stzoo.files import replacing
from stzoo.frames.layout import check_pixels

_MODES = {1: "L", 3: "RGB"}
_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV")
ANIMATED = (".gif", ".png", ".apng", ".webp")
STILL = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MAX_FRAMES, MAX_ANIMATION_PIXELS = 2**16, 2**30  # of one animation, which is always decoded from its start
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")  # not all that Pillow knows: for one it runs Ghostscript
_KEPT_PIXELS = 2**24  # of frames kept in memory until it is known which of them are wanted
_LONGEST = 1000  # how many of the shortest frames one frame may last


def fit(image: Image.Image, channels: int, height: int, width: int) -> np.ndarray:
    """An image -> (C, H, W) uint8, gray or RGB, of the given size. Raises `FramesError` as `resized` does.

    Args:
        image: any 8-bit image.
        channels: 1 for gray, 3 for RGB.
        height, width: of the result, in pixels.
    """
    array = np.asarray(resized(image, channels, height, width))
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def resized(image: Image.Image, channels: int, height: int, width: int) -> Image.Image:
    """The image in gray (1 channel) or RGB (3 channels), resized bilinearly and without aliasing.

    Raises:
        FramesError: the image has more than 8 bits a value, or its file cannot be read.
    """
    if image.mode not in _EIGHT_BIT:
        raise FramesError(
            f"an image has mode {image.mode}, which has no 8-bit scale; pass its values as an array instead"
        )
    try:
        return image.convert(_MODES[channels]).resize((width, height), Image.Resampling.BILINEAR)
    except (
        OSError,
        ValueError,
        TypeError,
        SyntaxError,
    ) as error:  # an image that the caller opened is read from its file only now
        raise FramesError(f"an image cannot be read: {printable(str(error))}") from error


def tensor_to_image(frame: Tensor) -> Image.Image:
    """(C, H, W) uint8 with one or three channels -> a gray or an RGB image."""
    array = frame.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def array_to_images(array: np.ndarray) -> list[Image.Image]:
    """Frames -> T gray or RGB images.

    Args:
        array: uint8 (T, H, W), or with one or three channels (T, C, H, W) or (T, H, W, C).

    Raises:
        FramesError: another shape or dtype.
    """
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim == 4 and array.shape[1] not in _MODES:
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in _MODES or array.dtype != np.uint8:
        raise FramesError(
            f"{array.dtype} frames of shape {array.shape[1:]} are no pictures; write them to a .npy file instead"
        )
    return [tensor_to_image(torch.from_numpy(frame.copy())) for frame in array]


def read_images(path: Path, every: int = 1, last: int | None = None) -> list[Image.Image]:
    """All images that `iterate_images` yields, in a list. Raises `FramesError` as it does."""
    return list(iterate_images(path, every, last))


def iterate_images(path: Path, every: int = 1, last: int | None = None) -> Iterator[Image.Image]:
    """The frames of an animated GIF, PNG or WebP, or the images of a folder in natural order (2 before 10).

    At most one image is decoded at a time; small animations may be kept in memory as a whole.

    Args:
        path: an animation, a still image, or a folder of still images.
        every: only the frames 0, every, 2 * every, ... are yielded.
        last: only this many of them, counted from the end, are yielded; None yields all.

    Raises:
        FramesError: there is nothing at `path`, no image in it, a damaged file, or a file that claims an absurd size.
            The message names the file.
    """
    if not path.is_dir():
        yield from _played(path, every, last)
        return
    files = sorted((p for p in path.iterdir() if p.suffix.lower() in STILL), key=natural_order)
    if not files:
        raise FramesError(f"{path} holds no images ({', '.join(STILL)})")
    for file in _kept(range(len(files)), every, last):
        yield next(_stored(files[file]))[0]


def _kept(numbers: range, every: int, last: int | None) -> range:
    """The last `last` of each `every`-th number."""
    every_kth = numbers[::every]
    return every_kth if last is None else every_kth[-last:]


def _played(path: Path, every: int, last: int | None) -> Iterator[Image.Image]:
    """The frames of one animation at equal intervals.

    Writers store a still moment as one frame that is shown longer; here it counts as several frames. So which frames
    are wanted is known only at the end. If they are few and small, they are kept on the way; otherwise the file is
    decoded a second time.
    """
    durations: list[float] = []
    kept: deque[Image.Image] = deque(maxlen=0)
    for image, duration in _stored(path):
        if not durations and last is not None and last * every * image.width * image.height <= _KEPT_PIXELS:
            kept = deque(maxlen=last * every)  # each lasts at least one interval, so the wanted ones are among these
        durations.append(duration)
        kept.append(image)
    ends = np.cumsum(_repeats(durations))  # when each frame ends, counted in intervals
    chosen = _kept(range(int(ends[-1])), every, last)
    if len(chosen) > MAX_FRAMES:
        raise FramesError(
            f"{path}: its {len(ends)} frames last for {len(chosen)} of the shortest, too many to read; "
            "save it with frames of equal duration"
        )
    wanted = Counter(np.searchsorted(ends, chosen, side="right").tolist())
    again = enumerate(kept, len(durations) - len(kept)) if kept else enumerate(each for each, _ in _stored(path))
    for number, image in again:
        for _ in range(wanted[number]):
            yield image


def _repeats(durations: list[float]) -> list[int]:
    """How many intervals each frame lasts: its duration in units of the shortest one, or 1 if these do not fit."""
    shortest = min(durations)
    if shortest <= 0 or any(duration % shortest for duration in durations):
        return [1] * len(durations)
    return [min(round(duration / shortest), _LONGEST) for duration in durations]


def _stored(path: Path) -> Iterator[tuple[Image.Image, float]]:
    """The frames that a file holds, and for how many milliseconds each is shown: 0 if the file does not say.

    Sizes are checked before pixels are decoded.
    """
    if not path.is_file():
        raise FramesError(f"{path} {'is no file' if path.exists() else 'does not exist'}")
    pixels = 0
    try:
        if not path.stat().st_size:  # also what files of /proc say, some of which cannot be read to their end
            raise UnidentifiedImageError
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
                        "make it a video, which may have any length"
                    )
                image = file.copy()
                duration = file.info.get("duration", 0)
                image.info = {}  # what the file says of itself, some of which Pillow would act on
                yield image, duration if isinstance(duration, (int, float)) else 0
    except FramesError as error:
        raise FramesError(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        raise FramesError(f"{path} is no image that can be read ({', '.join(_FORMATS)})") from error
    except Exception as error:  # Pillow raises errors of many kinds on damaged bytes
        raise FramesError(f"{path} is damaged: {printable(str(error))}") from error


def frame_interval(path: Path) -> Fraction | None:
    """Seconds from one frame of an animation to the next, as `iterate_images` yields them.

    Returns:
        None for a still image, for a folder, and for an animation that does not say how long it shows its frames.

    Raises:
        FramesError: the file is damaged, or no image.
    """
    if path.is_dir():
        return None
    durations = [duration for _, duration in _stored(path)]
    shortest = min(durations)
    return Fraction(str(shortest)) / 1000 if len(durations) > 1 and shortest > 0 else None


def check_folder(path: Path) -> None:
    """Raises `FramesError` if the folder to be written is a file, or has content already."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FramesError(f"{path} exists; name an empty or a new folder")


def write_images(path: Path, images: list[Image.Image], seconds: float = 0.1) -> None:
    """Write an animation (``.gif``, ``.png``, ``.webp``) or, if `path` has no suffix, a folder of numbered PNGs.

    PNG and WebP keep every value. GIF keeps the values of gray frames, and has 256 colours for others.

    Args:
        path: a file name with one of these suffixes, or a folder's name.
        images: gray or RGB, of one size.
        seconds: how long each image of an animation is shown.

    Raises:
        FramesError: the suffix is another one, or the folder has content.
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
    lossless = path.suffix.lower() == ".webp"  # the writers of other formats do not know this option
    duration = round(seconds * 1000)
    with replacing(path) as partial:
        images[0].save(partial, save_all=True, append_images=images[1:], duration=duration, loop=0, lossless=lossless)


def natural_order(path: Path) -> list[tuple[int, str]]:
    """A key that sorts names in natural order: numbers inside them by their value, so a2.png comes before a10.png."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name.lower())]
