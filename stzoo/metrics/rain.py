"""Scores of rain: of events, which are cells that reach a rate, of their areas and places, and of rates in mm/h.

[0, 1] stands for -10.4 to 40.6 dBR here (`stzoo.data.radar.DBR`), that is 10 log10 of the rate in mm/h. All scores are
ratios of sums over the known cells of all frames of a step, so every function returns (N, T, 2).
"""

from __future__ import annotations

import math

import numpy as np

from stzoo.metrics.cells import mean
from stzoo.metrics.kinds import Valid

LOW, WIDTH = -10.4, 51.0  # dBR that 0 stands for, and that lie between 0 and 1
LEAST = 0.1  # mm/h; below it a cell counts as without rain
_ROUNDING = 1e-3  # dB by which a value may fall short of a threshold: float32 rounds

FAR = 32  # cells; no rain so near in any past field is what "dry" means in `dry`


def decibels(rate: float) -> float:
    """The value in [0, 1] from which on a cell reaches `rate` mm/h."""
    return (10 * math.log10(rate) - _ROUNDING - LOW) / WIDTH


def rates(values: np.ndarray) -> np.ndarray:
    """Values that stand for dBR -> mm/h, float64 of the same shape; 0 where it would be less than `LEAST`."""
    dbr = LOW + WIDTH * values.astype(np.float64)
    return np.where(values >= decibels(LEAST), 10 ** (dbr / 10), 0.0)


def event_counts(forecast: np.ndarray, truth: np.ndarray, valid: Valid, threshold: float) -> np.ndarray:
    """The critical success index: hits / (hits + misses + false alarms).

    Args:
        threshold: the value in [0, 1] that a cell must reach to be an event. The same holds for the other scores.

    Returns:
        (N, T, 2): how many cells reach it in both forecast and truth, and how many in at least one of them.
    """
    expected, seen = _events(forecast, truth, valid, threshold)
    return _pair(expected & seen, expected | seen)


def bias_counts(forecast: np.ndarray, truth: np.ndarray, valid: Valid, threshold: float) -> np.ndarray:
    """The frequency bias: the area of forecast events / that of seen ones. 1 is best, above it too much is forecast."""
    return _pair(*_events(forecast, truth, valid, threshold))


def false_alarm_counts(forecast: np.ndarray, truth: np.ndarray, valid: Valid, threshold: float) -> np.ndarray:
    """The false alarm ratio: the share of forecast events that were not seen."""
    expected, seen = _events(forecast, truth, valid, threshold)
    return _pair(expected & ~seen, expected)


def fractions_sums(forecast: np.ndarray, truth: np.ndarray, valid: Valid, threshold: float, window: int) -> np.ndarray:
    """The fractions skill score (Roberts and Lean, 2008): are there as many events near a cell as there should be?

    With the shares f and o of the known cells of a window that are events in forecast and truth, it is
    1 - sum (f - o)^2 / sum (f^2 + o^2) = sum 2 f o / sum (f^2 + o^2), over the windows around all known cells. Windows
    end at the edge of the frame.

    Args:
        window: side of the square windows, in cells; it is odd.
    """
    expected, seen = _events(forecast, truth, valid, threshold)
    known = np.ones(truth.shape, bool) if valid is None else np.broadcast_to(valid, truth.shape)
    around = _near(known, window)
    f, o = (np.divide(_near(x, window), around, out=np.zeros(x.shape), where=known) for x in (expected, seen))
    return np.stack([(2 * f * o).sum((2, 3, 4)), (f * f + o * o).sum((2, 3, 4))], -1)


def squared_error(forecast: np.ndarray, truth: np.ndarray, valid: Valid) -> np.ndarray:
    """The mean squared error of a cell, in (mm/h)^2."""
    return mean(np.square(rates(forecast) - rates(truth)), valid)


def absolute_error(forecast: np.ndarray, truth: np.ndarray, valid: Valid) -> np.ndarray:
    """The mean absolute error of a cell, in mm/h."""
    return mean(np.abs(rates(forecast) - rates(truth)), valid)


def forecast_rate(forecast: np.ndarray, truth: np.ndarray, valid: Valid) -> np.ndarray:
    """The mean rate of a cell in the forecast, in mm/h."""
    return mean(rates(forecast), valid)


def seen_rate(forecast: np.ndarray, truth: np.ndarray, valid: Valid) -> np.ndarray:
    """The mean rate of a cell in truth, in mm/h."""
    return mean(rates(truth), valid)


def wet_share(forecast: np.ndarray, truth: np.ndarray, valid: Valid) -> np.ndarray:
    """(N, T): the share of the known cells of a frame that have rain in the forecast; NaN if none are known."""
    wet = mean((forecast >= decibels(LEAST)).astype(np.float64), valid)
    with np.errstate(invalid="ignore"):
        return wet[..., 0] / wet[..., 1]


def far_from_rain(past: np.ndarray) -> np.ndarray:
    """(N, T, C, H, W) past frames -> (N, 1, 1, H, W): cells with no rain at most `FAR` cells away in any of them.

    Distance is counted along rows and columns. What was not observed reads as without rain.
    """
    wet = np.any(past >= decibels(LEAST), axis=(1, 2), keepdims=True)
    return _near(np.asarray(wet), 2 * FAR + 1) == 0


def _events(forecast: np.ndarray, truth: np.ndarray, valid: Valid, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Where `threshold` is reached among the known cells, in the forecast and in truth."""
    expected, seen = (x >= threshold if valid is None else (x >= threshold) & valid for x in (forecast, truth))
    return expected, seen


def _pair(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """How many cells of each frame, (N, T, C, H, W) booleans, are true in one, and in the other: (N, T, 2)."""
    return np.stack([above.sum((2, 3, 4)), below.sum((2, 3, 4))], -1)


def _near(cells: np.ndarray, window: int) -> np.ndarray:
    """(..., H, W) booleans -> how many are true in the square window around each cell; windows end at the edge."""
    half = window // 2
    total = np.zeros((*cells.shape[:-2], cells.shape[-2] + 1, cells.shape[-1] + 1), np.int32)
    np.cumsum(np.cumsum(cells, -2, dtype=np.int32), -1, out=total[..., 1:, 1:])
    for axis, size in ((-2, cells.shape[-2]), (-1, cells.shape[-1])):
        at = np.arange(size)
        after, before = np.minimum(at + half + 1, size), np.maximum(at - half, 0)
        total = np.take(total, after, axis) - np.take(total, before, axis)
    return total
