"""Training losses on (B, T, C, H, W) forecasts, computed in float32 whatever the precision of the model."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Reduction = Literal["mean", "sum"]


def squared_error(forecast: Tensor, truth: Tensor, reduction: Reduction) -> Tensor:
    """Mean over all elements, or the sum over T*C*H*W averaged over the batch."""
    error = (forecast.float() - truth.float()).square()
    return error.mean() if reduction == "mean" else error.sum() / len(error)


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
        A float32 scalar; 0 where T is 1, since there is no pair of frames.
    """
    if forecast.shape[1] < 2:
        return forecast.float().sum() * 0.0
    log_p, log_q = (F.log_softmax(x.float().diff(dim=1).flatten(2) / temperature, dim=-1) for x in (forecast, truth))
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1)
    return divergence.mean() / log_p.shape[-1] if reduction == "mean" else divergence.sum() / len(divergence)
