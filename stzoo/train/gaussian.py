"""How a codec with Gaussian latents is trained, and how it learns the units of its latents.

Shapes: N frames, latents of dim channels, h rows and w columns.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stzoo.models.contract import GaussianModule
from stzoo.train.processes import Processes

DECAY = 0.99  # of the running sums of `LatentAverage`, from one step to the next


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) in nats, added up over all elements (Kingma and Welling, appendix B).

    Args:
        mean, log_variance: (N, dim, h, w).

    Returns:
        A float32 scalar, -1/2 sum(1 + log variance - mean^2 - variance); it is 0 for mean 0 and variance 1.
    """
    mean, log_variance = mean.float(), log_variance.float()
    return -0.5 * (1.0 + log_variance - mean.square() - log_variance.exp()).sum()


def drawn(mean: Tensor, log_variance: Tensor) -> Tensor:
    """A latent drawn from each distribution, mean + deviation * noise, differentiable in both: (N, dim, h, w)."""
    return mean + (0.5 * log_variance).exp() * torch.randn_like(mean)


class LatentAverage:
    """The mean of each channel of the latents, and their standard deviation from it, over the training frames.

    Of each batch, with n latents whose sum is z and whose sum of squares is s, and the decay d: N <- d N + (1 - d) n,
    and so on for z and s. The mean is z / N and the variance s / N minus its square, the mean over channels. The
    running sums have the same weights, so the figures are right from the first batch on.

    Args:
        module: the codec; its `latent_mean` (dim,) and `latent_std`, a scalar, are changed in place.
        processes: those that train together, whose latents all count.
    """

    def __init__(self, module: GaussianModule, processes: Processes):
        self.module, self.processes = module, processes
        mean = module.latent_mean
        self.sums = torch.zeros(3, len(mean), device=mean.device, dtype=torch.float64)  # of 1, z and z^2

    @torch.no_grad()
    def update(self, latents: Tensor) -> None:
        """Let the figures follow the whole batch.

        Args:
            latents: (N, dim, h, w), the means of this process's share of the batch.
        """
        points = latents.movedim(1, -1).flatten(0, -2).double()
        sums = self.processes.total(torch.stack([torch.ones_like(points), points, points.square()]).sum(1))
        self.sums.lerp_(sums, 1.0 - DECAY)
        count, total, squares = self.sums
        mean = total / count
        self.module.latent_mean.copy_(mean)
        self.module.latent_std.copy_((squares / count - mean.square()).mean().clamp_min(0.0).sqrt())

    def state(self) -> dict[str, Tensor]:
        """The running sums, (3, dim), for a checkpoint."""
        return {"sums": self.sums}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.sums.copy_(state["sums"])
