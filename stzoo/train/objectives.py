"""What a training step minimises, written on `unroll`: one forecast of the future, compared with the truth."""

import torch
from torch import Tensor, nn

from stzoo.spec import ModelSpec
from stzoo.train.losses import divergence_of_differences, squared_error
from stzoo.train.recipe import Recipe
from stzoo.unroll import unroll


def forecast_loss(module: nn.Module, spec: ModelSpec, recipe: Recipe, past: Tensor, future: Tensor) -> Tensor:
    """Squared error plus `ddr_weight` times the divergence of differences (TAU, equation 6).

    `past` (B, T, C, H, W) and `future` (B, T', C, H, W) are normalised; the forecast is as long as `future`.
    """
    with torch.autocast(past.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        forecast = torch.stack(list(unroll(module, spec, past, future.shape[1])), 1)
    loss = squared_error(forecast, future, recipe.reduction)
    if recipe.ddr_weight == 0.0:
        return loss
    divergence = divergence_of_differences(forecast, future, recipe.ddr_temperature, recipe.reduction)
    return loss + recipe.ddr_weight * divergence
