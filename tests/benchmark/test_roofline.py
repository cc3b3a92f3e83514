"""The picture: its points below their roofs, where the axes say."""

import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from benchmark.shared import REPORT
from matplotlib.colors import to_rgb
from PIL import Image

from stzoo.benchmark.roofline import PLAIN_COLOUR, ROOF_COLOURS, SLOPE_COLOUR, limits, roofline_chart


def test_the_roofline_shows_the_points_below_their_roofs() -> None:
    chart = roofline_chart(REPORT)
    with Image.open(io.BytesIO(chart.png())) as image:
        sheet = np.asarray(image.convert("RGB"), float) / 255
    (axes,) = chart.figure.axes
    box = axes.get_window_extent()
    assert limits(REPORT) == (pytest.approx((1, 1000)), pytest.approx((0.01, 10)))

    def colour(intensity: float, tflops: float) -> Any:
        """Both axes are logarithmic, of three decades each."""
        across = box.x0 + box.width * math.log10(intensity) / 3
        up = box.y0 + box.height * (math.log10(tflops) + 2) / 3
        return sheet[round(len(sheet) - up - 0.5), round(across - 0.5)]

    for name, places in {
        ROOF_COLOURS["bfloat16"]: [(200, 0.4), (170, 1.6), (800, 1.6)],
        ROOF_COLOURS["float32"]: [(25, 0.2), (800, 0.2)],
        PLAIN_COLOUR: [(100, 0.1)],
        SLOPE_COLOUR: [(3, 0.03), (60, 0.6)],  # 10 GB/s are 0.01 TFLOP/s at one FLOP a byte
        "white": [(5, 0.25), (50, 3.5), (350, 0.065)],
    }.items():
        for place in places:
            assert colour(*place) == pytest.approx(to_rgb(name), abs=0.12), (name, place)


def test_the_plain_module_is_a_point_only_where_it_was_measured() -> None:
    alone = roofline_chart(replace(REPORT, plain=None))
    assert limits(replace(REPORT, plain=None)) == limits(REPORT)
    for chart, count in ((roofline_chart(REPORT), 1), (alone, 0)):
        points = [line.get_xydata().tolist() for line in chart.figure.axes[0].lines if line.get_marker() == "o"]
        assert points == [[[200.0, 0.4]], [[100.0, 0.1]]][: 1 + count]


def test_what_is_drawn_is_explained() -> None:
    chart = roofline_chart(replace(REPORT, model="x" * 100))
    (axes,) = chart.figure.axes
    title = f"...{'x' * 57}: 10 frames to 10, 1 clip a pass\nAn abacus, 2 threads, torch 2"
    assert axes.get_title("left") == title
    assert axes.get_ylabel() == "TFLOP/s"
    assert "FLOP per byte" in axes.get_xlabel()
    assert [text.get_text() for text in chart.figure.legends[0].get_texts()] == [
        "this model in bfloat16: 0.4 TFLOP/s, 25% of the peak",
        "the plain module in float32: 0.1 TFLOP/s, 50% of the peak",
        "matrix product in bfloat16: 1.6 TFLOP/s",
        "matrix product in float32: 0.2 TFLOP/s",
        "large copy: 10.0 GB/s",
    ]
