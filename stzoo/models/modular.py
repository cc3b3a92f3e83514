"""The modular design (Pan et al., arXiv 2210.01500): a frozen codec, and a predictor that works on its latents.

The encoder reads the past, frame by frame; any block or sequential architecture forecasts latents and feeds on them;
the decoder paints a frame from a latent when one is asked for. The predictor never sees pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from stzoo.errors import SpecError
from stzoo.models.contract import Architecture
from stzoo.spec import ModelSpec, bounded


@dataclass(frozen=True)
class CodecPart:
    """The codec: `arch` and `params` of its own spec."""

    arch: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PredictorPart:
    """The forecaster on latents: `arch` and `params` of its own spec. `channels`, if given, is the codec's `dim`."""

    arch: str
    params: Mapping[str, Any] = field(default_factory=dict)
    channels: int | None = bounded(None, 1, 4096)


@dataclass(frozen=True, kw_only=True)
class ModularConfig:
    """`codec` and `predictor`, and what passes between them.

    `reads`: the predictor sees the encoder's latents as they are ("continuous") or as their nearest codes
    ("quantised"). `paints`: its forecast is decoded as it is ("continuous") or as the nearest codes ("quantised").
    Codecs without a codebook, such as `vae`, have no codes, so both must be "continuous" for them.
    """

    codec: CodecPart
    predictor: PredictorPart
    reads: Literal["continuous", "quantised"] = "continuous"
    paints: Literal["continuous", "quantised"] = "continuous"


class Modular(nn.Module):
    """Neither block nor sequential itself: `stzoo.unroll` drives its `predictor` between `read` and `paint`.

    The codec has no gradient and stays in eval mode. Latents are normalised by the codec's `units`, so that the
    predictor sees the same scale whatever the codec.
    """

    def __init__(self, spec: ModelSpec, config: ModularConfig):
        super().__init__()
        from stzoo.models import architectures, build  # which hold this very class

        for where, part, kinds in (
            ("codec", config.codec, ("codec",)),
            ("predictor", config.predictor, ("block", "sequential")),
        ):
            known = [name for name, each in architectures().items() if each.kind in kinds]
            if part.arch not in known:
                raise SpecError(f"spec.params.{where}.arch is {part.arch!r}; it may be {', '.join(known)}")
        if not architectures()[config.codec.arch].quantises:
            _check_continuous(config)
        self.reads, self.paints = config.reads, config.paints
        device = torch.empty(0).device  # of the context that this is built in
        self.codec = cast(Any, _part("codec", lambda: build(codec_spec(spec, config), device)))
        stride, dim = self.codec.stride, self.codec.dim
        if config.predictor.channels not in (None, dim):
            raise SpecError(
                f"spec.params.predictor.channels is {config.predictor.channels}; the codec's latents have {dim} "
                "(spec.params.codec.params.dim)"
            )
        self.predictor_spec = ModelSpec(
            arch=config.predictor.arch, frames_in=spec.frames_in, frames_out=spec.frames_out, channels=dim,
            height=spec.height // stride, width=spec.width // stride, value_range=None, params=config.predictor.params,
        )  # fmt: skip
        self.predictor = cast(Any, _part("predictor", lambda: build(self.predictor_spec, device)))
        self.stride = None if self.predictor.stride is None else stride * self.predictor.stride
        self.codec.requires_grad_(False)

    def train(self, mode: bool = True) -> "Modular":
        """Changes the mode of the predictor alone; the codec stays in eval mode."""
        super().train(mode)
        self.codec.eval()
        return self

    @torch.no_grad()
    def read(self, frames: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised frames -> (B, T, dim, h, w) latents, in the predictor's units."""
        latents = self.codec.encode(frames.flatten(0, 1))
        if self.reads == "quantised":
            latents = self.codec.quantise(latents)[0]
        mean, std = self.codec.units()
        return ((latents - mean) / std).view(*frames.shape[:2], *latents.shape[1:])

    def paint(self, latents: Tensor) -> Tensor:
        """(B, dim, h, w) latents, in the predictor's units -> (B, C, H, W) normalised frames."""
        mean, std = self.codec.units()
        latents = latents * std + mean
        if self.paints == "quantised":
            latents = self.codec.quantise(latents)[0] + 0 * latents  # NaN stays NaN: there is no code near it
        return self.codec.decode(latents)


def codec_spec(spec: ModelSpec, config: ModularConfig) -> ModelSpec:
    """The codec's own spec: single frames like those that the whole model reads."""
    own = {"arch": config.codec.arch, "frames_in": 1, "frames_out": 1, "params": config.codec.params}
    return ModelSpec.from_dict(spec.to_dict() | own)


def _check_continuous(config: ModularConfig) -> None:
    for name, found in (("reads", config.reads), ("paints", config.paints)):
        if found == "quantised":
            raise SpecError(
                f"spec.params.{name} is 'quantised', but {config.codec.arch} has no codebook; set it to 'continuous'"
            )


def _part(where: str, make: Any) -> nn.Module:
    """What `make` builds. If it raises `SpecError`, the message also says which part is wrong."""
    try:
        return make()
    except SpecError as error:
        raise SpecError(f"in the {where}: {error}") from error


ARCHITECTURE = Architecture(name="modular", kind="modular", config=ModularConfig, module=Modular)
