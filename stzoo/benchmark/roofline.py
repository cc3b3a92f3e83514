"""The roofline: what the machine can do at each intensity, and how far below that a model is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from stzoo.benchmark.report import BenchmarkReport, PlainFigures
from stzoo.charts.style import STYLE, Chart, add_legend, new_figure, shortened, styled

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

ROOF_COLOURS = MappingProxyType({"float32": STYLE.colours[0], "bfloat16": STYLE.colours[1]})
PLAIN_COLOUR, SLOPE_COLOUR = STYLE.colours[2], STYLE.gray
_INTENSITY = "FLOP per byte, where weights and clips are read once and frames written once: an upper bound"


@dataclass(frozen=True)
class Point:
    """A measured run.

    Attributes:
        intensity: floating-point operations for each byte moved.
        tflops: what the run reached, in TFLOP/s.
        precision: the precision whose roof lies above the point.
        colour: of the point, as matplotlib names colours.
        label: the text that explains the point.
    """

    intensity: float
    tflops: float
    precision: str
    colour: str
    label: str


def points(report: BenchmarkReport) -> list[Point]:
    """The point of the model and, if it was measured, that of the plain module."""
    colour = ROOF_COLOURS[report.precision]
    label = f"this model in {report.precision}: {_reached(report)}"
    found = [Point(report.intensity, report.achieved_tflops, report.precision, colour, label)]
    if report.plain is not None:
        label = f"the plain module in float32: {_reached(report.plain)}"
        found.append(Point(report.plain.intensity, report.plain.achieved_tflops, "float32", PLAIN_COLOUR, label))
    return found


def limits(report: BenchmarkReport) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ends of the axes, FLOP per byte and TFLOP/s: whole decades that hold all points and the bend of each roof."""
    peaks, measured = report.machine.peak_tflops.values(), points(report)
    across = [point.intensity for point in measured] + [peak / _slope(report) for peak in peaks]
    lowest = min(min(point.tflops for point in measured) / 2, min(peaks) / 10)
    return (
        (_decade(min(across) / 3, math.floor), _decade(max(across) * 3, math.ceil)),
        (_decade(lowest, math.floor), _decade(max(peaks) * 1.5, math.ceil)),
    )


@styled()
def roofline_chart(report: BenchmarkReport) -> Chart:
    """The chart: FLOP per byte to the right, TFLOP/s upwards, both axes logarithmic.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = new_figure(7.5, 5.4)
    axes = figure.subplots()
    _name_axes(axes, report)
    entries = _draw_points(axes, report) + _draw_roofs(axes, report)
    add_legend(figure, entries, "outside lower left")
    return Chart(figure)


def _name_axes(axes: Axes, report: BenchmarkReport) -> None:
    from matplotlib.ticker import FuncFormatter

    m = report.machine
    clips = f"{report.batch} clip{'s' if report.batch > 1 else ''} a pass"
    axes.set_title(
        f"{shortened(report.model, 60)}: {report.frames_in} frames to {report.steps}, {clips}\n"
        f"{m.processor}, {m.threads} thread{'s' if m.threads > 1 else ''}, torch {m.torch}"
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(limits(report)[0])
    axes.set_ylim(limits(report)[1])
    axes.set_xlabel(_INTENSITY)
    axes.set_ylabel("TFLOP/s")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.grid(which="minor", linewidth=0.3)


def _draw_points(axes: Axes, report: BenchmarkReport) -> list[tuple[Artist, str]]:
    """Draw each run, with a thin line up to its roof; returns what was drawn, and its explanation."""
    entries: list[tuple[Artist, str]] = []
    for point in points(report):
        ends = [point.tflops, _roof(report, point)]
        axes.plot([point.intensity] * 2, ends, color=point.colour, linewidth=0.8)
        (mark,) = axes.plot(
            point.intensity, point.tflops, "o", color=point.colour, markersize=9, markeredgecolor="white", zorder=3
        )
        entries.append((mark, point.label))
    return entries


def _draw_roofs(axes: Axes, report: BenchmarkReport) -> list[tuple[Artist, str]]:
    """Draw the slope of the copy, up to where it meets the plateau of each precision's matrix product."""
    m, slope, (low, high) = report.machine, _slope(report), limits(report)[0]
    entries: list[tuple[Artist, str]] = []
    for precision, peak in sorted(m.peak_tflops.items(), key=lambda item: -item[1]):
        (line,) = axes.plot([peak / slope, high], [peak, peak], color=ROOF_COLOURS[precision], linewidth=2)
        entries.append((line, f"matrix product in {precision}: {_figure(peak)}"))
    bend = max(m.peak_tflops.values()) / slope
    (line,) = axes.plot([low, bend], [low * slope, bend * slope], color=SLOPE_COLOUR, linewidth=2)
    return [*entries, (line, f"large copy: {m.copy_gb_per_second:.1f} GB/s")]


def _slope(report: BenchmarkReport) -> float:
    """TFLOP/s that a large copy leaves room for at an intensity of one FLOP per byte."""
    return report.machine.copy_gb_per_second / 1e3


def _roof(report: BenchmarkReport, point: Point) -> float:
    """The TFLOP/s that the machine could reach at a point's intensity."""
    return min(report.machine.peak_tflops[point.precision], _slope(report) * point.intensity)


def _decade(value: float, rounded: Callable[[float], int]) -> float:
    return 10.0 ** rounded(math.log10(value))


def _reached(run: BenchmarkReport | PlainFigures) -> str:
    return f"{_figure(run.achieved_tflops)}, {run.peak_share:.0%} of the peak"


def _figure(tflops: float) -> str:
    return f"{tflops:.3g} TFLOP/s"
