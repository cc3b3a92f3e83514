"""Sinusoidal codes of positions (Vaswani et al., NeurIPS 2017, section 3.5)."""

import torch
from torch import Tensor


def positions(numbers: Tensor, channels: int) -> Tensor:
    """(N,) numbers p -> (N, channels) float64: sine of p / 10000^(2i / channels) in channel 2i, cosine in 2i + 1."""
    pairs = torch.arange(0, channels, 2, device=numbers.device)
    angle = numbers[:, None].double() * 10000.0 ** (-pairs.double() / channels)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
