"""The one autoregressive loop. Forecasting, training through a rollout and the tests all drive this generator.

How a module is driven follows from the kind that its architecture states (`stzoo.models.contract`):

* A **block** forecasts as many frames as it reads. Of each block the first ``min(frames_in, frames_out)`` frames are
  kept, and the window of past frames slides on by as many.
* A **sequential** module reads the past once, then feeds on its own frames; nothing is encoded twice. A past that it
  can read in one call is read so.
* A **modular** one is made of either: what it reads of the past goes through its predictor, which feeds on its own
  forecasts, and each of these is painted when it is asked for.
"""

from collections.abc import Iterator
from itertools import count
from typing import Any, cast

import torch
from torch import Tensor

from stzoo.errors import SpecError
from stzoo.models import architecture_of
from stzoo.models.contract import BlockModule, ClipReadingModule, ModularModule, SequentialModule
from stzoo.spec import ModelSpec


def unroll(module: Any, spec: ModelSpec, past: Tensor, steps: int | None = None) -> Iterator[Tensor]:
    """Future frames (B, C, H, W), one at a time: `steps` of them, or without end. Differentiable.

    Only the window of past frames (block) or the state (sequential) is held, so memory does not grow with `steps`
    once gradients are off.

    Args:
        module: of the kind that the spec's architecture states, or what `stzoo.engine` made of such a module.
        spec: names the architecture, and gives `frames_in` and `frames_out`.
        past: (B, T, C, H, W), normalised, T >= frames_in; the last frames_in are read.
        steps: how many frames to yield; None for as many as are asked for.

    Raises:
        SpecError: the architecture is unknown, or a codec, which forecasts nothing.
    """
    frames = _endless(module, spec, past[:, -spec.frames_in :])
    for _ in range(steps) if steps is not None else count():
        yield next(frames)


def _endless(module: Any, spec: ModelSpec, past: Tensor) -> Iterator[Tensor]:
    architecture = architecture_of(spec)
    if architecture.kind == "block":
        return _block(module, spec, past)
    if architecture.kind == "sequential":
        return _sequential(module, architecture.reads_clips, past)
    if architecture.kind == "modular":
        return _modular(module, past)
    raise SpecError(f"{spec.arch} is a codec, which forecasts nothing")


def _block(module: BlockModule, spec: ModelSpec, window: Tensor) -> Iterator[Tensor]:
    kept = min(spec.frames_in, spec.frames_out)
    while True:
        block = module(window)[:, :kept]
        yield from block.unbind(1)
        window = torch.cat([window[:, kept:], block], 1)


def _sequential(module: SequentialModule, reads_clips: bool, past: Tensor) -> Iterator[Tensor]:
    state = module.initial_state(past.shape[0], (past.shape[-2], past.shape[-1]), past.device, past.dtype)
    if reads_clips:
        frames, state = cast(ClipReadingModule, module).read(past, state)
        frame = frames[:, -1]
    else:
        for frame in past.unbind(1):
            frame, state = module.step(frame, state)
    while True:
        yield frame
        frame, state = module.step(frame, state)


def _modular(module: ModularModule, past: Tensor) -> Iterator[Tensor]:
    for latents in unroll(module.predictor, module.predictor_spec, module.read(past)):
        yield module.paint(latents)
