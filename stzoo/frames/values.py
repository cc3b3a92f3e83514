"""What numbers mean: a caller's dtype <-> the spec's units <-> the normalised values that the module sees.

Frames here are tensors (..., C, H, W).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stzoo.errors import FramesError
from stzoo.spec import ModelSpec


def to_units(frames: Tensor, spec: ModelSpec) -> Tensor:
    """A caller's frames -> the same shape in float32, in the spec's units.

    Integers are scaled from [0, largest value of their dtype] to the spec's range. If the spec has no range, they are
    already numbers in its physical units. Floats are in the spec's units already.
    """
    units = frames.to(torch.float32)
    if frames.dtype.is_floating_point or spec.value_range is None:
        return units
    low, high = spec.value_range
    return (units * ((high - low) / torch.iinfo(frames.dtype).max) + low).clamp(low, high)


def from_units(frames: Tensor, spec: ModelSpec, dtype: torch.dtype) -> Tensor:
    """Frames in the spec's units -> the same shape in `dtype`: clipped to the spec's range, and integers rounded.

    It undoes `to_units`.
    """
    if spec.value_range is not None:
        frames = frames.clamp(*spec.value_range)
    if dtype.is_floating_point:
        return frames.to(dtype)
    limits = torch.iinfo(dtype)
    if spec.value_range is not None:
        low, high = spec.value_range
        frames = (frames - low) * (limits.max / (high - low))
    return frames.round().clamp(limits.min, limits.max).to(dtype)


def normalise(units: Tensor, spec: ModelSpec) -> Tensor:
    """Frames in the spec's units -> (units - mean) / std, for each channel."""
    if spec.mean == (0.0,) and spec.std == (1.0,):
        return units
    return (units - _by_channel(spec.mean, units)) / _by_channel(spec.std, units)


def denormalise(values: Tensor, spec: ModelSpec) -> Tensor:
    """Normalised frames -> values * std + mean for each channel: the spec's units."""
    if spec.mean == (0.0,) and spec.std == (1.0,):
        return values
    return values * _by_channel(spec.std, values) + _by_channel(spec.mean, values)


def _by_channel(numbers: tuple[float, ...], like: Tensor) -> Tensor:
    """(C, 1, 1), of the dtype and on the device of `like`."""
    return torch.tensor(numbers, dtype=like.dtype, device=like.device)[:, None, None]


def fill_missing(units: Tensor, spec: ModelSpec) -> Tensor:
    """Frames (B, T, C, H, W) in the spec's units, with NaN replaced by the spec's fill value, and then checked.

    Raises:
        FramesError: there is NaN but the spec has no fill value, or an infinity, or a value outside the spec's range.
    """
    if spec.fill is not None:
        units = torch.where(units.isnan(), spec.fill, units)
    finite = units.isfinite()
    if not finite.all():
        clip, frame = (~finite).flatten(2).any(-1).nonzero()[0].tolist()
        where = f"frame {frame} of the last {units.shape[1]}" + (f" of clip {clip}" if len(units) > 1 else "")
        if units[clip, frame].isnan().any():
            raise FramesError(f"{where} holds NaN; this model has no fill value for missing data, so replace NaN first")
        raise FramesError(f"{where} holds an infinite value; replace it before you pass the frames")
    if spec.value_range is not None:
        low, high = spec.value_range
        least, most = units.min().item(), units.max().item()
        bounds = torch.tensor([low, high], dtype=units.dtype).tolist()  # rounded as the frames are
        if least < bounds[0] or most > bounds[1]:
            hint = "; divide by 255, or pass uint8" if (low, high) == (0.0, 1.0) and 1.0 < most <= 255.0 else ""
            raise FramesError(f"expected values in [{low:g}, {high:g}], given [{least:g}, {most:g}]{hint}")
    return units


def noise(spec: ModelSpec, batch: int, seed: int = 0) -> Tensor:
    """(batch, frames_in, C, H, W) float32 in the spec's units: random past frames, to test a model with.

    Values are uniform over the spec's range; if it has none, within one standard deviation of each channel's mean.
    """
    mean, std = (np.array(values).reshape(-1, 1, 1) for values in (spec.mean, spec.std))
    low, high = spec.value_range or (mean - std, mean + std)
    shape = (batch, spec.frames_in, spec.channels, spec.height, spec.width)
    return torch.from_numpy(np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32))
