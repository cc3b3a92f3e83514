"""Errors of a cell, in the units of the data: for values without a range, such as counts.

They are ratios of sums over the known cells of all frames of a step, so every function returns (N, T, 2).
"""

from __future__ import annotations

import numpy as np

from stzoo.metrics.kinds import Valid


def squared_error(forecast: np.ndarray, truth: np.ndarray, valid: Valid) -> np.ndarray:
    """The mean squared error of a cell, in squared units."""
    return mean(np.square(_difference(forecast, truth)), valid)


def absolute_error(forecast: np.ndarray, truth: np.ndarray, valid: Valid) -> np.ndarray:
    """The mean absolute error of a cell, in units."""
    return mean(np.abs(_difference(forecast, truth)), valid)


def mean(values: np.ndarray, valid: Valid) -> np.ndarray:
    """(N, T, C, H, W) -> (N, T, 2): the sum over the known cells, and their number."""
    known = np.ones(values.shape, bool) if valid is None else np.broadcast_to(valid, values.shape)
    return np.stack([np.where(known, values, 0).sum((2, 3, 4)), known.sum((2, 3, 4))], -1)


def _difference(forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return forecast.astype(np.float64) - truth
