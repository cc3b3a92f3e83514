"""What the recurrent architectures share: patches instead of pixels, one convolution for several gates, a common size.

A recurrent module is a `stzoo.models.contract.SequentialModule`. It never keeps its state.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from stzoo.errors import SpecError
from stzoo.models.published import rules
from stzoo.models.reading import Frame, Shapes, Told, depth, hint_of, patches, plane
from stzoo.spec import ModelSpec, bounded

OPENSTL_READOUT = rules((r"readout", r"conv_last"))


@dataclass(frozen=True)
class RecurrentConfig:
    """`layers` cells of `hidden` channels, with `kernel` x `kernel` gates, on patches of `patch` x `patch` pixels."""

    layers: int = bounded(4, 1, 32)
    hidden: int = bounded(128, 1, 4096)
    kernel: int = bounded(5, 1, 31)
    patch: int = bounded(4, 1, 64)

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise SpecError(f"spec.params.kernel is {self.kernel}; it must be odd")


def grid(spec: ModelSpec, patch: int) -> tuple[int, int]:
    """Rows and columns of patches in a frame of the spec's size. Raises `SpecError` if they do not fill the frame."""
    if spec.height % patch or spec.width % patch:
        raise SpecError(f"spec.params.patch is {patch}; it must divide the frame, {spec.height}x{spec.width}")
    return spec.height // patch, spec.width // patch


def to_patches(frame: Tensor, p: int) -> Tensor:
    """(B, C, H, W) -> (B, p*p*C, H/p, W/p): channel (row * p + column) * C + c, the order of published checkpoints."""
    b, c, h, w = frame.shape
    return frame.reshape(b, c, h // p, p, w // p, p).permute(0, 3, 5, 1, 2, 4).reshape(b, p * p * c, h // p, w // p)


def from_patches(patches: Tensor, p: int) -> Tensor:
    """(B, p*p*C, H/p, W/p) -> (B, C, H, W): the inverse of `to_patches`."""
    b, c, h, w = patches.shape
    c = c // (p * p)
    return patches.reshape(b, p, p, c, h, w).permute(0, 3, 4, 1, 5, 2).reshape(b, c, h * p, w * p)


def gates(c_in: int, c_out: int, kernel: int) -> nn.Conv2d:
    """(B, c_in, h, w) -> (B, c_out, h, w), without a bias: pre-activations of all the gates that read one input."""
    return nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False)


def zero_plane(
    batch: int, channels: int, size: tuple[int, int], patch: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Zeros (batch, channels, H/patch, W/patch), from which every memory starts; `size` is the frame's (H, W)."""
    return torch.zeros(batch, channels, size[0] // patch, size[1] // patch, device=device, dtype=dtype)


def check_unit_range(spec: ModelSpec, any_range: bool | None = None) -> None:
    """Raises `SpecError` if normalised frames leave [0, 1], which a sigmoid at the end of a model cannot.

    Args:
        spec: of the model.
        any_range: its setting of that name, which allows such frames; None if it has no such setting.
    """
    if any_range:
        return
    low, high = spec.value_range or (math.nan, math.nan)
    zeros, ones = ([(end - m) / s for m in spec.mean for s in spec.std] for end in (low, high))
    if not all(abs(z) < 1e-6 for z in zeros) or not all(abs(o - 1) < 1e-6 for o in ones):
        trained = ", and spec.params.any_range to true for weights that were trained on such values"
        raise SpecError(
            f"spec.value_range is {spec.value_range}, mean {spec.mean}, std {spec.std}; {spec.arch} ends in a sigmoid, "
            "so they must bring values to [0, 1]; or set spec.params.sigmoid to false for a model that is still to be "
            f"trained{'' if any_range is None else trained}"
        )


class Squeezed(Protocol):
    """A configuration with these two settings; see `any_range_where_trained`."""

    @property
    def sigmoid(self) -> bool: ...

    @property
    def any_range(self) -> bool: ...


def check_squeezed(config: Squeezed) -> None:
    """Raises `SpecError` if `any_range` is true without the sigmoid that it is about."""
    if config.any_range and not config.sigmoid:
        raise SpecError("spec.params.any_range is true; it says something of the sigmoid, which is switched off")


def any_range_where_trained(spec: ModelSpec, config: Squeezed) -> ModelSpec:
    """The spec of published weights that end in the sigmoid whatever their values are: without a range, any will do."""
    return spec.replace(any_range=True) if spec.value_range is None and config.sigmoid else spec


def reads_cells(
    first: str, stack: str = "cell_list", place: str = "", untold: tuple[str, ...] = ()
) -> Callable[[Shapes, Frame], Told]:
    """For `Reader.read`: `layers` cells named `stack`.0 and so on, whose input convolution is `first`.

    `place` is a weight of the model that belongs to places, if it has one.
    """

    def read(shapes: Shapes, known: Frame) -> Told:
        inputs = shapes[f"{stack}.0.{first}"]
        places = plane(shapes, place) if place in shapes else None
        patch, frame = patches(inputs[1], known, places)
        params = {
            "layers": depth(shapes, stack),
            "hidden": shapes["conv_last.weight"][1],
            "kernel": inputs[-1],
            "patch": patch,
        }
        return Told(params=params, frame=frame, untold=untold, hint=hint_of(known))

    return read
