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
    """The frames (B, C, H, W) that come, as they are. Small copies of the first ones go into `kept`."""
    for frame in coming:
        if len(kept) < FRAMES:
            kept.append(_small(frame, source))
        yield frame


def glimpse(source: CallerFrames, spec: ModelSpec, kept: list[Tensor], steps: int) -> Glimpse:
    """What is kept of a forecast of `steps` frames, of which `watched` copied the first ones."""
    past = torch.stack([_small(frame, source) for frame in source.past[:, -FRAMES:].unbind(1)])
    future = torch.stack(kept)
    if spec.value_range is None or past.shape[1] != RGB:  # no colours
        past, future = past[:, :1], future[:, :1]
    low, high = spec.value_range or (past.min().item(), past.max().item())
    clips = len(source.as_given(source.past[:, 0, :, :1, :1]))
    return Glimpse(_drawn(past, low, high), _drawn(future, low, high), steps, clips, source.returned)


def _small(frame: Tensor, source: CallerFrames) -> Tensor:
    """(B, C, H, W) -> a copy (C, h, w) of the first clip, on the CPU; h and w are at most `SIDE`."""
    stride = math.ceil(max(frame.shape[-2:]) / SIDE)
    return source.as_given(frame[:, :, ::stride, ::stride])[0].to("cpu", copy=True)


def _drawn(frames: Tensor, low: float, high: float) -> np.ndarray:
    """(T, C, h, w) -> pictures, from black at `low` to white at `high`; NaN is black."""
    shares = (frames.nan_to_num(low).clamp(low, high) - low) * (255 / ((high - low) or 1.0))
    return shares.round().to(torch.uint8).permute(0, 2, 3, 1).squeeze(3).contiguous().numpy()
