"""Metrics against scikit-image, one frame at a time, and against loops."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from stzoo import metrics
from stzoo.metrics import DEFINITIONS


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Forecast (somewhat outside [0, 1]) and truth, (2, 3, 2, 16, 20) float32."""
    rng = np.random.default_rng(0)
    truth = rng.random((2, 3, 2, 16, 20), dtype=np.float32)
    return truth + rng.normal(0, 0.2, truth.shape).astype(np.float32), truth


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_one_value_a_frame(definition: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    for metric in DEFINITIONS[definition].values():
        assert metric(*pair).shape == (2, 3)


def test_errors_are_summed_over_a_frame_and_unclipped(pair: tuple[np.ndarray, np.ndarray]) -> None:
    forecast, truth = (x.astype(np.float64) for x in pair)
    for n, t in np.ndindex(2, 3):
        squared = sum((a - b) ** 2 for a, b in zip(forecast[n, t].flat, truth[n, t].flat, strict=True))
        absolute = sum(abs(a - b) for a, b in zip(forecast[n, t].flat, truth[n, t].flat, strict=True))
        assert metrics.mse(*pair)[n, t] == pytest.approx(squared, rel=1e-6)
        assert metrics.mae(*pair)[n, t] == pytest.approx(absolute, rel=1e-6)


def test_ssim_and_psnr_are_scikit_images(pair: tuple[np.ndarray, np.ndarray]) -> None:
    forecast, truth = (x.astype(np.float64) for x in pair)
    clipped = forecast.clip(0, 1)
    for n, t in np.ndindex(2, 3):
        one = structural_similarity(clipped[n, t], truth[n, t], data_range=1, channel_axis=0)
        two = structural_similarity(clipped[n, t], truth[n, t], data_range=2, channel_axis=0)
        noise = peak_signal_noise_ratio(truth[n, t], clipped[n, t], data_range=1)
        assert metrics.ssim(*pair)[n, t] == pytest.approx(one, abs=1e-7)
        assert metrics.ssim_range_2(*pair)[n, t] == pytest.approx(two, abs=1e-7)
        assert metrics.psnr(*pair)[n, t] == pytest.approx(noise, abs=1e-4)


def test_identical_frames() -> None:
    x = np.random.default_rng(0).random((1, 1, 1, 8, 8), dtype=np.float32)
    assert metrics.mse(x, x) == 0
    assert metrics.ssim(x, x) == pytest.approx(1)
    assert metrics.psnr(x, x) == metrics.PSNR_CAP


def test_wrapped_psnr_squares_and_subtracts_modulo_256() -> None:
    truth = np.full((1, 1, 1, 8, 8), 10 / 255, np.float32)
    forecast = np.full((1, 1, 1, 8, 8), 26 / 255, np.float32)  # 16 apart: 256 wraps to 0
    assert metrics.psnr_wrapped(forecast, truth) == metrics.PSNR_CAP
    assert metrics.psnr(forecast, truth) == pytest.approx(24.05, abs=0.01)


@pytest.mark.parametrize(("true", "read"), [(26.3, 29.7), (20.5, 28.5)])
def test_wrapping_makes_a_blurred_forecast_look_decibels_better(true: float, read: float) -> None:
    """The size of the published inflation, on gaussian errors of a true PSNR."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.3, 0.7, (1, 1, 1, 512, 512)).astype(np.float32)
    forecast = truth + rng.normal(0, 10 ** (-true / 20), truth.shape).astype(np.float32)
    assert metrics.psnr(forecast, truth).item() == pytest.approx(true, abs=0.1)
    assert metrics.psnr_wrapped(forecast, truth).item() == pytest.approx(read, abs=0.3)
