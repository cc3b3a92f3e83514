"""Frames of any size for a module that takes multiples of a stride: padded by reflection, and cropped back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Padding:
    """Rows and columns that are added around frames, so that a stride divides their sides.

    Attributes:
        height, width: of the frames without them.
        top, bottom, left, right: how many are added on each side.
    """

    height: int
    width: int
    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def of(cls, size: tuple[int, int], stride: int | None) -> Padding:
        """The least padding of frames of `size` (H, W), half of it on each side; none if the stride is None."""
        rows, columns = (0, 0) if stride is None else (-size[0] % stride, -size[1] % stride)
        return cls(*size, rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)

    @property
    def is_none(self) -> bool:
        """Do the frames stay as they are?"""
        return not (self.top or self.bottom or self.left or self.right)

    def add(self, frames: Tensor) -> Tensor:
        """(..., C, H, W) -> (..., C, top + H + bottom, left + W + right).

        The frame goes on as its mirror image. Where a side is shorter than its padding, its outermost pixels are
        repeated.
        """
        if self.is_none:
            return frames
        flat = frames.flatten(0, -4) if frames.dim() > 4 else frames
        flat = F.pad(flat, (0, 0, self.top, self.bottom), _mode(self.bottom, self.height))
        flat = F.pad(flat, (self.left, self.right, 0, 0), _mode(self.right, self.width))
        return flat.reshape(*frames.shape[:-2], *flat.shape[-2:])

    def remove(self, frames: Tensor) -> Tensor:
        """(..., C, top + H + bottom, left + W + right) -> (..., C, H, W), a view."""
        rows, columns = slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)
        return frames if self.is_none else frames[..., rows, columns]


def _mode(added: int, side: int) -> str:
    """`added` is the larger padding of the two ends of a side."""
    return "reflect" if added < side else "replicate"
