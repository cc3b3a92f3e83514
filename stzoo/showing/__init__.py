"""Forecasts as animations, for the cell of a notebook or for a file.

`clips` reads frames of any kind, `comparison` draws them beside each other, `animation` is what comes of it, and
`glimpse` is what a forecaster keeps of its last forecast.
"""

from stzoo.showing.animation import Animation
from stzoo.showing.comparison import show

__all__ = ["Animation", "show"]
