"""What a training step minimises: a forecast, free-running or with true frames mixed in, against the truth."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from stzoo.errors import SpecError
from stzoo.models.modular import Modular
from stzoo.models.phydnet import PhyDNet
from stzoo.models.tctn import Tctn
from stzoo.models.vqvae import VqVae
from stzoo.spec import ModelSpec
from stzoo.train.losses import absolute_error, alignment, divergence_of_differences, moment_error, squared_error
from stzoo.train.recipe import Recipe
from stzoo.train.sampling import draw_shown
from stzoo.unroll import unroll


def check(module: nn.Module, recipe: Recipe) -> None:
    """Raises `SpecError` where the recipe asks for what this architecture, or another setting of it, does not have."""
    if recipe.cached_clips and not isinstance(module, Modular):
        raise SpecError("recipe.cached_clips is for modular architectures, whose codec never changes")
    if recipe.checkpoint and (recipe.fused or recipe.compile):
        other = "fused" if recipe.fused else "compile"
        raise SpecError(f"recipe.checkpoint is for the plain module; set recipe.{other} to false beside it")
    if recipe.checkpoint and isinstance(module, VqVae):
        raise SpecError("recipe.checkpoint is for forecasters; a codec needs little memory")
    if isinstance(module, Modular):
        module = module.predictor
    if recipe.sampling == "parallel" and not isinstance(module, Tctn):
        raise SpecError("recipe.sampling is 'parallel'; only tctn computes all steps of a clip at once")
    if recipe.sampling != "none" and not hasattr(module, "step"):
        raise SpecError(f"recipe.sampling is {recipe.sampling!r}; only recurrent architectures read frame by frame")
    if recipe.decouple_weight and getattr(module, "adapter", None) is None:
        raise SpecError("recipe.decouple_weight needs a predrnn whose spec.params.decouple is true")
    if recipe.decouple_weight and recipe.sampling == "none":
        raise SpecError("recipe.decouple_weight needs recipe.sampling: the loss is taken over all frames")
    if getattr(module, "adapter", None) is not None and not recipe.decouple_weight:
        raise SpecError("spec.params.decouple is true; without recipe.decouple_weight its adapter would never learn")
    if recipe.moment_weight and not isinstance(module, PhyDNet):
        raise SpecError("recipe.moment_weight is for phydnet, whose kernels stand for derivatives")


def objective(
    fast: Any,
    module: nn.Module,
    spec: ModelSpec,
    recipe: Recipe,
    past: Tensor,
    future: Tensor,
    done: float,
    valid: Tensor | None = None,
) -> Tensor:
    """The loss of one batch, a float32 scalar.

    With `recipe.sampling` it is taken over every frame but the first, else over the future alone.

    Args:
        fast: computes what `module` does, with its parameters.
        past, future: (B, T, C, H, W) and (B, T', C, H, W), normalised.
        done: the share of the training steps that have passed.
        valid: (B, T', 1, H, W), false where the future is unknown: no error is counted there. None: known everywhere.
            Of the past every cell counts, as it was filled in.
    """
    extra = past.new_zeros(())
    with torch.autocast(past.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        if recipe.sampling == "parallel":
            frames = torch.cat([past, future], 1)
            forecast, truth = fast(frames[:, :-1]), frames[:, 1:]
        elif recipe.sampling == "none":
            forecast, truth = torch.stack(list(unroll(fast, spec, past, future.shape[1])), 1), future
        else:
            frames = torch.cat([past, future], 1)
            shown = draw_shown(
                recipe.sampling, done / recipe.sampling_share, past.shape[1], frames.shape[1] - 1, len(frames)
            )
            forecasts = []
            for frame, state in sampled(fast, frames, shown.to(frames.device)):
                forecasts.append(frame)
                if recipe.decouple_weight:
                    pairs = [[module.adapter(x) for x in pair] for pair in state.increments]  # type: ignore[operator]
                    extra = extra + recipe.decouple_weight * torch.stack([alignment(*pair) for pair in pairs]).mean()
            forecast, truth = torch.stack(forecasts, 1), frames[:, 1:]
            extra = extra / len(forecasts)
    if valid is not None:  # where the truth is unknown the forecast counts as right
        n = future.shape[1]
        forecast = torch.cat([forecast[:, :-n], torch.where(valid, forecast[:, -n:], truth[:, -n:])], 1)
    loss = squared_error(forecast, truth, recipe.reduction, recipe.emphasis) + extra
    if recipe.l1_weight:
        loss = loss + recipe.l1_weight * absolute_error(forecast, truth, recipe.reduction)
    if recipe.ddr_weight:
        divergence = divergence_of_differences(forecast, truth, recipe.ddr_temperature, recipe.reduction)
        loss = loss + recipe.ddr_weight * divergence
    if recipe.moment_weight:
        loss = loss + recipe.moment_weight * moment_error(module.physical.derivatives.weight)  # type: ignore[union-attr, arg-type]
    return loss


def sampled(module: Any, frames: Tensor, shown: Tensor) -> Iterator[tuple[Tensor, Any]]:
    """Forecasts of the frames 1, 2, ... and the state after each; the module reads frame t where `shown`, else its own.

    Args:
        module: sequential. frames: (B, T, C, H, W). shown: (T - 1, B) of booleans, the first row true.
    """
    state = module.initial_state(len(frames), tuple(frames.shape[-2:]), frames.device, frames.dtype)
    forecast = frames[:, 0]
    for t, row in enumerate(shown):
        frame = torch.where(row.view(-1, 1, 1, 1), frames[:, t], forecast)
        forecast, state = module.step(frame, state)
        yield forecast, state
