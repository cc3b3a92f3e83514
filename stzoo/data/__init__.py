"""Datasets. Each yields the same `Clip`: past and future frames in the units of the files, uint8 or float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Clip:
    """A batch of sequences cut into past (B, T, C, H, W) and future (B, T', C, H, W), of one dtype, on one device."""

    past: Tensor
    future: Tensor


class ClipSource(Protocol):
    """Clips by number: clip i is the same in every process, on every machine, in every batch."""

    def __len__(self) -> int: ...

    def clips(self, start: int, stop: int) -> Clip:
        """Clips start, start + 1, ... stop - 1. Raises IndexError beyond the end."""
        ...
