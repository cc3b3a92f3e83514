"""PIL images, animated GIF/PNG/WebP files, TIFF files of several pages and folders of images <-> frames."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import count, islice
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from stzoo.errors import FramesError, printable
from stzoo.files import replacing
from stzoo.frames.clock import even_clock, warn_of_uneven
from stzoo.frames.delays import Timing, timing
from stzoo.frames.layout import check_pixels
from stzoo.frames.order import frame_name, in_order, is_hidden

_MODES = {1: "L", 3: "RGB"}
_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV")
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")  # gray
_WRITERS: Mapping[str, str] = MappingProxyType({".gif": "GIF", ".png": "PNG", ".apng": "PNG", ".webp": "WEBP"})
ANIMATED = tuple(_WRITERS)
STILL = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
PAGED = (".tif", ".tiff")  # a file may hold one image, or several in order
MAX_FRAMES, MAX_ANIMATION_PIXELS = 2**16, 2**30  # of one animation, which is always decoded from its start
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")  # not all that Pillow knows: for one it runs Ghostscript
_KEPT_PIXELS = 2**24  # of frames kept in memory until it is known which of them are wanted
_ORIENTATION, _SUBFILE = 0x112, 0xFE  # tags of EXIF and TIFF
_UPRIGHT: Mapping[int, Image.Transpose] = MappingProxyType(  # what undoes each orientation of EXIF; 1 is upright
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)


def as_shown(image: Image.Image) -> Image.Image:
    """The image as a viewer shows it: turned as its EXIF orientation asks, and on black where it is transparent.

    Pillow may raise errors of many kinds if the image's file is damaged.
    """
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    if _see_through(image):
        colours = image.convert("RGBA")
        alpha = colours.getchannel("A")
        if alpha.getextrema()[0] != 255:
            gray = image.mode in ("L", "LA", "La")
            image = Image.new("RGB", image.size)
            image.paste(colours, mask=alpha)
            image = image.convert("L") if gray else image
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> Any:
    """Which side is up, as EXIF says; None if it says nothing, or is damaged, in which case viewers ignore it."""
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # Pillow's of any kind
        return None


def _see_through(image: Image.Image) -> bool:
    """Whether the image may have transparent parts; what else a file calls "transparency" is only a word in it."""
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        return True
    return image.mode in ("1", "L", "P", "RGB") and isinstance(image.info.get("transparency"), (int, bytes, tuple))


def given_images(images: Sequence[Image.Image], which: slice, needed: int) -> list[Image.Image]:
    """Those of a caller's images that `which` selects, as viewers show them.

    Args:
        images: all that the caller gave.
        which: those that are read.
        needed: of these the model needs so many, the last ones.

    Raises:
        FramesError: one image object stands for all frames, or for all that the model needs; or an image has no pixels
            or cannot be read.
    """
    for some in (images, images[which][-needed:]):
        if len(some) > 1 and all(image is some[0] for image in some):
            whose = "" if some is images else "that are read "
            raise FramesError(
                f"the {len(some)} frames {whose}are one and the same image object, so nothing moves; if they come from "
                "an animation, copy each frame as you read it (image.copy()), or pass the path of its file"
            )
    for image in images[which]:
        if 0 in image.size:
            raise FramesError(f"an image has {image.width}x{image.height} pixels, so there is nothing to see in it")
    try:
        return [as_shown(image) for image in images[which]]
    except Exception as error:  # an image that the caller opened is read from its file only now
        raise FramesError(f"an image cannot be read: {printable(str(error))}") from error


def fit(image: Image.Image, channels: int, height: int, width: int) -> np.ndarray:
    """An image -> (C, H, W) uint8, gray or RGB, of the given size.

    Args:
        image: any 8-bit image.
        channels: 1 for gray, 3 for RGB.
        height, width: of the result, in pixels.

    Raises:
        FramesError: the image has more than 8 bits a value, or its file cannot be read.
    """
    if image.mode in SIXTEEN_BIT:
        raise _unscaled(image, "save its values as an array of floats in the model's range instead")
    return pixels(resized(image, channels, height, width), channels)


def pixels(image: Image.Image, channels: int) -> np.ndarray:
    """What `resized` returned -> (C, H, W) uint8 or uint16; a gray one is repeated in each channel."""
    array = np.asarray(image)
    if array.ndim == 2:
        return array[None].repeat(channels, 0)
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def resized(image: Image.Image, channels: int, height: int, width: int) -> Image.Image:
    """The image in gray (1 channel) or RGB (3 channels), resized bilinearly and without aliasing.

    An image of 16 bits, which is gray, stays so, whatever the number of channels.

    Raises:
        FramesError: the image has whole numbers of 32 bits or floats, or its file cannot be read.
    """
    deep = image.mode in SIXTEEN_BIT
    if not deep and image.mode not in _EIGHT_BIT:
        raise _unscaled(image, "pass its values as an array instead")
    try:
        if not deep:
            return image.convert(_MODES[channels]).resize((width, height), Image.Resampling.BILINEAR)
        native = image if image.mode == "I;16" else Image.fromarray(np.asarray(image).astype(np.uint16))
        return native.resize((width, height), Image.Resampling.BILINEAR)
    except (
        OSError,
        ValueError,
        TypeError,
        SyntaxError,
    ) as error:  # an image that the caller opened is read from its file only now
        raise FramesError(f"an image cannot be read: {printable(str(error))}") from error


def _unscaled(image: Image.Image, remedy: str) -> FramesError:
    return FramesError(f"an image has mode {image.mode}, which has no 8-bit scale; {remedy}")


def tensor_to_image(frame: Tensor) -> Image.Image:
    """(C, H, W) with one or three channels -> an image: gray or RGB of uint8; of uint16 always gray, with 16 bits."""
    array = frame.permute(1, 2, 0).cpu().numpy()
    if array.dtype == np.uint16 and array.shape[2] == 3:
        array = np.rint(array.mean(2, keepdims=True)).astype(np.uint16)
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def eight_bit(image: Image.Image) -> Image.Image:
    """The image, with 8 bits a value: white stays white."""
    if image.mode not in SIXTEEN_BIT:
        return image
    return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))


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
    """The frames of an animated GIF, PNG or WebP, the pages of a TIFF, or the images of a folder, as viewers show them.

    The images of a folder are in the order of `stzoo.frames.order.in_order`, and the `info` of each has the `name` of
    its file; hidden files are left out. At most one image is decoded at a time; small animations may be kept in memory
    as a whole.

    Args:
        path: an animation, a still image, or a folder of still images.
        every: only the frames 0, every, 2 * every, ... are yielded.
        last: only this many of them, counted from the end, are yielded; None yields all.

    Raises:
        FramesError: there is nothing at `path`, no image in it, a damaged file, or a file that claims an absurd size;
            or a frame is in the folder twice. The message names the file.
    """
    if not path.is_dir():
        yield from played(path, every, last)
        return
    files = _images_of(path)
    for number in _kept(range(len(files)), every, last):
        file = files[number]
        first, *more = islice(_stored(file), 2 if file.suffix.lower() in PAGED else 1)
        if more:
            raise FramesError(
                f"{file} holds several images, each of which is a frame; give the path of this file alone"
            )
        first[0].info["name"] = printable(file.name)
        yield first[0]


def _images_of(folder: Path) -> list[Path]:
    """The images of a folder, in order."""
    shown = [path for path in folder.iterdir() if not is_hidden(path.name)]
    files = in_order(path for path in shown if path.suffix.lower() in STILL)
    if not files:
        few = ", ".join(path.name for path in in_order(shown)[:3]) + ", ..." * (len(shown) > 3)
        holds = f", but {printable(few)}; forecast one of these, or each of them with stzoo forecast-archive"
        raise FramesError(f"{folder} holds no images ({', '.join(STILL)}){holds if shown else ''}")
    by_name: dict[str, Path] = {}
    for file in files:
        twin = by_name.setdefault(frame_name(file), file)
        if twin is not file:
            raise FramesError(f"{folder} holds a frame twice, as {twin.name} and as {file.name}; remove one of them")
    return files


def holds_pages(path: Path) -> bool:
    """Whether a TIFF file holds several frames; False if it cannot be read."""
    if not path.is_file():  # a pipe would block
        return False
    try:
        with Image.open(path, formats=["TIFF"]) as file:
            pages = 0
            for number in count():
                file.seek(number)
                pages += _is_frame(file)
                if pages > 1:
                    return True
    except Exception:  # no more pages, or what Pillow raises of damaged bytes
        pass
    return False


def _is_frame(file: Image.Image) -> bool:
    """Whether the image at which an open file stands is a frame of what it shows.

    An animated PNG may have a cover for viewers that show no animations; a TIFF may hold smaller copies and masks.
    """
    if getattr(file, "default_image", False) is True:
        return file.tell() > 0
    return file.tell() == 0 or not getattr(file, "tag_v2", {}).get(_SUBFILE, 0) & 0b101


def _kept(numbers: range, every: int, last: int | None) -> range:
    """The last `last` of each `every`-th number."""
    every_kth = numbers[::every]
    return every_kth if last is None else every_kth[-last:]


def played(
    path: Path, every: int = 1, last: int | None = None, start: float | None = None, fps: float | None = None
) -> Iterator[Image.Image]:
    """The frames of one animation at equal intervals; one that is shown for long comes several times.

    Which images are wanted is known only at the end. If they are few and small, they are kept on the way; otherwise the
    file is decoded a second time.

    Args:
        path: the animation, or the file of pages or of a single image, which says no times.
        every, last, start, fps: as in `stzoo.frames.moving.moving_pictures`.
    """
    delays: list[float] = []
    kept: deque[Image.Image] = deque(maxlen=0)
    for image, delay in _stored(path):
        if not delays and last is not None and last * every * image.width * image.height <= _KEPT_PIXELS:
            kept = deque(maxlen=last * every)
        delays.append(delay)
        kept.append(image)
    try:
        numbers = _wanted(path, delays, every, last, start, fps)
    except FramesError as error:
        raise FramesError(f"{path}: {error}") from error
    wanted = Counter(numbers)
    first = len(delays) - len(kept)
    enough = bool(kept) and min(numbers, default=0) >= first
    again = enumerate(kept, first) if enough else enumerate(each for each, _ in _stored(path))
    for number, image in again:
        for _ in range(wanted[number]):
            yield image


def _wanted(
    path: Path, delays: list[float], every: int, last: int | None, start: float | None, fps: float | None
) -> list[int]:
    """The numbers of the images that `played` yields, in order, some of them several times."""
    found = timing(delays)
    if found is None:
        if start is not None and fps is None:
            raise FramesError("it does not say when its images are shown; say how many make a second: fps (--fps)")
        once = np.arange(len(delays) + 1)
        found = Timing(even_clock(None if fps is None else Fraction(str(fps)), len(delays)), once)
    clock = found.clock
    simple = clock.even and start is None and fps is None
    count = len(range(0, clock.count, every)) if simple else round(clock.seconds / float(clock.interval(every, fps)))
    if count > MAX_FRAMES and (last is None or not simple):
        raise FramesError(
            f"its {len(delays)} frames last for {count} of the shortest, too many to read; "
            "save it with frames of equal duration"
        )
    if simple:
        chosen = _kept(range(clock.count), every, last)
        numbers: list[int] = (np.searchsorted(found.starts, chosen, side="right") - 1).tolist()
        return numbers
    warn_of_uneven(path, clock, fps)
    seen = clock.seen(found.shown(), every, start, fps)
    return list(deque(seen, maxlen=last) if start is None else islice(seen, last))


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
        # opened here, not by its name: Pillow would map a TIFF into memory, and scramble one that EXIF turns
        with path.open("rb") as content, Image.open(content, formats=_FORMATS) as file:
            for number in range(MAX_FRAMES + 1):
                try:
                    file.seek(number)
                except EOFError:
                    if not pixels:
                        raise
                    return
                if not _is_frame(file):
                    continue
                check_pixels(file.width, file.height)
                pixels += file.width * file.height
                if number == MAX_FRAMES or pixels > MAX_ANIMATION_PIXELS:
                    raise FramesError(
                        f"an animation of more than {MAX_FRAMES:,} frames or {MAX_ANIMATION_PIXELS:,} pixels; "
                        "make it a video, which may have any length"
                    )
                image = as_shown(file.copy())
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
    found = timing([delay for _, delay in _stored(path)])
    return None if found is None else found.clock.step


def check_folder(path: Path) -> None:
    """Raises `FramesError` if the folder to be written is a file, or has content already."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FramesError(f"{path} exists; name an empty or a new folder")


def write_images(path: Path, images: list[Image.Image], seconds: float = 0.1) -> None:
    """Write an animation (``.gif``, ``.png``, ``.webp``) or, if `path` has no suffix, a folder of numbered PNGs.

    A folder keeps every value, of 16 bits too; animations have 8 bits. PNG and WebP keep these; GIF keeps those of gray
    frames, and has 256 colours for others.

    Args:
        path: a file name with one of these suffixes, or a folder's name.
        images: gray or RGB, of one size.
        seconds: how long each image of an animation is shown. A GIF counts in hundredths of a second, and shows an
            image for at least two: players take less for a mistake.

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
    with replacing(path) as partial, partial.open("wb") as file:
        save_animation(file, path.suffix.lower(), images, seconds)


def save_animation(file: IO[bytes], suffix: str, images: list[Image.Image], seconds: float) -> None:
    """Write the bytes of an animation in the format of this suffix, one of `ANIMATED`, as `write_images` does."""
    lossless = suffix == ".webp"  # the writers of other formats do not know this option
    duration = 10 * max(2, round(seconds * 100)) if suffix == ".gif" else round(seconds * 1000)
    images = [eight_bit(image) for image in images]  # Pillow mistakes the differences of deeper frames
    images[0].save(
        file, _WRITERS[suffix], save_all=True, append_images=images[1:], duration=duration, loop=0, lossless=lossless
    )
