"""Optimisers from a recipe. Weight decay falls on the weights of convolutions and linear layers only."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from stzoo.train.muon import Muon
from stzoo.train.recipe import Recipe

Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]

MIXING = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
NARROW = 32  # matrices with a shorter side are left to AdamW


def optimizers(module: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Of what asks for a gradient. Every group carries its `peak` rate, which the schedule's factor multiplies."""
    learning = [p for p in module.parameters() if p.requires_grad]
    weights = {m.weight for m in module.modules() if isinstance(m, MIXING)}
    matrices = [p for p in learning if recipe.optimizer == "muon" and p in weights and _is_matrix(p)]
    rest = [p for p in learning if not any(p is m for m in matrices)]
    groups = [
        {"params": [p for p in rest if p in weights], "weight_decay": recipe.weight_decay},
        {"params": [p for p in rest if p not in weights], "weight_decay": 0.0},
    ]
    chosen: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)]
    if matrices:
        chosen.append(Muon(matrices, lr=recipe.muon_lr, weight_decay=recipe.weight_decay))
    for optimizer in chosen:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return chosen


def _is_matrix(p: nn.Parameter) -> bool:
    """Mixes many channels with many: neither a depthwise kernel nor a narrow bottleneck."""
    return p.shape[1] > 1 and min(p.shape[0], p[0].numel()) >= NARROW


def averaged(module: nn.Module, decay: float) -> AveragedModel:
    """The module's exponential moving average, BatchNorm statistics included.

    The decay rises as (1 + n) / (10 + n), so that a short run does not average in its random start.
    """

    @torch.no_grad()
    def average(averages: Tensors, values: Tensors, n: torch.Tensor | int) -> None:
        weight = 1.0 - min(decay, (1 + int(n)) / (10 + int(n)))
        if averages[0].is_floating_point():  # torch calls once for each dtype
            torch._foreach_lerp_(averages, values, weight)
        else:  # BatchNorm counts its batches
            torch._foreach_copy_(averages, values)

    return AveragedModel(module, multi_avg_fn=average, use_buffers=True)
