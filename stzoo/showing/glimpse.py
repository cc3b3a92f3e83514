"""What a forecaster keeps of its last forecast, to show it in a notebook: a few small pictures of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stzoo.frames.arrays import CallerFrames
from stzoo.frames.colour import RGB
from stzoo.frames.writing import UNTIMED
from stzoo.showing.animation import Animation
from stzoo.spec import ModelSpec
from stzoo.viz import side_by_side

SIDE = 128  # pixels that a picture is at most high and wide
FRAMES = 40  # pictures of the past, and of the future: 3.9 MB in all if they are of this size and in colour


@dataclass(frozen=True, eq=False)
class Glimpse:
    """Small pictures of the first clip of one forecast.

    Attributes:
        past: of the last past frames, (T, h, w) or (T, h, w, 3) uint8. Of larger frames they hold each second, third,
            ... pixel.
        future: of the first future frames. Three channels of values with a range are colours; of others the first one
            is drawn.
        steps: how many frames were forecast.
        clips: of how many clips.
        size: (height, width) of the frames, as far as it is not that of what the model reads.
    """

    past: np.ndarray
    future: np.ndarray
    steps: int
    clips: int
    size: tuple[int, int] | None

    def animation(self) -> Animation:
        """Past and future beside each other, as `stzoo.show` draws them."""
        past, future = ([self._image(frame) for frame in frames] for frames in (self.past, self.future))
        note = f"the last forecast: {self.steps:,} frame{'s' if self.steps > 1 else ''}"
        note += f", of which {len(future)} are shown" if len(future) < self.steps else ""
        note += f", of the first of {self.clips:,} clips" if self.clips > 1 else ""
        return Animation(tuple(side_by_side(past, [], future)), UNTIMED, note)

    def _image(self, frame: np.ndarray) -> Image.Image:
        """The picture, in the shape of the frames."""
        image = Image.fromarray(frame)
        if self.size is None:
            return image
        height, width = (side * min(1, SIDE / max(self.size)) for side in self.size)
        return image.resize((max(1, round(width)), max(1, round(height))), Image.Resampling.BILINEAR)


def watched(coming: Iterable[Tensor], source: CallerFrames, kept: list[Tensor]) -> Iterator[Tensor]:
    """The frames (B, C, H, W) that come, as they are. Small copies of the first ones, (C, h, w), go into `kept`."""
    together = len(source.past) // _clips(source)
    for frame in coming:
        if len(kept) < FRAMES:
            kept.append(source.as_given(_small(frame[:together]))[0].to("cpu", copy=True))
        yield frame


def glimpse(source: CallerFrames, spec: ModelSpec, kept: list[Tensor], steps: int) -> Glimpse:
    """What is kept of a forecast of `steps` frames, of which `watched` copied the first ones."""
    clips = _clips(source)
    last = _small(source.past[: len(source.past) // clips, -FRAMES:]).transpose(1, 2)
    times, height = last.shape[2:4]
    given = source.as_given(last.flatten(2, 3))[0]  # the frames below each other, so that one call does for all
    past, future = given.unflatten(1, (times, height)).transpose(0, 1), torch.stack(kept)
    if spec.value_range is None or past.shape[1] != RGB:  # no colours
        past, future = past[:, :1], future[:, :1]
    low, high = spec.value_range or (past.min().item(), past.max().item())
    return Glimpse(_drawn(past, low, high), _drawn(future, low, high), steps, clips, source.returned)


def _clips(source: CallerFrames) -> int:
    """How many clips the caller gave. Each channel of one in colour may be a clip of the model's own."""
    return len(source.as_given(source.past[:, 0, :, :1, :1]))


def _small(frames: Tensor) -> Tensor:
    """(..., H, W) -> a view of every second, third, ... pixel, at most `SIDE` each way."""
    stride = math.ceil(max(frames.shape[-2:]) / SIDE)
    return frames if stride == 1 else frames[..., ::stride, ::stride]


def _drawn(frames: Tensor, low: float, high: float) -> np.ndarray:
    """(T, C, h, w) -> pictures, from black at `low` to white at `high`; NaN is black."""
    shares = (frames.nan_to_num(low).clamp(low, high) - low) * (255 / ((high - low) or 1.0))
    return shares.round().to("cpu", torch.uint8).permute(0, 2, 3, 1).squeeze(3).contiguous().numpy()
