"""What the learning part of a model is shown of a clip: normalised frames or, if it works on them, latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stzoo.data import Clip
from stzoo.frames.values import normalise, to_units
from stzoo.train.assignment import Assignment
from stzoo.train.precision import autocast
from stzoo.train.speedups import cached_latents


class Batches:
    """Training clips by their number, on the device, as the learning part of `module` is shown them.

    Args:
        assignment: names the clips.
        module: the model that its spec describes, on `device`.
        device: where the model trains.
        latents: the folder for cached latents; None to encode every clip when it is needed.
    """

    def __init__(self, assignment: Assignment, module: Any, device: torch.device, latents: Path | None):
        self.assignment, self.module, self.device = assignment, module, device
        self.on_latents = assignment.kind == "modular"
        self.cache = None
        if latents is not None and assignment.recipe.cached_clips:
            self.cache = cached_latents(latents, assignment, module.codec, self.shown)

    def batch(self, start: int, stop: int) -> Clip:
        """Clips start to stop - 1: past (B, T, C, H, W) and future (B, T', C, H, W), both float32.

        Of a modular model they are latents, (B, T, dim, h, w) and (B, T', dim, h, w). `valid` (B, T', 1, H, W) is false
        where the future is unknown. For latents it is always None, because each is made of many pixels.
        """
        if self.cache is not None:
            past, future = (x.to(self.device) for x in self.cache.clips(start, stop))
            return Clip(past, future)
        clip = self.assignment.training.clips(start, stop)
        past, future = self.shown(clip)
        return Clip(past, future, None if clip.valid is None or self.on_latents else clip.valid.to(self.device))

    def shown(self, clip: Clip) -> tuple[Tensor, Tensor]:
        """The past and the future of a clip in the units of its files, of any dtype, as `batch` returns them."""
        spec = self.assignment.spec
        there = (x.to(self.device, non_blocking=True) for x in (clip.past, clip.future))
        past, future = (normalise(to_units(x, spec), spec) for x in there)
        if self.on_latents:
            with autocast(self.device, self.assignment.recipe):
                past, future = self.module.read(past), self.module.read(future)
        return past, future
