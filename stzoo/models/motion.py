"""How frames move, and frames moved: optical flow by Lucas and Kanade, and semi-Lagrangian advection.

Both are made of differentiable operations that can be exported. Displacements are (x, y) in pixels: x counts columns to
the right, y counts rows downwards. Motion is steady: a velocity in pixels a frame for each place, the same at all times.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST = 12  # pixels: the shorter side of the coarsest picture has at least so many
FINEST = 2  # how often pictures are halved before the finest estimate
SIGMA = 4.0  # pixels of each picture: the width of the Gaussian window that moves as one
ROUNDS = 2  # of refinement at each size
DAMPING = 0.05  # as a share of the mean squared gradient: where there is less texture, coarser estimates stand


def estimate_motion(frames: Tensor) -> Tensor:
    """The steady motion that brings all frames of a clip onto its last one, by pyramidal Lucas-Kanade.

    At each size, from small pictures to large ones, every frame k is moved along the estimate so far for its tau
    frames, and the change d of the motion v solves, by least squares in a Gaussian window,

        tau d . grad I_k = I_k(x - tau v) - I_last(x)    for all frames k with their tau >= 1.

    The first estimate is one motion for the whole picture.

    Args:
        frames: (B, T, C, H, W) with T >= 1, finite; channels are added up.

    Returns:
        (B, 2, H, W): pixels a frame, 0 for a single frame and where nothing moves visibly.
    """
    b, t, _, height, width = frames.shape
    gray = frames.sum(2)
    if t == 1:
        return gray.new_zeros(b, 2, height, width)
    levels = max(FINEST, int(log2(max(1.0, min(height, width) / SMALLEST))))
    sizes = [(ceil(height / 2**level), ceil(width / 2**level)) for level in range(levels + 1)]
    pictures = [gray]
    for _ in range(levels):
        pictures.append(F.avg_pool2d(pictures[-1], 2, ceil_mode=True, count_include_pad=False))
    motion = gray.new_zeros(b, 2, *sizes[-1])
    for level in range(levels, FINEST - 1, -1):
        if level < levels:
            motion = 2 * F.interpolate(motion, sizes[level], mode="bilinear", align_corners=False)
        else:
            for _ in range(ROUNDS):
                motion = motion + _correction(pictures[level], motion, everywhere=True)
        for _ in range(ROUNDS):
            motion = motion + _correction(pictures[level], motion, everywhere=False)
    return 2**FINEST * F.interpolate(motion, (height, width), mode="bilinear", align_corners=False)


def trajectories(motion: Tensor, times: Sequence[int]) -> Tensor:
    """Where the parcels that are at each cell at some times are at time 0: backward trajectories, step by step.

    Going one frame back, x_(n+1) = x_n - v(x_n - v(x_n) / 2), the midpoint rule of semi-Lagrangian schemes.

    Args:
        motion: (B, 2, H, W), pixels a frame.
        times: in whole frames; of negative times the trajectories go forwards.

    Returns:
        (B, len(times), 2, H, W): displacements from the cell, in pixels; 0 at time 0.
    """
    found = {0: torch.zeros_like(motion)}
    for sign in (1, -1):
        for time in range(1, max([0, *(sign * time for time in times)]) + 1):
            before = found[sign * (time - 1)]
            middle = before - sign / 2 * moved(motion, before)
            found[sign * time] = before - sign * moved(motion, middle)
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


def _correction(gray: Tensor, motion: Tensor, *, everywhere: bool) -> Tensor:
    """The change of the motion, (B, 2, h, w), by one least-squares step, a pixel at most."""
    last, past = gray[:, -1:], gray[:, :-1]
    xx = xy = yy = bx = by = torch.zeros_like(last)
    for k, frame in enumerate(past.split(1, 1)):
        tau = past.shape[1] - k
        there = moved(frame, -tau * motion)
        dx, dy = _gradient((there + last) / 2)
        change = there - last
        weight = 1.0 / tau  # so that a frame long past does not outweigh the last ones
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
