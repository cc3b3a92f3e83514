"""What a block's forecast begins from: nothing, the last past frame, a mixture of ever wider blurs of it, or the frames
of the last period.

The longer the time ahead, the less is known of where small things will be. The least squared error then has what is
there on average, which is the last frame blurred; how far, and where, a network can learn from the past.
"""

from __future__ import annotations

from math import log2

import torch
from torch import Tensor, nn

from stzoo.models.decibels import Decibels

REACH = 8.0  # pixels: the standard deviation of the window in which `MovingParts` looks for movement
FASTER = 10  # times the rate of other parameters, at which the weights that hold everywhere are learned


class LastFrame(nn.Module):
    """The last past frame, to which the decoder adds the change."""

    more = 0  # channels that the decoder makes besides those of a frame

    def forward(self, painted: Tensor, past: Tensor) -> Tensor:
        """(B, T, C, H, W) changes and past frames -> (B, T, C, H, W)."""
        return painted + past[:, -1:]


class MovingParts(nn.Module):
    """The last past frame, to which the decoder adds the change, but only near what moved.

    y_t = x + r_t m^2 / (m^2 + s^2), where x is the last frame, r_t the change, and m the root mean square of x_k - x
    over all past frames k, channels, and a Gaussian window of `REACH` pixels. A scene that stood still stays still, and
    so does the background of one in which something moves.
    """

    more = 0

    def __init__(self, still: float):
        super().__init__()
        self.least = still**2

    def forward(self, painted: Tensor, past: Tensor) -> Tensor:
        """(B, T, C, H, W) changes and past frames -> (B, T, C, H, W)."""
        last = past[:, -1:]
        moved = blurred((past - last).square().mean((1, 2)), REACH)[:, None, None]
        return last + painted * (moved / (moved + self.least))


class LastPeriod(nn.Module):
    """The frame one period earlier, to which the decoder adds the change: of hours and a period of 168, a week ago."""

    more = 0

    def __init__(self, period: int):
        super().__init__()
        self.period = period

    def forward(self, painted: Tensor, past: Tensor) -> Tensor:
        """(B, T, C, H, W) changes and past frames, T >= period -> (B, T, C, H, W)."""
        frames = past.shape[1]
        periods = past[:, -self.period :].repeat(1, -(-frames // self.period), 1, 1, 1)
        return painted + periods[:, :frames]


class BlurredLastFrame(nn.Module):
    """A mixture of the last frame and blurs of it, whose weights the decoder makes for each pixel.

    y_t = sum_k w_tk (G_k * x) + r_t with w_t = softmax(logits_t + b_t), where G_0 is the identity, G_k a Gaussian with
    a standard deviation of 2^(k-1) pixels, and b_t is learned for each of the T frames. Of `Decibels`, x is the
    quantity, and the mixture is multiplied by 2^r_t instead: nothing comes of nothing.
    """

    def __init__(self, frames: int, channels: int, blurs: int, decibels: Decibels | None):
        super().__init__()
        self.channels, self.more, self.decibels = channels, blurs + 1, decibels
        self.sigmas = [2.0**k for k in range(blurs)]
        self.bias = nn.Parameter(
            torch.tensor([[_at_first(t, k) / FASTER for k in range(self.more)] for t in range(1, frames + 1)])
        )

    def forward(self, painted: Tensor, past: Tensor) -> Tensor:
        """(B, T, C + more, H, W): the changes r, then the logits; and past frames -> (B, T, C, H, W)."""
        last = past[:, -1]
        changes, logits = painted.split([self.channels, self.more], 2)
        weights = (logits + FASTER * self.bias[..., None, None]).softmax(2)
        begins = last if self.decibels is None else self.decibels.quantity(last)
        mixed = weights[:, :, :1] * begins[:, None]
        for k, sigma in enumerate(self.sigmas, 1):
            mixed = mixed + weights[:, :, k : k + 1] * blurred(begins, sigma)[:, None]
        if self.decibels is None:
            return mixed + changes
        return self.decibels.values(mixed * 2**changes)


Beginning = LastFrame | MovingParts | LastPeriod | BlurredLastFrame


def _at_first(time: int, blur: int) -> float:
    """The logit of a blur before training: about a quarter of a pixel more each frame."""
    return -2.0 * (blur - log2(1 + time / 4)) ** 2


def blurred(frames: Tensor, sigma: float) -> Tensor:
    """Each channel of (B, C, H, W) averaged in a Gaussian window of `sigma` pixels, within the frame."""
    rows, columns = (_windows(side, sigma, frames) for side in frames.shape[-2:])
    return rows @ frames @ columns.T


def _windows(side: int, sigma: float, like: Tensor) -> Tensor:
    """(side, side): the weights of all pixels of a line in the mean around each of them.

    As products of matrices, wide windows cost no more than narrow ones, and the edges need no care.
    """
    place = torch.arange(side, device=like.device, dtype=like.dtype)
    weights = torch.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2))
    return weights / weights.sum(1, keepdim=True)
