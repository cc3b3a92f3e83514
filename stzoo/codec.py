"""`Codec`: frames to a small grid of latents, and back. Made by `stzoo.load_codec`."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import torch
from torch import Tensor, nn

from stzoo import catalog, html
from stzoo import frames as frames_room
from stzoo.engine import in_units
from stzoo.engine.forking import use_one_thread_if_forked
from stzoo.engine.padding import Padding
from stzoo.errors import ForecastError, FramesError, SpecError
from stzoo.frames.values import normalise
from stzoo.hub.sharing import Shareable
from stzoo.hub.sources import Resolved, resolve, source_text
from stzoo.machine import check_device
from stzoo.models import architecture_of, check_kind, stride_of
from stzoo.spec import ModelSpec
from stzoo.weights import LoadReport, load_module, random_module

AT_ONCE = 64  # frames that go through the module together, however many a clip has


class Codec(Shareable):
    """A codec with its spec. It looks at each frame alone, so a clip may have any number of them.

    Shapes: B clips, T frames, C channels, H rows and W columns of a frame, `dim` channels of a latent, and
    h = H / stride rows and w = W / stride columns of latents. Latents of a codec that `quantises`, such as `vqvae`, are
    near codes; those of `vae` are not.

    Attributes:
        spec: what the model is; `frames_in` and `frames_out` are 1.
        report: where its weights came from.
    """

    def __init__(self, spec: ModelSpec, module: nn.Module, report: LoadReport):
        self.spec, self.report, self._module = spec, report, module.eval()

    @property
    def module(self) -> Any:
        """The plain `torch.nn.Module`, in eval mode, with the methods of `stzoo.models.contract.CodecModule`."""
        return self._module

    @property
    def quantises(self) -> bool:
        """Whether the codec has a codebook, so that `quantise` works, and `decode` for numbers of codes."""
        return architecture_of(self.spec).quantises

    @torch.no_grad()
    def encode(
        self,
        frames: Any,
        *,
        layout: str | None = None,
        bits: int | None = None,
        variable: str | None = None,
        time: str | None = None,
    ) -> Tensor:
        """Frames of any kind that `Forecaster.predict` takes, and any number -> float32 latents (B, T, dim, h, w).

        Pictures stay at their own size and become gray or RGB as the spec says; arrays must have its channels, and
        sides that are multiples of the codec's stride. Only `reconstruct` takes other channels and sizes. Latents are
        not quantised, have no noise (those of `vae` are means), and lie on the codec's device. The arguments are as in
        `Forecaster.rollout`.

        Raises:
            FramesError: the frames have a wrong shape, dtype or range, a missing value, or a size that is not a
                multiple of the codec's stride.
            ForecastError: the codec makes NaN or infinite values of them.
        """
        return self._encode(self._read(frames, layout, bits, variable, time, exact=True))

    @torch.no_grad()
    def quantise(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, T, dim, h, w) -> the nearest codes, of the same shape, and their numbers (B, T, h, w), int64.

        Raises:
            SpecError: the codec has no codebook.
            FramesError: `latents` has another shape or dtype, or holds values that are not finite.
        """
        self._check_quantises()
        use_one_thread_if_forked()
        flat = self._latents(latents)
        with self._in_float32():
            pieces = [self.module.quantise(some) for some in flat.split(AT_ONCE)]
        quantised, codes = (torch.cat(x).unflatten(0, latents.shape[:2]) for x in zip(*pieces, strict=True))
        return quantised, codes

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Float latents (B, T, dim, h, w), or whole numbers of codes (B, T, h, w) -> float32 frames (B, T, C, H, W).

        Frames are in the spec's units, clipped to its `value_range`, and lie on the codec's device.

        Raises:
            SpecError: they are numbers of codes, and the codec has no codebook.
            FramesError: `latents` has another shape or dtype, holds values that are not finite, or a number that is
                no code's.
            ForecastError: the codec makes NaN or infinite values of them.
        """
        use_one_thread_if_forked()
        if isinstance(latents, Tensor) and not latents.is_floating_point():
            self._check_quantises()
            flat = self.module.look_up(self._codes(latents))
        else:
            flat = self._latents(latents)
        with self._in_float32():
            painted = torch.cat([self.module.decode(some) for some in flat.split(AT_ONCE)])
            frames = in_units(painted, self.spec, 1)
        if self.spec.value_range is not None:
            frames = frames.clamp(*self.spec.value_range)
        return frames.unflatten(0, latents.shape[:2])

    def reconstruct(
        self,
        frames: Any,
        *,
        layout: str | None = None,
        color: str | None = None,
        bits: int | None = None,
        variable: str | None = None,
        time: str | None = None,
    ) -> Any:
        """The frames as they come back from their latents or codes, of the same kind, dtype, range, axes and size.

        They may have any height and width, and any number. The arguments are as in `Forecaster.rollout`: a codec that
        takes gray makes each channel of colour a clip of its own, or one gray clip with `color` "gray".

        Raises:
            FramesError: the frames have a wrong shape, dtype or range, or a missing value.
            ForecastError: as in `encode`.
        """
        source = self._read(frames, layout, bits, variable, time, color=color)
        padding = Padding.of((source.past.shape[-2], source.past.shape[-1]), stride_of(self.module))
        padded = dataclasses.replace(source, past=padding.add(source.past))
        latents = self._encode(padded)
        painted = padding.remove(self.decode(self.quantise(latents)[1] if self.quantises else latents))
        return source.collect(map(source.frame, painted.unbind(1)), painted.shape[1])

    def to(self, device: str | torch.device) -> Codec:
        """Move the module, in place, and return the codec. Latents, and frames that are decoded, lie on that device.

        Raises:
            SpecError: torch knows no such device, or this machine has none.
        """
        self.module.to(check_device(device))
        return self

    @classmethod
    def from_files(cls, found: Resolved, name: str) -> Codec:
        """The codec in files that `stzoo.hub.resolve` found, on the CPU; errors call it `name`.

        Raises:
            SpecError: the files hold a forecaster.
            WeightsError: the file cannot be read. MismatchError: its tensors are not the module's.
        """
        check_kind(found.spec, "codec", name)
        module, report = load_module(found.spec, found.path, found.sha256, known=found.known)
        return cls(found.spec, module, report)

    def __repr__(self) -> str:
        s, stride = self.spec, stride_of(self.module) or 1
        codes = f", {len(self.module.codebook)} codes" if self.quantises else ""
        grid = f"{s.height // stride}x{s.width // stride} latents of {self.module.dim}{codes}"
        return f"Codec({s.arch}, {s.channels}x{s.height}x{s.width} -> {grid}, {self.report})"

    def _repr_html_(self) -> str:
        """What a notebook shows: what the codec is, and where its weights are from."""
        return html.facts("Codec", [*catalog.described(self.spec), ("weights", str(self.report))])

    def _read(
        self,
        frames: Any,
        layout: str | None,
        bits: int | None,
        variable: str | None,
        time: str | None,
        *,
        color: str | None = None,
        exact: bool = False,
    ) -> frames_room.CallerFrames:
        use_one_thread_if_forked()
        options = frames_room.ReadingOptions(
            layout=layout, resize=False, color=color, bits=bits, variable=variable, time=time
        )
        return frames_room.read(frames, self.spec, stride_of(self.module), options, whole=True, exact=exact)

    @torch.no_grad()
    def _encode(self, source: frames_room.CallerFrames) -> Tensor:
        with self._in_float32():
            frames = normalise(source.past.to(self._device), self.spec)
            latents = torch.cat([self.module.encode(some) for some in frames.flatten(0, 1).split(AT_ONCE)])
        if not latents.isfinite().all():  # with a codebook each would be near some code all the same
            raise ForecastError("the codec makes latents that are not finite: its weights are damaged, so use others")
        return latents.unflatten(0, frames.shape[:2])

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _in_float32(self) -> torch.autocast:
        """Whatever context the caller has: numbers of a codec are those of its weights' dtype."""
        return torch.autocast(self._device.type, enabled=False)

    def _latents(self, latents: Any) -> Tensor:
        """(B, T, dim, h, w) -> (B * T, dim, h, w), checked, with the module's dtype and device."""
        shape, dim = tuple(latents.shape) if isinstance(latents, Tensor) else (), self.module.dim
        if len(shape) != 5 or shape[2] != dim or 0 in shape or not latents.is_floating_point():
            raise FramesError(f"expected a tensor of float latents (B, T, {dim}, h, w), given {_described(latents)}")
        if not latents.isfinite().all():
            raise FramesError("the latents hold values that are not finite")
        return latents.flatten(0, 1).to(next(self.module.parameters()))

    def _check_quantises(self) -> None:
        if not self.quantises:
            raise SpecError(
                f"{self.spec.arch} has no codebook: its latents are continuous, so decode them as `encode` returns them"
            )

    def _codes(self, codes: Tensor) -> Tensor:
        """(B, T, h, w) -> (B * T, h, w) int64, checked, on the codebook's device."""
        if codes.dim() != 4 or codes.is_complex() or codes.dtype == torch.bool or 0 in codes.shape:
            raise FramesError(f"expected whole numbers of codes (B, T, h, w), given {_described(codes)}")
        low, high, count = int(codes.min()), int(codes.max()), len(self.module.codebook)
        if low < 0 or high >= count:
            raise FramesError(f"numbers of codes lie in [0, {count - 1}], given [{low}, {high}]")
        return codes.flatten(0, 1).to(self.module.codebook.device, torch.int64)


def _described(x: Any) -> str:
    return f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else f"a {type(x).__name__}"


def load_codec(
    source: str | os.PathLike[str],
    *,
    pretrained: bool = True,
    revision: str | None = None,
    device: str | torch.device | None = None,
    offline: bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Codec:
    """A codec with its trained weights. The arguments mean the same as in `stzoo.load`.

    Raises:
        SpecError: the source is a forecaster, or the device is not there.
        StzooError: the source cannot be found or read, as in `stzoo.load`.
    """
    use_one_thread_if_forked()
    place = check_device("cpu" if device is None else device)
    if pretrained:
        found = resolve(source, revision=revision, offline=offline, cache_dir=cache_dir, progress=progress)
        return Codec.from_files(found, source_text(source)).to(place)
    spec = catalog.info(source_text(source)).spec
    check_kind(spec, "codec", source_text(source))
    return Codec(spec, *random_module(spec)).to(place)


def usage(counts: Tensor) -> tuple[int, float]:
    """How often each code was used, (K,) -> how many codes were used at all, and their perplexity.

    The perplexity is the exponential of the entropy of `counts`; it is at most K.
    """
    shares = counts.double() / counts.sum()
    return int((counts > 0).sum()), torch.special.entr(shares).sum().exp().item()
