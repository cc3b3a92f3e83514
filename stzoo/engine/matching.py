"""Forecasts with the values of an observed frame: the probability-matched mean (Ebert, Monthly Weather Review 2001).

The forecast with the least squared error is the mean of all that may come. It is smooth: small values cover too much of
it, and large ones are missing. Matched, each frame keeps the order of its own cells, so that everything stays where it
is forecast, but has as much of each value as the last observed frame has in the same parcels. This is done to frames
that are handed out, never to those from which a model goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from stzoo.models.motion import inside, moved, trajectories


def matched(forecast: Tensor, reference: Tensor, known: Tensor | None = None) -> Tensor:
    """The forecast with the distribution of values of a reference, for each clip and channel by itself.

    A cell gets the value that is the (r + 1)-th smallest of the reference's known cells, where r is the number of known
    cells with a smaller forecast. So cells that are equal in the forecast stay equal, and get the smallest value that
    is due to any of them: where a forecast is dry, it never becomes wet for the reference's sake.

    Args:
        forecast: (B, C, H, W), finite.
        reference: of the same shape; its values are read at known cells only.
        known: (B, 1, H, W) booleans, true where both are to be counted; None if everywhere. Other cells get what a
            known cell with the same forecast would get. A clip without known cells stays as it is.

    Returns:
        (B, C, H, W): values of the reference.
    """
    there = torch.ones_like(forecast, dtype=torch.bool) if known is None else known.expand_as(forecast)
    count = there.flatten(2).sum(-1, keepdim=True)
    ordered, values = (torch.where(there, each, torch.inf).flatten(2).sort(-1).values for each in (forecast, reference))
    rank = torch.searchsorted(ordered, forecast.flatten(2).contiguous())
    found = values.gather(-1, torch.minimum(rank, count - 1).clamp(min=0))
    return torch.where(count > 0, found, forecast.flatten(2)).view_as(forecast)


@torch.no_grad()
def match_rollout(
    coming: Iterable[Tensor], last: Tensor, motion: Tensor, known: Tensor | None = None
) -> Iterator[Tensor]:
    """Each frame of a forecast `matched` to the last past frame, carried to its time along the motion.

    What has left the field by then does not count, nor do cells whose parcels come from beyond it.

    Args:
        coming: the frames (B, C, H, W) at the times 1, 2, 3, ... after the last one; they may be without end.
        last: (B, C, H, W), finite, in the same units.
        motion: (B, 2, H, W), pixels a frame, as `estimate_motion` finds it.
        known: (B, 1, H, W) booleans, true where the last past frame was observed; None if everywhere.
    """
    known = torch.ones_like(last[:, :1], dtype=torch.bool) if known is None else known
    back = trajectories(motion, [1])[:, 0]  # from a cell to where its parcel was a frame before
    origin = torch.zeros_like(back)  # and where it was at the time of the last past frame
    for frame in coming:
        origin = back + moved(origin, back)
        yield matched(frame, _nearest(last, origin), _nearest(known, origin) & inside(origin))


def _nearest(frames: Tensor, displacement: Tensor) -> Tensor:
    """As `moved`, but with the value of the nearest cell: a mean of neighbours would change the distribution."""
    height, width = frames.shape[-2:]
    rows = torch.arange(height, device=frames.device)[:, None] + displacement[:, 1].round().long()
    columns = torch.arange(width, device=frames.device) + displacement[:, 0].round().long()
    place = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    flat = frames.flatten(2)
    return flat.gather(-1, place.flatten(1)[:, None].expand_as(flat)).view_as(frames)
