"""Muon (Jordan et al., 2024): the momentum of each matrix is orthogonalised before it is applied.

The Muon of torch.optim takes only two-dimensional parameters. Here the weight of a convolution counts as a matrix of
(out, in * kh * kw), and all matrices of one shape are orthogonalised together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.7750, 2.0315  # Newton-Schulz coefficients: five steps bring singular values to about 1


class Muon(torch.optim.Optimizer):
    """Updates by orthogonalised momentum. Their root mean square is about 0.2 * lr, so rates compare with AdamW's.

    Args:
        params: weights of two or more dimensions.
        lr: the learning rate.
        momentum: how much of the momentum is kept from step to step.
        weight_decay: decoupled from the gradient, as in AdamW.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient. `closure` is not called."""
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    alike[p.shape[0], p[0].numel()].append(p)
            for (rows, columns), params in alike.items():
                updates = orthogonalised(torch.stack([self._nesterov(p, group["momentum"]).flatten(1) for p in params]))
                size = group["lr"] * 0.2 * max(rows, columns) ** 0.5
                for p, update in zip(params, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update.view(p.shape), alpha=size)

    def _nesterov(self, p: nn.Parameter, momentum: float) -> Tensor:
        assert p.grad is not None
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(state["momentum"], momentum)


def orthogonalised(matrices: Tensor) -> Tensor:
    """(N, R, C) matrices -> about the nearest semi-orthogonal ones, of the same shape in float32.

    Their singular values are not exactly 1, but within about 0.3 of it.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).contiguous()
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-12)).bfloat16()
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return (x.mT if tall else x).float()
