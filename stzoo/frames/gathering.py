"""Past frames that an iterator yields one by one -> the last of them as one array, one tensor or a list of images."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stzoo.errors import FramesError


def gathered(frames: Iterator[Any], every: int, last: int | None) -> Any:
    """Read an iterator to its end, and keep only what is needed of it, so that memory does not grow with its length.

    Args:
        frames: yields NumPy arrays or torch tensors, (H, W), (C, H, W) or (H, W, C), or PIL images.
        every: only the frames 0, every, 2 * every, ... count.
        last: how many of these are kept, counted from the end; None keeps all.

    Returns:
        An array or a tensor with an axis of time before the others, or a list of PIL images.

    Raises:
        FramesError: there are none, or one is something else, or differs from the first in kind, shape or dtype.
    """
    kept: deque[Any] = deque(maxlen=last)
    first: Any = None
    for number, frame in enumerate(islice(frames, 0, None, every)):
        if not isinstance(frame, np.ndarray | Tensor | Image.Image):
            raise FramesError(
                f"frame {number * every} that the iterator yields is a {type(frame).__name__}; it must be a NumPy "
                "array, a torch tensor or a PIL image"
            )
        first = frame if first is None else first
        if _form(frame) != _form(first):
            raise FramesError(
                f"frame {number * every} that the iterator yields is {_shown(frame)}, but frame 0 is {_shown(first)}; "
                "yield frames of one kind and size"
            )
        kept.append(_copied(frame))
    if first is None:
        raise FramesError("the iterator yields no frame; it may have been read to its end before")
    if isinstance(first, Image.Image):
        return list(kept)
    if isinstance(first, Tensor):
        return torch.stack(tuple(kept))
    masked = any(isinstance(frame, np.ma.MaskedArray) for frame in kept)
    return np.ma.stack(tuple(kept)) if masked else np.stack(kept)  # the latter would show what is masked


def _copied(frame: Any) -> Any:
    """The frame, in memory of its own: readers of videos write each frame to where the one before it was."""
    if isinstance(frame, Tensor):
        return frame.detach().clone()
    return frame.copy()


def _form(frame: Any) -> tuple[Any, ...]:
    if isinstance(frame, Image.Image):
        return ("image",)  # whose sizes the reader of images compares
    return (isinstance(frame, Tensor), tuple(frame.shape), frame.dtype)


def _shown(frame: Any) -> str:
    if isinstance(frame, Image.Image):
        return "a PIL image"
    what = "a torch tensor" if isinstance(frame, Tensor) else "a NumPy array"
    return f"{what} {tuple(frame.shape)} of {str(frame.dtype).removeprefix('torch.')}"
