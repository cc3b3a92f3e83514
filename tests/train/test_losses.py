"""Losses against the paper's equations in float64, one element at a time."""

import math

import numpy as np
import pytest
import torch

from stzoo.train.losses import divergence_of_differences, squared_error


def softmax(values: np.ndarray, temperature: float) -> np.ndarray:
    e = np.exp((values - values.max()) / temperature)
    return e / e.sum()


def reference(forecast: np.ndarray, truth: np.ndarray, temperature: float) -> np.ndarray:
    """KL(forecast || truth) of each pair of consecutive frames: (B, T - 1)."""
    b, t = truth.shape[:2]
    out = np.zeros((b, t - 1))
    for i in range(b):
        for j in range(t - 1):
            p = softmax((forecast[i, j + 1] - forecast[i, j]).ravel(), temperature)
            q = softmax((truth[i, j + 1] - truth[i, j]).ravel(), temperature)
            out[i, j] = sum(a * math.log(a / c) for a, c in zip(p, q, strict=True))
    return out


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.rand(2, 4, 2, 5, 3), torch.rand(2, 4, 2, 5, 3)


def test_divergence_in_both_reductions(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    kl = reference(*(x.double().numpy() for x in pair), 0.1)
    assert divergence_of_differences(*pair, 0.1, "sum").item() == pytest.approx(kl.sum(1).mean(), rel=1e-5)
    assert divergence_of_differences(*pair, 0.1, "mean").item() == pytest.approx(kl.mean() / 30, rel=1e-5)


def test_squared_error_in_both_reductions(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    square = (pair[0] - pair[1]).double().square()
    assert squared_error(*pair, "sum").item() == pytest.approx(square.sum().item() / 2, rel=1e-6)
    assert squared_error(*pair, "mean").item() == pytest.approx(square.mean().item(), rel=1e-6)


def test_like_reductions_differ_by_the_same_factor_but_for_the_pairs(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    """sum / mean is T*C*H*W for the error and (T-1)*C*H*W for the divergence: the balance of the two stays."""
    errors = squared_error(*pair, "sum") / squared_error(*pair, "mean")
    divergences = divergence_of_differences(*pair, 0.1, "sum") / divergence_of_differences(*pair, 0.1, "mean")
    assert errors.item() == pytest.approx(4 * 30, rel=1e-4)
    assert divergences.item() == pytest.approx(3 * 30, rel=1e-4)


def test_a_perfect_forecast_costs_nothing_and_a_single_frame_has_no_difference(
    pair: tuple[torch.Tensor, torch.Tensor],
) -> None:
    assert divergence_of_differences(pair[1], pair[1], 0.1, "sum").item() == pytest.approx(0, abs=1e-6)
    single = pair[0][:, :1].requires_grad_()
    loss = divergence_of_differences(single, pair[1][:, :1], 0.1, "mean")
    loss.backward()
    assert loss.item() == 0
    assert single.grad is not None


def test_half_precision_does_not_underflow() -> None:
    """A distribution as sharp as they come: one pixel moves by 1 among 4,096."""
    truth = torch.zeros(1, 2, 1, 64, 64)
    truth[0, 1, 0, 3, 3] = 1
    forecast = torch.zeros_like(truth)
    expected = reference(forecast.double().numpy(), truth.double().numpy(), 0.1).sum()
    for dtype in (torch.float16, torch.bfloat16):
        value = divergence_of_differences(forecast.to(dtype), truth.to(dtype), 0.1, "sum").item()
        assert value == pytest.approx(expected, rel=1e-3)
