"""What a definition of metrics consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

Valid = np.ndarray | None
Metric = Callable[[np.ndarray, np.ndarray, Valid], np.ndarray]
Count = Metric  # one that returns (N, T, 2)


@dataclass(frozen=True)
class Definition:
    """The metrics of a report. Every name occurs once, those of `among` included.

    Attributes:
        metrics: name -> function; the report holds the mean of its values over frames.
        counts: name -> function that returns (N, T, 2); the report holds the ratio of the two sums over all frames of a
            step, which is not the mean of the ratios of single frames.
        largest: name -> function; the report holds the largest of its values. NaN is left out.
        among: figures of some cells alone.
        in_units: the values that are measured are in the units of the data, and need no range. Without it they are
            scaled from the range of the spec to [0, 1].
        prepare: takes channels, rows and columns of the frames before anything is measured, and gets what the metrics
            need. Raises `DataError` if they cannot measure such frames.
    """

    metrics: Mapping[str, Metric] = field(default_factory=lambda: MappingProxyType({}))
    counts: Mapping[str, Count] = field(default_factory=lambda: MappingProxyType({}))
    largest: Mapping[str, Metric] = field(default_factory=lambda: MappingProxyType({}))
    among: tuple[Among, ...] = ()
    in_units: bool = False
    prepare: Callable[[int, int, int], None] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every name."""
        inner = (name for among in self.among for name in among.measured.names)
        return (*self.metrics, *self.counts, *self.largest, *inner)


@dataclass(frozen=True)
class Among:
    """Figures of those cells alone whose past tells something.

    Attributes:
        cells: takes the past frames (N, T, C, H, W) and returns (N, 1, 1, H, W), true for the cells that are measured.
        measured: the figures.
    """

    cells: Callable[[np.ndarray], np.ndarray]
    measured: Definition
