"""What a training step minimises: a forecast, free-running or with true frames mixed in, against the truth."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from stzoo.errors import SpecError
from stzoo.models import architecture_of, architectures, config_of
from stzoo.models.contract import Architecture, ClipReadingModule, Decoupling, SequentialModule
from stzoo.models.decibels import Decibels
from stzoo.spec import ModelSpec
from stzoo.train.losses import (
    absolute_error,
    alignment,
    divergence_of_differences,
    moment_error,
    poisson_deviance,
    squared_error,
)
from stzoo.train.perceptual import check_perceptual
from stzoo.train.precision import autocast
from stzoo.train.recipe import Recipe
from stzoo.train.recompute import check_recompute
from stzoo.train.sampling import draw_shown
from stzoo.unroll import unroll

_OF_FORECASTS = (
    "l2_weight", "l1_weight", "emphasis", "ddr_weight", "quantity", "deviance_weight", "reduction",
)  # fmt: skip
_OF_CODES = ("codebook", "codebook_decay", "commitment")


def check(module: Any, spec: ModelSpec, recipe: Recipe, *, learnt: bool = False) -> None:
    """Checks that a recipe and a model fit each other.

    Args:
        module: built of `spec`; on the device "meta" will do.
        learnt: training begins from weights, so that every part has learned.

    Raises:
        SpecError: the recipe asks for something that this architecture, or the spec's settings, do not have.
    """
    architecture = architecture_of(spec)
    if recipe.cached_clips and architecture.kind != "modular":
        raise SpecError("recipe.cached_clips is for modular architectures, whose codec never changes")
    if recipe.decoded_weight:
        _check_decoded(architecture, module)
    if recipe.checkpoint and (recipe.fused or recipe.compile):
        other = "fused" if recipe.fused else "compile"
        raise SpecError(f"recipe.checkpoint is for the plain module; set recipe.{other} to false beside it")
    if recipe.checkpoint and architecture.is_codec:
        raise SpecError("recipe.checkpoint is for forecasters; a codec needs little memory")
    if architecture.is_codec:
        _check_codec(recipe)
    _check_losses(architecture, recipe)
    if recipe.perceptual_weight:
        check_perceptual(spec)
    part, learns = (module.predictor, module.predictor_spec) if architecture.kind == "modular" else (module, spec)
    _check_sampling(learns, recipe)
    if recipe.emphasis and architecture.kind == "modular":
        raise SpecError("recipe.emphasis weighs large values of frames; a modular architecture learns latents")
    _check_terms(learns, recipe, learnt)
    if recipe.checkpoint:
        check_recompute(part, learns, recipe.sampling == "parallel")


def _check_codec(recipe: Recipe) -> None:
    for setting in ("compile", "horizon"):
        if getattr(recipe, setting):
            raise SpecError(f"recipe.{setting} is for forecasters; leave it out for a codec")
    if any(beginning and "codebook".startswith(beginning) for beginning in recipe.freeze):
        raise SpecError("recipe.freeze names the codebook, which always follows the latents; leave it out")


def _check_decoded(architecture: Architecture, module: Any) -> None:
    if architecture.kind != "modular":
        raise SpecError("recipe.decoded_weight is for modular architectures, whose forecasts a codec decodes")
    if module.paints == "quantised":
        raise SpecError(
            "recipe.decoded_weight needs spec.params.paints = 'continuous': no gradient goes through the nearest codes"
        )


def _check_losses(architecture: Architecture, recipe: Recipe) -> None:
    """Raises `SpecError` if the recipe sets a loss that this kind of model does not have."""
    others: list[tuple[tuple[str, ...], str]] = []
    if architecture.is_codec:
        others.append((_OF_FORECASTS, "for forecasters; of a codec the squared error always counts once"))
    else:
        others.append((("perceptual_weight",), "for codecs; a forecaster has other losses"))
    if not architecture.quantises:
        others.append((_OF_CODES, "for codecs with a codebook"))
    if architecture.quantises or not architecture.is_codec:
        others.append((("kl_weight",), "for codecs with Gaussian latents"))
    defaults = {setting.name: setting.default for setting in fields(Recipe)}
    for settings, why in others:
        for name in settings:
            if getattr(recipe, name) not in (defaults[name], 0.0):  # 0 is no loss either
                raise SpecError(f"recipe.{name} is {why}; leave it out for {architecture.name}")


def _check_sampling(spec: ModelSpec, recipe: Recipe) -> None:
    architecture = architecture_of(spec)
    if recipe.sampling == "parallel" and not architecture.reads_clips:
        able = ", ".join(name for name, each in architectures().items() if each.reads_clips)
        raise SpecError(f"recipe.sampling is 'parallel'; only {able} computes all steps of a clip at once")
    if recipe.sampling != "none" and architecture.kind != "sequential":
        raise SpecError(f"recipe.sampling is {recipe.sampling!r}; only recurrent architectures read frame by frame")


def _check_terms(spec: ModelSpec, recipe: Recipe, learnt: bool) -> None:
    if recipe.quantity:
        Decibels.of(spec)
    if recipe.quantity and recipe.emphasis:
        raise SpecError("recipe.emphasis is for decibels; with recipe.quantity large values weigh more by themselves")
    if recipe.deviance_weight and not recipe.quantity:
        raise SpecError("recipe.deviance_weight is for the quantity that decibels stand for; set recipe.quantity too")
    architecture = architecture_of(spec)
    decouples = architecture.decouples(config_of(spec))
    if recipe.decouple_weight and not decouples:
        able = " or ".join(
            f"{each.name} whose spec.params.{each.decoupling.setting} is true"
            for each in architectures().values()
            if each.decoupling is not None
        )
        raise SpecError(f"recipe.decouple_weight needs a {able}")
    if recipe.decouple_weight and recipe.sampling in ("none", "parallel"):
        raise SpecError("recipe.decouple_weight needs recipe.sampling: the loss is taken over all frames, step by step")
    if decouples and not recipe.decouple_weight and not learnt:
        assert architecture.decoupling is not None
        raise SpecError(
            f"spec.params.{architecture.decoupling.setting} is true; "
            "without recipe.decouple_weight its adapter would never learn"
        )
    if bool(recipe.memory_weight) != (architecture.stores is not None) and (recipe.memory_weight or not learnt):
        able = ", ".join(name for name, each in architectures().items() if each.stores is not None)
        if recipe.memory_weight:
            raise SpecError(f"recipe.memory_weight is for {able}, whose memory learns in a phase of its own")
        raise SpecError(
            f"without recipe.memory_weight the memory of {architecture.name} would never learn; set it (published: 1)"
        )
    if recipe.moment_weight and architecture.derivative_kernels is None:
        able = ", ".join(name for name, each in architectures().items() if each.derivative_kernels is not None)
        raise SpecError(f"recipe.moment_weight is for {able}, whose kernels stand for derivatives")


def objective(
    fast: Any,
    module: nn.Module,
    spec: ModelSpec,
    recipe: Recipe,
    past: Tensor,
    future: Tensor,
    done: float,
    valid: Tensor | None = None,
    paint: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The loss of one batch, a float32 scalar.

    With `recipe.sampling` it is taken over every frame but the first, else over the future alone.

    Args:
        fast: a form of `module` that computes the same with the same parameters, or `module` itself.
        module: the plain module, of the architecture of `spec`.
        past: (B, T, C, H, W), normalised.
        future: (B, T', C, H, W), normalised: the truth.
        done: the share of the training steps that have passed.
        valid: (B, T', 1, H, W), false where the future is unknown: no error is counted there. None: known everywhere.
            In the past every cell counts, since unknown ones were filled in.
        paint: the frozen decoder, (B, dim, h, w) latents to (B, C, H, W) frames, for `recipe.decoded_weight`.
    """
    with autocast(past.device, recipe):
        forecast, truth, extra = _forecast(fast, module, spec, recipe, past, future, done)
    loss = _errors(spec, recipe, forecast, truth, valid) + extra
    if recipe.decoded_weight:
        assert paint is not None  # `check` has seen that there is a decoder
        loss = loss + recipe.decoded_weight * _decoded_error(paint, recipe, forecast[:, -future.shape[1] :], future)
    architecture = architecture_of(spec)
    if architecture.stores is not None and recipe.memory_weight:
        with autocast(past.device, recipe):
            stored = architecture.stores(module, past, future)[:, : future.shape[1]]
        n = stored.shape[1]
        known = None if valid is None else valid[:, :n]
        loss = loss + recipe.memory_weight * _errors(spec, recipe, stored, future[:, :n], known)
    if recipe.moment_weight:
        loss = loss + recipe.moment_weight * _moment_error(architecture, module)
    return loss


def _errors(spec: ModelSpec, recipe: Recipe, forecast: Tensor, truth: Tensor, valid: Tensor | None) -> Tensor:
    """All terms that hold a forecast against the truth, (B, n, C, H, W) each; `valid` as in `objective`."""
    if valid is not None:
        forecast = _right_where_unknown(forecast, truth, valid)
    if recipe.quantity:
        forecast, truth = (Decibels.of(spec).quantity(values) for values in (forecast, truth))
    loss = recipe.l2_weight * squared_error(forecast, truth, recipe.reduction, recipe.emphasis)
    if recipe.l1_weight:
        loss = loss + recipe.l1_weight * absolute_error(forecast, truth, recipe.reduction)
    if recipe.deviance_weight:
        least = Decibels.of(spec).least
        loss = loss + recipe.deviance_weight * poisson_deviance(forecast, truth, least, recipe.reduction)
    if recipe.ddr_weight:
        divergence = divergence_of_differences(forecast, truth, recipe.ddr_temperature, recipe.reduction)
        loss = loss + recipe.ddr_weight * divergence
    return loss


def _decoded_error(paint: Callable[[Tensor], Tensor], recipe: Recipe, forecast: Tensor, truth: Tensor) -> Tensor:
    """The squared error between what the decoder paints of forecast and of true latents, (B, T', dim, h, w) each."""
    with autocast(truth.device, recipe):
        painted = paint(forecast.flatten(0, 1)).unflatten(0, truth.shape[:2])
        with torch.no_grad():
            wanted = paint(truth.flatten(0, 1)).unflatten(0, truth.shape[:2])
    return squared_error(painted, wanted, recipe.reduction)


def _forecast(
    fast: Any, module: nn.Module, spec: ModelSpec, recipe: Recipe, past: Tensor, future: Tensor, done: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Forecasts and the true frames that they are held against, (B, n, C, H, W) each, and the decoupling loss."""
    nothing = past.new_zeros(())
    if recipe.sampling == "none":
        return torch.stack(list(unroll(fast, spec, past, future.shape[1])), 1), future, nothing
    frames = torch.cat([past, future], 1)
    if recipe.sampling == "parallel":
        return _all_at_once(fast, frames[:, :-1]), frames[:, 1:], nothing
    period = done / recipe.sampling_share
    shown = draw_shown(recipe.sampling, period, past.shape[1], frames.shape[1] - 1, len(frames))
    decoupling = architecture_of(spec).decoupling if recipe.decouple_weight else None
    forecasts, extra = [], nothing
    for frame, state in sampled(fast, frames, shown.to(frames.device)):
        forecasts.append(frame)
        if decoupling is not None:
            extra = extra + recipe.decouple_weight * _alignment(decoupling, module, state)
    return torch.stack(forecasts, 1), frames[:, 1:], extra / len(forecasts)


def _all_at_once(module: ClipReadingModule, frames: Tensor) -> Tensor:
    """(B, T, C, H, W), read from the beginning in one call -> the forecasts after each frame, of the same shape."""
    state = module.initial_state(len(frames), (frames.shape[-2], frames.shape[-1]), frames.device, frames.dtype)
    return module.read(frames, state)[0]


def sampled(module: SequentialModule, frames: Tensor, shown: Tensor) -> Iterator[tuple[Tensor, Any]]:
    """Forecasts of the frames 1, 2, ... and the state after each.

    Args:
        module: reads frame t where `shown` is true, else its own forecast of it.
        frames: (B, T, C, H, W), normalised.
        shown: (T - 1, B) of booleans; the first row must be true.

    Returns:
        An iterator over T - 1 pairs of a forecast (B, C, H, W) and the module's state.
    """
    state = module.initial_state(len(frames), (frames.shape[-2], frames.shape[-1]), frames.device, frames.dtype)
    forecast = frames[:, 0]
    for t, row in enumerate(shown):
        frame = torch.where(row.view(-1, 1, 1, 1), frames[:, t], forecast)
        forecast, state = module.step(frame, state)
        yield forecast, state


def _right_where_unknown(forecast: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """The forecast, with the truth in those cells of its last T' frames where `valid` (B, T', 1, H, W) is false."""
    n = valid.shape[1]
    return torch.cat([forecast[:, :-n], torch.where(valid, forecast[:, -n:], truth[:, -n:])], 1)


def _alignment(decoupling: Decoupling, module: nn.Module, state: Any) -> Tensor:
    """The decoupling loss after one step, a scalar: the mean over layers."""
    return torch.stack([alignment(*pair) for pair in decoupling.pairs(module, state)]).mean()


def _moment_error(architecture: Architecture, module: nn.Module) -> Tensor:
    assert architecture.derivative_kernels is not None  # see `check`
    return moment_error(architecture.derivative_kernels(module))
