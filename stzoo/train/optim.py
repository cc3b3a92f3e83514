"""The optimisers of a recipe, how their learning rates go up and down, and the moving average of the weights."""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from stzoo.train.muon import Muon
from stzoo.train.recipe import Recipe

Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]

MIXING = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
NARROW = 32  # matrices whose shorter side is below this are left to AdamW


def optimizers(module: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW for every parameter that asks for a gradient or, with ``recipe.optimizer = "muon"``, for all but matrices.

    Weight decay applies only to the weights of convolutions and linear layers. Every parameter group holds its `peak`
    rate, see `set_rates`.
    """
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
    """Whether a weight mixes many channels with many: depthwise kernels and narrow bottlenecks do not."""
    return p.shape[1] > 1 and min(p.shape[0], p[0].numel()) >= NARROW


def set_rates(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Set the learning rate of every parameter group to `factor` times its peak rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor


def cosine(step: int, steps: int, warmup: float) -> float:
    """Linear from nearly 0 to 1 during the first `warmup` share of the steps, then down to 0 along half a cosine."""
    ramp = max(1.0, warmup * steps)
    if step < ramp:
        return (step + 1) / (ramp + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - ramp) / max(1.0, steps - ramp)))


def one_cycle(step: int, steps: int, warmup: float) -> float:
    """Smith's one-cycle rate as torch computes it: along a cosine from 1/25 up to 1, then down to 1/250,000."""
    start, end, peak = 1 / 25, 1 / 250_000, warmup * steps - 1
    if step <= peak:
        return _anneal(start, 1.0, step / max(peak, 1e-9))
    return _anneal(1.0, end, (step - peak) / max(steps - 1 - peak, 1e-9))


def _anneal(a: float, b: float, share: float) -> float:
    return b + (a - b) * 0.5 * (1.0 + math.cos(math.pi * share))


# (step, number of steps, share of them that warms up) -> factor of the peak rate. Pure functions: nothing is restored.
SCHEDULES = {"cosine": cosine, "one-cycle": one_cycle}


def averaged(module: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a module's parameters and of its BatchNorm statistics.

    After n updates the decay is (1 + n) / (10 + n), and at most `decay`, so that a short run does not average in its
    random start.
    """

    @torch.no_grad()
    def average(averages: Tensors, values: Tensors, _: torch.Tensor | int) -> None:
        n = int(model.n_averaged)  # on the CPU; the copy that torch hands over lies on a GPU, and would be waited for
        weight = 1.0 - min(decay, (1 + n) / (10 + n))
        if averages[0].is_floating_point():  # torch calls once for each dtype
            torch._foreach_lerp_(averages, values, weight)
        else:  # the number of batches that BatchNorm has seen
            torch._foreach_copy_(averages, values)

    model = AveragedModel(module, multi_avg_fn=average, use_buffers=True)
    return model
