"""Which cells of a forecast of rain rest on something that was observed. The others are NaN, not forecast rain.

A cell of a forecast is observed if any of the past frames observed the parcel of air that is there at that time, when
it is followed back along the motion of the past frames. What lies beyond the edge of a frame was not observed either.
The model reads such a parcel, in the frames that did not observe it, as it was in another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from stzoo.models.motion import estimate_motion, inside, moved, trajectories


@torch.no_grad()
def where_observed(frames: Iterable[Tensor], motion: Tensor, known: Tensor) -> Iterator[Tensor]:
    """Future frames one after the other, each with NaN where nothing was observed. Memory does not grow.

    Args:
        frames: (B, C, H, W): the frames 1, 2, 3, ... after the past, without end or not.
        motion: (B, 2, H, W), pixels a frame, as `observed_motion` finds it.
        known: (B, 1, H, W) booleans, true where something is known of the last past frame, see `carried_along`.
    """
    displacement = one = trajectories(motion, [1])[:, 0]
    for frame in frames:
        yield frame.masked_fill(~_carried(known, displacement), torch.nan)
        displacement = displacement + moved(one, displacement)


@torch.no_grad()
def carried_along(past: Tensor, observed: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
    """Past frames with what other frames observed in place of what they did not, and what is known of the last one.

    Each parcel is carried along the motion from the frame that is nearest in time, of two such frames from the earlier.
    The motion is steady, so where the parcels of one time are n frames later is the same at all times.

    Args:
        past: (B, T, C, H, W), finite.
        observed: (B, T, 1, H, W) booleans, true where the past was observed.
        motion: (B, 2, H, W), pixels a frame.

    Returns:
        The past, where cells that were observed stay, and so do those of which no frame knows anything; and the cells
        of its last frame of which any frame knows something, (B, 1, H, W) booleans.
    """
    if observed.all():
        return past, observed[:, -1]
    frames, masks = past.unbind(1), observed.unbind(1)
    times = range(len(frames))
    ways = [trajectories(direction, times).unbind(1) for direction in (motion, -motion)]  # from earlier, from later
    completed = []
    for time in times:
        frame, known = frames[time], masks[time]
        for other in sorted(times, key=lambda other: (abs(time - other), other))[1:]:
            if known.all():
                break
            way, mask = ways[other > time][abs(time - other)], masks[other].float()
            values = moved(frames[other] * mask, way) / moved(mask, way).clamp(min=0.5)  # of observed cells alone
            new = _carried(masks[other], way) & ~known
            frame, known = torch.where(new, values, frame), known | new
        completed.append(frame)
    return torch.stack(completed, 1), known


@torch.no_grad()
def observed_motion(past: Tensor, observed: Tensor | None) -> Tensor:
    """The motion of what was observed, as `estimate_motion` finds it: (B, 2, H, W), pixels a frame.

    A frame of which nothing was observed does not count.

    Args:
        past: (B, T, C, H, W), without NaN.
        observed: (B, T, 1, H, W) booleans, true where the past was observed; None if everywhere.
    """
    past = past.float()
    with torch.autocast(past.device.type, enabled=False):
        if observed is None:
            return estimate_motion(past)
        found, counts = torch.zeros_like(past[:, 0, :1]).repeat(1, 2, 1, 1), observed.flatten(2).any(2)
        for which in counts.unique(dim=0):  # one estimate for all clips with the same frames
            times, clips = which.nonzero()[:, 0], (counts == which).all(1)
            if len(times):
                there = _without_edges(past[clips][:, times], observed[clips][:, times])
                found[clips] = estimate_motion(there, times.tolist())
        return found


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
