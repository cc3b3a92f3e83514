"""A caller's frames, of whatever kind, -> one checked tensor, and forecasts back to the same kind."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stzoo.errors import FramesError
from stzoo.frames.images import images_to_tensor, read_images, tensor_to_image
from stzoo.frames.layout import find_layout, from_bchw, to_btchw
from stzoo.frames.values import fill_missing, from_units, to_units
from stzoo.spec import ModelSpec

_NUMPY_DTYPES = ("uint8", "uint16", "int8", "int16", "float16", "float32", "float64")


@dataclass(frozen=True)
class Source:
    """What was read, and the way back.

    Attributes:
        past: (B, T, C, H, W) float32 in the spec's units, checked, the last `frames_in` frames or all.
        frame: one future frame (B, C, H, W) in the spec's units -> the caller's kind, dtype and axes.
        collect: a list of such frames -> what the caller calls a sequence.
    """

    past: Tensor
    frame: Callable[[Tensor], Any]
    collect: Callable[[list[Any]], Any]


def read(frames: Any, spec: ModelSpec, stride: int | None, layout: str | None = None, *, whole: bool = False) -> Source:
    """Read NumPy arrays, torch tensors, lists of PIL images, and paths of animations and folders of images.

    Of more frames than the spec reads the last ones are kept, or all of them where `whole` is true.

    Raises:
        FramesError: kind, shape, dtype, range or a missing value; the message says what was expected.
    """
    if isinstance(frames, (str, os.PathLike)):
        if not os.fspath(frames):
            raise FramesError("the path is empty")
        frames = read_images(Path(frames).expanduser())
    kept = slice(None) if whole else slice(-spec.frames_in, None)
    if isinstance(frames, Tensor):
        return _read_tensor(frames, spec, stride, layout, kept)
    if isinstance(frames, np.ndarray):
        return _read_array(frames, spec, stride, layout, kept)
    if isinstance(frames, (list, tuple)) and frames and all(isinstance(f, Image.Image) for f in frames):
        return _read_images(list(frames)[kept], spec, stride)
    what = f"a {type(frames).__name__}"
    if isinstance(frames, (list, tuple)):
        what += f" of {type(frames[0]).__name__}" if frames else " without elements"
    raise FramesError(f"expected a NumPy array, a torch tensor, a list of PIL images or a path, given {what}")


def _read_tensor(frames: Tensor, spec: ModelSpec, stride: int | None, layout: str | None, kept: slice) -> Source:
    if frames.layout != torch.strided or frames.is_meta:
        raise FramesError("expected a dense tensor that holds values, given a sparse or a meta one")
    if str(frames.dtype).removeprefix("torch.") not in (*_NUMPY_DTYPES, "bfloat16"):
        raise _unscaled(str(frames.dtype))
    layout = find_layout(tuple(frames.shape), spec, stride, layout)
    past = to_btchw(frames.detach(), layout)[:, kept]
    device, dtype = frames.device, frames.dtype
    return Source(
        # both copies: what the caller does to the frames passed in, or to those handed out, never reaches the model
        fill_missing(to_units(past, spec), spec).clone(),
        lambda frame: from_bchw(from_units(frame, spec, dtype), layout).to(device, copy=True),
        lambda collected: torch.stack(collected, layout.index("T")),
    )


def _read_array(frames: np.ndarray, spec: ModelSpec, stride: int | None, layout: str | None, kept: slice) -> Source:
    if frames.dtype.name not in _NUMPY_DTYPES:
        raise _unscaled(frames.dtype.name)
    layout = find_layout(frames.shape, spec, stride, layout)
    time = layout.index("T")
    last = _unmasked(frames[(slice(None),) * time + (kept,)])
    source = _read_tensor(
        torch.from_numpy(last.astype(last.dtype.newbyteorder("="))), spec, stride, layout, slice(None)
    )
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


def _read_images(images: list[Image.Image], spec: ModelSpec, stride: int | None) -> Source:
    source = _read_tensor(images_to_tensor(images, spec), spec, stride, "TCHW", slice(None))
    return Source(source.past, lambda frame: tensor_to_image(source.frame(frame)), list)


def _unscaled(dtype: str) -> FramesError:
    return FramesError(
        f"expected {', '.join(_NUMPY_DTYPES)}, given {dtype}, which has no agreed scale; "
        "convert to uint8 (0 to 255) or to floats in the model's range"
    )
