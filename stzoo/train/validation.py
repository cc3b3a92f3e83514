"""How good a model is while it trains, on held-out clips, with a picture of the first of them."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stzoo import viz
from stzoo.codec import usage
from stzoo.data import ClipSource
from stzoo.data.recordings import RecordedClips
from stzoo.frames.values import denormalise, normalise, to_units
from stzoo.models import architecture_of
from stzoo.models.decibels import Decibels
from stzoo.spec import ModelSpec
from stzoo.train.losses import weight
from stzoo.train.precision import autocast
from stzoo.train.recipe import Recipe
from stzoo.unroll import unroll


@torch.no_grad()
def validate(
    module: Any, spec: ModelSpec, recipe: Recipe, clips: ClipSource, device: torch.device, picture: Path
) -> dict[str, float]:
    """Measure a model on held-out clips, and write a picture of the first of them.

    Args:
        module: the model, in eval mode, on `device`.
        spec: its spec.
        recipe: gives `validation_clips`, `batch`, `precision`, `emphasis` and `quantity`.
        clips: held-out clips, in the units of their files.
        device: where the model is.
        picture: the file to write, a strip of the first clip's first channel.

    Returns:
        `validation_mse`: the squared error of the forecasts in the spec's units, or of the quantity if the recipe
        says so, summed over the values of a frame, mean over frames and clips. Where the truth is unknown, the error
        counts as the mean of the rest of its frame.
        Of a codec it is the error of frames that were encoded and painted again. If it has a codebook, they go through
        that; `codes_used`, the number of codes that they went to, and their `perplexity` are there too.
    """
    if architecture_of(spec).is_codec:
        return _validate_codec(module, spec, recipe, clips, device, picture)
    total, count = 0.0, 0
    for past, future, valid in _batches(spec, recipe, clips, device):
        with autocast(device, recipe):
            forecast = torch.stack(list(unroll(module, spec, normalise(past, spec), future.shape[1])), 1).float()
        made, forecast = forecast, denormalise(forecast, spec)
        if not count:
            _strip(picture, spec, {"past": past, "truth": future, "forecast": forecast})
        if recipe.quantity:
            decibels = Decibels.of(spec)
            error = (decibels.quantity(made) - decibels.quantity(normalise(future, spec))).square()
        else:
            error = (forecast - future).square()
        if recipe.emphasis:
            error = error * weight(normalise(future, spec), recipe.emphasis)
        if valid is not None:
            error = error * valid / valid.float().mean((2, 3, 4), keepdim=True).clamp(min=1e-6)
        total += error.sum((2, 3, 4)).mean(1).sum().item()
        count += len(future)
    return {"validation_mse": total / count}


def _validate_codec(
    module: Any, spec: ModelSpec, recipe: Recipe, clips: ClipSource, device: torch.device, picture: Path
) -> dict[str, float]:
    total, count = 0.0, 0
    quantises = architecture_of(spec).quantises
    counts = torch.zeros(len(module.codebook) if quantises else 0, dtype=torch.int64, device=device)
    for past, future, _ in _batches(spec, recipe, clips, device):
        truth = torch.cat([past, future], 1).flatten(0, 1)
        latents = module.encode(normalise(truth, spec))
        if quantises:
            latents, codes = module.quantise(latents)
            counts += torch.bincount(codes.flatten(), minlength=len(counts))
        painted = denormalise(module.decode(latents), spec)
        if not count:
            _strip(picture, spec, {"truth": truth[None], "painted": painted[None]})
        total += (painted - truth).square().sum().item()
        count += len(truth)
    if not quantises:
        return {"validation_mse": total / count}
    used, spread = usage(counts)
    return {"validation_mse": total / count, "codes_used": used, "perplexity": spread}


def _batches(
    spec: ModelSpec, recipe: Recipe, clips: ClipSource, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Past (B, T, C, H, W) and future (B, T', C, H, W) in the spec's units, and where the future is known."""
    end = min(recipe.validation_clips, len(clips))
    if isinstance(clips, RecordedClips):  # they lie one after the other in time: take some from each recording
        clips = replace(clips, places=clips.places[np.linspace(0, len(clips) - 1, end).round().astype(int)])
    for start in range(0, end, recipe.batch):
        clip = clips.clips(start, min(start + recipe.batch, end))
        valid = None if clip.valid is None else clip.valid.to(device)
        yield to_units(clip.past.to(device), spec), to_units(clip.future.to(device), spec), valid


def _strip(picture: Path, spec: ModelSpec, rows: dict[str, Tensor]) -> None:
    """Write a row for each name: the first channel of its first clip, (T, H, W).

    Black to white is the spec's value range or, without one, the smallest to the largest value of the first row.
    """
    first = next(iter(rows.values()))[0, :, 0]
    low, high = spec.value_range or (first.min().item(), first.max().item() + 1e-6)
    strip = viz.strip({name: ((x[0, :, 0] - low) / (high - low)).cpu().numpy() for name, x in rows.items()})
    try:
        strip.save(picture)
    except OSError as error:  # a picture must not cost a run
        warnings.warn(f"the picture {picture} cannot be written: {error}", stacklevel=2)
