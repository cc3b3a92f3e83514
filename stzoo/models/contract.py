"""What an architecture is: the kinds of module, and all that the rest of the package must know of one.

A model file ends in its `Architecture`, which states these facts beside the class that they are about. Nothing else in
stzoo knows an architecture by its name. Shapes: B clips, T past frames, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from stzoo.spec import ModelSpec

Kind = Literal["block", "sequential", "modular", "codec"]


class Block(Protocol):
    """Forecasts as many frames as it reads, all at once.

    Attributes:
        stride: H and W must be multiples of it; None where only the spec's own size will do.
    """

    stride: int | None

    def __call__(self, past: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised past frames -> (B, T, C, H, W), the T frames that follow."""
        ...


class Sequential(Protocol):
    """Reads one frame after the other and keeps a state between them.

    The state is whatever the module likes: tensors, or tuples of them. It is made for each call and never kept in the
    module, and its size is bounded however many frames are read.
    """

    stride: int | None

    def initial_state(self, batch: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Any:
        """The state before the first frame of `batch` clips, whose frames have `size` (H, W)."""
        ...

    def step(self, frame: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(B, C, H, W), one normalised frame -> the forecast of the next one, of the same shape, and the new state."""
        ...


class ReadsClips(Sequential, Protocol):
    """A sequential module that can also read many frames in one call, with the same result."""

    def read(self, frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(B, T, C, H, W) -> the forecasts after each frame, of the same shape, and the state after the last one."""
        ...


class Codec(Protocol):
    """Turns single frames into a small grid of latents and back. It forecasts nothing.

    Attributes:
        stride: H and W must be multiples of it; latents have h = H / stride rows and w = W / stride columns.
        dim: channels of a latent.
        codebook: (K, dim), the codes.
    """

    stride: int
    dim: int
    codebook: Tensor

    def encode(self, frames: Tensor) -> Tensor:
        """(B, C, H, W) normalised frames -> (B, dim, h, w) latents, not quantised."""
        ...

    def quantise(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """(B, dim, h, w) -> the nearest codes, of the same shape, and their numbers (B, h, w) int64."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """(B, dim, h, w) latents, quantised or not -> (B, C, H, W) normalised frames."""
        ...


class Modular(Protocol):
    """A forecaster on the latents of a frozen codec: read the past, let the predictor go on, paint what is asked for.

    Attributes:
        codec: never trained here.
        predictor: a block or sequential module on latents, described by `predictor_spec`.
    """

    stride: int | None
    codec: Any
    predictor: Any
    predictor_spec: ModelSpec

    def read(self, frames: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised frames -> (B, T, dim, h, w) latents, in the predictor's units."""
        ...

    def paint(self, latents: Tensor) -> Tensor:
        """(B, dim, h, w) latents, in the predictor's units -> (B, C, H, W) normalised frames."""
        ...


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One architecture, and what other rooms ask of it. What is left out has a default that is safe.

    Attributes:
        name: `ModelSpec.arch`.
        kind: which of the protocols above the module follows.
        config: a frozen dataclass, made from `ModelSpec.params`.
        module: built as ``module(spec, config)``.
    """

    name: str
    kind: Kind
    config: type
    module: Callable[[ModelSpec, Any], nn.Module]

    @property
    def is_codec(self) -> bool:
        """A codec is opened by `stzoo.load_codec`, every other kind by `stzoo.load`."""
        return self.kind == "codec"
