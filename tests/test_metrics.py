"""Metrics against scikit-image, one frame at a time, and against loops."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from stzoo import metrics
from stzoo.errors import DataError
from stzoo.metrics import DEFINITIONS


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Forecast (somewhat outside [0, 1]) and truth, (2, 3, 2, 16, 20) float32."""
    rng = np.random.default_rng(0)
    truth = rng.random((2, 3, 2, 16, 20), dtype=np.float32)
    return truth + rng.normal(0, 0.2, truth.shape).astype(np.float32), truth


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_one_value_a_frame(definition: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    for name, metric in DEFINITIONS[definition].metrics.items():
        if name != "lpips":  # tests/test_lpips.py has frames that it can look at
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


def test_openstl_clips_before_ssim_and_psnr_and_takes_2_for_the_range(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """As the loop over frames in its `metric` does: SSIM of (W, H, C) arrays with scikit-image's old default."""
    forecast, truth = pair
    ours = {name: metric(*pair) for name, metric in DEFINITIONS["openstl"].metrics.items()}
    for n, t in np.ndindex(2, 3):
        a, b = forecast[n, t], truth[n, t]
        assert ours["mse"][n, t] == pytest.approx(((a - b) ** 2).sum(), rel=1e-5)
        assert ours["mae"][n, t] == pytest.approx(np.abs(a - b).sum(), rel=1e-5)
        a = a.clip(0, 1)
        assert ours["psnr"][n, t] == pytest.approx(20 * np.log10(1 / np.sqrt(((a - b) ** 2).mean())), rel=1e-5)
        theirs = structural_similarity(a.swapaxes(0, 2), b.swapaxes(0, 2), channel_axis=2, data_range=2.0)
        assert ours["ssim"][n, t] == pytest.approx(theirs, abs=1e-5)


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


def test_sharpness_is_a_ratio_of_gradient_energies() -> None:
    """Against differences summed one by one in float64."""
    rng = np.random.default_rng(0)
    truth, forecast = (rng.random((2, 3, 2, 5, 6)).astype(np.float32) for _ in range(2))

    def energy(frame: np.ndarray) -> float:
        c, h, w = frame.shape
        values = frame.astype(np.float64)
        down = sum(
            (values[k, y + 1, x] - values[k, y, x]) ** 2 for k in range(c) for y in range(h - 1) for x in range(w)
        )
        right = sum(
            (values[k, y, x + 1] - values[k, y, x]) ** 2 for k in range(c) for y in range(h) for x in range(w - 1)
        )
        return down + right

    found = metrics.sharpness(forecast, truth)
    for n in range(2):
        for t in range(3):
            assert found[n, t] == pytest.approx(energy(forecast[n, t]) / energy(truth[n, t]), rel=1e-5)


def test_a_blur_is_less_sharp_than_the_truth() -> None:
    truth = np.random.default_rng(0).random((1, 1, 1, 8, 8))
    blurred = (truth + np.roll(truth, 1, 3) + np.roll(truth, 1, 4)) / 3
    assert metrics.sharpness(truth, truth) == pytest.approx(1)
    assert metrics.sharpness(truth / 2, truth) == pytest.approx(0.25)
    assert metrics.sharpness(blurred, truth) < 0.7
    assert np.isnan(metrics.sharpness(truth, 0 * truth)).all()


def test_lpips_looks_at_each_frame_in_colour_and_in_plus_minus_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the network, a mean difference, so that what reaches it shows."""
    seen = []

    def network(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        seen.append((tuple(a.shape), a.min().item(), a.max().item()))
        return (a - b).abs().mean((1, 2, 3))

    monkeypatch.setattr("stzoo.metrics.perceptual._shared_network", lambda *_: network)
    rng = np.random.default_rng(0)
    forecast, truth = (rng.random((3, 2, 1, 32, 32)) for _ in range(2))
    found = metrics.lpips(forecast, truth)
    np.testing.assert_allclose(found, 2 * np.abs(forecast - truth).mean((2, 3, 4)), rtol=1e-5)
    assert seen[0][0] == (6, 3, 32, 32)
    assert -1 <= seen[0][1] < -0.99
    assert 0.99 < seen[0][2] <= 1
    swapped = forecast.transpose(1, 0, 2, 3, 4)
    assert metrics.lpips(swapped, truth.transpose(1, 0, 2, 3, 4)).shape == (2, 3)
    with pytest.raises(DataError, match="not at 2 channels"):
        metrics.lpips(np.zeros((1, 1, 2, 32, 32)), np.zeros((1, 1, 2, 32, 32)))
    with pytest.raises(DataError, match="at least 31x31 pixels, not 30x64"):
        metrics.lpips(np.zeros((1, 1, 1, 30, 64)), np.zeros((1, 1, 1, 30, 64)))


def test_unknown_cells_are_left_out_as_in_a_loop(pair: tuple[np.ndarray, np.ndarray]) -> None:
    forecast, truth = pair
    valid = np.random.default_rng(1).random((2, 3, 1, 16, 20)) < 0.7
    cells = np.prod(truth.shape[2:])
    for n, t in np.ndindex(2, 3):
        known = np.broadcast_to(valid[n, t], truth[n, t].shape)
        error = (forecast[n, t] - truth[n, t]).astype(np.float64)[known]
        assert metrics.mse(forecast, truth, valid)[n, t] == pytest.approx(np.square(error).mean() * cells, rel=1e-5)
        assert metrics.mae(forecast, truth, valid)[n, t] == pytest.approx(np.abs(error).mean() * cells, rel=1e-5)
        clipped = forecast[n, t].clip(0, 1)[known]
        expected = peak_signal_noise_ratio(truth[n, t][known], clipped, data_range=1)
        assert metrics.psnr(forecast, truth, valid)[n, t] == pytest.approx(expected, rel=1e-5)
    everywhere = np.ones_like(valid)
    for metric in (metrics.mse, metrics.mae, metrics.psnr, metrics.ssim):
        np.testing.assert_allclose(metric(forecast, truth, everywhere), metric(forecast, truth), rtol=1e-6)
        assert np.isnan(metric(forecast, truth, ~everywhere)).all()


def test_ssim_looks_at_known_middles_alone(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """An unknown half that is far from the other: what lies deep in it may be anything."""
    forecast, truth = pair
    valid = np.ones((2, 3, 1, 16, 20), bool)
    valid[..., 10:] = False
    other = np.where(valid, forecast, 1 - forecast)
    np.testing.assert_array_equal(metrics.ssim(forecast, truth, valid), metrics.ssim(other, truth, valid))
    assert (metrics.ssim(forecast, truth, valid) != metrics.ssim(forecast, truth)).all()


def test_events_are_counted_as_in_a_loop(pair: tuple[np.ndarray, np.ndarray]) -> None:
    forecast, truth = pair
    valid = np.random.default_rng(1).random((2, 3, 1, 16, 20)) < 0.7
    counts = metrics.event_counts(forecast, truth, valid, 0.6)
    for n, t in np.ndindex(2, 3):
        hits = either = 0
        for c, y, x in np.ndindex(2, 16, 20):
            a, b = forecast[n, t, c, y, x] >= 0.6, truth[n, t, c, y, x] >= 0.6
            hits += int(valid[n, t, 0, y, x] and a and b)
            either += int(valid[n, t, 0, y, x] and (a or b))
        assert counts[n, t].tolist() == [hits, either]
