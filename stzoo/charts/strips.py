"""Rows of frames below the curves of the models that made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from stzoo.charts.curves import draw_errors
from stzoo.charts.style import Chart, add_legend, new_figure, shortened, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _NAMES = 10.0, 1.6  # inches: of the whole figure, and of it what the names of the rows take, about
_CURVES, _TITLES = 3.0, 1.0  # inches: height of the curves, and of titles, legend and axes, about
_HIGHEST = 1.1  # inches: height of a row
_NAME, _LETTERS = 24, 120  # letters of the name of a row, and of a line of the title
_PIXELS = 2600  # of all frames of a row side by side, about: twice as many as a PNG has room for


@dataclass(frozen=True)
class Strip:
    """Rows of frames, one below the other.

    Attributes:
        rows: a name and frames (T, H, W) or, in colour, (T, H, W, 3) in [0, 1], all of one shape. What lies outside is
            clipped, and NaN is left empty.
        columns: T texts, one for each column.
        title: a line above the rows.
        axis: a line below them, which says what the columns are.
    """

    rows: Sequence[tuple[str, np.ndarray]]
    columns: Sequence[str]
    title: str
    axis: str


@styled()
def comparison_chart(
    curves: Mapping[str, Sequence[float]],
    metric: str,
    strip: Strip | None = None,
    *,
    title: str = "",
    from_zero: bool = True,
    ahead: str = "steps ahead",
) -> Chart:
    """A chart of a metric at each step ahead for several models and, below it, of what they forecast of one clip.

    Args:
        curves: name -> its value at step 1, 2, ...; the one called "persistence" is gray. A NaN leaves a gap.
        metric: what the values are, for the axis.
        strip: the frames; None draws the curves alone.
        title: a line above the chart.
        from_zero: the axis of the values begins at 0.
        ahead: what the steps are, for the axis.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    sheet = None if strip is None else _sheet([frames for _, frames in strip.rows])
    height = 0.0
    if strip is not None and sheet is not None:
        of_row = (_WIDTH - _NAMES) * sheet.shape[0] / sheet.shape[1] / len(strip.rows)
        height = min(of_row, _HIGHEST) * len(strip.rows) + _TITLES / 2
    figure = new_figure(_WIDTH, _CURVES + height + _TITLES)
    axes = figure.subplots(2 if strip else 1, 1, squeeze=False, height_ratios=[_CURVES, height] if strip else None)
    above: Axes = axes[0, 0]
    above.set_title(fill(title, _LETTERS))
    entries = draw_errors(above, curves, metric, from_zero=from_zero, ahead=ahead)
    add_legend(figure, entries, "outside upper left")
    if strip is not None and sheet is not None:
        _draw(axes[1, 0], strip, sheet)
    return Chart(figure)


def _draw(axes: Axes, strip: Strip, sheet: np.ndarray) -> None:
    """Draw the rows as one image, whose ticks are the names of rows and columns."""
    axes.imshow(sheet, aspect="equal")
    axes.set_anchor("W")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    counts = len(strip.rows), len(strip.columns)
    sizes = (side / count for side, count in zip(sheet.shape, counts, strict=False))  # of a cell
    down, across = (
        (np.arange(count) + 0.5) * size - 0.5  # the middle of the first pixel lies at 0
        for count, size in zip(counts, sizes, strict=True)
    )
    axes.set_yticks(down, [shortened(name, _NAME) for name, _ in strip.rows])
    axes.set_xticks(across, list(strip.columns))
    axes.set_title(strip.title)
    axes.set_xlabel(strip.axis)


def _sheet(rows: Sequence[np.ndarray]) -> np.ndarray:
    """All frames as one image (H, W, 4): red, green, blue, and 0 where nothing is shown, else 1."""
    frames = np.stack([_reduced(row if row.ndim == 4 else row[..., None].repeat(3, -1)) for row in rows])
    shown = ~np.isnan(frames).any(-1, keepdims=True)
    tiles = np.concatenate([np.where(shown, frames, 0).clip(0, 1), shown], -1)
    gap = max(2, round(0.05 * frames.shape[3]))
    tiles = np.pad(tiles, [(0, 0)] * 2 + [(gap // 2, gap - gap // 2)] * 2 + [(0, 0)])
    r, c, h, w, _ = tiles.shape  # rows, columns, and pixels of one frame
    return tiles.transpose(0, 2, 1, 3, 4).reshape(r * h, c * w, 4)


def _reduced(frames: np.ndarray) -> np.ndarray:
    """Frames (T, H, W, 3), of which squares of pixels become one if a row has far more pixels than can be seen."""
    t, h, w, c = frames.shape
    side = min(h, w, max(1, t * w // _PIXELS))
    h, w = h // side * side, w // side * side
    return frames[:, :h, :w].reshape(t, h // side, side, w // side, side, c).mean((2, 4), dtype=np.float32)
