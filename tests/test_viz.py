from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from stzoo import viz


def test_a_strip_shows_every_frame_in_its_place() -> None:
    rows = {"past": np.zeros((2, 8, 8)), "truth": np.ones((3, 8, 8))}
    sheet = np.asarray(viz.strip(rows))
    whole = np.asarray(viz.strip({"past": np.ones((2, 8, 8)), "truth": np.ones((3, 8, 8))}))
    assert (whole == 255).sum() - (sheet == 255).sum() == 2 * 64
    assert sheet.shape == whole.shape


def test_missing_frames_leave_their_place_empty() -> None:
    frames = np.ones((2, 8, 8))
    frames[0] = np.nan
    full = np.asarray(viz.strip({"a": np.ones((2, 8, 8))}))
    assert (full == 255).sum() - (np.asarray(viz.strip({"a": frames})) == 255).sum() == 64


def test_an_animation_has_every_frame(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 5)[:, None, None] * np.ones((5, 8, 8))
    viz.animation(tmp_path / "a.gif", {"one": ramp, "two": ramp[::-1]}, scale=2)
    with Image.open(tmp_path / "a.gif") as file:
        frames = [np.asarray(f.convert("L")) for f in ImageSequence.Iterator(file)]
    assert len(frames) == 5
    left, right = frames[0][-5, 5], frames[0][-5, 25]
    assert left < 5
    assert right > 250


def test_past_truth_and_forecast_follow_each_other_side_by_side() -> None:
    def flat(shade: int, count: int, size: tuple[int, int]) -> list[Image.Image]:
        return [Image.new("L", size, shade) for _ in range(count)]

    sheets = viz.side_by_side(flat(10, 3, (80, 60)), flat(120, 1, (80, 60)), flat(250, 2, (40, 30)))
    assert len(sheets) == 5
    assert {(sheet.mode, sheet.size) for sheet in sheets} == {("L", (2 * (120 + 2) + 2, 90 + 22))}
    middles = [[sheet.getpixel((2 + 60 + 122 * place, 60)) for place in range(2)] for sheet in sheets]
    assert middles == [[10, 10]] * 3 + [[120, 250], [96, 250]]  # the past in both, and no truth for the last
    without = viz.side_by_side(flat(10, 1, (100, 60)), [], [Image.new("RGB", (100, 60), "red")])
    assert {(sheet.mode, sheet.size) for sheet in without} == {("RGB", (2 * 102 + 2, 60 + 22))}
    assert without[1].getpixel((2 + 102 + 50, 60)) == (255, 0, 0)
    assert without[1].getpixel((2 + 50, 60)) == (10, 10, 10)


def test_large_pictures_are_reduced_side_by_side() -> None:
    for size, panel in (((1920, 1080), (637, 358)), ((1080, 1920), (405, 720)), ((10, 4000), (2, 720))):
        images = [Image.new("L", size)]
        assert {sheet.size for sheet in viz.side_by_side(images, [], images)} <= {
            (2 * (panel[0] + 2) + 2, panel[1] + 2 + title) for title in (20, 28)
        }
