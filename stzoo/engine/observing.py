"""Which cells of a forecast of rain rest on something that was observed. The others are NaN, not forecast rain.

A cell of a forecast is observed if any of the past frames observed the parcel of air that is there at that time, when
it is followed back along the motion of the past frames. What lies beyond the edge of a frame was not observed either.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from stzoo.models.motion import estimate_motion, inside, moved, trajectories


def where_observed(frames: Iterator[Tensor], past: Tensor, observed: Tensor | None) -> Iterator[Tensor]:
    """Future frames one after the other, each with NaN where nothing was observed. Memory does not grow.

    Args:
        frames: (B, C, H, W): the frames 1, 2, 3, ... after the past, without end or not.
        past: (B, T, C, H, W), normalised, without NaN.
        observed: (B, T, 1, H, W) booleans, true where the past was observed; None leaves the frames as they are.
    """
    if observed is None:
        yield from frames
        return
    coming = _observed_after(past, observed.to(past.device))
    for frame in frames:
        seen = next(coming).to(frame.device)
        yield frame.masked_fill(~seen, torch.nan)


def _observed_after(past: Tensor, observed: Tensor) -> Iterator[Tensor]:
    """Which cells are observed at the times 1, 2, 3, ... after the past: (B, 1, H, W) booleans each, without end.

    The motion is steady, so where the parcels of time n are at time 0 is where those of time 0 were n frames before.
    """
    with torch.no_grad(), torch.autocast(past.device.type, enabled=False):
        motion = observed_motion(past, observed)
        before = trajectories(motion, range(observed.shape[1]))
        backwards = zip(observed.flip(1).unbind(1), before.unbind(1), strict=True)
        now = torch.stack([_carried(frame, displacement) for frame, displacement in backwards]).any(0)
        one = trajectories(motion, [1])[:, 0]
    displacement = one
    while True:
        with torch.no_grad(), torch.autocast(past.device.type, enabled=False):
            seen = _carried(now, displacement)
            displacement = displacement + moved(one, displacement)
        yield seen


def observed_motion(past: Tensor, observed: Tensor | None) -> Tensor:
    """The motion of what was observed, as `estimate_motion` finds it: (B, 2, H, W), pixels a frame.

    Args:
        past: (B, T, C, H, W), without NaN.
        observed: (B, T, 1, H, W) booleans, true where the past was observed; None if everywhere.
    """
    return estimate_motion(past.float() if observed is None else _without_edges(past.float(), observed))


def _without_edges(past: Tensor, observed: Tensor) -> Tensor:
    """The past with what is around in place of what was not observed: the edges of a mask would seem to stand still.

    Args:
        past: (B, T, C, H, W). observed: (B, T, 1, H, W) booleans.
    """
    weights = observed.flatten(0, 1).float()
    return _spread(past.flatten(0, 1) * weights, weights).unflatten(0, past.shape[:2])


def _spread(sums: Tensor, weights: Tensor) -> Tensor:
    """Means (N, C, h, w) by sums and their weights (N, 1, h, w); without a weight, the mean of a larger cell."""
    means = sums / weights.clamp(min=1e-12)
    if weights.all() or max(weights.shape[-2:]) == 1:
        return means
    larger = [F.avg_pool2d(each, 2, ceil_mode=True, count_include_pad=False) for each in (sums, weights)]
    around = F.interpolate(_spread(*larger), weights.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(weights > 0, means, around)


def _carried(observed: Tensor, displacement: Tensor) -> Tensor:
    """Whether what lies at a displacement from each cell was observed: (B, 1, H, W) booleans of such."""
    return (moved(observed.float(), displacement) > 0.5) & inside(displacement)
