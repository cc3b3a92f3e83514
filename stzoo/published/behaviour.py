"""Whether a published model behaves as a forecaster on a small drawn clip, here, without any data.

On moving digits and shapes a model of Moving MNIST or Moving Fashion-MNIST must be better than persistence, which
repeats the last past frame. Nothing is drawn that is like the data of the other models: of their forecasts it is
checked that they are finite, within range (or no further from it than the range is wide, for nothing is clipped here),
not flat, and different for different clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from stzoo.data.digits import BOX, SIDE, drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.frames.values import denormalise, normalise, to_units
from stzoo.models import architecture_of, stride_of
from stzoo.published.records import PublishedCheckpoint
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

SMALL = 64  # pixels: the side of the frames at a glance, if the model takes other sizes than its own
FEW = 4  # past frames at a glance, if the model reads one after the other
UNBOUNDED = 40.0  # the range that is taken for standardised values, in standard deviations
LEAST = 1e-4  # of the range of values: a smaller difference counts as none


@dataclass(frozen=True)
class Verdict:
    """How a model behaved on drawn clips.

    Attributes:
        name: of the checkpoint.
        clips: what was drawn, in words.
        mse, persistence_mse: squared error summed over a frame, for values in [0, 1] if the model has a range; mean
            over the frames. None if the drawn clips are unlike the model's data, so that the figures mean nothing.
        faults: what no forecast should be, in words; empty if nothing is wrong.
    """

    name: str
    clips: str
    mse: float | None
    persistence_mse: float | None
    faults: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.faults

    def __str__(self) -> str:
        figures = "" if self.mse is None else f": MSE {self.mse:.2f}, persistence {self.persistence_mse:.2f}"
        if self.ok:
            if self.mse is not None:
                return (
                    f"{self.name} is better than persistence on {self.clips}{figures}. These are not its publisher's "
                    "test clips, so the figures cannot be compared with published ones"
                )
            return (
                f"{self.name}: forecasts on {self.clips} are finite, within range, not flat, and differ between clips. "
                "This does not show that the weights are trained: no clip here is like the model's data"
            )
        return f"{self.name} does not behave as published: on {self.clips} {' and '.join(self.faults)}{figures}"


def glance(record: PublishedCheckpoint, spec: ModelSpec, module: Any) -> Verdict:
    """Try a model cheaply: on two clips, of few and small frames as far as it takes these."""
    return behaviour(record, spec, module, clips=2, steps=1, cheaply=True)


@torch.no_grad()
def behaviour(
    record: PublishedCheckpoint, spec: ModelSpec, module: Any, *, clips: int, steps: int, cheaply: bool = False
) -> Verdict:
    """Forecast `steps` frames of `clips` drawn clips, at least two of them.

    Args:
        spec: that of the module, which may differ from the record's: the file decides.
        module: in eval mode.
        cheaply: let the model read fewer and smaller frames than the spec's, if its architecture can.
    """
    past, future = _clips(record.clip, spec, clips, steps, cheaply and stride_of(module) is not None)
    if cheaply and architecture_of(spec).kind == "sequential":
        past = past[:, -FEW:]
    device = next(module.parameters()).device
    forecast = torch.stack(list(unroll(module, spec, normalise(past.to(device), spec), steps)), 1)
    forecast = denormalise(forecast, spec).float().cpu()
    low, high = spec.value_range or (-UNBOUNDED / 2, UNBOUNDED / 2)
    span = high - low
    faults = []
    if not forecast.isfinite().all():
        faults.append("it forecasts values that are not finite")
    else:
        if forecast.min() < low - span or forecast.max() > high + span:
            faults.append(f"it forecasts values from {forecast.min():.3g} to {forecast.max():.3g}")
        if forecast.flatten(3).std(-1).max() < LEAST * span:
            faults.append("it forecasts flat frames")
        if (forecast - forecast.roll(1, 0)).abs().max() < LEAST * span:
            faults.append("it forecasts the same for different clips")
    if record.clip is None:
        return Verdict(record.name, "drifting blobs", None, None, tuple(faults))
    mse, persistence = (_mse((x - future) / span) for x in (forecast, past[:, -1:].expand_as(future)))
    if not mse < persistence:
        faults.append("it is not better than persistence")
    return Verdict(record.name, f"drawn {record.clip}", mse, persistence, tuple(faults))


def _mse(error: Tensor) -> float:
    """(B, T, C, H, W) -> the squares summed over a frame, mean over frames."""
    return error.double().square().sum((2, 3, 4)).mean().item()


def _clips(kind: str | None, spec: ModelSpec, count: int, steps: int, small: bool) -> tuple[Tensor, Tensor]:
    """Past and future frames (B, T, C, H, W) in the spec's units."""
    if kind is None:
        height, width = (min(side, SMALL) if small else side for side in (spec.height, spec.width))
        frames = _drifting(spec, count, spec.frames_in + steps, height, width)
        return frames[:, : spec.frames_in], frames[:, spec.frames_in :]
    images = drawn_digits() if kind == "digits" else _drawn_shapes()
    clip = MovingDigits(images, 0, count, spec.frames_in, steps).clips(0, count)
    return to_units(clip.past, spec), to_units(clip.future, spec)


def _drawn_shapes() -> Tensor:
    """Garments, roughly: (4, 28, 28) uint8, filled in gray on black, in the box of a digit of MNIST."""
    a, b = (SIDE - BOX) // 2, (SIDE + BOX) // 2
    m, q = SIDE // 2, BOX // 4
    outlines = [
        [(a, a), (b, a), (b, a + q), (b - q, a + q), (b - q, b), (a + q, b), (a + q, a + q), (a, a + q)],  # a shirt
        [(a + q, a), (b - q, a), (b - 2, b), (m + 2, b), (m, a + q), (m - 2, b), (a + 2, b)],  # trousers
        [(m - 2, a), (m + 2, a), (b, b), (a, b)],  # a dress
        [(a, m), (m, m + 2), (b, m + q), (b, b - 2), (a, b - 2)],  # a shoe
    ]
    drawn = []
    for number, outline in enumerate(outlines):
        tile = Image.new("L", (SIDE, SIDE))
        ImageDraw.Draw(tile).polygon(outline, fill=150 + 30 * number)
        drawn.append(torch.from_numpy(np.asarray(tile).copy()))
    return torch.stack(drawn)


def _drifting(spec: ModelSpec, count: int, frames: int, height: int, width: int) -> Tensor:
    """(count, frames, C, height, width): in each channel, six soft blobs that drift over a torus, at their own speeds.

    Values fill the spec's range; if it has none, they have a mean of 0 and a deviation of 1.
    """
    random = np.random.default_rng(0)
    shape = (count, 1, spec.channels, 6, 1, 1)
    at = [random.uniform(0, 1, shape) for _ in range(2)]
    speed = [random.uniform(-0.04, 0.04, shape) for _ in range(2)]
    spread, height_of = random.uniform(0.06, 0.2, shape), random.uniform(0.3, 1, shape)
    t = np.arange(frames).reshape(1, -1, 1, 1, 1, 1)
    y, x = np.arange(height).reshape(-1, 1) / height, np.arange(width).reshape(1, -1) / width
    distance = sum(((axis - (p + v * t) + 0.5) % 1 - 0.5) ** 2 for axis, p, v in zip((y, x), at, speed, strict=True))
    values = (height_of * np.exp(-distance / spread**2)).sum(3)
    if spec.value_range is None:
        values = (values - values.mean()) / values.std()
    else:
        low, high = spec.value_range
        values = low + (high - low) * (values - values.min()) / (values.max() - values.min())
    return torch.from_numpy(values.astype(np.float32))
