"""How frames move, and frames moved: optical flow by Lucas and Kanade, and semi-Lagrangian advection.

Both are made of differentiable operations that can be exported. Displacements are (x, y) in pixels: x counts columns
to the right, y counts rows downwards. Motion is steady: a velocity in pixels a frame for each place, at all times the
same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F

COARSEST, FINEST = 4, 1  # how often pictures are halved before the first estimate, and before the last one
SIGMA = 6.0  # pixels of each picture: the width of the Gaussian window that moves as one
ROUNDS = 2  # of refinement at each size
DAMPING = 0.05  # as a share of the mean squared gradient: where there is less texture, coarser estimates stand


def estimate_motion(frames: Tensor, times: Sequence[int] | None = None) -> Tensor:
    """The steady motion that brings all frames of a clip onto its last one, by pyramidal Lucas-Kanade.

    At each size, from small pictures to large ones, every frame k is moved along the estimate so far for its tau
    frames, and the change d of the motion v solves, by least squares in a Gaussian window,

        tau d . grad I_k = I_k(x - tau v) - I_last(x)    for all frames k with their tau >= 1.

    The first estimate is one motion for the whole picture. Motion of more than about 16 pixels a frame is not found.

    Args:
        frames: (B, T, C, H, W) with T >= 1, finite; channels are added up.
        times: of the frames, which increase; by default they are one apart.

    Returns:
        (B, 2, H, W): pixels a frame, 0 for a single frame and where nothing moves visibly.
    """
    gray = frames.sum(2)
    taus = [frames.shape[1] - 1 - k if times is None else times[-1] - times[k] for k in range(frames.shape[1] - 1)]
    if frames.shape[1] == 1:
        return torch.cat([torch.zeros_like(gray)] * 2, 1)
    pictures = [gray]
    for _ in range(COARSEST):
        pictures.append(F.avg_pool2d(pictures[-1], 2, ceil_mode=True, count_include_pad=False))
    coarsest = pictures[-1]
    motion = torch.zeros_like(coarsest[:, :2])
    for _ in range(ROUNDS):
        motion = motion + _correction(coarsest, motion, taus, everywhere=True)
    motion = _refined(coarsest, motion, taus).clamp(-1.0, 1.0)
    for picture in pictures[-2 : FINEST - 1 : -1]:
        motion = _refined(picture, 2 * _resized(motion, picture), taus)
    return 2**FINEST * _resized(motion, gray)


def trajectories(motion: Tensor, times: Sequence[int]) -> Tensor:
    """Where the parcels that are at each cell at some times were at time 0: backward trajectories, frame by frame.

    Going one frame back, x_(n+1) = x_n - v(x_n - v(x_n) / 2), the midpoint rule of semi-Lagrangian schemes. As the
    motion is steady, this is also where a parcel that is at the cell now was that many frames ago.

    Args:
        motion: (B, 2, H, W), pixels a frame.
        times: whole frames, not negative.

    Returns:
        (B, len(times), 2, H, W): displacements from the cell, in pixels; 0 at time 0.
    """
    found = [torch.zeros_like(motion)]
    for _ in range(max(times)):
        middle = found[-1] - moved(motion, found[-1]) / 2
        found.append(found[-1] - moved(motion, middle))
    return torch.stack([found[time] for time in times], 1)


def moved(frames: Tensor, displacement: Tensor) -> Tensor:
    """What lies at a displacement from each cell: bilinear; beyond the edge lies the outermost cell.

    Args:
        frames: (B, C, H, W).
        displacement: (B, 2, H, W), pixels.

    Returns:
        (B, C, H, W).
    """
    height, width = frames.shape[-2:]
    place = _cells(frames) + displacement
    scale = place.new_tensor([2.0 / max(width - 1, 1), 2.0 / max(height - 1, 1)])
    grid = place.permute(0, 2, 3, 1) * scale - 1.0
    return F.grid_sample(frames, grid.to(frames.dtype), padding_mode="border", align_corners=True)


def along_motion(block: Callable[[Tensor], Tensor], past: Tensor) -> Tensor:
    """What a block forecasts in Lagrangian coordinates, which move with the pictures.

    Each past frame is moved to where its parcels are in the last frame, so that the block sees what grows and decays
    but nothing that moves. Each frame that it makes of them is moved on to where its parcels will be.

    Args:
        block: (B, T, C, H, W) -> the same shape.
        past: (B, T, C, H, W). No gradient is taken through the estimate of the motion.

    Returns:
        (B, T, C, H, W): the T frames that follow.
    """
    t = past.shape[1]
    ways = trajectories(estimate_motion(past.detach()), range(t + 1))
    future = block(moved(past.flatten(0, 1), ways[:, :t].flip(1).flatten(0, 1)).view_as(past))
    return moved(future.flatten(0, 1), ways[:, 1:].flatten(0, 1)).view_as(past)


def inside(displacement: Tensor) -> Tensor:
    """Whether what lies at a displacement is within the frame: (B, 2, H, W) -> (B, 1, H, W) booleans."""
    height, width = displacement.shape[-2:]
    x, y = (_cells(displacement) + displacement).unbind(1)
    return ((x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5))[:, None]


def _cells(like: Tensor) -> Tensor:
    """(1, 2, H, W): column and row of each cell."""
    height, width = like.shape[-2:]
    rows, columns = (torch.arange(n, device=like.device, dtype=torch.float32) for n in (height, width))
    return torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)])[None]


def _refined(gray: Tensor, motion: Tensor, taus: Sequence[int]) -> Tensor:
    """The motion, (B, 2, h, w), after `ROUNDS` corrections."""
    for _ in range(ROUNDS):
        motion = motion + _correction(gray, motion, taus, everywhere=False)
    return motion


def _correction(gray: Tensor, motion: Tensor, taus: Sequence[int], *, everywhere: bool) -> Tensor:
    """The change of the motion, (B, 2, h, w), by one least-squares step, a pixel at most."""
    last, past = gray[:, -1:], gray[:, :-1]
    xx = xy = yy = bx = by = torch.zeros_like(last)
    for tau, frame in zip(taus, past.split(1, 1), strict=True):
        there = moved(frame, -tau * motion)
        dx, dy = _gradient((there + last) / 2)
        change = there - last
        weight = tau**-1.5  # so that frames long past, which have changed on their way, do not outweigh the last ones
        xx, xy, yy = xx + weight * tau**2 * dx * dx, xy + weight * tau**2 * dx * dy, yy + weight * tau**2 * dy * dy
        bx, by = bx + weight * tau * dx * change, by + weight * tau * dy * change
    sums = torch.cat([xx, xy, yy, bx, by], 1)
    mean = sums.mean((2, 3), keepdim=True)
    xx, xy, yy, bx, by = (mean.expand_as(sums) if everywhere else _blurred(sums)).unbind(1)
    damping = DAMPING * (mean[:, 0] + mean[:, 2]) / 2 + 1e-12
    xx, yy = xx + damping, yy + damping
    determinant = xx * yy - xy * xy
    change = torch.stack([yy * bx - xy * by, xx * by - xy * bx], 1) / determinant[:, None]
    return change.clamp(-1.0, 1.0)


def _resized(motion: Tensor, like: Tensor) -> Tensor:
    """(B, 2, h, w) -> (B, 2, H, W), of the size of `like`, in the same units."""
    return F.interpolate(motion, like.shape[-2:], mode="bilinear", align_corners=False)


def _gradient(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, each of the shape of the picture (B, 1, h, w)."""
    wide = F.pad(picture, (1, 1, 1, 1), mode="replicate")
    return (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2, (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2


def _blurred(pictures: Tensor) -> Tensor:
    """(B, C, h, w), each channel averaged in a Gaussian window of `SIGMA` pixels; beyond the edge lie zeros."""
    radius = ceil(2.5 * SIGMA)
    place = torch.arange(-radius, radius + 1, device=pictures.device, dtype=pictures.dtype)
    kernel = torch.exp(-(place**2) / (2 * SIGMA**2))
    kernel = kernel / kernel.sum()
    c = pictures.shape[1]
    pictures = F.conv2d(pictures, kernel.view(1, 1, -1, 1).expand(c, 1, -1, 1), padding=(radius, 0), groups=c)
    return F.conv2d(pictures, kernel.view(1, 1, 1, -1).expand(c, 1, 1, -1), padding=(0, radius), groups=c)
