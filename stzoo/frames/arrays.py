"""NumPy arrays and torch tensors, in memory or in ``.npy`` and ``.npz`` files, <-> frames.

Every other kind of frames becomes an array on its way, so what all readers take and return stands here as well:
`FrameSelection` and `CallerFrames`.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stzoo.errors import FramesError, printable
from stzoo.files import replacing
from stzoo.frames.colour import as_it_is, to_channels
from stzoo.frames.layout import find_layout, from_bchw, to_btchw
from stzoo.frames.options import ReadingOptions
from stzoo.frames.order import is_hidden
from stzoo.frames.rain import RainUnit, is_rain, warn_of_rates
from stzoo.frames.values import check_integers, fill_missing, from_units, to_units
from stzoo.spec import ModelSpec, shown

if TYPE_CHECKING:
    import xarray as xr

ARRAYS = (".npy", ".npz")
MAX_UNPACKED = 2**30  # bytes of an array in a .npz file, which must be unpacked whole; a .npy file is mapped instead
_MOST_ARRAYS = 1000  # arrays that a .npz file may hold; the header of each is read
_NPY = b"\x93NUMPY"  # how a .npy file begins
_DTYPES = ("uint8", "uint16", "int8", "int16", "float16", "float32", "float64")
_WIDE = ("int32", "int64")  # of numbers in a unit alone; nothing says what their largest value would stand for


@dataclass(frozen=True)
class CallerFrames:
    """The frames that a caller passed, as the model reads them, and the way back to the caller's kind.

    It serves one forecast: `frame` takes the future frames in order, because it continues the caller's times.

    Attributes:
        past: (B, T, C, H, W) float32 in the spec's units, checked.
        frame: takes the next future frame (B, C, H, W) in the spec's units; returns it in the caller's kind, dtype and
            axes (without the time axis).
        collect: takes such frames one after the other, and how many will come; returns them as one sequence of the
            caller's kind. Beside it no more than one frame is in memory, where that kind allows it.
        returned: (H, W) of the frames that `frame` returns; None if it is that of `past`.
        observed: (B, T, 1, H, W) booleans, true where `past` was observed and false where it was filled. None if
            all of it was, or nothing tells.
        keeps: whether a forecast is to have NaN where nothing was observed, if `observed` is given.
        unit: the unit of rain that `frame` returns; None if it is the spec's, or none of rain.
        issued: the date of the last past frame, with the name of its coordinate; None if the frames have no dates.
        as_given: brings frames (B, C, H, W) of the model, of any H and W, to the channels and clips of the caller.
    """

    past: Tensor
    frame: Callable[[Tensor], Any]
    collect: Callable[[Iterable[Any], int], Any]
    returned: tuple[int, int] | None = None
    observed: Tensor | None = None
    keeps: bool = True
    unit: RainUnit | None = None
    issued: xr.DataArray | None = None
    as_given: Callable[[Tensor], Tensor] = as_it_is

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what `frame` returns for each of the B clips."""
        channels, height, width = self.past.shape[2:]
        return (channels, *(self.returned or (height, width)))

    def part(self, which: slice) -> CallerFrames:
        """The same with some of the past frames."""
        observed = None if self.observed is None else self.observed[:, which]
        return replace(self, past=self.past[:, which], observed=observed)


@dataclass(frozen=True)
class FrameSelection:
    """Which of the given frames a model reads, and what they must be like.

    Attributes:
        spec: the spec of the model.
        stride: what the model's height and width must be multiples of, to which the engine pads frames of any size;
            None if the model takes no other size than the spec's.
        last: how many frames are read, counted from the end; None reads all.
        options: how the caller wants them to be read; `last` counts among the frames that `options.every` leaves, and
            from `options.start` on if there is one.
        progress: show a bar while a video is read.
        exact: frames must have the spec's channels and sides that `stride` divides. Pictures become gray or RGB as the
            spec says.
        unit: of a model of rain, the unit of the numbers; None if they are in the spec's units, or stand for its range.
    """

    spec: ModelSpec
    stride: int | None
    last: int | None
    options: ReadingOptions
    progress: bool = False
    exact: bool = False
    unit: RainUnit | None = None

    def layout_of(self, shape: tuple[int, ...], layout: str | None, *, alpha: bool = False) -> str:
        """The axes of an array of this shape, see `find_layout`. Raises `FramesError` if none fit, or two do."""
        stride = 1 if self.options.resize else self.stride
        return find_layout(shape, self.spec, stride, layout, alpha=alpha, exact=self.exact)

    def slice_of(self, total: int) -> slice:
        """The slice of `total` frames that is read.

        Raises:
            FramesError: `every` leaves fewer frames than the model reads, or `start` or `fps` is given.
        """
        options = self.options
        if options.start is not None or options.fps is not None:
            name = "fps" if options.start is None else "start"
            raise FramesError(f"{name} is for the files of videos, animations and images; select the frames yourself")
        which = range(0, total, options.every)
        if options.every > 1 and len(which) < self.spec.frames_in:
            raise FramesError(
                f"every={options.every} leaves {len(which)} of {total} frames; the model reads {self.spec.frames_in}, "
                "so give a longer sequence or a smaller `every`"
            )
        which = which if self.last is None else which[-self.last :]
        return slice(which.start, which.stop, which.step)

    def already_selected(self) -> FrameSelection:
        """The same demands on frames that this selection was applied to already: all of them are read."""
        return replace(self, last=None, options=replace(self.options, every=1, start=None, fps=None))


def read_tensor(frames: Tensor, selection: FrameSelection, layout: str | None) -> CallerFrames:
    """A tensor of three to five axes -> `CallerFrames` that answer with tensors on the same device.

    Args:
        frames: numbers in `selection.unit`, if there is one. Otherwise integers are scaled from 0 and the largest value
            of their dtype (or of `options.bits`), and floats are in the spec's units.
        selection: which frames are read.
        layout: the axes, such as "TCHW"; None finds them out.

    Raises:
        FramesError: the shape, dtype or range does not fit the spec, or a value is missing.
    """
    if frames.layout != torch.strided or frames.is_meta:
        raise FramesError("expected a dense tensor that holds values, given a sparse tensor or one on the meta device")
    spec, options, bits, unit = selection.spec, selection.options, selection.options.bits, selection.unit
    if str(frames.dtype).removeprefix("torch.") not in (*_DTYPES, "bfloat16", *(_WIDE if unit else ())):
        raise _unscaled(str(frames.dtype))
    layout = selection.layout_of(tuple(frames.shape), layout, alpha=frames.dtype == torch.uint8)
    past = to_btchw(frames.detach(), layout)
    past = past[:, selection.slice_of(past.shape[1])]
    check_integers(past, spec, bits, unit)
    device, dtype = frames.device, frames.dtype
    given = to_units(past, spec, bits, unit)
    # integers hold no NaN, neither here nor in a forecast
    tells = is_rain(spec.value_range) and dtype.is_floating_point
    observed = ~given.isnan().any(2, keepdim=True) if tells else None
    if tells and unit is None:
        warn_of_rates(given)
    past, as_given = to_channels(fill_missing(given, spec), spec, options.color)
    if observed is not None:  # of each channel that is a clip of its own
        observed = observed.repeat_interleave(len(past) // len(observed), 0)
    if options.resize and past.shape[-2:] != (spec.height, spec.width):
        past = _resized(past, (spec.height, spec.width))
        observed = None if observed is None else _resized(observed.float(), (spec.height, spec.width)) > 0.5
    return CallerFrames(
        # two copies, so that nothing the caller does to the frames passed in or handed out reaches the model
        past.clone(),
        lambda frame: from_bchw(from_units(as_given(frame), spec, dtype, bits, unit), layout).to(device, copy=True),
        lambda coming, count: _stacked(coming, count, layout.index("T"), Tensor.new_empty),
        observed=observed,
        keeps=options.missing == "keep",
        unit=unit,
        as_given=as_given,
    )


def _stacked(coming: Iterable[Any], count: int, axis: int, empty: Callable[[Any, tuple[int, ...]], Any]) -> Any:
    """`count` arrays or tensors of one shape along a new axis; each goes to its place as it comes.

    Args:
        coming: `count` of them, at least one.
        count: how many there are.
        axis: the place of the new axis.
        empty: makes what holds them all, from the first of them and the shape.
    """
    whole: Any = None
    for number, frame in enumerate(coming):
        if whole is None:
            whole = empty(frame, (*frame.shape[:axis], count, *frame.shape[axis:]))
        whole[(slice(None),) * axis + (number,)] = frame
    return whole


def _resized(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, T, C, H, W) -> (B, T, C, *size), bilinearly and without aliasing."""
    some = F.interpolate(frames.flatten(0, 1), size, mode="bilinear", antialias=True)
    return some.unflatten(0, frames.shape[:2])


def read_array(frames: np.ndarray, selection: FrameSelection, layout: str | None) -> CallerFrames:
    """As `read_tensor`, for NumPy arrays. If the array is mapped from a file, only the selected frames are read.

    Raises:
        FramesError: the shape, dtype or range does not fit the spec, or a value is missing.
    """
    if frames.dtype.name not in (*_DTYPES, *(_WIDE if selection.unit else ())):
        raise _unscaled(frames.dtype.name)
    layout = selection.layout_of(frames.shape, layout, alpha=frames.dtype == np.uint8)
    time = layout.index("T")
    last = _unmasked(frames[(slice(None),) * time + (selection.slice_of(frames.shape[time]),)])
    native = torch.from_numpy(last.astype(last.dtype.newbyteorder("=")))
    given = read_tensor(native, selection.already_selected(), layout)
    return replace(
        given,
        frame=lambda frame: given.frame(frame).numpy().astype(frames.dtype, copy=False),
        collect=lambda coming, count: _stacked(coming, count, time, lambda frame, shape: np.empty(shape, frame.dtype)),
    )


def _unmasked(frames: np.ndarray) -> np.ndarray:
    """A plain array: what a masked array hides becomes NaN, which the spec may fill. Integers have no such value."""
    if not isinstance(frames, np.ma.MaskedArray):
        return frames
    if np.ma.is_masked(frames) and not np.issubdtype(frames.dtype, np.floating):
        raise FramesError(f"there are masked values among {frames.dtype.name} frames; fill them, or pass floats")
    return frames.filled(np.nan) if np.ma.is_masked(frames) else frames.data


def _unscaled(dtype: str) -> FramesError:
    return FramesError(
        f"expected {', '.join(_DTYPES)}, given {dtype}, which has no agreed scale; "
        "convert to uint8 (0 to 255) or to floats in the model's range"
    )


def open_array(path: Path, *, named: str | None = None, most: int = MAX_UNPACKED) -> np.ndarray:
    """The array of a ``.npy`` file, mapped from it, or of a ``.npz`` file, read into memory.

    Args:
        path: of the file.
        named: which array of a ``.npz`` file is taken; None takes the one named `frames`, or else the only one that can
            be frames.
        most: bytes that an array of a ``.npz`` file may have.

    Raises:
        FramesError: the file does not exist, is damaged or holds pickled objects, or several arrays may be meant.
    """
    if not path.is_file():
        raise FramesError(f"{path} {'is no file' if path.exists() else 'does not exist'}")
    zipped = path.suffix.lower() == ".npz"
    try:
        _check_kind(path, zipped)
        if not zipped:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        with np.load(path, allow_pickle=False) as file:
            if named is not None and named not in file.files:
                raise FramesError(f"{path} has no array {named!r}")
            return _only(file, most, named)
    except FramesError:
        raise
    except Exception as error:  # NumPy and zipfile raise errors of many kinds on damaged bytes
        raise FramesError(f"{path} is damaged or no array file: {_reason(error)}") from error


def _check_kind(path: Path, zipped: bool) -> None:
    """Check that a file is of the kind that its suffix names: NumPy goes by the first bytes alone.

    Raises:
        ValueError: it is not, or it holds something else than plain numbers.
    """
    if not path.stat().st_size:  # also what files of /proc say, some of which cannot be read to their end
        raise ValueError("it is empty")
    with path.open("rb") as file:
        start = file.read(len(_NPY))
        if zipped:
            if start[:2] != b"PK":
                raise ValueError("it is a .npy file, so name it so" if start == _NPY else "it is no zip file of arrays")
            return
        if start != _NPY:
            raise ValueError("it does not begin as a .npy file does")
        file.seek(0)
        header = _header(file)
    if header is not None and header[1].hasobject:
        raise ValueError("it holds Python objects, which are not read; save plain numbers")


def _reason(error: Exception) -> str:
    """What NumPy says, on one line; without its advice to load objects, which could run code."""
    text = printable(str(error))
    if "allow_pickle" in text or "pickle" in text.lower():
        return "it holds Python objects, or no array"
    return text if len(text) <= 300 else f"{text[:300]}..."


def _only(file: np.lib.npyio.NpzFile, most: int, named: str | None) -> np.ndarray:
    """The one array of an open ``.npz`` file that may be frames. Of the other arrays only the headers are read."""
    chosen = named or ("frames" if "frames" in file.files else None)
    names = [name for name in file.files if not _is_hidden_member(name)] if chosen is None else [chosen]
    if len(names) > _MOST_ARRAYS:
        raise FramesError(f"expected one array of frames, or one named frames; there are {len(names)} arrays")
    sizes = {name: size for name in names if (size := _size_of_frames(file, name)) is not None}
    if len(sizes) != 1:
        found = f"several, {_listed(sizes)}" if sizes else f"none among {_listed(file.files) or 'no arrays'}"
        raise FramesError(
            f"expected one array of frames, or one named frames; there are {found}: load the right one with "
            "numpy.load, and pass it"
        )
    ((name, size),) = sizes.items()
    if size > most:
        raise FramesError(
            f"{shown(name)} unpacks to {size:,} bytes, more than {most:,}; save it as a .npy file, of which "
            "only the part that is needed is read"
        )
    return file[name]


def _is_hidden_member(name: str) -> bool:
    """Whether a member of a zip file is no array but what a system keeps beside one, such as __MACOSX/._a.npy."""
    return any(map(is_hidden, name.split("/")))


def _listed(names: Iterable[str]) -> str:
    return shown(", ".join(names), 300).strip("'")


def _size_of_frames(file: np.lib.npyio.NpzFile, name: str) -> int | None:
    """How many bytes the array unpacks to, by its header; None if it cannot be frames, or is no array."""
    packed = file.zip
    assert packed is not None
    record = packed.getinfo(name if name in packed.NameToInfo else f"{name}.npy")
    if record.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a bound
        raise FramesError(f"{shown(name)} is packed in a way that NumPy does not write; save it with numpy.savez")
    with packed.open(record) as member:
        header = _header(member)
    if header is None:
        return None
    shape, dtype = header
    return math.prod(shape) * dtype.itemsize if dtype.kind in "uif" and 3 <= len(shape) <= 5 else None


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype] | None:
    """The shape and dtype that an open ``.npy`` file states; None for a version that only structured arrays need."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        return None
    shape, _, dtype = _HEADERS[version](file)
    return shape, dtype


_HEADERS: Mapping[tuple[int, int], Callable[[Any], tuple[tuple[int, ...], bool, np.dtype]]] = MappingProxyType(
    {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a ``.npy`` file, or a ``.npz`` file in which the array is named `frames`.

    Raises:
        FramesError: the array holds Python objects, which NumPy would pickle.
    """
    if array.dtype.hasobject:
        raise FramesError(f"cannot write {path.name}: {array.dtype} is no dtype of frames")
    with replacing(path) as partial, partial.open("wb") as file:
        if path.suffix.lower() == ".npy":
            np.save(file, array, allow_pickle=False)
        else:
            np.savez_compressed(file, frames=array)
