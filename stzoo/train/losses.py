"""Training losses on (B, T, C, H, W) forecasts, computed in float32 whatever the precision of the model."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Reduction = Literal["mean", "sum"]


def squared_error(forecast: Tensor, truth: Tensor, reduction: Reduction, emphasis: float = 0.0) -> Tensor:
    """Squared error of forecasts against the truth, (B, T, C, H, W) each, as a float32 scalar.

    The "mean" is taken over all elements; the "sum" over T*C*H*W is averaged over the batch. `emphasis` weights the
    error of each cell as in `weight`.
    """
    error = (forecast.float() - truth.float()).square()
    if emphasis:
        error = error * weight(truth.float(), emphasis)
    return error.mean() if reduction == "mean" else error.sum() / len(error)


def weight(truth: Tensor, emphasis: float) -> Tensor:
    """The weight of each cell's error, 1 + emphasis * max(0, truth), in the shape of the normalised `truth`."""
    return 1.0 + emphasis * truth.clamp(min=0.0)


def absolute_error(forecast: Tensor, truth: Tensor, reduction: Reduction) -> Tensor:
    """Like `squared_error`, but of the error's magnitude."""
    error = (forecast.float() - truth.float()).abs()
    return error.mean() if reduction == "mean" else error.sum() / len(error)


def poisson_deviance(forecast: Tensor, truth: Tensor, least: float, reduction: Reduction) -> Tensor:
    """Half the deviance of a Poisson distribution, f - y - y log(f / y), of quantities that are at least zero.

    Its mean is least where the forecast is the mean of the truth, as for the squared error, but errors count by their
    share of the forecast: light rain is seen beside heavy rain.

    Args:
        forecast, truth: (B, T, C, H, W), the quantity.
        least: added to both, so that the logarithm of zero is not asked for.
        reduction: as in `squared_error`.
    """
    forecast, truth = forecast.float() + least, truth.float() + least
    deviance = forecast - truth - truth * torch.log(forecast / truth)
    return deviance.mean() if reduction == "mean" else deviance.sum() / len(deviance)


def divergence_of_differences(forecast: Tensor, truth: Tensor, temperature: float, reduction: Reduction) -> Tensor:
    """Differential divergence regularisation (TAU, CVPR 2023, equations 7 to 10).

    The differences of consecutive frames become distributions over the C*H*W elements of a frame, by a softmax at
    `temperature`; the loss is the divergence KL(forecast || truth) between them.

    Args:
        forecast, truth: (B, T, C, H, W).
        temperature: the paper's 0.1.
        reduction: "sum" adds the divergences over time and averages over the batch (the paper's equation); "mean"
            averages the pointwise terms over all elements, as the published code does, which is the mean divergence
            divided by C*H*W. Pair it with `squared_error` of the same reduction.

    Returns:
        A float32 scalar; 0 if T is 1, since there is no pair of frames then.
    """
    if forecast.shape[1] < 2:
        return forecast.float().sum() * 0.0
    log_p, log_q = (F.log_softmax(x.float().diff(dim=1).flatten(2) / temperature, dim=-1) for x in (forecast, truth))
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1)
    return divergence.mean() / log_p.shape[-1] if reduction == "mean" else divergence.sum() / len(divergence)


def alignment(to_c: Tensor, to_m: Tensor) -> Tensor:
    """How much the increments of two memories point the same way: the decoupling loss of PredRNN-V2 (equation 6).

    Args:
        to_c, to_m: (B, C, H, W), both seen through the adapter.

    Returns:
        A float32 scalar in [0, 1]: the mean over B and C of |cosine| between two planes of H*W values.
    """
    return F.cosine_similarity(to_c.float().flatten(2), to_m.float().flatten(2), dim=2).abs().mean()


def moment_error(kernels: Tensor) -> Tensor:
    """How far convolution kernels are from the derivatives they stand for (PhyDNet, equation 8).

    The moment (i, j) of a k x k kernel is sum_yx y^i x^j / (i! j!) w[y, x], where y and x are counted from its middle.
    A kernel in which only moment (i, j) is 1, and all others 0, approximates the derivative of order i, j.

    Args:
        kernels: (k*k, C, k, k); kernel i * k + j stands for the derivative of order i, j, on each of the C channels.

    Returns:
        A float32 scalar: the squared distance to those moments, mean over kernels and moments, summed over channels.
    """
    k = kernels.shape[-1]
    place = torch.arange(k, dtype=torch.float64, device=kernels.device) - (k - 1) // 2
    basis = torch.stack([place**i / math.factorial(i) for i in range(k)])
    moments = torch.einsum("iy,jx,fcyx->cfij", basis, basis, kernels.double())
    wanted = torch.eye(k * k, dtype=torch.float64, device=kernels.device).view(k * k, k, k)
    return (moments - wanted).square().mean((1, 2, 3)).sum().float()
