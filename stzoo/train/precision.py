"""What the products of a training step are computed in."""

from __future__ import annotations

import torch

from stzoo.engine import multiplies_in_bfloat16
from stzoo.machine import Precision
from stzoo.train.recipe import Recipe


def precision_on(device: torch.device, recipe: Recipe) -> Precision:
    """The recipe's precision; for "auto" bfloat16 if `device` multiplies in it natively, and float32 otherwise."""
    if recipe.precision == "auto":
        return "bfloat16" if multiplies_in_bfloat16(device) else "float32"
    return recipe.precision


def autocast(device: torch.device, recipe: Recipe) -> torch.autocast:
    """A context in which products on `device` are computed in the recipe's precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision_on(device, recipe) == "bfloat16")
