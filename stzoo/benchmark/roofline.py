"""The roofline: what the machine can do at each intensity, and how far below that a model is. Drawn with Pillow."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from PIL import Image, ImageDraw, ImageFont

from stzoo.benchmark.report import BenchmarkReport, PlainFigures
from stzoo.files import write_atomically

SIZE = (1000, 710)
_FINE = 3  # drawn so many times larger, then reduced, because Pillow's own lines have no smooth edges
_PLOT = (92, 116, 970, 546)  # left, top, right, bottom of the axes
_LEGEND, _ROW = 624, 26  # where the explanations below begin, and how far apart they are
_RADIUS = 7
_INK, _PALE, _PALER, _PAPER = "#222222", "#d4d4d4", "#eeeeee", "#ffffff"
ROOF_COLOURS = MappingProxyType({"float32": "#0072b2", "bfloat16": "#d55e00"})
SLOPE_COLOUR, PLAIN_COLOUR = "#777777", "#009e73"


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis: `low` lies at the pixel `start`, `high` at the pixel `end`."""

    low: float
    high: float
    start: float
    end: float

    def pixel(self, value: float) -> float:
        """The pixel of a positive value, which may also lie beyond the ends of the axis."""
        return self.start + (self.end - self.start) * math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[float]:
        """The powers of ten from end to end."""
        return [10.0**k for k in range(round(math.log10(self.low)), round(math.log10(self.high)) + 1)]


@dataclass(frozen=True)
class Point:
    """A measured run.

    Attributes:
        intensity: floating-point operations for each byte moved.
        tflops: what the run reached, in TFLOP/s.
        precision: the precision whose roof lies above the point.
        colour: of the point, as Pillow names colours.
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


def axes(report: BenchmarkReport) -> tuple[Axis, Axis]:
    """FLOP per byte to the right, TFLOP/s upwards: whole decades that hold all points and the bend of each roof."""
    slope = report.machine.copy_gb_per_second / 1e3
    peaks = report.machine.peak_tflops.values()
    measured = points(report)
    across = [point.intensity for point in measured] + [peak / slope for peak in peaks]
    left, top, right, bottom = _PLOT
    x = Axis(_decade(min(across) / 3, math.floor), _decade(max(across) * 3, math.ceil), left, right)
    lowest = min(min(point.tflops for point in measured) / 2, min(peaks) / 10)
    return x, Axis(_decade(lowest, math.floor), _decade(max(peaks) * 1.5, math.ceil), bottom, top)


def roofline(report: BenchmarkReport) -> Image.Image:
    """The picture: RGB, `SIZE` pixels wide and high."""
    x, y = axes(report)
    sheet = Image.new("RGB", (SIZE[0] * _FINE, SIZE[1] * _FINE), _PAPER)
    pen = _Pen(ImageDraw.Draw(sheet))
    _frame(pen, report, x, y)
    _roofs(pen, report, x, y)
    for row, point in enumerate(points(report)):
        centre = x.pixel(point.intensity), y.pixel(point.tflops)
        pen.line([centre, (centre[0], y.pixel(_roof(report, point)))], point.colour, 1)
        pen.dot(centre, point.colour)
        place = x.start + 11, _LEGEND + row * _ROW
        pen.dot(place, point.colour)
        pen.text((place[0] + 18, place[1]), point.label, _INK, 15, "lm")
    return sheet.resize(SIZE, Image.Resampling.LANCZOS)


def write_roofline(path: Path, report: BenchmarkReport) -> None:
    """Write the picture as a PNG at `path`, whole or not at all."""
    content = io.BytesIO()
    roofline(report).save(content, "PNG", optimize=True)
    write_atomically(path, content.getvalue())


def _frame(pen: _Pen, report: BenchmarkReport, x: Axis, y: Axis) -> None:
    """Draw the title, the grid and the names of the axes."""
    m = report.machine
    clips = f"{report.batch} clip{'s' if report.batch > 1 else ''} a pass"
    pen.text((24, 22), f"{_name(report)}: {report.frames_in} frames to {report.steps}, {clips}", _INK, 22, "lt")
    threads = f"{m.threads} thread{'s' if m.threads > 1 else ''}"
    pen.text((24, 56), f"{m.processor}, {threads}, torch {m.torch}", SLOPE_COLOUR, 15, "lt")
    for value in x.ticks():
        for k in range(1, 10):
            if value * k <= x.high:
                at = x.pixel(value * k)
                pen.line([(at, y.start), (at, y.end)], _PALE if k == 1 else _PALER, 1)
        pen.text((x.pixel(value), y.start + 10), f"{value:,.10g}", _INK, 14, "mt")
    for value in y.ticks():
        for k in range(1, 10):
            if value * k <= y.high:
                at = y.pixel(value * k)
                pen.line([(x.start, at), (x.end, at)], _PALE if k == 1 else _PALER, 1)
        pen.text((x.start - 10, y.pixel(value)), f"{value:,.10g}", _INK, 14, "rm")
    pen.text((24, y.end - 12), "TFLOP/s", _INK, 14, "lb")
    below = "FLOP per byte, where weights and clips are read once and frames written once: an upper bound"
    pen.text(((x.start + x.end) / 2, y.start + 40), below, _INK, 14, "mt")


def _roofs(pen: _Pen, report: BenchmarkReport, x: Axis, y: Axis) -> None:
    """Draw the slope of the copy, up to where it meets the plateau of each precision's matrix product."""
    m = report.machine
    slope = m.copy_gb_per_second / 1e3
    lines = []
    for precision, peak in sorted(m.peak_tflops.items(), key=lambda item: -item[1]):
        words = f"matrix product in {precision}: {_figure(peak)}"
        lines.append((words, ROOF_COLOURS[precision], [(peak / slope, peak), (x.high, peak)]))
    foot, highest = max(x.low, y.low / slope), max(m.peak_tflops.values())
    ends = [(foot, foot * slope), (highest / slope, highest)]
    lines.append((f"large copy: {m.copy_gb_per_second:.1f} GB/s", SLOPE_COLOUR, ends))
    for row, (words, colour, ends) in enumerate(lines):
        pen.line([(x.pixel(a), y.pixel(b)) for a, b in ends], colour, 3)
        place = (x.start + x.end) / 2 + 30, _LEGEND + row * _ROW
        pen.line([place, (place[0] + 24, place[1])], colour, 3)
        pen.text((place[0] + 36, place[1]), words, _INK, 15, "lm")


def _roof(report: BenchmarkReport, point: Point) -> float:
    """The TFLOP/s that the machine could reach at a point's intensity."""
    return min(report.machine.peak_tflops[point.precision], report.machine.copy_gb_per_second / 1e3 * point.intensity)


def _name(report: BenchmarkReport) -> str:
    """The name of the model; only the end of a long path."""
    return report.model if len(report.model) <= 60 else f"...{report.model[-57:]}"


def _decade(value: float, rounded: Callable[[float], int]) -> float:
    return 10.0 ** rounded(math.log10(value))


def _reached(run: BenchmarkReport | PlainFigures) -> str:
    return f"{_figure(run.achieved_tflops)}, {run.peak_share:.0%} of the peak"


def _figure(tflops: float) -> str:
    return f"{tflops:.3g} TFLOP/s"


@dataclass(frozen=True)
class _Pen:
    """Draws on the enlarged sheet. Places and sizes are given in pixels of the finished picture."""

    sheet: ImageDraw.ImageDraw

    def line(self, ends: Sequence[tuple[float, float]], colour: str, width: int) -> None:
        self.sheet.line([(a * _FINE, b * _FINE) for a, b in ends], fill=colour, width=width * _FINE)

    def dot(self, centre: tuple[float, float], colour: str) -> None:
        box = [(a + side) * _FINE for side in (-_RADIUS, _RADIUS) for a in centre]
        self.sheet.ellipse(box, fill=colour, outline=_PAPER, width=2 * _FINE)

    def text(self, place: tuple[float, float], words: str, colour: str, size: int, anchor: str) -> None:
        font = ImageFont.load_default(size * _FINE)
        at = (place[0] * _FINE, place[1] * _FINE)
        self.sheet.text(at, words, fill=colour, font=font, anchor=anchor, stroke_width=3 * _FINE, stroke_fill=_PAPER)
