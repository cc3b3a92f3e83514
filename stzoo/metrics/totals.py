"""The metrics of a definition, summed over batches of clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from stzoo.metrics.kinds import Definition, Valid

_NONE = -np.inf  # the largest of no values


@dataclass(frozen=True)
class Totals:
    """What is kept of all the frames that were measured. Totals of several batches are added.

    Attributes:
        sums: name -> (T, 2): at each step a sum, and what it is to be divided by.
        largest: name -> (T,): at each step the largest value.
    """

    sums: Mapping[str, np.ndarray]
    largest: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, defined: Definition, past: np.ndarray, forecast: np.ndarray, truth: np.ndarray, valid: Valid) -> Totals:
        """Measure a batch of clips.

        Args:
            past: (N, T', C, H, W), of values that lie in [0, 1], or in units if the definition says so.
            forecast, truth: (N, T, C, H, W).
            valid: (N, T, 1, H, W) booleans, true where the truth is known; None if all of it is.
        """
        values = {name: metric(forecast, truth, valid) for name, metric in defined.metrics.items()}
        sums = {name: np.stack([np.nansum(v, 0), (~np.isnan(v)).sum(0)], -1) for name, v in values.items()}
        sums |= {name: count(forecast, truth, valid).sum(0) for name, count in defined.counts.items()}
        values = {name: metric(forecast, truth, valid) for name, metric in defined.largest.items()}
        largest = {name: np.where(np.isnan(v), _NONE, v).max(0, initial=_NONE) for name, v in values.items()}
        for among in defined.among:
            cells = np.broadcast_to(among.cells(past), (*truth.shape[:2], 1, *truth.shape[3:]))
            inner = cls.of(among.measured, past, forecast, truth, cells if valid is None else cells & valid)
            sums, largest = {**sums, **inner.sums}, {**largest, **inner.largest}
        return cls(sums, largest)

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            {name: value + other.sums[name] for name, value in self.sums.items()},
            {name: np.maximum(value, other.largest[name]) for name, value in self.largest.items()},
        )

    def steps(self) -> dict[str, list[float]]:
        """Name -> its figure at each step; NaN if there was nothing to measure: no such event, seen or forecast."""
        found = {}
        with np.errstate(divide="ignore", invalid="ignore"):
            for name, value in self.sums.items():
                found[name] = np.where(value[:, 1] > 0, value[:, 0] / value[:, 1], np.nan).tolist()
        for name, value in self.largest.items():
            found[name] = np.where(value > _NONE, value, np.nan).tolist()
        return found

    def over_steps(self) -> dict[str, float]:
        """Name -> the mean of its figures over steps, or the largest of them; steps without a figure are left out."""
        return {name: _over(curve, np.max if name in self.largest else np.mean) for name, curve in self.steps().items()}


def _over(curve: list[float], how: Callable[[np.ndarray], float]) -> float:
    known = np.array([value for value in curve if not np.isnan(value)])
    return float(how(known)) if len(known) else float("nan")
