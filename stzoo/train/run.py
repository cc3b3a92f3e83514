"""Everything that changes while a model trains, and what one step does to it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from stzoo.data import Clip
from stzoo.errors import SpecError, TrainingError
from stzoo.metrics.perceptual import read_network
from stzoo.models import build
from stzoo.train.assignment import Assignment
from stzoo.train.batches import Batches
from stzoo.train.codecs import codec_loss, follower, variance_of_batch
from stzoo.train.objectives import check, objective
from stzoo.train.optim import SCHEDULES, averaged, optimizers, set_rates
from stzoo.train.perceptual import PerceptualLoss
from stzoo.train.processes import Processes
from stzoo.train.speedups import computing_form

DIVERGED = 20.0  # a loss is high if it is this many times its running mean
STRIKES = 3  # so many high losses, one after the other, are divergence; one alone may be a batch unlike the others
KEPT = "The last good checkpoint and the best weights are kept"


class Run:
    """Everything that changes while a model trains. All processes hold the same, but for `ema`.

    Attributes:
        module: the whole model, on the device.
        part, part_spec: what learns, and its spec: the predictor of a modular model, or the module itself.
        fast: the form of `part` that a step computes with; it shares the parameters.
        ema: the moving average of the module. Only the first process has it.
        still: the modules that have parameters of which none learns. They and their parts stay in eval mode.
        follower: how the codebook of a codec, or the units of its latents, follow the latents; None for other models.
        perceptual: the perceptual loss of a codec; None if the recipe has none.
        step: the number of steps that were taken.
        best: the lowest validation error so far, inf before the first.
        running_loss: a running mean of the losses that were not high, inf before the first.

    Args:
        assignment: what the run is about.
        processes: this process among those that train together.
        latents: the folder for cached latents; None to encode every clip when it is needed.

    Raises:
        SpecError: the recipe asks for what the architecture does not have.
        DataError: it asks for a perceptual loss, whose weights cannot be read.
        TrainingError: the batch cannot be shared among the processes, or there is no room for the cached latents.
    """

    def __init__(self, assignment: Assignment, processes: Processes, latents: Path | None = None):
        self.assignment, self.recipe = assignment, assignment.recipe
        self.processes, self.device = processes, processes.device
        self.share = processes.share(self.recipe.batch)
        torch.manual_seed(self.recipe.seed)
        self.module = cast(Any, begun(assignment).to(self.device))
        if self.recipe.channels_last:
            for parameter in self.module.parameters():
                if parameter.dim() == 4:  # weights of 3D convolutions have no such layout
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.ema = averaged(self.module, self.recipe.ema) if processes.first else None
        self.still = [m for m in self.module.modules() if _is_still(m)]
        modular = assignment.kind == "modular"
        self.part = self.module.predictor if modular else self.module
        self.part_spec = self.module.predictor_spec if modular else assignment.spec
        self.fast = computing_form(self.part, self.part_spec, self.recipe)
        self.batches = Batches(assignment, self.module, self.device, latents)
        is_codec = assignment.kind == "codec"
        self.follower = follower(self.module, assignment.spec, self.recipe, processes) if is_codec else None
        self.perceptual = None
        if self.recipe.perceptual_weight:
            self.perceptual = PerceptualLoss(assignment.spec, read_network().to(self.device))
        self.optimizers = optimizers(self.module, self.recipe)
        self.step, self.best, self.running_loss = 0, math.inf, math.inf
        self._high = 0  # losses, one after the other

    def advance(self, total: int) -> Tensor:
        """Take one step of a run of `total` steps. Returns the loss of the whole batch, a scalar on the device."""
        recipe = self.recipe
        self.processes.seeded(recipe.seed, self.step)
        first = self.step * recipe.batch
        clip = self.batches.batch(first + self.share.start, first + self.share.stop)
        self.module.train()
        for part in self.still:
            part.eval()  # or the statistics of its BatchNorms would move
        loss, seen = self._backward(clip, self.step / total)
        self._average(loss)
        if recipe.clip:
            nn.utils.clip_grad_norm_(self.module.parameters(), recipe.clip)
        set_rates(self.optimizers, SCHEDULES[recipe.schedule](self.step, total, recipe.warmup))
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        # torch's fused AdamW does not say that it changed them, which what is made of weights once goes by
        torch.autograd.graph.increment_version(list(self.module.parameters()))
        if self.follower is not None:
            self.follower.update(*seen)
        if self.ema is not None:
            self.ema.update_parameters(self.module)
        self.step += 1
        return loss

    def _backward(self, clip: Clip, done: float) -> tuple[Tensor, list[Tensor]]:
        """Add the gradients of this process's share of the batch, at most `micro_batch` clips at a time.

        Args:
            clip: from `Batches.batch`.
            done: the share of the steps that were taken.

        Returns:
            The mean loss of these clips, a scalar; and of a codec what its latents were, see `codec_loss`.
        """
        variance = variance_of_batch(clip.past, clip.future, self.processes) if self.follower is not None else None
        loss, seen = clip.past.new_zeros(()), []
        for piece in _pieces(clip, self.assignment.micro_batch or len(clip.past)):
            one, of_latents = self._loss(piece, done, variance)
            one = one * (len(piece.past) / len(clip.past))
            one.backward()
            loss += one.detach()
            seen.append(of_latents)
        return loss, [torch.cat(each) for each in zip(*seen, strict=True)]

    def _loss(self, clip: Clip, done: float, variance: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The mean loss of these clips; and of a codec, which needs the batch's `variance`, what its latents were."""
        past, future = clip.past, clip.future
        if variance is None:
            paint = self.module.paint if self.assignment.kind == "modular" else None
            parts = self.fast, self.part, self.part_spec
            return objective(*parts, self.recipe, past, future, done, clip.valid, paint), []
        frames = torch.cat([past, future], 1).flatten(0, 1)
        loss, *seen = codec_loss(self.module, self.part_spec, self.recipe, frames, variance, self.perceptual)
        return loss, seen

    def _average(self, loss: Tensor) -> None:
        """Average over all processes the loss, the gradients and the statistics of BatchNorm: each saw its share."""
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        statistics = [b for b in self.module.buffers() if b.is_floating_point()]
        self.processes.average([loss, *gradients, *statistics])

    def is_good(self, loss: float) -> bool:
        """Whether `loss` is a finite number, and not far above the running mean."""
        usual = self.running_loss or math.inf  # 0 was the loss of clips that stood still
        return math.isfinite(loss) and loss <= DIVERGED * usual

    def check_loss(self, loss: float) -> float:
        """Returns `loss`, and takes it into the running mean if it is good.

        Raises:
            TrainingError: it is not finite, or it is one of `STRIKES` losses, one after the other, that are high.
        """
        self._high = 0 if self.is_good(loss) else self._high + 1
        if not math.isfinite(loss) or self._high == STRIKES:
            raise TrainingError(f"the loss diverged to {loss:.4g} at step {self.step}; lower the learning rate. {KEPT}")
        if not self._high:
            known = math.isfinite(self.running_loss) and self.running_loss > 0
            self.running_loss = 0.9 * self.running_loss + 0.1 * loss if known else loss
        return loss

    def check_finite(self) -> None:
        """Raises `TrainingError` if a weight is not a finite number: such a checkpoint must never be kept."""
        for name, tensor in self.module.state_dict().items():
            if not tensor.isfinite().all():
                raise TrainingError(f"{name} is not finite at step {self.step}; lower the learning rate. {KEPT}")

    def judged(self) -> nn.Module:
        """What is validated and saved, in eval mode: the averaged weights, or their blend by `recipe.blend`.

        Only the first process has it.
        """
        assert self.ema is not None
        average: nn.Module = self.ema.module.eval()
        start, blend = self.assignment.start, self.recipe.blend
        if blend == 1 or start is None:
            return average
        blended = copy.deepcopy(average)
        for name, tensor in blended.state_dict().items():
            if tensor.is_floating_point():  # others count batches
                tensor.copy_(torch.lerp(start[name].to(tensor), tensor, blend))
        return blended

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint holds. Only the first process has all of it."""
        assert self.ema is not None
        return {
            "step": self.step,
            "best": self.best,
            "running_loss": self.running_loss,
            "module": self.module.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "codebook": self.follower.state() if self.follower is not None else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.step, self.best, self.running_loss = state["step"], state["best"], state["running_loss"]
        self.module.load_state_dict(state["module"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        try:
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
        except ValueError as error:
            raise TrainingError(
                "the run was begun by an earlier version of stzoo, which shared out the weights of 3D convolutions to "
                "its optimisers in another way; train in another folder"
            ) from error
        if self.follower is not None:
            self.follower.restore(state["codebook"])

    def take_weights_of_first(self) -> None:
        """Give all processes the weights of the first one: not all machines draw the same numbers from one seed."""
        weights = {name: tensor.cpu() for name, tensor in self.module.state_dict().items()}
        self.module.load_state_dict(self.processes.from_first(weights))


def check_module(assignment: Assignment) -> None:
    """Raises `SpecError` as `begun` does, without taking memory for the module."""
    module = build(assignment.spec, "meta")
    check(module, assignment.spec, assignment.recipe, learnt=assignment.start is not None)
    freeze(module, assignment.recipe.freeze)


def begun(assignment: Assignment) -> nn.Module:
    """The module that a run begins with, on the CPU, its frozen parameters without gradient.

    Raises:
        SpecError: the recipe asks for what the architecture does not have, or freezes what it does not have.
    """
    module: Any = build(assignment.spec)
    check(module, assignment.spec, assignment.recipe, learnt=assignment.start is not None)
    if assignment.codec is not None:
        module.codec.load_state_dict(assignment.codec.module.state_dict())
    if assignment.start is not None:
        module.load_state_dict(assignment.start)
    freeze(module, assignment.recipe.freeze)
    return module


def freeze(module: nn.Module, beginnings: Sequence[str]) -> None:
    """Keep the parameters whose names begin with one of `beginnings` as they are.

    Raises:
        SpecError: no parameter has such a name, or none is left that learns.
    """
    for beginning in beginnings:
        found = [p for name, p in module.named_parameters() if name.startswith(beginning)]
        if not found:
            parts = ", ".join(dict.fromkeys(name.split(".")[0] for name, _ in module.named_parameters()))
            raise SpecError(f"freeze names {beginning!r}, but no parameter begins with it; the parts are {parts}")
        for p in found:
            p.requires_grad_(False)
    if not any(p.requires_grad for p in module.parameters()):
        raise SpecError(f"freeze names {', '.join(beginnings)}; nothing is left to learn")


def _pieces(clip: Clip, size: int) -> Iterator[Clip]:
    """The clips of a batch, at most `size` at a time."""
    masks = repeat(None) if clip.valid is None else clip.valid.split(size)
    for past, future, valid in zip(clip.past.split(size), clip.future.split(size), masks, strict=False):
        yield Clip(past, future, valid)


def _is_still(module: nn.Module) -> bool:
    """Does the module have parameters, of which none learns? A module without any, such as `DropPath`, is not still."""
    learns = [p.requires_grad for p in module.parameters()]
    return bool(learns) and not any(learns)
