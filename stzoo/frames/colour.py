"""Colour and gray: frames with other channels than a model reads, and the way back.

A model that reads gray forecasts each channel of a colour clip as a clip of its own. A model that reads colour gets
three equal channels of a gray clip, and the mean of the three that it makes is gray again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stzoo.errors import FramesError, warn_caller
from stzoo.spec import ModelSpec

GRAY, RGB, RGBA = 1, 3, 4
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow makes gray of colour
_TOLD = (
    "this model reads gray, and the frames are in colour: each of their three channels is forecast as a clip of its "
    "own; color='gray' (in commands --color gray) makes one gray forecast instead"
)


def check_color(color: str | None) -> None:
    """Raises `FramesError` if `color` is neither None nor "gray"."""
    if color not in (None, "gray"):
        raise FramesError(f"color is {color!r}; it may be 'gray', for one gray forecast, or None")


def can_convert(spec: ModelSpec) -> bool:
    """Can colour and gray stand for each other here? Only for a model of pictures: physical units have no colour."""
    return spec.channels in (GRAY, RGB) and spec.value_range is not None


def convertible(given: int, spec: ModelSpec, alpha: bool) -> bool:
    """Can frames of `given` channels be forecast by a model that reads another number of channels?

    Args:
        given: 1 for gray, 3 for RGB, 4 for RGBA.
        spec: the spec of the model.
        alpha: four channels are RGBA.
    """
    return can_convert(spec) and given in ((GRAY, RGB, RGBA) if alpha else (GRAY, RGB))


def to_channels(past: Tensor, spec: ModelSpec, color: str | None) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Past frames with the channels that the model reads, and what brings its frames back.

    Warns that each channel is forecast as a clip of its own, if that is so.

    Args:
        past: (B, T, C, H, W) in the spec's units. C is `spec.channels`, or 1, 3 or 4 if that is `convertible`; the
            fourth channel, which is alpha, is dropped.
        spec: the spec of the model.
        color: "gray" turns colour into gray first.

    Returns:
        The past (B', T, spec.channels, H, W), where B' is 3 B if each of three channels is a clip of its own, and else
        B; and a function that takes a future frame (B', spec.channels, H, W) and returns (B, C, H, W) with C channels
        as given: 3 for RGBA, 1 if `color` is "gray".
    """
    if past.shape[2] == RGBA != spec.channels:
        past = past[:, :, :RGB]
    if color == "gray" and past.shape[2] == RGB and can_convert(spec):
        weights = torch.tensor(_LUMA, dtype=past.dtype, device=past.device)[:, None, None]
        past = (past * weights).sum(2, keepdim=True)
    given = past.shape[2]
    if given == spec.channels:
        return past, as_it_is
    if given == GRAY:
        low, high = spec.value_range or (0.0, 1.0)  # by which colour would be clipped before it is averaged
        return past.expand(-1, -1, RGB, -1, -1), lambda frame: frame.clamp(low, high).mean(1, keepdim=True)
    if channels_equal(past):
        return past[:, :, :GRAY], lambda frame: frame.expand(-1, RGB, -1, -1)
    warn_caller(_TOLD)
    clips = past.transpose(1, 2).flatten(0, 1)[:, :, None]  # (3 B, T, 1, H, W)
    return clips, lambda frame: frame.reshape(-1, RGB, *frame.shape[-2:])


def channels_equal(frames: Tensor) -> bool:
    """(B, T, 3, H, W): is each frame gray, which is to say that its channels are equal?"""
    first = frames[:, :, 0]
    return all(torch.equal(first, frames[:, :, channel]) for channel in (1, 2))


def as_it_is(frame: Tensor) -> Tensor:
    """A frame whose channels are those of the model."""
    return frame
