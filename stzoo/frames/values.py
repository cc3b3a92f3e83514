"""What numbers mean: a caller's dtype <-> the spec's units <-> the normalised values that the module sees.

Frames here are tensors (..., C, H, W).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stzoo.errors import FramesError
from stzoo.frames.rain import RainUnit, is_rain
from stzoo.spec import ModelSpec

ROUNDING = 1e-5  # how far beyond the spec's range, in parts of the range, a float may lie: rounding does not reach it


def to_units(frames: Tensor, spec: ModelSpec, bits: int | None = None, unit: RainUnit | None = None) -> Tensor:
    """A caller's frames -> the same shape in float32, in the spec's units.

    Numbers in a unit of rain are converted. Otherwise integers are scaled from [0, largest value of their dtype, or
    2^bits - 1] to the spec's range. If the spec has no range, they are already numbers in its physical units. Floats
    are in the spec's units already.

    Raises:
        FramesError: a number is none of rain, if there is a `unit`.
    """
    if unit is not None:
        return unit.to_dbr(frames)
    units = frames.to(torch.float32)
    if frames.dtype.is_floating_point or spec.value_range is None:
        return units
    low, high = spec.value_range
    return (units * ((high - low) / largest(frames.dtype, bits)) + low).clamp(low, high)


def from_units(
    frames: Tensor, spec: ModelSpec, dtype: torch.dtype, bits: int | None = None, unit: RainUnit | None = None
) -> Tensor:
    """Frames in the spec's units -> the same shape in `dtype`: clipped to the spec's range, and integers rounded.

    It undoes `to_units`. NaN stays in floats.
    """
    if spec.value_range is not None:
        frames = frames.clamp(*spec.value_range)
    if unit is not None:
        frames = unit.from_dbr(frames)
    if dtype.is_floating_point:
        return frames.to(dtype)
    limits = torch.iinfo(dtype)
    if spec.value_range is not None and unit is None:
        low, high = spec.value_range
        frames = (frames - low) * (largest(dtype, bits) / (high - low))
    return frames.round().clamp(limits.min, limits.max).to(dtype)


def largest(dtype: torch.dtype, bits: int | None) -> int:
    """The integer that stands for the top of the spec's range: that of `bits` bits, or the largest of the dtype."""
    return int(torch.iinfo(dtype).max) if bits is None else 2**bits - 1


def check_integers(frames: Tensor, spec: ModelSpec, bits: int | None, unit: RainUnit | None = None) -> None:
    """Check that a caller's integers are what `to_units` can scale.

    Raises:
        FramesError: a value is negative or above 2^bits - 1, although the spec has a range; or `bits` has no meaning
            for this dtype, this spec or this unit.
    """
    kind = str(frames.dtype).removeprefix("torch.")
    if frames.dtype.is_floating_point:
        if bits is not None:
            raise FramesError(f"bits={bits} says how integers are scaled; these frames are {kind}, so leave it out")
        return
    if unit is not None:
        if bits is not None:
            raise FramesError(
                f"bits={bits} says how integers are scaled; these are numbers in {unit.name}, so leave it out"
            )
        return
    limits = torch.iinfo(frames.dtype)
    if bits is not None and not 1 <= bits <= (most := int(limits.max).bit_length()):
        raise FramesError(f"bits is {bits}; for {kind} it may be 1 to {most}")
    if spec.value_range is None:
        if bits is not None:
            raise FramesError(
                f"bits={bits} scales integers to a range of values; this model has none, and reads physical numbers"
            )
        return
    top = largest(frames.dtype, bits)
    if limits.min == 0 and top == limits.max:  # nothing can lie outside
        return
    wide = frames.to(torch.int32)  # torch cannot compare uint16
    least, greatest = int(wide.min()), int(wide.max())
    if least >= 0 and greatest <= top:
        return
    low, high = spec.value_range
    scale = f"{kind} frames with bits={bits}" if bits else f"{kind} frames"
    remedy = "convert them to floats in that range" if least < 0 else "name the number of bits that they have"
    raise FramesError(
        f"{scale} are read from 0 to {top}, which become {low:g} to {high:g}; given {least} to {greatest}, so {remedy}"
    )


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
        FramesError: there is NaN but the spec has no fill value, or an infinity, or a value outside the spec's range by
            more than rounding explains; what lies outside by less is clipped.
    """
    if spec.fill is not None:
        units = torch.where(units.isnan(), spec.fill, units)
    finite = units.isfinite()
    if not finite.all():
        clip, frame = (~finite).flatten(2).any(-1).nonzero()[0].tolist()
        where = "the frame" if units.shape[1] == 1 else f"frame {frame} of the last {units.shape[1]}"
        where += f" of clip {clip}" if len(units) > 1 else ""
        if units[clip, frame].isnan().any():
            raise FramesError(f"{where} holds NaN; this model has no fill value for missing data, so replace NaN first")
        raise FramesError(f"{where} holds an infinite value; replace it before you pass the frames")
    if spec.value_range is not None:
        low, high = spec.value_range
        least, most = units.min().item(), units.max().item()
        bounds: list[float] = torch.tensor([low, high], dtype=units.dtype).tolist()  # rounded as the frames are
        if least < bounds[0] or most > bounds[1]:
            if given := beyond_rounding(least, most, spec.value_range):
                unit = " dBR, that is 10 log10(mm/h)" if is_rain(spec.value_range) else ""
                raise FramesError(
                    f"expected values in [{low:g}, {high:g}]{unit}, given [{given[0]}, {given[1]}]"
                    f"{_remedy(units, spec.value_range)}"
                )
            units = units.clamp(*bounds)
    return units


def _remedy(units: Tensor, value_range: tuple[float, float]) -> str:
    """What to do with values beyond the range, where they look like those of a well-known unit."""
    if is_rain(value_range):
        return (
            "; of numbers in another unit say units='mm/h' or units='dBZ' (in commands --units), and they are converted"
        )
    least, most = units.min().item(), units.max().item()
    eight_bits = least >= 0 and most <= 255 and (most > 200 or torch.equal(units, units.round()))
    return "; divide by 255, or pass uint8" if value_range == (0.0, 1.0) and eight_bits else ""


def beyond_rounding(least: float, most: float, value_range: tuple[float, float]) -> tuple[str, str] | None:
    """The smallest and the largest of some floats, if they leave the range by more than rounding does.

    Returns:
        Both as text, with as many digits as tell them from the bounds; None if what lies outside may be clipped.
    """
    low, high = value_range
    margin = ROUNDING * (high - low)
    if low - margin <= least and most <= high + margin:
        return None
    return _unlike(least, low), _unlike(most, high)


def _unlike(value: float, bound: float) -> str:
    printed = float(f"{bound:g}")
    digits = next((n for n in range(6, 17) if value != bound and float(f"{value:.{n}g}") != printed), 6)
    return f"{value:.{digits}g}"


def noise(spec: ModelSpec, batch: int, seed: int = 0) -> Tensor:
    """(batch, frames_in, C, H, W) float32 in the spec's units: random past frames, to test a model with.

    Values are uniform over the spec's range; if it has none, within one standard deviation of each channel's mean.
    """
    mean, std = (np.array(values).reshape(-1, 1, 1) for values in (spec.mean, spec.std))
    low, high = spec.value_range or (mean - std, mean + std)
    shape = (batch, spec.frames_in, spec.channels, spec.height, spec.width)
    return torch.from_numpy(np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32))
