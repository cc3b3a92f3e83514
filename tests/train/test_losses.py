"""Losses against the paper's equations in float64, one element at a time."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import poisson

from stzoo.train.losses import (
    absolute_error,
    alignment,
    divergence_of_differences,
    moment_error,
    poisson_deviance,
    squared_error,
)


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


def test_alignment_is_the_cosine_of_two_planes() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    planes = [x.double().flatten(0, 1).flatten(1).numpy() for x in (a, b)]
    cosines = [abs(x @ y) / (np.linalg.norm(x) * np.linalg.norm(y)) for x, y in zip(*planes, strict=True)]
    assert alignment(a, b).item() == pytest.approx(np.mean(cosines), rel=1e-5)
    assert alignment(a, -3 * a).item() == pytest.approx(1.0, rel=1e-5)


def derivative_kernel(i: int, j: int, k: int) -> np.ndarray:
    """The k x k kernel that is exact on polynomials: its (i, j)-th moment is 1 and all its others are 0."""
    place = np.arange(k) - (k - 1) // 2
    basis = np.stack([place.astype(float) ** n / math.factorial(n) for n in range(k)])
    inverse = np.linalg.inv(basis)
    return np.outer(inverse[:, i], inverse[:, j])


@pytest.mark.parametrize("k", [3, 5, 7])
def test_the_moment_error_is_zero_for_derivatives_only(k: int) -> None:
    kernels = np.stack([derivative_kernel(i, j, k) for i in range(k) for j in range(k)])[:, None].repeat(2, 1)
    exact = torch.from_numpy(kernels)
    assert moment_error(exact).item() == pytest.approx(0.0, abs=1e-12)
    assert moment_error(exact.roll(1, 0)).item() > 0.01  # the right kernels in the wrong places


def test_a_derivative_kernel_differentiates() -> None:
    """What the moments stand for: sampled on a polynomial, the (1, 2) kernel gives d/dy d2/dx2 there."""
    y, x = np.meshgrid(np.arange(7) - 3, np.arange(7) - 3, indexing="ij")
    field = 2.0 + 3.0 * y * x**2 + 0.5 * y**2 - x
    assert (derivative_kernel(1, 2, 7) * field).sum() == pytest.approx(6.0)


def test_the_moment_error_one_term_at_a_time() -> None:
    torch.manual_seed(0)
    kernels = torch.randn(9, 2, 3, 3)
    total = 0.0
    for c in range(2):
        for f in range(9):
            for i in range(3):
                for j in range(3):
                    moment, order = 0.0, math.factorial(i) * math.factorial(j)
                    for y in range(3):
                        for x in range(3):
                            moment += (y - 1) ** i * (x - 1) ** j / order * kernels[f, c, y, x].item()
                    total += (moment - (1.0 if f == 3 * i + j else 0.0)) ** 2 / 81
    assert moment_error(kernels).item() == pytest.approx(total, rel=1e-5)


def test_absolute_error_in_both_reductions(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    error = np.abs(pair[0].double().numpy() - pair[1].double().numpy())
    assert absolute_error(*pair, "mean").item() == pytest.approx(error.mean(), rel=1e-5)
    assert absolute_error(*pair, "sum").item() == pytest.approx(error.sum() / 2, rel=1e-5)


def test_emphasis_weighs_large_truths_as_a_loop_does() -> None:
    torch.manual_seed(0)
    forecast, truth = torch.randn(2, 3, 1, 4, 4), torch.randn(2, 3, 1, 4, 4)
    pairs = list(zip(forecast.double().flatten().tolist(), truth.double().flatten().tolist(), strict=True))
    expected = sum((a - b) ** 2 * (1 + 3 * max(0.0, b)) for a, b in pairs)
    assert squared_error(forecast, truth, "mean", 3.0).item() == pytest.approx(expected / len(pairs), rel=1e-5)
    assert squared_error(forecast, truth, "sum", 3.0).item() == pytest.approx(expected / 2, rel=1e-5)
    assert torch.equal(squared_error(forecast, truth, "mean", 0.0), squared_error(forecast, truth, "mean"))


def test_the_poisson_deviance_is_that_of_scipys_distribution(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    """The logarithm of the density of counts under their own mean, less that under the forecast."""
    forecast, counts = pair[0].double() * 5, (pair[1] * 7).round().double() + 1
    wanted = poisson.logpmf(counts, counts) - poisson.logpmf(counts, forecast + 1e-12)
    assert poisson_deviance(forecast, counts, 0.0, "mean").item() == pytest.approx(wanted.mean(), rel=1e-5)
    assert poisson_deviance(forecast, counts, 0.0, "sum").item() == pytest.approx(wanted.sum() / 2, rel=1e-5)


def test_the_poisson_deviance_is_least_at_the_mean() -> None:
    rain = torch.tensor([0.0, 0.0, 0.0, 0.5, 20.0]).view(1, 5, 1, 1, 1)
    forecast = torch.tensor(1.0, requires_grad=True)

    def slope(value: float) -> float:
        forecast.data.fill_(value)
        return torch.autograd.grad(poisson_deviance(forecast.expand_as(rain), rain, 0.1, "mean"), forecast)[0].item()

    assert slope(4.1) == pytest.approx(0.0, abs=1e-6)  # the mean
    assert slope(3.0) < 0 < slope(5.0)
