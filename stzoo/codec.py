"""`Codec`: frames <-> a small grid of latents, each near one of K codes. Made by `stzoo.load_codec`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stzoo import catalog, hub
from stzoo import frames as frames_room
from stzoo.errors import FramesError
from stzoo.frames.values import denormalise, normalise
from stzoo.hub.card import Card
from stzoo.hub.sharing import save, send, source_of
from stzoo.models import check_kind, stride_of
from stzoo.models.vqvae import VqVae
from stzoo.spec import ModelSpec
from stzoo.weights import LoadReport, load_module, random_module

AT_ONCE = 64  # frames that go through the module together: a clip may have any number of them


class Codec:
    """A codec with its spec. It looks at frames one by one, so a clip may have any number of them.

    Attributes:
        spec: what it is; `frames_in` and `frames_out` are 1.
        module: the plain `torch.nn.Module`, in eval mode.
        report: where its weights came from.
    """

    def __init__(self, spec: ModelSpec, module: VqVae, report: LoadReport):
        self.spec, self.module, self.report = spec, module.eval(), report

    @torch.no_grad()
    def encode(self, frames: Any, *, layout: str | None = None) -> Tensor:
        """Frames, of any kind and number that `Forecaster.predict` takes -> float32 latents (B, T, dim, H/4, W/4).

        Raises:
            FramesError: shape, dtype, range, a missing value, or a size that is no multiple of the codec's stride.
        """
        return self._encode(self._read(frames, layout))

    @torch.no_grad()
    def quantise(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, T, dim, h, w) -> the nearest codes, of the same shape, and their numbers (B, T, h, w), int64.

        Raises:
            FramesError: no such latents, or some that are not finite.
        """
        flat = self._latents(latents)
        pieces = [self.module.quantise(some) for some in flat.split(AT_ONCE)]
        quantised, codes = (torch.cat(x).unflatten(0, latents.shape[:2]) for x in zip(*pieces, strict=True))
        return quantised, codes

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, T, dim, h, w), or numbers of codes (B, T, h, w) -> float32 frames (B, T, C, H, W).

        Frames are in the spec's units, clipped to its range, and on the codec's device.

        Raises:
            FramesError: no such latents or codes, latents that are not finite, or a number that no code has.
        """
        if isinstance(latents, Tensor) and not latents.is_floating_point():
            flat = self.module.look_up(self._codes(latents))
        else:
            flat = self._latents(latents)
        frames = denormalise(torch.cat([self.module.decode(some) for some in flat.split(AT_ONCE)]), self.spec)
        if self.spec.value_range is not None:
            frames = frames.clamp(*self.spec.value_range)
        return frames.unflatten(0, latents.shape[:2])

    def reconstruct(self, frames: Any, *, layout: str | None = None) -> Any:
        """What is left of frames that went through the codebook, as the caller's own kind, dtype, range and axes."""
        source = self._read(frames, layout)
        painted = self.decode(self.quantise(self._encode(source))[1])
        return source.collect([source.frame(frame) for frame in painted.unbind(1)])

    def to(self, device: str | torch.device) -> Codec:
        """Move the module; latents and frames are where it is."""
        self.module.to(device)
        return self

    def save_pretrained(self, folder: str | os.PathLike[str], *, card: Card | None = None) -> None:
        """What `stzoo.load_codec(folder)` reads back bit for bit, and README.md; see `Forecaster.save_pretrained`."""
        save(Path(folder), self.spec, self.module, self.report, card)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        token: str | None = None,
        message: str | None = None,
        card: Card | None = None,
    ) -> str:
        """Send what `save_pretrained` writes to a hub, and return "hf://user/repo@<40 hex>"; as `Forecaster`'s."""
        return send(
            repo_id, self.spec, self.module, self.report, private=private, token=token, message=message, card=card
        )

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], *, revision: str | None = None) -> Codec:
        """As `stzoo.load_codec(source, revision=revision)`; "user/repo" is a hub's where no folder has that name."""
        return load_codec(source_of(source), revision=revision)

    def __repr__(self) -> str:
        s, (codes, dim), stride = self.spec, self.module.codebook.shape, stride_of(self.module) or 1
        grid = f"{s.height // stride}x{s.width // stride} latents of {dim}, {codes} codes"
        return f"Codec({s.arch}, {s.channels}x{s.height}x{s.width} -> {grid}, {self.report})"

    def _read(self, frames: Any, layout: str | None) -> frames_room.CallerFrames:
        return frames_room.read(frames, self.spec, stride_of(self.module), layout, whole=True)

    @torch.no_grad()
    def _encode(self, source: frames_room.CallerFrames) -> Tensor:
        device = next(self.module.parameters()).device
        frames = normalise(source.past.to(device), self.spec)
        latents = torch.cat([self.module.encode(some) for some in frames.flatten(0, 1).split(AT_ONCE)])
        return latents.unflatten(0, frames.shape[:2])

    def _latents(self, latents: Any) -> Tensor:
        """(B, T, dim, h, w) -> (B * T, dim, h, w) as the module takes them."""
        shape, dim = tuple(latents.shape) if isinstance(latents, Tensor) else (), self.module.dim
        if len(shape) != 5 or shape[2] != dim or 0 in shape or not latents.is_floating_point():
            raise FramesError(f"expected a tensor of float latents (B, T, {dim}, h, w), given {_described(latents)}")
        if not latents.isfinite().all():
            raise FramesError("the latents hold values that are not finite")
        return latents.flatten(0, 1).to(self.module.codebook)

    def _codes(self, codes: Tensor) -> Tensor:
        """(B, T, h, w) -> (B * T, h, w) as the module takes them."""
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
    """A codec with its trained weights; arguments and errors as in `stzoo.load`. A forecaster is a `SpecError`."""
    if pretrained:
        found = hub.resolve(source, revision=revision, offline=offline, cache_dir=cache_dir, progress=progress)
        return opened(found, os.fspath(source)).to(device or "cpu")
    spec = catalog.info(os.fspath(source)).spec
    check_kind(spec, "codec", os.fspath(source))
    return Codec(spec, *random_module(spec)).to(device or "cpu")  # type: ignore[arg-type]


def opened(found: hub.Resolved, name: str) -> Codec:
    """The codec of files that `stzoo.hub.resolve` found; `name` is what errors call it."""
    check_kind(found.spec, "codec", name)
    module, report = load_module(found.spec, found.path, found.sha256)
    return Codec(found.spec, module, report)  # type: ignore[arg-type]


def usage(counts: Tensor) -> tuple[int, float]:
    """How many codes were used, and their perplexity: exp of the entropy of `counts`, at most the number of codes."""
    shares = counts.double() / counts.sum()
    return int((counts > 0).sum()), torch.special.entr(shares).sum().exp().item()
