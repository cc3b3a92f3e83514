"""Scheduled sampling: published schedules by iteration, and what the module is really shown."""

import math

import pytest
import torch
from torch import Tensor

from stzoo.train.objectives import sampled
from stzoo.train.sampling import Sampling, draw_shown, odds


def published_future(iteration: int) -> float:
    """Falls by 2e-5 an iteration until 50,000."""
    return max(0.0, 1.0 - 2e-5 * iteration)


def published_reverse(iteration: int) -> tuple[float, float]:
    """PredRNN-V2: steps of 25,000 and 50,000 iterations, exponential alpha 5,000."""
    if iteration < 25_000:
        return 0.5, 0.5
    if iteration < 50_000:
        return 1.0 - 0.5 * math.exp(-(iteration - 25_000) / 5_000), 0.5 - 0.5 / 25_000 * (iteration - 25_000)
    return 1.0, 0.0


@pytest.mark.parametrize("iteration", [0, 1, 12_345, 24_999, 25_000, 31_000, 49_999, 50_000, 125_000])
def test_odds_are_the_published_schedules(iteration: int) -> None:
    assert odds("scheduled", iteration / 50_000) == pytest.approx((1.0, published_future(iteration)))
    assert odds("teacher", iteration / 50_000) == pytest.approx((1.0, published_future(iteration)))
    assert odds("true", iteration / 50_000) == (1.0, 1.0)
    assert odds("reverse", iteration / 50_000) == pytest.approx(published_reverse(iteration))


def frequencies(sampling: Sampling, done: float) -> Tensor:
    torch.manual_seed(0)
    return torch.stack([draw_shown(sampling, done, 4, 7, 8).float() for _ in range(500)]).mean((0, 2))


def test_frames_are_shown_as_often_as_the_schedule_says() -> None:
    torch.testing.assert_close(frequencies("scheduled", 0.7), torch.tensor([1.0] * 4 + [0.3] * 3), rtol=0, atol=0.03)
    past, future = odds("reverse", 0.6)
    expected = torch.tensor([1.0] + [past] * 3 + [future] * 3)
    torch.testing.assert_close(frequencies("reverse", 0.6), expected, rtol=0, atol=0.03)
    assert torch.equal(frequencies("scheduled", 0.0), torch.ones(7))
    assert torch.equal(frequencies("true", 1.0), torch.ones(7))
    assert torch.equal(frequencies("reverse", 1.0), torch.tensor([1.0] * 4 + [0.0] * 3))


def test_a_teacher_decides_once_for_all_frames() -> None:
    torch.manual_seed(0)
    draws = [draw_shown("teacher", 0.5, 4, 7, 8) for _ in range(200)]
    assert all(d[:4].all() and bool(d[4:].all()) == bool(d[4:].any()) for d in draws)
    assert 0.4 < torch.stack([d[4:].float().mean() for d in draws]).mean() < 0.6


class Echo(torch.nn.Module):
    """Forecasts 100 more than what it reads; the state lists what it has read."""

    def initial_state(self, *_: object) -> tuple[Tensor, ...]:
        return ()

    def step(self, frame: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return frame + 100, (*state, frame)


def test_the_module_reads_the_truth_where_shown_and_its_forecast_elsewhere() -> None:
    frames = torch.arange(5.0).view(1, 5, 1, 1, 1).repeat(2, 1, 1, 1, 1)
    shown = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    steps = list(sampled(Echo(), frames, shown))
    read = torch.stack(steps[-1][1], 1).flatten(1).tolist()
    assert read == [[0, 1, 101, 201], [0, 100, 2, 102]]
    assert torch.stack([f for f, _ in steps], 1).flatten(1).tolist() == [[100, 101, 201, 301], [100, 200, 102, 202]]
