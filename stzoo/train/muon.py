"""Muon (Jordan et al., 2024): momentum whose matrices are orthogonalised before they are applied.

torch.optim has a Muon for two-dimensional parameters only; here convolutions count as (out, in * kh * kw) matrices,
and matrices of one shape are orthogonalised together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.7750, 2.0315  # Newton-Schulz coefficients: singular values to about 1 in five steps


class Muon(torch.optim.Optimizer):
    """Updates have a root mean square of about 0.2 * lr, so that rates compare with AdamW's."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
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
    """(N, R, C) -> the nearest semi-orthogonal matrices, roughly: singular values within about 0.3 of 1."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).contiguous()
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-12)).bfloat16()
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return (x.mT if tall else x).float()
