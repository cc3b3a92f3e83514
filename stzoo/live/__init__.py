"""Forecasts while frames still come in: from a program that has them one by one, from a camera, or from a stream.

`pushing` is for programs: frames are pushed, forecasts come back. `sources` reads frames in real time, and `running`
makes forecasts of them and hands these on, always from the newest frames; that is what ``stzoo live`` does.
"""

from stzoo.live.pushing import Live

__all__ = ["Live"]
