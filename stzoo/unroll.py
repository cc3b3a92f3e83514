"""The one autoregressive loop. Forecasting, training through a rollout and the tests all drive this generator.

How a module is driven follows from the kind that its architecture states (`stzoo.models.contract`):

* A **block** forecasts as many frames as it reads. Of each block the first ``min(frames_in, frames_out)`` frames are
  kept, and the window of past frames slides on by as many.
* A **sequential** module reads the past once, then feeds on its own frames; nothing is encoded twice. A past that it
  can read in one call is read so, and forecasts in the middle of the past are left out where it can leave them out.
* A **modular** one is made of either: what it reads of the past goes through its predictor, which feeds on its own
  forecasts, and each of these is painted when it is asked for.

A live source brings one frame after the other. A recurrent module, which is a sequential one or a modular one with such
a predictor, reads each of them once: `read_on` carries its state from frame to frame, and `unroll_carried` forecasts
from any state that was carried.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

import torch
from torch import Tensor

from stzoo.errors import SpecError
from stzoo.models import architecture_of
from stzoo.models.contract import (
    AdvancingModule,
    Architecture,
    BlockModule,
    ClipReadingModule,
    ModularModule,
    SequentialModule,
)
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
        return _sequential(module, architecture, past)
    if architecture.kind == "modular":
        return _modular(module, past)
    raise SpecError(f"{spec.arch} is a codec, which forecasts nothing")


def _block(module: BlockModule, spec: ModelSpec, window: Tensor) -> Iterator[Tensor]:
    kept = min(spec.frames_in, spec.frames_out)
    while True:
        block = module(window)[:, :kept]
        yield from block.unbind(1)
        window = torch.cat([window[:, kept:], block], 1)


def _sequential(module: SequentialModule, architecture: Architecture, past: Tensor) -> Iterator[Tensor]:
    carried = _read_sequential(module, architecture, past, None)
    frame, state = carried.coming, carried.state
    del carried  # nothing else holds the first state, which goes as soon as the next one is there
    while True:
        yield frame
        frame, state = module.step(frame, state)


def _modular(module: ModularModule, past: Tensor) -> Iterator[Tensor]:
    for latents in unroll(module.predictor, module.predictor_spec, module.read(past)):
        yield module.paint(latents)


@dataclass(frozen=True)
class Carried:
    """What a recurrent module keeps of all the frames that it has read. A forecast from it leaves it as it is.

    Attributes:
        coming: its forecast of the next frame, (B, C, H, W), normalised; for a modular module (B, dim, h, w) latents.
        state: as `SequentialModule` describes it.
    """

    coming: Tensor
    state: Any


def is_recurrent(module: Any, spec: ModelSpec) -> bool:
    """Whether the module, which `spec` describes, reads frame after frame, so that `read_on` can carry its state."""
    kind = architecture_of(spec).kind
    return kind == "sequential" or (kind == "modular" and is_recurrent(module.predictor, module.predictor_spec))


def read_on(module: Any, spec: ModelSpec, frames: Tensor, carried: Carried | None = None) -> Carried:
    """Read some frames more; after `frames_in` frames the forecast is that of `unroll`.

    Args:
        module: a recurrent one, or what `stzoo.engine` made of such a module.
        spec: names the architecture.
        frames: (B, T, C, H, W), normalised, T >= 1: those that follow what was read before.
        carried: what was kept of all frames before them; None if there were none.
    """
    architecture = architecture_of(spec)
    if architecture.kind == "modular":
        return read_on(module.predictor, module.predictor_spec, module.read(frames), carried)
    return _read_sequential(module, architecture, frames, carried)


def unroll_carried(module: Any, spec: ModelSpec, carried: Carried, steps: int | None = None) -> Iterator[Tensor]:
    """Future frames (B, C, H, W), one at a time, as `unroll` yields them, from what `read_on` kept of the past."""
    if architecture_of(spec).kind == "modular":
        for latents in unroll_carried(module.predictor, module.predictor_spec, carried, steps):
            yield module.paint(latents)
        return
    frame, state = carried.coming, carried.state
    for number in count():
        if number == steps:
            return
        if number:
            frame, state = module.step(frame, state)
        yield frame


def _read_sequential(
    module: SequentialModule, architecture: Architecture, frames: Tensor, carried: Carried | None
) -> Carried:
    if carried is None:
        state = module.initial_state(frames.shape[0], (frames.shape[-2], frames.shape[-1]), frames.device, frames.dtype)
    else:
        state = carried.state
    if architecture.reads_clips:
        coming, state = cast(ClipReadingModule, module).read(frames, state)
        return Carried(coming[:, -1], state)
    *before, last = frames.unbind(1)
    for frame in before:
        if architecture.advances:
            state = cast(AdvancingModule, module).advance(frame, state)
        else:
            state = module.step(frame, state)[1]
    coming, state = module.step(last, state)
    return Carried(coming, state)
