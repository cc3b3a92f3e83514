"""Charts in one style: errors over steps ahead, learning curves, and strips of frames. Drawn by matplotlib.

They take plain numbers and NumPy arrays, and return a `Chart`, which shows itself in a notebook, gives its PNG, and is
saved as PNG, SVG or PDF. Drawing needs the extra `plot`; without it, it raises `MissingExtraError`.
"""

from stzoo.charts.curves import Learned, errors_chart, learning_chart
from stzoo.charts.strips import Strip, comparison_chart
from stzoo.charts.style import STYLE, SUFFIXES, Chart, Style

__all__ = [
    "STYLE",
    "SUFFIXES",
    "Chart",
    "Learned",
    "Strip",
    "Style",
    "comparison_chart",
    "errors_chart",
    "learning_chart",
]
