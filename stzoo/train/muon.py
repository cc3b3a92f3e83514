"""Muon (Jordan et al., 2024): the momentum of each matrix is orthogonalised before it is applied.

The Muon of torch.optim takes only two-dimensional parameters. Here the weight of a convolution counts as a matrix of
(out, in * kh * kw), and all matrices of one shape are orthogonalised together. Products are computed in bfloat16 where
the machine has instructions for it. Elsewhere it would be imitated, which takes many times as long as float32.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from stzoo.engine import multiplies_in_bfloat16

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
                matrices = self._nesterov(params, group["momentum"])
                updates = orthogonalised(matrices, torch.bfloat16 if multiplies_in_bfloat16(matrices.device) else None)
                size = group["lr"] * 0.2 * max(rows, columns) ** 0.5
                for p, update in zip(params, updates, strict=True):
                    if group["weight_decay"]:
                        p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.sub_(update.view(p.shape), alpha=size)

    def _nesterov(self, params: list[nn.Parameter], momentum: float) -> Tensor:
        """Take the gradients of parameters of one shape into their momenta -> what the step follows, (N, R, C)."""
        gradients, momenta = [], []
        for p in params:
            assert p.grad is not None
            state = self.state[p]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(p)
            gradients.append(p.grad)
            momenta.append(state["momentum"])
        torch._foreach_lerp_(momenta, gradients, 1 - momentum)
        return torch.stack([g.lerp(m, momentum).flatten(1) for g, m in zip(gradients, momenta, strict=True)])


def orthogonalised(matrices: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """About the nearest semi-orthogonal matrices. Their singular values are not exactly 1, but within about 0.3 of it.

    Each of the five steps multiplies X by a polynomial in X X^T. If X is much longer than wide, the polynomials of
    several steps are multiplied first, which takes small square matrices alone: with G = X X^T and P the polynomial,
    the next G is P P G. All these matrices commute. The steps are cut in two, because rounding errors of G, which grow
    as small singular values do, would take over in bfloat16 after about four.

    Args:
        matrices: (N, R, C), float32 or float64.
        dtype: what products are computed in; by default that of the matrices.

    Returns:
        (N, R, C), of the dtype of `matrices`.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).contiguous()
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-12)).to(dtype)
    for steps in (3, 2) if x.shape[2] >= 2 * x.shape[1] else (1,) * 5:
        x = _steps(x, steps)
    return (x.mT if tall else x).to(matrices.dtype)


def _steps(x: Tensor, count: int) -> Tensor:
    """So many Newton-Schulz steps of (N, R, C)."""
    gram = x @ x.mT
    factor = _factor(gram)
    if count == 1:
        return _times(factor, x)
    product = factor.clone()
    product.diagonal(dim1=1, dim2=2).add_(_A)
    for _ in range(count - 1):
        gram = _times(factor, _times(factor, gram))
        factor = _factor(gram)
        product = _times(factor, product)
    return product @ x


def _factor(gram: Tensor) -> Tensor:
    """B G + C G^2 of G (N, R, R). The third term of the polynomial, A, is a multiple of what it is applied to."""
    return torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)


def _times(factor: Tensor, x: Tensor) -> Tensor:
    """(A + factor) x, rounded once."""
    return torch.baddbmm(x, factor, x, beta=_A)
