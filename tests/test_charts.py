"""Charts: values lie where they belong, equal charts are equal files, and nothing of the user's is read or changed."""

import io
import re
import subprocess
import sys
import threading
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from stzoo.charts import STYLE, Chart, Learned, Strip, comparison_chart, errors_chart, learning_chart
from stzoo.charts.curves import smoothed
from stzoo.charts.style import styled
from stzoo.errors import MissingExtraError, SpecError

CURVES = {"one": [1.0, 2.0, 4.0], "persistence": [4.0, 4.0, 4.0], "two": [3.0, 3.0, 1.0]}


@cache
def pixels(chart: Chart) -> np.ndarray:
    """(H, W, 3) in [0, 1], of the PNG."""
    with Image.open(io.BytesIO(chart.png())) as image:
        return np.asarray(image.convert("RGB"), float) / 255


def colour_at(chart: Chart, axes: Any, x: float, y: float) -> Any:
    """What the PNG shows at these values, by matplotlib's own idea of where they are."""
    sheet = pixels(chart)  # before it is drawn, nothing has its place
    across, up = axes.transData.transform((x, y))
    return sheet[round(len(sheet) - up - 0.5), round(across - 0.5)]


def legend(chart: Chart) -> list[str]:
    return [text.get_text() for text in chart.figure.legends[0].get_texts()]


def test_errors_are_where_their_values_are() -> None:
    chart = errors_chart(CURVES, "MSE")
    (axes,) = chart.figure.axes
    for name, colour in (("one", STYLE.colours[0]), ("two", STYLE.colours[1]), ("persistence", STYLE.gray)):
        for step, value in enumerate(CURVES[name], 1):
            if (step, value) != (3, 4.0) or name == "one":  # where one model's curve covers persistence
                assert colour_at(chart, axes, step, value) == pytest.approx(to_rgb(colour), abs=0.1)
    assert colour_at(chart, axes, 1.5, 1.5) == pytest.approx(to_rgb(STYLE.colours[0]), abs=0.25)  # on a thin line
    assert axes.get_ylim()[0] == 0
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("steps ahead", "MSE")
    assert legend(chart) == list(CURVES)


def test_the_axes_say_the_values() -> None:
    """Measured by the ticks alone: their labels are read, and the height of a curve is interpolated between them."""
    chart = errors_chart({"one": [1.0, 3.0]}, "MSE")
    sheet = pixels(chart)
    (axes,) = chart.figure.axes
    ticks = [tick for tick in axes.yaxis.get_major_ticks() if tick.label1.get_window_extent().width > 0]
    said = [float(tick.label1.get_text()) for tick in ticks]
    heights = [(box := tick.label1.get_window_extent()).y0 + box.height / 2 for tick in ticks]
    high = axes.get_window_extent()
    for x, value in ((1, 1.0), (1.5, 2.0), (2, 3.0)):
        column = sheet[:, round(axes.transData.transform((x, 0))[0])]
        rows = np.flatnonzero(np.abs(column - to_rgb(STYLE.colours[0])).max(1) < 0.2)
        up = len(sheet) - rows[(len(sheet) - rows > high.y0) & (len(sheet) - rows < high.y1 + 9)].mean()
        assert np.interp(up, heights, said) == pytest.approx(value, abs=0.08)


def test_a_step_without_a_figure_is_a_gap_and_a_single_one_is_a_point() -> None:
    chart = errors_chart({"one": [1.0, float("nan"), 1.0], "two": [2.0]}, "CSI")
    (axes,) = chart.figure.axes
    assert colour_at(chart, axes, 1.5, 1.0) == pytest.approx((1, 1, 1), abs=0.15)
    assert colour_at(chart, axes, 1, 2.0) == pytest.approx(to_rgb(STYLE.colours[1]), abs=0.1)


def test_there_is_room_above_the_largest_value_and_where_there_is_none() -> None:
    for values in ([2.0, 3.0], [2.9, 3.0]):
        for chart in (errors_chart({"one": values}, "MSE"), learning_chart([Learned("", ([1, 2], values))], "steps")):
            low, high = chart.figure.axes[0].get_ylim()
            assert low == 0
            assert 3.1 < high < 3.3
    for nothing in ([0.0, 0.0], [float("nan")] * 2):
        assert errors_chart({"one": nothing}, "MSE").figure.axes[0].get_ylim() == (0, 1)


def test_many_models_are_told_apart() -> None:
    looks = [tuple(STYLE.look(number).values()) for number in range(28)]
    assert len(set(looks)) == 28
    assert STYLE.gray not in STYLE.colours


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_equal_charts_are_equal_files_whatever_the_user_has_set(suffix: str, tmp_path: Path) -> None:
    first = errors_chart(CURVES, "MSE", title="a title").content(suffix)
    settings = {"lines.linewidth": 9.0, "font.size": 30.0, "font.family": ["serif"], "axes.facecolor": "red"}
    settings |= {"savefig.dpi": 20.0, "svg.hashsalt": "another", "figure.facecolor": "blue", "text.usetex": True}
    with matplotlib.rc_context(settings):
        before = dict(matplotlib.rcParams)
        assert errors_chart(CURVES, "MSE", title="a title").content(suffix) == first
        assert dict(matplotlib.rcParams) == before
    assert b"atplotlib" not in first.replace(b"matplotlib.axis", b"")  # an SVG's groups are called so
    begin = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert first.startswith(begin)
    errors_chart(CURVES, "MSE", title="a title").save(tmp_path / f"a{suffix.upper()}")
    assert (tmp_path / f"a{suffix.upper()}").read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix.upper()}"]


def test_a_notebook_shows_a_chart() -> None:
    chart = errors_chart(CURVES, "MSE")
    assert chart._repr_png_() == chart.png() == errors_chart(CURVES, "MSE").png()


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"must end in .png, .svg or .pdf"):
        errors_chart(CURVES, "MSE").save(tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=re.escape(f"{tmp_path}/no/a.png cannot be written: No such file or directory")):
        errors_chart(CURVES, "MSE").save(tmp_path / "no" / "a.png")


def test_a_home_folder_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    errors_chart(CURVES, "MSE").save("~/a.svg")
    assert (tmp_path / "a.svg").is_file()


def test_threads_that_draw_at_the_same_time_leave_the_users_settings() -> None:
    before = dict(matplotlib.rcParams)
    first_in, first_out, second_in = (threading.Event() for _ in range(3))

    def first() -> None:
        with styled():
            first_in.set()
            second_in.wait(0.3)  # in vain, unless both are inside at the same time
        first_out.set()

    def second() -> None:
        first_in.wait()
        with styled():
            second_in.set()
            first_out.wait()

    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(matplotlib.rcParams) == before


def test_no_figure_of_the_whole_process_is_made() -> None:
    code = """
import sys
from stzoo.charts import errors_chart
assert "matplotlib" not in sys.modules
errors_chart({"a": [1, 2]}, "MSE").png()
assert "matplotlib" in sys.modules
print({"matplotlib.pyplot", "torch"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_without_matplotlib_an_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=re.escape('pip install "stzoo[plot]"')):
        errors_chart(CURVES, "MSE")


def test_any_name_is_shown_as_it_is() -> None:
    names = ["_hidden", "$a$ and $", r"\alpha", "persistence", "x" * 60]
    chart = errors_chart({name: [1.0] for name in names}, "MSE")
    assert legend(chart) == [*names[:4], "..." + "x" * 41]


def test_what_is_no_text_of_one_line_is_escaped() -> None:
    """Names of folders that are not UTF-8, or hold a line break or the character that steers terminals."""
    names, escaped = ["\udcff", "a\nb", "\x1b[31m"], [r"\udcff", r"a\nb", r"\x1b[31m"]
    sheet = strip(*(np.full((3, 4, 4), 0.5) for _ in names))
    named = Strip(
        [(name, frames) for name, (_, frames) in zip(names, sheet.rows, strict=True)],
        sheet.columns, sheet.title, sheet.axis,
    )  # fmt: skip
    chart = comparison_chart({name: [1.0] for name in names}, "MSE", named)
    assert legend(chart) == escaped
    assert [label.get_text() for label in chart.figure.axes[1].get_yticklabels()] == escaped
    learned = learning_chart([Learned(name, ([1], [2.0])) for name in names], "steps")
    assert legend(learned) == [f"{name} (lowest 2)" for name in escaped]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for made in (chart, learned):
            assert made.png()


@pytest.mark.parametrize(
    ("value", "name"), [(0.0001234, "a"), (125_467.5, "a name of a model that is rather long, twice as long as others")]
)
def test_nothing_is_cut_off(value: float, name: str) -> None:
    sheet = strip(np.full((3, 4, 4), 0.5))
    named = Strip([(name, frames) for _, frames in sheet.rows], sheet.columns, sheet.title, sheet.axis)
    curves = {f"{name}{number}": [value, value / 2] for number in range(9)}
    run = Learned(name, ([1, 1_274_496], [value, value / 3]), ([1, 1_274_496], [value, value / 3]))
    for chart in (
        errors_chart(curves, "MSE"),
        comparison_chart(curves, "MSE", named, title=f"{name}, " * 5),
        learning_chart([run], "steps"),
    ):
        shown = pixels(chart)
        for edge in (shown[:3], shown[-3:], shown[:, :3], shown[:, -3:]):
            assert (edge == 1).all()


def test_learning_is_drawn_over_two_panels() -> None:
    runs = [
        Learned("a", ([100, 200, 300], [9.0, 4.0, 5.0]), ([100, 200, 300], [0.1, 0.01, 0.001])),
        Learned("b", ([], []), ([50, 100], [0.2, 0.1])),
    ]
    chart = learning_chart(runs, "steps")
    above, below = chart.figure.axes
    for place, error in zip(*runs[0].validation, strict=True):
        assert colour_at(chart, above, place, error) == pytest.approx(to_rgb(STYLE.colours[0]), abs=0.1)
    assert below.get_yscale() == "log"
    said = [tick.label1.get_text() for tick in below.yaxis.get_major_ticks() if 1e-3 <= tick.get_loc() <= 0.2]
    assert said == ["0.001", "0.002", "0.003", "0.005", "0.01", "0.02", "0.03", "0.05", "0.1", "0.2"]
    smooth = [line.get_xydata() for line in below.lines if line.get_alpha() is None]
    np.testing.assert_allclose(smooth[0], [[100, 0.1], [200, 0.037], [300, 0.001]])
    np.testing.assert_allclose(smooth[1], [[50, 0.2], [100, 0.1]])
    (circle,) = (line for line in above.lines if line.get_markerfacecolor() == "none")
    assert circle.get_xydata().tolist() == [[200, 4]]
    assert legend(chart) == ["a (lowest 4)", "b (no validation yet)"]
    assert (below.get_xlabel(), above.get_ylim()[0], below.get_xlim()[0]) == ("steps", 0, 0)


def test_learning_without_losses_or_validations_is_one_panel() -> None:
    (axes,) = learning_chart([Learned("", ([1, 2], [3.0, float("nan")]))], "sequences").figure.axes
    assert axes.get_ylabel() == "validation MSE"
    chart = learning_chart([Learned("a", ([], []), ([1, 2], [3.0, -1.0]))], "hours")
    (axes,) = chart.figure.axes
    assert (axes.get_ylabel(), axes.get_yscale()) == ("training loss", "linear")


def test_the_first_line_of_a_log_is_seen() -> None:
    chart = learning_chart([Learned("a", ([], []), ([20], [0.5]))], "steps")
    (axes,) = chart.figure.axes
    assert colour_at(chart, axes, 20, 0.5) == pytest.approx(to_rgb(STYLE.colours[0]), abs=0.1)


@pytest.mark.parametrize("count", [1, 2, 12, 1000])
def test_losses_are_smoothed_without_a_lag(count: int) -> None:
    noise = np.random.default_rng(0).random(count)
    around = max(5, count // 50)
    expected = []
    for place in range(count):
        half = min(around, place, count - 1 - place)
        expected.append(noise[place - half : place + half + 1].mean())
    np.testing.assert_allclose(smoothed(noise.tolist()), expected)
    falling = np.linspace(9, 1, count).tolist()
    assert smoothed(falling) == pytest.approx(falling)


def strip(*rows: np.ndarray) -> Strip:
    named = [(name, row) for name, row in zip("abc", rows, strict=False)]
    return Strip(named, [f"+{n + 1}" for n in range(len(rows[0]))], title="Clip 0", axis="steps")


def centre(axes: Any, shown: Strip, row: int, column: int) -> tuple[float, float]:
    """Where the middle of a frame is, by the labels of the rows and columns."""
    names, numbers = ([t.get_text() for t in labels] for labels in (axes.get_yticklabels(), axes.get_xticklabels()))
    assert (names, numbers) == ([name for name, _ in shown.rows], list(shown.columns))
    return axes.get_xticks()[column], axes.get_yticks()[row]


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (300, 200)])
def test_every_frame_of_a_strip_is_in_its_place(size: tuple[int, int]) -> None:
    levels = np.linspace(0.1, 0.9, 12).reshape(2, 6)
    rows = [np.broadcast_to(row[:, None, None], (6, *size)).copy() for row in levels]
    rows[1][2] = np.nan
    shown = strip(*rows)
    chart = comparison_chart({"a": [1.0]}, "MSE", shown)
    _, axes = chart.figure.axes
    for row in range(2):
        for column in range(6):
            level = 1.0 if (row, column) == (1, 2) else levels[row, column]  # nothing there: the paper is white
            found = colour_at(chart, axes, *centre(axes, shown, row, column))
            assert found == pytest.approx([level] * 3, abs=0.02)


def test_halves_of_frames_and_their_colours_are_the_right_way_round() -> None:
    frames = np.zeros((2, 40, 40, 3))
    frames[:, :20, :, 0] = 1  # red on top
    frames[:, :, 20:, 2] = 1  # blue on the right
    shown = strip(frames)
    chart = comparison_chart({"a": [1.0]}, "MSE", shown)
    _, axes = chart.figure.axes
    x, y = centre(axes, shown, 0, 1)
    for across, down, colour in (
        (-10, -10, (1, 0, 0)),
        (10, -10, (1, 0, 1)),
        (-10, 10, (0, 0, 0)),
        (10, 10, (0, 0, 1)),
    ):
        assert colour_at(chart, axes, x + across, y + down) == pytest.approx(colour, abs=0.02)


def test_large_frames_make_no_larger_a_picture() -> None:
    small, large = (np.full((6, side, side), 0.5, np.float32) for side in (64, 1500))
    charts = [comparison_chart({"a": [1.0]}, "MSE", strip(frames, frames)) for frames in (small, large)]
    assert np.abs(np.subtract(*(pixels(chart).shape for chart in charts))).max() < 30
    assert charts[1].figure.axes[1].images[0].get_array().shape[1] < 4000  # of 9000 pixels


def test_a_comparison_without_frames_is_its_curves() -> None:
    chart = comparison_chart(CURVES, "SSIM", title="p", from_zero=False, ahead="steps ahead, of 5 minutes")
    (axes,) = chart.figure.axes
    assert (axes.get_title("left"), axes.get_ylabel(), axes.get_xlabel()) == ("p", "SSIM", "steps ahead, of 5 minutes")
    assert 0 < axes.get_ylim()[0] < 1
