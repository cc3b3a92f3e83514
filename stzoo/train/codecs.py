"""How a codec is trained: it paints frames again, and its codebook or the units of its latents follow the latents.

Shapes: N frames of C channels, H rows and W columns; latents of dim channels, h rows and w columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stzoo.models import architecture_of
from stzoo.spec import ModelSpec
from stzoo.train.codebook import CodebookAverage, straight_through
from stzoo.train.gaussian import LatentAverage, drawn, kl_divergence
from stzoo.train.precision import autocast
from stzoo.train.processes import Processes
from stzoo.train.recipe import Recipe

# painted and true frames, (N, C, H, W) each and normalised -> how different they look, a float32 scalar
Perceptual = Callable[[Tensor, Tensor], Tensor]


def codec_loss(
    module: Any,
    spec: ModelSpec,
    recipe: Recipe,
    frames: Tensor,
    variance: Tensor,
    perceptual: Perceptual | None = None,
) -> tuple[Tensor, ...]:
    """The loss of a codec, and what its latents were.

    Every codec has the mean squared error of the reconstruction, divided by `variance`, so that weights mean the same
    on every dataset; and `recipe.perceptual_weight` times the perceptual distance, if there is one. A codec that
    quantises adds, as in equation 3 of van den Oord et al. (2017),

    * `recipe.commitment` times the mean squared distance from each latent to its code, the code held constant;
    * with ``recipe.codebook = "loss"``, the same distance with the latent held constant.

    One with Gaussian latents paints from latents that are drawn, and adds `recipe.kl_weight` times their divergence
    from N(0, 1), added up over a frame and divided by its number of values. With the weight beta this is the evidence
    lower bound (Kingma and Welling, equation 3) of values with a Gaussian error of variance beta / 2 * `variance`, but
    for factors and terms that are constant.

    Args:
        module: the codec, in training mode.
        spec: its spec.
        recipe: gives the weights, `codebook` and `precision`.
        frames: (N, C, H, W), normalised.
        variance: that of the whole batch, a float32 scalar, see `variance_of_batch`.
        perceptual: what `recipe.perceptual_weight` weighs; None where that is 0.

    Returns:
        The loss, a float32 scalar, and what `follower` needs, without gradient: the latents (N, dim, h, w), those of
        `encode`; and of a codec that quantises the numbers of their codes (N, h, w), int64.
    """
    frames = frames.float()
    if architecture_of(spec).quantises:
        with autocast(frames.device, recipe):
            latents = module.encode(frames).float()
            quantised, codes = module.quantise(latents)
            painted = module.decode(straight_through(latents, quantised)).float()
        extra = recipe.commitment * (latents - quantised.detach()).square().mean()
        if recipe.codebook == "loss":
            extra = extra + (latents.detach() - quantised).square().mean()
        seen: tuple[Tensor, ...] = latents.detach(), codes
    else:
        with autocast(frames.device, recipe):
            mean, log_variance = (x.float() for x in module.posterior(frames))
            painted = module.decode(drawn(mean, log_variance)).float()
        extra = recipe.kl_weight * kl_divergence(mean, log_variance) / frames.numel()
        seen = (mean.detach(),)
    loss = (painted - frames).square().mean() / variance.clamp_min(1e-6) + extra
    if perceptual is not None:
        with autocast(frames.device, recipe):
            loss = loss + recipe.perceptual_weight * perceptual(painted, frames)
    return loss, *seen


def follower(module: Any, spec: ModelSpec, recipe: Recipe, processes: Processes) -> CodebookAverage | LatentAverage:
    """What of a codec follows its latents beside the gradient: its codebook, or else the units of its latents."""
    if architecture_of(spec).quantises:
        return CodebookAverage(module, recipe, processes)
    return LatentAverage(module, processes)


def variance_of_batch(past: Tensor, future: Tensor, processes: Processes) -> Tensor:
    """The variance of all values of a batch, a float32 scalar.

    Args:
        past, future: (B, T, C, H, W) and (B, T', C, H, W), this process's share of the batch.
        processes: those that hold the other shares.
    """
    values = torch.cat([past.flatten(), future.flatten()]).double()
    parts = torch.stack([values.new_tensor(len(values)), values.sum(), values.square().sum()])
    count, total, squares = processes.total(parts)
    return ((squares - total * total / count) / (count - 1)).float()
