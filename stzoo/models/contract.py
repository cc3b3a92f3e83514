"""What an architecture is: the kinds of module, and all that the rest of the package must know of one.

A model file ends in its `Architecture`, which states these facts beside the class that they are about. Nothing else in
stzoo knows an architecture by its name. Shapes: B clips, T past frames, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from stzoo.errors import SpecError
from stzoo.models.published import Layout
from stzoo.spec import ModelSpec

Kind = Literal["block", "sequential", "modular", "codec"]
Colour = Literal["first", "last"]


class BlockModule(Protocol):
    """Forecasts as many frames as it reads, all at once."""

    def __call__(self, past: Tensor, /) -> Tensor:
        """(B, T, C, H, W) normalised past frames -> (B, T, C, H, W), the T frames that follow."""
        ...


class SequentialModule(Protocol):
    """Reads one frame after the other and keeps a state between them.

    The state is whatever the module likes: tensors, or tuples of them. It is made for each call and never kept in the
    module, and its size is bounded however many frames are read.
    """

    def initial_state(self, batch: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype, /) -> Any:
        """The state before the first frame of `batch` clips, whose frames have `size` (H, W)."""
        ...

    def step(self, frame: Tensor, state: Any, /) -> tuple[Tensor, Any]:
        """(B, C, H, W), one normalised frame -> the forecast of the next one, of the same shape, and the new state."""
        ...


class ClipReadingModule(SequentialModule, Protocol):
    """A sequential module that can also read many frames in one call, with the same result as that many steps."""

    def read(self, frames: Tensor, state: Any, /) -> tuple[Tensor, Any]:
        """(B, T, C, H, W) -> the forecasts after each frame, of the same shape, and the state after the last one."""
        ...


class AdvancingModule(SequentialModule, Protocol):
    """A sequential module that can also read a frame without forecasting the next one, which spares some work."""

    def advance(self, frame: Tensor, state: Any, /) -> Any:
        """(B, C, H, W) -> the new state, as `step` gives it."""
        ...


class CodecModule(Protocol):
    """Turns single frames into a small grid of latents and back. It forecasts nothing.

    Attributes:
        stride: H and W must be multiples of it; latents have h = H / stride rows and w = W / stride columns.
        dim: channels of a latent.
    """

    stride: int

    @property
    def dim(self) -> int: ...

    def encode(self, frames: Tensor, /) -> Tensor:
        """(B, C, H, W) normalised frames -> (B, dim, h, w) latents: not quantised, and without noise."""
        ...

    def decode(self, latents: Tensor, /) -> Tensor:
        """(B, dim, h, w) latents, quantised or not -> (B, C, H, W) normalised frames."""
        ...

    def units(self) -> tuple[Tensor, Tensor]:
        """The mean of the latents that frames have, (dim, 1, 1), and their standard deviation from it, a scalar.

        A predictor reads latents in these units, so that it sees the same scale whatever the codec.
        """
        ...

    def __call__(self, frames: Tensor, /) -> Tensor:
        """(B, C, H, W) normalised frames -> what is left of them after they went through the latents."""
        ...


class CodebookModule(CodecModule, Protocol):
    """A codec that quantises: each latent is near one of K codes.

    Attributes:
        codebook: (K, dim), the codes.
    """

    codebook: nn.Parameter

    def quantise(self, latents: Tensor, /) -> tuple[Tensor, Tensor]:
        """(B, dim, h, w) -> the nearest codes, of the same shape, and their numbers (B, h, w) int64."""
        ...

    def look_up(self, codes: Tensor, /) -> Tensor:
        """(B, h, w) numbers of codes -> (B, dim, h, w), the codes themselves."""
        ...


class GaussianModule(CodecModule, Protocol):
    """A codec without codes: a frame gives each value of a latent a Gaussian distribution, whose mean `encode` returns.

    Attributes:
        latent_mean: (dim,), the mean of the latents of training frames, which training measures.
        latent_std: their standard deviation from it, a scalar.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def posterior(self, frames: Tensor, /) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) normalised frames -> mean and logarithm of the variance of each latent, (B, dim, h, w) each."""
        ...


class ModularModule(Protocol):
    """A forecaster on the latents of a frozen codec: read the past, let the predictor go on, paint what is asked for.

    Built by its architecture, it also has a `codec`, which is never trained here.

    Attributes:
        predictor: a block or sequential module on latents, described by `predictor_spec`.
    """

    @property
    def predictor(self) -> Any: ...

    @property
    def predictor_spec(self) -> ModelSpec: ...

    def read(self, frames: Tensor, /) -> Tensor:
        """(B, T, C, H, W) normalised frames -> (B, T, dim, h, w) latents, in the predictor's units."""
        ...

    def paint(self, latents: Tensor, /) -> Tensor:
        """(B, dim, h, w) latents, in the predictor's units -> (B, C, H, W) normalised frames."""
        ...


# What a module must have to be of a kind. `stride` is a number that H and W must be multiples of, or None if they must
# be those of the spec.
MEMBERS: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {
        "block": ("stride", "forward"),
        "sequential": ("stride", "initial_state", "step"),
        "modular": ("stride", "codec", "predictor", "predictor_spec", "read", "paint"),
        "codec": ("stride", "dim", "encode", "decode", "units", "forward"),
    }
)
_CODEBOOK = ("codebook", "quantise", "look_up")
_GAUSSIAN = ("posterior", "latent_mean", "latent_std")


@dataclass(frozen=True)
class SequentialForm:
    """The methods of a `SequentialModule` in another form, such as compiled ones; those that it has not are None."""

    initial_state: Callable[[int, tuple[int, int], torch.device, torch.dtype], Any]
    step: Callable[[Tensor, Any], tuple[Tensor, Any]]
    read: Callable[[Tensor, Any], tuple[Tensor, Any]] | None
    advance: Callable[[Tensor, Any], Any] | None


@dataclass(frozen=True)
class ModularForm:
    """The methods of a `ModularModule` in another form, such as compiled ones, around the predictor's own form."""

    predictor: Any
    predictor_spec: ModelSpec
    read: Callable[[Tensor], Tensor]
    paint: Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Decoupling:
    """Two memories whose increments training keeps apart by `recipe.decouple_weight` (PredRNN-V2, equation 6).

    Attributes:
        setting: the boolean of the architecture's configuration that switches this on.
        pairs: (module, state) -> for each layer the increments of the last step as the loss compares them, two tensors
            of (B, hidden, h, w).
    """

    setting: str
    pairs: Callable[[Any, Any], list[tuple[Tensor, Tensor]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Architecture:
    """One architecture, and what other rooms ask of it. What is left out has a default that is safe.

    Attributes:
        name: `ModelSpec.arch`.
        kind: which of the protocols above the module follows.
        config: a frozen dataclass, made from `ModelSpec.params`.
        module: built as ``module(spec, config)``. It has an attribute `stride`: H and W must be multiples of it, or
            those of the spec if it is None.
        reads_clips: the module of a sequential architecture has `read` as well, see `ClipReadingModule`. The past is
            then read in one call, and a recipe may take ``sampling = "parallel"``.
        advances: the module of a sequential architecture has `advance` as well, see `AdvancingModule`. Of the past all
            frames but the last are then read so.
        quantises: the latents of a codec are near codes, see `CodebookModule`. By default they are Gaussian, see
            `GaussianModule`.
        colour: which part of a channel axis, into which pixels or frames are folded, is the colour: the "first" if
            channel c of pixel p lies at c * pixels + p, the "last" if it lies at p * channels + c. With it,
            ``stzoo.load(..., adapt={"channels": n})`` averages weights over the channels. By default such tensors begin
            anew, and the report names them.
        recompute: the classes of those parts of the module that a recipe with ``checkpoint = true`` computes twice, so
            that between the two passes of a training step only their inputs are kept. A sequential architecture needs
            none, since each of its steps is such a part, except for ``sampling = "parallel"``. By default a block
            refuses such a recipe.
        layouts: how published checkpoints are laid out, by their origin; see `stzoo.convert`. By default none is read.
        decoupling: what ``decouple_weight`` of a recipe needs. By default such a recipe is refused.
        stores: (module, past (B, T, C, H, W), future (B, T', C, H, W)) -> a forecast (B, T, C, H, W) of a block whose
            memory sees the true future as well, and learns; ``memory_weight`` of a recipe weighs its loss. An ordinary
            forecast leaves the memory as it is. By default such a recipe is refused.
        derivative_kernels: module -> (k*k, C, k, k), convolution kernels of which number i * k + j stands for the
            derivative of order i, j; ``moment_weight`` of a recipe needs them. By default such a recipe is refused.
        fast_form: the module is an `EncodeTranslateDecode` around `GatedBlock`s, which `stzoo.engine` rewrites as a
            whole for forecasts on a CPU. By default each layer is rewritten by itself, which is right for any module.
        fused_training: the CPU kernels of `stzoo.train.fused` are written for this module. By default a recipe with
            ``fused = true`` trains the plain module.

    Raises:
        SpecError: the kind or the colour is not one of those above, or a trait is stated that this kind cannot have.
    """

    name: str
    kind: Kind
    config: type
    module: Callable[[ModelSpec, Any], nn.Module]
    reads_clips: bool = False
    advances: bool = False
    quantises: bool = False
    colour: Colour | None = None
    recompute: tuple[type[nn.Module], ...] = ()
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    decoupling: Decoupling | None = None
    stores: Callable[[Any, Tensor, Tensor], Tensor] | None = None
    derivative_kernels: Callable[[Any], Tensor] | None = None
    fast_form: bool = False
    fused_training: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise SpecError(f"kind is {self.kind!r}; it must be one of {', '.join(get_args(Kind))}")
        if self.colour not in (None, *get_args(Colour)):
            raise SpecError(f"colour is {self.colour!r}; it must be 'first', 'last' or None")
        of_one_kind: tuple[tuple[str, Kind], ...] = (
            ("reads_clips", "sequential"),
            ("advances", "sequential"),
            ("quantises", "codec"),
            ("decoupling", "sequential"),
            ("stores", "block"),
            ("fast_form", "block"),
        )
        for trait, kind in of_one_kind:
            if getattr(self, trait) and self.kind != kind:
                raise SpecError(f"{trait} is stated by {self.name}, which is {self.kind}; only a {kind} one has it")

    @property
    def is_codec(self) -> bool:
        """A codec is opened by `stzoo.load_codec`, every other kind by `stzoo.load`."""
        return self.kind == "codec"

    def decouples(self, config: Any) -> bool:
        """Does a module of this configuration have two memories that training keeps apart?"""
        return self.decoupling is not None and getattr(config, self.decoupling.setting)

    def check_module(self, module: nn.Module) -> None:
        """Raises `SpecError` if the module lacks a member of its kind."""
        stated = (("read", self.reads_clips), ("advance", self.advances))
        members = MEMBERS[self.kind] + tuple(name for name, has in stated if has)
        if self.is_codec:
            members += _CODEBOOK if self.quantises else _GAUSSIAN
        unwritten = nn.Module.forward
        missing = [m for m in members if not hasattr(module, m) or getattr(type(module), m, None) is unwritten]
        if missing:
            raise SpecError(f"{self.name} is stated to be {self.kind}, but its module has no {', no '.join(missing)}")
