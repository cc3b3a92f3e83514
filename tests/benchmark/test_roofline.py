"""The picture: its axes, and its points below their roofs."""

from dataclasses import replace
from typing import Any

import pytest
from benchmark.shared import REPORT
from PIL import ImageColor

from stzoo.benchmark.roofline import PLAIN_COLOUR, ROOF_COLOURS, SIZE, SLOPE_COLOUR, Axis, axes, roofline


def test_an_axis_is_logarithmic() -> None:
    axis = Axis(0.1, 1000.0, 100.0, 500.0)
    assert [axis.pixel(v) for v in (0.1, 1.0, 10.0, 1000.0)] == pytest.approx([100, 200, 300, 500])
    assert axis.pixel(10**0.5) == pytest.approx(250)
    assert axis.ticks() == pytest.approx([0.1, 1, 10, 100, 1000])
    assert Axis(1.0, 100.0, 500.0, 100.0).pixel(10.0) == pytest.approx(300)  # upwards


def test_the_roofline_shows_the_points_below_their_roofs() -> None:
    image = roofline(REPORT)
    x, y = axes(REPORT)
    assert (x.low, x.high, y.low, y.high) == pytest.approx((1, 1000, 0.01, 10))

    def colour(intensity: float, tflops: float) -> Any:
        return image.getpixel((round(x.pixel(intensity)), round(y.pixel(tflops))))

    def rgb(name: str) -> Any:
        return pytest.approx(ImageColor.getrgb(name), abs=30)  # thin lines are blurred a little

    assert image.size == SIZE
    for name, places in {
        ROOF_COLOURS["bfloat16"]: [(200, 0.4), (170, 1.6), (800, 1.6)],
        ROOF_COLOURS["float32"]: [(25, 0.2), (800, 0.2)],
        PLAIN_COLOUR: [(100, 0.1)],
        SLOPE_COLOUR: [(3, 0.03), (60, 0.6)],  # 10 GB/s are 0.01 TFLOP/s at one FLOP a byte
        "white": [(5, 0.25), (50, 3.5), (350, 0.065)],
    }.items():
        for place in places:
            assert colour(*place) == rgb(name)
    alone = roofline(replace(REPORT, plain=None))
    place = round(x.pixel(100)), round(y.pixel(0.1))
    assert axes(replace(REPORT, plain=None)) == (x, y)
    assert alone.getpixel(place) != rgb(PLAIN_COLOUR)
