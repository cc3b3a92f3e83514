"""How much memory a training step will take, estimated before it is taken."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from stzoo.engine.memory import TO_GO_ON, available, shown_bytes, weights_bytes, where, widths, without_values
from stzoo.errors import MemoryNeededError
from stzoo.metrics.perceptual import LpipsNetwork
from stzoo.models import architecture_of, build
from stzoo.spec import ModelSpec
from stzoo.train.codecs import codec_loss
from stzoo.train.objectives import check, objective
from stzoo.train.perceptual import PerceptualLoss
from stzoo.train.precision import autocast, precision_on
from stzoo.train.processes import Processes
from stzoo.train.recipe import Recipe
from stzoo.train.recompute import recomputing
from stzoo.train.run import freeze
from stzoo.train.speedups import takes_fewer_products
from stzoo.train.winograd import bytes_kept

_ROUGH_IS_MORE = 5  # a rough bound is 10 to 300 times what a step of the catalogue's models takes
# what the tensors do not account for on a CPU, by docs/experiments/memory.py: gaps between blocks and reordered copies,
# as a factor of what a step takes; and in bytes what threads, compiled primitives and the like take
_FRAGMENTED, _BESIDE = 1.25, 250_000_000
_COUNTED = (3, 5)  # steps of a recurrent model that are counted; each further one takes as much as one between them


@dataclasses.dataclass(frozen=True)
class TrainingMemory:
    """About how many bytes a training run takes, on a CPU or a GPU.

    Attributes:
        fixed: parameters, their average, gradients and the states of the optimisers.
        clip: what one clip of a step takes until its backward pass is done.
        at_once: how many clips go through the model together.
    """

    fixed: int
    clip: int
    at_once: int

    @property
    def total(self) -> int:
        return self.fixed + self.clip * self.at_once

    def with_pieces_of(self, clips: int) -> TrainingMemory:
        """The estimate with so many clips at once."""
        return dataclasses.replace(self, at_once=clips)


def training_memory(spec: ModelSpec, recipe: Recipe, at_once: int, device: str = "cpu") -> TrainingMemory:
    """Estimate the memory of a training step by a pass over tensors without values.

    Fused kernels and compiled modules are taken for the plain module, which needs more. So are convolutions in fewer
    products, which keep as much of each clip; what they keep of the weights is added.

    Args:
        spec: the model.
        recipe: how it is trained.
        at_once: how many clips go through it together.
        device: where it is trained, "cpu" or "cuda".
    """
    horizon = recipe.horizon or spec.frames_out
    frames, fixed = spec.frames_in + horizon, 0
    if architecture_of(spec).kind != "sequential" or recipe.sampling == "parallel" or frames - 1 <= _COUNTED[1]:
        fixed, moving = _counted(spec, recipe, at_once, spec.frames_in, horizon)
    else:
        (fixed, less), (_, more) = (_counted(spec, recipe, at_once, n - 1, 2) for n in _COUNTED)
        each = (more - less) / (_COUNTED[1] - _COUNTED[0])
        moving = round(less + each * (frames - 1 - _COUNTED[0]))
    if device == "cpu":
        fixed, moving = fixed + _BESIDE, round(moving * _FRAGMENTED)
        if takes_fewer_products(recipe, on_cpu=True):
            module: Any = build(spec, "meta")
            fixed += bytes_kept(module.predictor if architecture_of(spec).kind == "modular" else module)
    return TrainingMemory(fixed, -(-moving // at_once), at_once)


def check_memory(spec: ModelSpec, recipe: Recipe, micro_batch: int | None, processes: Processes) -> None:
    """Check before training that there is memory for a step. Where a rough bound fits, nothing is estimated.

    Raises:
        MemoryNeededError: there is less than a step needs, by the estimate. The message names what needs less.
        TrainingError: the batch cannot be shared among the processes.
    """
    at_once = min(len(processes.share(recipe.batch)), micro_batch or recipe.batch)
    have = available(processes.device)
    if have is None:
        return
    recipe = dataclasses.replace(recipe, precision=precision_on(processes.device, recipe))
    device = processes.device.type
    if device == "cpu":  # the processes of a machine share it
        have //= int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    module = build(spec, "meta")
    frames = spec.frames_in + (recipe.horizon or spec.frames_out)
    rough = at_once * frames * spec.height * spec.width * 4 * widths(module)[1] // _ROUGH_IS_MORE
    if rough + 6 * weights_bytes(module) + _BESIDE < have:
        return
    try:
        needed = training_memory(spec, recipe, at_once, device)
    except Exception:  # a module that cannot be tried without values, or a recipe that does not fit it
        return
    if needed.total > have:
        raise MemoryNeededError(
            f"training with {at_once} clip{'' if at_once == 1 else 's'} at once needs about "
            f"{shown_bytes(needed.total)} of memory, and {shown_bytes(have)} {where(processes.device)}. What needs "
            f"less: {'; '.join(_what_helps(spec, recipe, module, needed, have, device))}. {TO_GO_ON}"
        )


def _what_helps(
    spec: ModelSpec, recipe: Recipe, module: Any, needed: TrainingMemory, have: int, device: str
) -> list[str]:
    """What makes the training fit into `have` bytes, each with what it needs."""
    helps = []
    fitting = [n for n in range(1, needed.at_once) if needed.at_once % n == 0 and needed.with_pieces_of(n).total < have]
    if fitting:
        norms = any(isinstance(m, _BatchNorm) for m in module.modules())
        changes = "; BatchNorm then normalises smaller pieces, see docs/training.md" if norms else ""
        less = shown_bytes(needed.with_pieces_of(fitting[-1]).total)
        helps.append(f"--micro-batch {fitting[-1]} ({less}{changes})")
    other = dataclasses.replace(recipe, checkpoint=True, fused=False, compile=False)
    try:
        check(module, spec, other)
        less_at_once = training_memory(spec, other, needed.at_once, device).total
    except Exception:  # this architecture has no parts that can be computed again
        less_at_once = needed.total
    if less_at_once < min(have, needed.total):
        off = "".join(f", {name} = false" for name in ("fused", "compile") if getattr(recipe, name))
        helps.append(f"checkpoint = true{off} in a copy of the recipe ({shown_bytes(less_at_once)}, and more time)")
    return [*helps, "a smaller batch in a copy of the recipe"]


def _counted(spec: ModelSpec, recipe: Recipe, clips: int, past_frames: int, future_frames: int) -> tuple[int, int]:
    """The bytes that stay from step to step, and those that one step takes besides."""
    with without_values(spec) as (module, alive):
        freeze(module, recipe.freeze)
        module.train()
        past, future = (
            torch.empty(clips, n, spec.channels, spec.height, spec.width, dtype=torch.float32)
            for n in (past_frames, future_frames)
        )
        kind = architecture_of(spec).kind
        if kind == "codec":
            perceptual = PerceptualLoss(spec, LpipsNetwork()) if recipe.perceptual_weight else None
            frames, variance = torch.cat([past, future], 1).flatten(0, 1), torch.ones((), dtype=torch.float32)
            loss, *_ = codec_loss(module, spec, recipe, frames, variance, perceptual)
        else:
            part: Any = module
            part_spec, paint = spec, None
            if kind == "modular":
                part, part_spec, paint = module.predictor, module.predictor_spec, module.paint
                with torch.no_grad(), autocast(past.device, recipe):
                    past, future = module.read(past), module.read(future)
            whole_clips = recipe.sampling == "parallel"
            fast = recomputing(part, part_spec, whole_clips=whole_clips) if recipe.checkpoint else part
            loss = objective(fast, part, part_spec, recipe, past, future, 0.5, paint=paint)
        loss.backward()
        learned = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
        return 2 * weights_bytes(module) + 3 * learned, alive.peak
