"""The one autoregressive loop. Forecasting, training through a rollout and the tests all drive this generator.

An architecture is of one of two kinds:

* **block**: ``forward(past (B, T, C, H, W)) -> (B, T, C, H, W)``. Of each block the first
  ``min(frames_in, frames_out)`` frames are kept, and the window of past frames slides on by as many.
* **sequential**: ``initial_state(batch, size, device, dtype)`` and
  ``step(frame (B, C, H, W), state) -> (frame, state)``. It reads the
  past once, then feeds on its own frames; nothing is encoded twice. Where it also has
  ``read(frames (B, T, C, H, W), state) -> (frames, state)``, which is that many steps, the past is read at once.

A third, *modular*, is made of either: what it ``read``s of the past goes through its ``predictor``, which feeds on its
own forecasts, and each of these is ``paint``ed when it is asked for.
"""

from collections.abc import Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from stzoo.spec import ModelSpec


def unroll(module: Any, spec: ModelSpec, past: Tensor, steps: int | None = None) -> Iterator[Tensor]:
    """Future frames (B, C, H, W), one at a time: `steps` of them, or without end. Differentiable.

    Only the window of past frames (block) or the state (sequential) is held, so memory does not grow with `steps`
    once gradients are off.

    Args:
        module: a block, sequential or modular architecture, or what `stzoo.engine` made of one.
        spec: gives `frames_in` and `frames_out`.
        past: (B, T, C, H, W), normalised, T >= frames_in; the last frames_in are read.
        steps: how many frames to yield; None for as many as are asked for.
    """
    past = past[:, -spec.frames_in :]
    if hasattr(module, "predictor"):
        frames = _modular(module, past)
    else:
        frames = _sequential(module, past) if hasattr(module, "step") else _block(module, spec, past)
    for _ in range(steps) if steps is not None else count():
        yield next(frames)


def _block(module: nn.Module, spec: ModelSpec, window: Tensor) -> Iterator[Tensor]:
    kept = min(spec.frames_in, spec.frames_out)
    while True:
        block = module(window)[:, :kept]
        yield from block.unbind(1)
        window = torch.cat([window[:, kept:], block], 1)


def _sequential(module: Any, past: Tensor) -> Iterator[Tensor]:
    state = module.initial_state(past.shape[0], tuple(past.shape[-2:]), past.device, past.dtype)
    if hasattr(module, "read"):
        frames, state = module.read(past, state)
        frame = frames[:, -1]
    else:
        for frame in past.unbind(1):
            frame, state = module.step(frame, state)
    while True:
        yield frame
        frame, state = module.step(frame, state)


def _modular(module: Any, past: Tensor) -> Iterator[Tensor]:
    for latents in unroll(module.predictor, module.predictor_spec, module.read(past)):
        yield module.paint(latents)
