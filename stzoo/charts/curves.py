"""Curves: errors over steps ahead, and what a model learned in training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from stzoo.charts.style import STYLE, Chart, add_legend, new_figure, shortened, styled

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

PERSISTENCE = "persistence"
"""The name of the curve that is drawn in gray, beneath all others."""
_FEW, _EACH = 20, 12  # points of a curve that are marked one by one, and steps that have a tick each
_AROUND, _SHARE = 5, 50  # losses on each side of one that is smoothed: so many at least, and one in so many of all

Points = tuple[Sequence[float], Sequence[float]]


@styled()
def errors_chart(curves: Mapping[str, Sequence[float]], metric: str, *, title: str = "") -> Chart:
    """A chart of an error at each step ahead.

    Args:
        curves: name -> its value at step 1, 2, ...; the one called "persistence" is gray. A NaN leaves a gap.
        metric: what the values are, for the axis, which begins at 0.
        title: a line above the chart.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = new_figure(5.0, 2.9)
    axes = figure.subplots()
    axes.set_title(title)
    add_legend(figure, draw_errors(axes, curves, metric, from_zero=True), "outside upper left")
    return Chart(figure)


def draw_errors(
    axes: Axes, curves: Mapping[str, Sequence[float]], metric: str, *, from_zero: bool, ahead: str = "steps ahead"
) -> list[tuple[Artist, str]]:
    """Draw what `errors_chart` describes into `axes`; returns each curve and its name.

    Args:
        axes: empty.
        curves, metric: as in `errors_chart`.
        from_zero: the axis of the values begins at 0.
        ahead: what the steps are, for the axis.
    """
    from matplotlib.ticker import MaxNLocator

    named: list[tuple[Artist, str]] = []
    models = [name for name in curves if name != PERSISTENCE]
    for name, values in curves.items():
        steps = range(1, len(values) + 1)
        marker = "o" if len(values) <= _FEW else ""
        if name == PERSISTENCE:
            (line,) = axes.plot(steps, values, color=STYLE.gray, linestyle="--", marker=marker, zorder=1.5)
        else:
            (line,) = axes.plot(steps, values, marker=marker, **STYLE.look(models.index(name)))
        named.append((line, shortened(name)))
    axes.set_xlabel(ahead)
    axes.set_ylabel(metric)
    longest = max(map(len, curves.values()))
    if longest <= _EACH:
        axes.set_xticks(range(1, longest + 1))
    else:
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    if from_zero:
        _begin_at_zero(axes)
    return named


def _begin_at_zero(axes: Axes) -> None:
    """Let the axis of values that were drawn begin at 0, with a little room above the largest."""
    top = axes.dataLim.y1
    axes.set_ylim(0, 1.06 * top if math.isfinite(top) and top > 0 else 1)


@dataclass(frozen=True)
class Learned:
    """What one training run learned.

    Attributes:
        name: of the run; an empty one is not shown.
        validation: how far training was, such as sequences seen, and the error on held-out clips there; empty before
            the first validation.
        loss: the same of the training loss, which is one of single batches.
    """

    name: str
    validation: Points
    loss: Points = ((), ())


@styled()
def learning_chart(runs: Sequence[Learned], over: str) -> Chart:
    """A chart of training runs: the validation MSE of each, and below it the training loss, if one is given.

    A circle marks the lowest validation MSE of a run. Single losses are pale; the line through them is smoothed. A run
    without a validation yet says so beside its name.

    Args:
        runs: one or more, of which one at least has something to show.
        over: what the places of the points are, for the axis.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panels = [any(run.validation[0] for run in runs), any(run.loss[0] for run in runs)]
    figure = new_figure(6.5, 5.2) if all(panels) else new_figure(5.0, 2.9)
    places = list(figure.subplots(sum(panels), 1, sharex=True, squeeze=False)[:, 0])
    above, below = (places.pop(0) if there else None for there in panels)
    named: list[tuple[Artist, str]] = []
    for number, run in enumerate(runs):
        lines = []
        if above is not None and run.validation[0]:
            lines.append(_draw_validation(above, run.validation, number))
        if below is not None and run.loss[0]:
            lines.append(_draw_loss(below, run.loss, number))
        if lines and run.name:
            named.append((lines[0], f"{shortened(run.name)} ({_lowest_in_words(run)})"))
    if above is not None:
        above.set_ylabel("validation MSE")
        _begin_at_zero(above)
    if below is not None:
        below.set_ylabel("training loss")
        if all(loss > 0 for run in runs for loss in run.loss[1]):
            below.set_yscale("log")
            below.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            below.yaxis.set_minor_formatter(NullFormatter())
    last = figure.axes[-1]
    last.set_xlabel(over)
    last.set_xlim(left=0)
    last.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    if named:
        add_legend(figure, named, "outside upper left")
    return Chart(figure)


def _draw_validation(axes: Axes, points: Points, number: int) -> Artist:
    (line,) = axes.plot(*points, marker="o" if len(points[0]) <= _FEW else "", **STYLE.look(number))
    lowest = _lowest(points)
    if lowest is not None:
        axes.plot(*lowest, "o", markersize=8, markerfacecolor="none", color=STYLE.look(number)["color"])
    return line


def _draw_loss(axes: Axes, points: Points, number: int) -> Artist:
    axes.plot(*points, color=STYLE.look(number)["color"], linewidth=0.8, alpha=0.25)
    marker = "o" if len(points[0]) == 1 else ""  # for there is no line yet
    (line,) = axes.plot(points[0], smoothed(points[1]), marker=marker, **STYLE.look(number))
    return line


def _lowest(points: Points) -> tuple[float, float] | None:
    """The place and the value of the lowest error; None if there is no finite one."""
    finite = [point for point in zip(*points, strict=True) if math.isfinite(point[1])]
    return min(finite, key=lambda point: point[1], default=None)


def _lowest_in_words(run: Learned) -> str:
    lowest = _lowest(run.validation)
    if lowest is None:
        return "none finite" if run.validation[0] else "no validation yet"
    return f"lowest {lowest[1]:.4g}"


def smoothed(values: Sequence[float]) -> list[float]:
    """For each value, the mean of it and of as many values on either side of it.

    These are one in 25 of all values together, and ten at least; fewer at the two ends, where there are no more.
    """
    sums = [0.0, *accumulate(values)]
    around = max(_AROUND, len(values) // _SHARE)
    means = []
    for place in range(len(values)):
        beside = min(around, place, len(values) - 1 - place)
        means.append((sums[place + beside + 1] - sums[place - beside]) / (2 * beside + 1))
    return means
