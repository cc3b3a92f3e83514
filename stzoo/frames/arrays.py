"""NumPy arrays and torch tensors, in memory or in ``.npy`` and ``.npz`` files, <-> frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stzoo.errors import FramesError
from stzoo.files import replacing
from stzoo.frames.layout import find_layout, from_bchw, to_btchw
from stzoo.frames.values import fill_missing, from_units, to_units
from stzoo.spec import ModelSpec, shown

ARRAYS = (".npy", ".npz")
MAX_UNPACKED = 2**30  # bytes of an array in a .npz file, which has to be unpacked whole; one in a .npy file is mapped
_MOST_ARRAYS = 1000  # of a .npz file
_DTYPES = ("uint8", "uint16", "int8", "int16", "float16", "float32", "float64")


@dataclass(frozen=True)
class Source:
    """What was read, and the way back. It serves one forecast.

    Attributes:
        past: (B, T, C, H, W) float32 in the spec's units, checked.
        frame: the next future frame (B, C, H, W) in the spec's units -> the caller's kind, dtype and axes.
        collect: a list of such frames -> what the caller calls a sequence.
    """

    past: Tensor
    frame: Callable[[Tensor], Any]
    collect: Callable[[list[Any]], Any]


@dataclass(frozen=True)
class Wanted:
    """What a model reads of the frames it is given.

    Attributes:
        spec: the model's.
        stride: what height and width must be multiples of; None: they must be the spec's.
        last: how many frames, counted from the end; None: all.
        every: one frame of so many, counted from the first: 0, every, 2 * every, ...
    """

    spec: ModelSpec
    stride: int | None
    last: int | None
    every: int

    def of(self, total: int) -> slice:
        """Which of `total` frames. Raises `FramesError` where `every` leaves fewer than the model reads."""
        which = range(0, total, self.every)
        if self.every > 1 and len(which) < self.spec.frames_in:
            raise FramesError(
                f"every={self.every} leaves {len(which)} of {total} frames; the model reads {self.spec.frames_in}"
            )
        which = which if self.last is None else which[-self.last :]
        return slice(which.start, which.stop, which.step)

    def taken(self) -> Wanted:
        """The same, of frames that were picked already."""
        return replace(self, last=None, every=1)


def read_tensor(frames: Tensor, wanted: Wanted, layout: str | None) -> Source:
    """Raises `FramesError`: shape, dtype, range or a missing value."""
    if frames.layout != torch.strided or frames.is_meta:
        raise FramesError("expected a dense tensor that holds values, given a sparse or a meta one")
    if str(frames.dtype).removeprefix("torch.") not in (*_DTYPES, "bfloat16"):
        raise _unscaled(str(frames.dtype))
    spec = wanted.spec
    layout = find_layout(tuple(frames.shape), spec, wanted.stride, layout)
    past = to_btchw(frames.detach(), layout)
    past = past[:, wanted.of(past.shape[1])]
    device, dtype = frames.device, frames.dtype
    return Source(
        # both copies: what the caller does to the frames passed in, or to those handed out, never reaches the model
        fill_missing(to_units(past, spec), spec).clone(),
        lambda frame: from_bchw(from_units(frame, spec, dtype), layout).to(device, copy=True),
        lambda collected: torch.stack(collected, layout.index("T")),
    )


def read_array(frames: np.ndarray, wanted: Wanted, layout: str | None) -> Source:
    """Of an array that is mapped from a file, no more than the wanted frames are read. Raises `FramesError`."""
    if frames.dtype.name not in _DTYPES:
        raise _unscaled(frames.dtype.name)
    layout = find_layout(frames.shape, wanted.spec, wanted.stride, layout)
    time = layout.index("T")
    last = _unmasked(frames[(slice(None),) * time + (wanted.of(frames.shape[time]),)])
    source = read_tensor(torch.from_numpy(last.astype(last.dtype.newbyteorder("="))), wanted.taken(), layout)
    return Source(
        source.past,
        lambda frame: source.frame(frame).numpy().astype(frames.dtype, copy=False),
        lambda collected: np.stack(collected, time).astype(frames.dtype, copy=False),  # stacking loses a byte order
    )


def _unmasked(frames: np.ndarray) -> np.ndarray:
    """What a masked array hides is missing: NaN among floats, which the spec may fill; integers have no such value."""
    if not isinstance(frames, np.ma.MaskedArray):
        return frames
    if np.ma.is_masked(frames) and not np.issubdtype(frames.dtype, np.floating):
        raise FramesError(f"masked values among {frames.dtype.name} frames; fill them, or pass floats")
    return frames.filled(np.nan) if np.ma.is_masked(frames) else frames.data


def _unscaled(dtype: str) -> FramesError:
    return FramesError(
        f"expected {', '.join(_DTYPES)}, given {dtype}, which has no agreed scale; "
        "convert to uint8 (0 to 255) or to floats in the model's range"
    )


def open_array(path: Path) -> np.ndarray:
    """The array of a ``.npy`` file, mapped; or of a ``.npz`` file, in memory: `frames`, or the only one that may be it.

    Whatever NumPy and zipfile raise on bytes that nobody has checked (it is of many kinds), the file is damaged.

    Raises:
        FramesError: no such file, a damaged one, one of pickled objects, or several arrays that may be meant.
    """
    if not path.is_file():
        raise FramesError(f"{path} {'is no file' if path.exists() else 'does not exist'}")
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        with np.load(path, allow_pickle=False) as file:
            return _only(file)
    except FramesError:
        raise
    except Exception as error:
        raise FramesError(f"{path} is damaged or no array file: {error}") from error


def _only(file: Any) -> np.ndarray:
    """Of an open ``.npz`` file. Only the array that is returned is unpacked: of the others the headers are read."""
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise ValueError("not a zip file of arrays")
    names = ["frames"] if "frames" in file.files else file.files
    if len(names) > _MOST_ARRAYS:
        raise FramesError(f"expected one array of frames, or one named frames; there are {len(names)} arrays")
    sizes = {name: size for name in names if (size := _size_of_frames(file, name)) is not None}
    if len(sizes) != 1:
        found = f"several, {_listed(sizes)}" if sizes else f"none among {_listed(file.files) or 'no arrays'}"
        raise FramesError(f"expected one array of frames, or one named frames; there are {found}: load it, and pass it")
    ((name, size),) = sizes.items()
    if size > MAX_UNPACKED:
        raise FramesError(
            f"{shown(name)} unpacks to {size:,} bytes, more than {MAX_UNPACKED:,}; save it as a .npy file, of which no "
            "more is read than is needed"
        )
    return file[name]


def _listed(names: Iterable[str]) -> str:
    return shown(", ".join(names), 300).strip("'")


def _size_of_frames(file: np.lib.npyio.NpzFile, name: str) -> int | None:
    """Bytes that the array unpacks to, as its header says; None where it cannot be frames, or is no array."""
    packed = file.zip
    assert packed is not None
    with packed.open(name if name in packed.NameToInfo else f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        if version not in _HEADERS:  # of which only structured arrays have need
            return None
        shape, _, dtype = _HEADERS[version](member)
    return math.prod(shape) * dtype.itemsize if dtype.kind in "uif" and 3 <= len(shape) <= 5 else None


_HEADERS: Mapping[tuple[int, int], Callable[[Any], tuple[tuple[int, ...], bool, np.dtype]]] = MappingProxyType(
    {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
)


def write_array(path: Path, array: np.ndarray) -> None:
    """A ``.npy`` file, or a ``.npz`` file in which the array is named `frames`. Raises `FramesError` for objects."""
    if array.dtype.hasobject:  # NumPy would pickle them
        raise FramesError(f"cannot write {path.name}: {array.dtype} is no dtype of frames")
    with replacing(path) as partial, partial.open("wb") as file:
        if path.suffix.lower() == ".npy":
            np.save(file, array, allow_pickle=False)
        else:
            np.savez_compressed(file, frames=array)
