"""Scores of rain against pysteps, loops in float64, and cases that can be counted by hand."""

import math

import numpy as np
import pytest

from stzoo.metrics import DEFINITIONS, Totals, rain

RATES = DEFINITIONS["stzoo-rain-rates"]


def value(rate: float) -> float:
    """The value in [0, 1] that stands for a rate in mm/h; what is less than 0.1 mm/h is stored as -10.2 dBR."""
    return ((10 * math.log10(rate) if rate >= 0.1 else -10.2) + 10.4) / 51.0


def showers(seed: int) -> np.ndarray:
    """(100, 110) float64 rates in mm/h: showers in the middle, so that no window at the edge holds any."""
    rng = np.random.default_rng(seed)
    rates = np.zeros((100, 110))
    for _ in range(25):
        y, x, side = rng.integers(33, 55), rng.integers(33, 65), rng.integers(2, 12)
        rates[y : y + side, x : x + side] = 10 ** rng.uniform(-1.5, 1.3)
    return rates


def frames(rates: np.ndarray) -> np.ndarray:
    """(H, W) rates -> one frame (1, 1, 1, H, W) float32."""
    return np.vectorize(value)(rates).astype(np.float32)[None, None, None]


def score(name: str, forecast: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> float:
    return Totals.of(RATES, truth, forecast, truth, valid).over_steps()[name]


# Printed by pysteps 1.21.5 in this folder, with `pip install pysteps`:
#   python -c "
#   from test_rain_scores import showers
#   from pysteps.verification.detcatscores import det_cat_fct
#   from pysteps.verification.detcontscores import det_cont_fct
#   from pysteps.verification.spatialscores import fss
#   f, o = showers(1), showers(2)
#   f[f < 0.1] = o[o < 0.1] = 0
#   for t in (0.1, 1, 5):
#       print(t, *det_cat_fct(f, o, t, ['CSI', 'BIAS', 'FAR']).values(), fss(f, o, t, 9), fss(f, o, t, 33))
#   print(*det_cont_fct(f, o, ['MSE', 'MAE']).values())"
BY_PYSTEPS = {
    "csi_0_1": 0.5283474065138721, "bias_0_1": 1.1547619047619047, "far_0_1": 0.3549337260677467,
    "fss9_0_1": 0.8523767343354878, "fss33_0_1": 0.9774898467941375,
    "csi_1": 0.14803149606299212, "bias_1": 0.9972602739726028, "far_1": 0.7417582417582418,
    "fss9_1": 0.4610746159320265, "fss33_1": 0.8280377663358696,
    "csi_5": 0.047337278106508875, "bias_5": 1.4246575342465753, "far_5": 0.9230769230769231,
    "fss9_5": 0.16824389506840076, "fss33_5": 0.57074750301306,
    "mse": 2.3946439545744336, "mae": 0.26827394480457273,
}  # fmt: skip


@pytest.mark.parametrize("name", BY_PYSTEPS)
def test_scores_are_those_of_pysteps(name: str) -> None:
    assert score(name, frames(showers(1)), frames(showers(2))) == pytest.approx(BY_PYSTEPS[name], rel=1e-5)


@pytest.fixture
def clips() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forecast and truth (2, 3, 1, 9, 11), and where truth is known: rates from 0.01 to 30 mm/h."""
    rng = np.random.default_rng(0)
    forecast, truth = (
        np.vectorize(value)(10 ** rng.uniform(-2, 1.5, (2, 3, 1, 9, 11))).astype(np.float32) for _ in range(2)
    )
    return forecast, truth, rng.random((2, 3, 1, 9, 11)) < 0.7


@pytest.mark.parametrize("masked", [True, False])
def test_scores_are_those_of_a_slow_count_over_known_cells(
    clips: tuple[np.ndarray, np.ndarray, np.ndarray], masked: bool
) -> None:
    """Every sum by a loop over cells and windows, over both clips of a step."""
    forecast, truth, valid = clips
    found = Totals.of(RATES, truth, forecast, truth, valid if masked else None).steps()
    known = valid if masked else np.ones_like(valid)
    rates = [
        np.where(x >= 0.1 - 1e-6, x, 0) for x in (10 ** ((51.0 * y.astype(np.float64) - 10.4) / 10) for y in clips[:2])
    ]
    for step in range(3):
        cells = [(n, y, x) for n in range(2) for y in range(9) for x in range(11) if known[n, step, 0, y, x]]
        f, o = ([rate[n, step, 0, y, x] for n, y, x in cells] for rate in rates)
        assert found["mse"][step] == pytest.approx(
            sum((a - b) ** 2 for a, b in zip(f, o, strict=True)) / len(cells), rel=1e-4
        )
        assert found["mae"][step] == pytest.approx(
            sum(abs(a - b) for a, b in zip(f, o, strict=True)) / len(cells), rel=1e-4
        )
        for suffix, threshold in (("0_1", 0.1), ("1", 1.0), ("5", 5.0)):
            hits = sum(a >= threshold and b >= threshold for a, b in zip(f, o, strict=True))
            alarms, events = sum(a >= threshold for a in f), sum(b >= threshold for b in o)
            assert found[f"csi_{suffix}"][step] == pytest.approx(hits / (alarms + events - hits))
            assert found[f"bias_{suffix}"][step] == pytest.approx(alarms / events)
            assert found[f"far_{suffix}"][step] == pytest.approx((alarms - hits) / alarms)
            wrong = worst = 0.0
            for n, y, x in cells:
                near = [(a, b) for m, a, b in cells if m == n and abs(a - y) <= 4 and abs(b - x) <= 4]
                shares = [sum(rate[n, step, 0, a, b] >= threshold for a, b in near) / len(near) for rate in rates]
                wrong += (shares[0] - shares[1]) ** 2
                worst += shares[0] ** 2 + shares[1] ** 2
            assert found[f"fss9_{suffix}"][step] == pytest.approx(1 - wrong / worst)


def test_cells_that_were_not_observed_change_no_score(clips: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    forecast, truth, valid = clips
    totals = Totals.of(RATES, truth, forecast, truth, valid)
    other = [np.where(valid, x, 1 - x) for x in (forecast, truth)]
    seen, unmasked = (Totals.of(RATES, truth, *other, mask) for mask in (valid, None))
    for name, sums in totals.sums.items():
        np.testing.assert_array_equal(seen.sums[name], sums)
        assert name.startswith("dry") or (unmasked.sums[name] != sums).any()


def test_totals_of_batches_add_up(clips: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """A score is that of all cells of a step, and not the mean of the scores of clips."""
    forecast, truth, valid = clips
    whole = Totals.of(RATES, truth, forecast, truth, valid)
    first, second = (Totals.of(RATES, truth[i], forecast[i], truth[i], valid[i]) for i in (np.s_[:1], np.s_[1:]))
    for name, curve in (first + second).steps().items():
        assert curve == pytest.approx(whole.steps()[name], nan_ok=True), name
    means = np.mean([x.steps()["csi_1"] for x in (first, second)], 0)
    assert (first + second).steps()["csi_1"] != pytest.approx(means, rel=1e-6)


def test_a_cell_at_a_threshold_reaches_it() -> None:
    """2 of a file stands for exactly 0.1 mm/h and 52 for 1 mm/h; float32 rounds them on their way to [0, 1]."""
    stored = np.arange(256, dtype=np.float32)
    dbr = np.float32(-10.4) + stored / np.float32(255) * np.float32(51)  # as frames come to the units of a model
    values = (dbr - np.float32(-10.4)) / np.float32(51)
    assert np.flatnonzero(values >= rain.decibels(0.1))[0] == 2
    assert np.flatnonzero(values >= rain.decibels(1.0))[0] == 52
    assert np.flatnonzero(values >= rain.decibels(5.0))[0] == 87  # 5 mm/h are 6.99 dBR; 86 stands for 6.8
    np.testing.assert_allclose(rain.rates(values)[[0, 1, 2, 52, 102]], [0, 0, 0.1, 1, 10], rtol=1e-5)


def test_rain_from_a_dry_sky_shows() -> None:
    """Rain in a corner of the past: only cells more than 32 rows or columns away count as dry."""
    past = np.full((1, 2, 1, 64, 80), value(0), np.float32)
    past[0, 0, 0, :10, :20] = value(3)
    forecast = np.full((1, 4, 1, 64, 80), value(0), np.float32)
    forecast[0, 2, 0, :, :] = value(0.5)
    forecast[0, 3, 0, :42, :52] = value(50)  # all of it near the rain
    truth = np.full_like(forecast, value(0))
    truth[0, 1, 0, 60, 70:74] = value(2)
    found = Totals.of(RATES, past, forecast, truth, None)
    dry = 64 * 80 - 42 * 52
    assert found.steps()["dry_rate"] == pytest.approx([0, 0, 0.5, 0], rel=1e-5)
    assert found.steps()["dry_rate_seen"] == pytest.approx([0, 4 * 2 / dry, 0, 0], rel=1e-5)
    assert found.steps()["dry_wet_share"] == pytest.approx([0, 0, 1, 0])
    assert found.over_steps()["dry_wet_share"] == 1  # the largest, where other figures are means
    assert found.over_steps()["dry_rate"] == pytest.approx(0.125, rel=1e-5)
    raining = Totals.of(RATES, np.full_like(past, value(1)), forecast, truth, None)  # nothing is dry
    assert np.isnan(raining.steps()["dry_rate"]).all()
    assert math.isnan(raining.over_steps()["dry_wet_share"])
    assert (raining + found).steps()["dry_rate"] == found.steps()["dry_rate"]


def test_no_events_have_no_score() -> None:
    dry = np.full((1, 1, 1, 8, 8), value(0), np.float32)
    for name in ("csi_1", "bias_1", "far_1", "fss9_1"):
        assert math.isnan(score(name, dry, dry))
    assert score("mse", dry, dry) == 0
    rain_alone = np.full_like(dry, value(2))
    assert score("far_1", rain_alone, dry) == 1
    assert score("csi_1", rain_alone, dry) == 0
