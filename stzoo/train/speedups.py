"""What makes a step cheaper without changing what it learns. Every such choice is made here.

* `computing_form`: fused kernels, `torch.compile`, activations that are computed again instead of kept, or convolutions
  in fewer products.
* `cached_latents`: a frozen codec encodes each clip once.
* `made_ahead`: the next clips are made while a GPU computes.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stzoo.data import Clip, ClipSource
from stzoo.engine import multiplies_in_bfloat16
from stzoo.engine.compiling import compiled
from stzoo.models import architecture_of
from stzoo.spec import ModelSpec
from stzoo.train.assignment import Assignment, weights_digest
from stzoo.train.clips import Ahead
from stzoo.train.fused import FusedForm, has_kernels, why_not
from stzoo.train.latents import CachedLatents
from stzoo.train.precision import precision_on
from stzoo.train.recipe import Recipe
from stzoo.train.recompute import recomputing
from stzoo.train.winograd import with_fewer_products

# What helps on a CPU that computes bfloat16 by way of float32, which takes many times as long.
_REMEDY = '; this CPU has no bfloat16, so a recipe with precision = "auto" (--recipe FILE) trains much faster here'


def computing_form(module: nn.Module, spec: ModelSpec, recipe: Recipe) -> Any:
    """The form of `module` that a training step computes with: `module` itself, or one that shares its parameters.

    Args:
        module: a forecaster, or the predictor of a modular one, on the device that it trains on.
        spec: its spec.
        recipe: `fused`, `checkpoint` and `compile` choose the form. Fused kernels exist for some modules alone; if they
            cannot train one of these here, a warning says why. Then the other two choose. If none of them is set, on a
            CPU in float32, convolutions are computed in fewer products where that pays.
    """
    on_cpu = next(module.parameters()).is_cpu
    if recipe.fused and on_cpu and architecture_of(spec).fused_training and has_kernels(module):
        dtype = getattr(torch, precision_on(torch.device("cpu"), recipe))
        reason = why_not(module, spec, dtype)
        imitated = "" if dtype == torch.float32 or multiplies_in_bfloat16(torch.device("cpu")) else _REMEDY
        if reason is not None:
            warnings.warn(f"training without the fused kernels, which is slower: {reason}{imitated}", stacklevel=2)
        else:
            if imitated:
                warnings.warn(f"training in bfloat16{imitated}", stacklevel=2)
            return FusedForm(module, spec, dtype)  # type: ignore[arg-type]
    if recipe.checkpoint:
        return recomputing(module, spec, whole_clips=recipe.sampling == "parallel")
    if recipe.compile:
        return compiled(module, spec)
    return with_fewer_products(module) if takes_fewer_products(recipe, on_cpu) else module


def takes_fewer_products(recipe: Recipe, on_cpu: bool) -> bool:
    """Are convolutions computed in fewer products where that pays, unless there are fused kernels?"""
    plain = on_cpu and not recipe.checkpoint and not recipe.compile
    return plain and precision_on(torch.device("cpu"), recipe) == "float32"


def cached_latents(
    folder: Path, assignment: Assignment, codec: nn.Module, encode: Callable[[Clip], tuple[Tensor, Tensor]]
) -> CachedLatents:
    """The latents of the first `recipe.cached_clips` training clips, kept in a folder inside `folder`.

    Args:
        folder: holds one folder for everything that latents can depend on.
        assignment: what the run is about.
        codec: the codec's module, whose weights tell one cache from another.
        encode: the past and future of a clip as latents, (B, T, dim, h, w) and (B, T', dim, h, w).

    Raises:
        TrainingError: there is no room for them on the disk.
    """
    source, recipe = assignment.training, assignment.recipe
    first = source.clips(0, 1)
    identity = {
        "codec": weights_digest(codec.state_dict()),
        "spec": assignment.spec.to_dict(),
        "precision": precision_on(next(codec.parameters()).device, recipe),
        "first clip": hashlib.sha256(torch.cat([first.past, first.future], 1).cpu().numpy().tobytes()).hexdigest(),
    }
    return CachedLatents(folder, recipe.cached_clips, lambda start, stop: encode(source.clips(start, stop)), identity)


def made_ahead(
    training: ClipSource, recipe: Recipe, device: torch.device, clips: int
) -> AbstractContextManager[ClipSource]:
    """`training`, and beside a GPU a thread that makes the clips of the next step.

    On a CPU it would take time from the step, and cached latents need no clips.

    Args:
        clips: the number of clips that the run will use.
    """
    if device.type != "cuda" or recipe.cached_clips:
        return nullcontext(training)
    return Ahead(training, clips, recipe.batch, pinned=True)
