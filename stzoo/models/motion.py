"""How frames move, and frames moved: optical flow by Lucas and Kanade, and semi-Lagrangian advection.

Both are made of differentiable operations that can be exported. Displacements are (x, y) in pixels: x counts columns
to the right, y counts rows downwards. Motion is steady: a velocity in pixels a frame for each place, at all times the
same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, exp

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
    if not taus:
        return torch.cat([torch.zeros_like(gray)] * 2, 1)
    tau, window = gray.new_tensor(taus)[:, None, None], gray.new_tensor(_window()).expand(5, 1, 1, -1)
    pictures = [gray]
    for _ in range(COARSEST):
        pictures.append(F.avg_pool2d(pictures[-1], 2, ceil_mode=True, count_include_pad=False))
    motion = torch.zeros_like(pictures[-1][:, :2])
    motion = _refined(pictures[-1], motion, tau, None)
    motion = _refined(pictures[-1], motion, tau, window).clamp(-1.0, 1.0)
    for picture in pictures[-2 : FINEST - 1 : -1]:
        motion = _refined(picture, 2 * _resized(motion, picture), tau, window)
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
    cells = _cells(motion)
    found = [torch.zeros_like(motion)]
    for _ in range(max(times)):
        middle = found[-1] - _sampled(motion, cells + found[-1]) / 2
        found.append(found[-1] - _sampled(motion, cells + middle))
    return torch.stack([found[time] for time in times], 1)


def moved(frames: Tensor, displacement: Tensor) -> Tensor:
    """What lies at a displacement from each cell: bilinear; beyond the edge lies the outermost cell.

    Args:
        frames: (B, C, H, W).
        displacement: (B, 2, H, W), pixels.

    Returns:
        (B, C, H, W).
    """
    return _sampled(frames, _cells(frames) + displacement)


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


def _sampled(frames: Tensor, place: Tensor) -> Tensor:
    """Frames (B, C, H, W) at places (B, 2, H, W), columns and rows -> (B, C, H, W)."""
    height, width = frames.shape[-2:]
    scale = place.new_tensor([2.0 / max(width - 1, 1), 2.0 / max(height - 1, 1)])
    grid = place.permute(0, 2, 3, 1) * scale - 1.0
    return F.grid_sample(frames, grid.to(frames.dtype), padding_mode="border", align_corners=True)


def _refined(gray: Tensor, motion: Tensor, tau: Tensor, window: Tensor | None) -> Tensor:
    """The motion, (B, 2, h, w), after `ROUNDS` least-squares steps, of a pixel at most each.

    All frames are moved at once, and the equations of all of them are summed at once: few large operations are faster
    than many small ones, and a graph of them is traced in a small part of the time.

    Args:
        gray: (B, 1 + K, h, w), the frames.
        motion: (B, 2, h, w), the estimate so far.
        tau: (K, 1, 1), how many frames each but the last lies back.
        window: (5, 1, 1, n), the weights of cells along a row around each; None has one motion everywhere.
    """
    last, past, cells = gray[:, -1:], gray[:, :-1], _cells(gray)
    for _ in range(ROUNDS):
        places = cells - (tau[:, None] * motion[:, None]).flatten(0, 1)
        there = _sampled(past.flatten(0, 1)[:, None], places).view_as(past)
        # An equation weighs tau^-1.5, so that frames long past, which have changed on their way, do not outweigh the
        # last ones. The square root of that weight is on both sides of it.
        dx, dy = _gradient((there + last) * (tau**0.25 / 2))
        change = (there - last) * tau**-0.75
        sums = (torch.stack([dy, dx, dx, dx, dy], 1) * torch.stack([dy, dx, dy, change, change], 1)).sum(2)
        mean = sums.mean((2, 3), keepdim=True)
        sums = mean.expand_as(sums) if window is None else _blurred(sums, window)
        # the matrix [[xx, xy], [xy, yy]], with its diagonal as (yy, xx), and the right side (bx, by)
        diagonal = sums[:, :2] + (DAMPING * mean[:, :2].mean(1, keepdim=True) + 1e-12)
        off, right = sums[:, 2:3], sums[:, 3:]
        determinant = diagonal.prod(1, keepdim=True) - off * off
        motion = motion + ((diagonal * right - off * right.flip(1)) / determinant).clamp(-1.0, 1.0)
    return motion


def _resized(motion: Tensor, like: Tensor) -> Tensor:
    """(B, 2, h, w) -> (B, 2, H, W), of the size of `like`, in the same units."""
    return F.interpolate(motion, like.shape[-2:], mode="bilinear", align_corners=False)


def _gradient(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, each of the shape of the pictures (B, C, h, w)."""
    wide, high = F.pad(pictures, (1, 1, 0, 0), mode="replicate"), F.pad(pictures, (0, 0, 1, 1), mode="replicate")
    return (wide[..., 2:] - wide[..., :-2]) / 2, (high[..., 2:, :] - high[..., :-2, :]) / 2


def _window() -> list[float]:
    """A Gaussian of `SIGMA` pixels, 1 in sum."""
    radius = ceil(2.5 * SIGMA)
    heights = [exp(-((place / SIGMA) ** 2) / 2) for place in range(-radius, radius + 1)]
    return [height / sum(heights) for height in heights]


def _blurred(pictures: Tensor, window: Tensor) -> Tensor:
    """(B, C, h, w), each channel averaged in the window (C, 1, 1, n) both ways; beyond the edge lie zeros."""
    c, radius = window.shape[0], window.shape[-1] // 2
    pictures = F.conv2d(pictures, window.mT, padding=(radius, 0), groups=c)
    return F.conv2d(pictures, window, padding=(0, radius), groups=c)
