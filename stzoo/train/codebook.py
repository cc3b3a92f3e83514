"""How a codebook is trained: gradients pass it by, and it follows the latents.

Shapes: N frames, K codes of dim numbers each, latents of h rows and w columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from stzoo.models.contract import CodebookModule
from stzoo.train.processes import Processes
from stzoo.train.recipe import Recipe

REVIVED_BELOW = 0.01  # a code with fewer latents a batch than this, on average, is dead
MOST_DRAWN = 1 << 24  # the largest number of odds that torch.multinomial takes


def straight_through(latents: Tensor, quantised: Tensor) -> Tensor:
    """`quantised` in the forward pass; in the backward pass its gradient goes to `latents` unchanged.

    Both are (N, dim, h, w), and so is the result.
    """
    return latents + (quantised - latents).detach()


class CodebookAverage:
    """The codebook as a running mean of the latents that went to each code (van den Oord et al., 2017, appendix A.1).

    With n latents that sum up to z going to a code in this batch, and the decay d: N <- d N + (1 - d) n and
    m <- d m + (1 - d) z, and the code is m / N. A code that gets hardly any latents is dead. It is moved to a latent of
    the batch, drawn with odds that grow with that latent's distance from its own code. At the first step every code
    without a latent is dead, so the codebook starts from data.

    With ``recipe.codebook = "loss"`` the optimiser moves the codes, and only dead ones are moved here.

    Args:
        module: the codec; its `codebook` (K, dim) is changed in place.
        recipe: gives `codebook` and `codebook_decay`.
        processes: those that train together, whose latents all count.
    """

    def __init__(self, module: CodebookModule, recipe: Recipe, processes: Processes):
        self.module, self.decay, self.averages = module, recipe.codebook_decay, recipe.codebook == "ema"
        self.processes = processes
        module.codebook.requires_grad_(not self.averages)
        self.counts = torch.zeros(len(module.codebook), device=module.codebook.device, dtype=torch.float32)
        self.sums = torch.zeros_like(module.codebook.data)

    @torch.no_grad()
    def update(self, latents: Tensor, codes: Tensor) -> None:
        """Let the codebook follow the whole batch. Dead codes are moved to latents of the first process.

        Args:
            latents: (N, dim, h, w), those of this process's share of the batch.
            codes: (N, h, w) int64, the codes that they went to.
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
        """The running numbers of latents, (K,), and their running sums, (K, dim), for a checkpoint."""
        return {"counts": self.counts, "sums": self.sums}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.counts.copy_(state["counts"])
        self.sums.copy_(state["sums"])
