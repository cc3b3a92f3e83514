"""How a codec is trained: reconstruction through the codebook, and a codebook that follows the latents."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from stzoo.models.contract import CodecModule
from stzoo.train.processes import Processes
from stzoo.train.recipe import Recipe

REVIVED_BELOW = 0.01  # latents a batch, on average, below which a code is dead


def straight_through(latents: Tensor, quantised: Tensor) -> Tensor:
    """The quantised latents in the forward pass; in the backward pass the gradient goes on to `latents` unchanged."""
    return latents + (quantised - latents).detach()


def codec_loss(module: CodecModule, recipe: Recipe, frames: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of (N, C, H, W) normalised frames, a float32 scalar; their latents, and the codes these went to.

    Squared error of the reconstruction, as a share of the `variance` of the batch that the frames are of, so that the
    weights mean the same on every dataset; plus `recipe.commitment` times the squared distance from each latent to its
    (held) code; plus, where the codebook learns by loss, that distance with the latent held and the code free. All are
    means over elements.
    """
    with torch.autocast(frames.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        latents = module.encode(frames).float()
        quantised, codes = module.quantise(latents)
        painted = module.decode(straight_through(latents, quantised)).float()
    frames = frames.float()
    loss = (painted - frames).square().mean() / variance.clamp_min(1e-6)
    loss = loss + recipe.commitment * (latents - quantised.detach()).square().mean()
    if recipe.codebook == "loss":
        loss = loss + (latents.detach() - quantised).square().mean()
    return loss, latents.detach(), codes


MOST_DRAWN = 1 << 24  # what torch draws from at once


class CodebookAverage:
    """The codebook as a running mean of the latents that went to each code (van den Oord et al., appendix A.1).

    N <- d N + (1 - d) n and m <- d m + (1 - d) sum z, code = m / N. A code to which hardly any latent goes is dead: it
    is put where a latent of the batch lies, drawn with odds that grow with its distance to its own code. At the first
    step every code that no latent went to is dead, so the codebook starts from data.

    With `recipe.codebook` = "loss" the optimiser moves the codes, and only the dead ones are put elsewhere.
    """

    def __init__(self, module: CodecModule, recipe: Recipe, processes: Processes):
        self.module, self.decay, self.averages = module, recipe.codebook_decay, recipe.codebook == "ema"
        self.processes = processes
        module.codebook.requires_grad_(not self.averages)
        self.counts = torch.zeros(len(module.codebook), device=module.codebook.device)
        self.sums = torch.zeros_like(module.codebook.data)

    @torch.no_grad()
    def update(self, latents: Tensor, codes: Tensor) -> None:
        """Take in this process's share of a batch: latents (B, dim, h, w), and the codes (B, h, w) they went to.

        The codebook follows the whole batch; codes that died move to latents of the first process.
        """
        book, points, codes = self.module.codebook, latents.movedim(1, -1).flatten(0, -2), codes.flatten()
        count = self.processes.total(torch.bincount(codes, minlength=len(book)).to(self.counts.dtype))
        total = self.processes.total(torch.zeros_like(self.sums).index_add_(0, codes, points))
        self.counts.lerp_(count, 1.0 - self.decay)
        self.sums.lerp_(total, 1.0 - self.decay)
        if self.averages:
            seen = self.counts > 0
            book[seen] = self.sums[seen] / self.counts[seen, None]
        dead = (self.counts < REVIVED_BELOW).nonzero()[:, 0]
        if len(dead):
            odds = (points - book[codes]).square().sum(1)[:MOST_DRAWN] + 1e-12
            if odds.isfinite().all():
                chosen = points[torch.multinomial(odds, len(dead), replacement=True)]
            else:  # the loss diverged, which the training loop reports
                chosen = points.new_full((len(dead), points.shape[1]), math.nan)
            chosen = self.processes.from_first(chosen.cpu()).to(points.device)
            if not chosen.isfinite().all():
                return
            book[dead], self.sums[dead], self.counts[dead] = chosen, chosen, 1.0

    def state(self) -> dict[str, Tensor]:
        return {"counts": self.counts, "sums": self.sums}

    def restore(self, state: dict[str, Any]) -> None:
        self.counts.copy_(state["counts"])
        self.sums.copy_(state["sums"])
