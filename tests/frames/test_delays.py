"""When an animation shows its images, by how long it shows each."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stzoo.frames.clock import warn_of_uneven
from stzoo.frames.delays import timing
from stzoo.frames.images import frame_interval, read_images
from stzoo.frames.moving import moving_pictures
from stzoo.frames.writing import write

SHADES = list(range(0, 240, 20))  # of twelve flat images


def animation(path: Path, delays: list[int]) -> Path:
    images = [Image.fromarray(np.full((16, 16), shade, np.uint8)) for shade in SHADES[: len(delays)]]
    lossless = path.suffix == ".webp"
    images[0].save(path, save_all=True, append_images=images[1:], duration=delays, loop=0, lossless=lossless)
    return path


def numbers(images: list[Image.Image]) -> list[int]:
    return [SHADES.index(np.asarray(image.convert("L"))[0, 0]) for image in images]


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".mp4"])
def test_frames_far_apart_are_shown_for_a_minute(suffix: str, tmp_path: Path) -> None:
    """A quarter of an hour is more than a GIF can say, which counts hundredths of a second in 16 bits."""
    if suffix == ".mp4":
        pytest.importorskip("av")
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 16), np.uint8)
    write(tmp_path / f"a{suffix}", frames, 900.0)
    assert (tmp_path / f"a{suffix}").stat().st_size > 0
    if suffix == ".gif":
        assert Image.open(tmp_path / "a.gif").info["duration"] == 60_000


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_uneven_delays_are_told_and_sampled_by_their_times(suffix: str, tmp_path: Path) -> None:
    path = animation(tmp_path / f"a{suffix}", [40] * 5 + [200] + [50] * 6)
    with pytest.warns(UserWarning, match=rf"a\{suffix}: its frames are unevenly .* it is read at 22 frames"):
        images = read_images(path)
    assert numbers(images) == [0, 1, 2, 3, 5, 5, 5, 5, 5, 6, 7, 8, 9, 10, 11]
    assert float(frame_interval(path) or 0) == pytest.approx(0.5 / 11)
    with pytest.warns(UserWarning, match="unevenly spaced"):
        assert numbers(read_images(path, last=3)) == [9, 10, 11]
    turns = animation(tmp_path / f"b{suffix}", [100, 150] * 6)
    with pytest.warns(UserWarning, match="unevenly spaced"):
        assert numbers(list(moving_pictures(turns, start=1.0, last=3))) == [8, 9, 10]
    assert numbers(list(moving_pictures(turns, fps=4))) == [0, 2, 4, 6, 8, 10]  # without a warning


@pytest.mark.parametrize("rate", [60, 30, 24, 15])
@pytest.mark.parametrize("unit", [10, 1])
def test_rounded_delays_are_even(rate: int, unit: int) -> None:
    for count in (12, 40, 200):
        ends = [unit * round(1000 * number / rate / unit) for number in range(count + 1)]
        found = timing([end - begin for begin, end in pairwise(ends)])
        assert found is not None
        assert (found.clock.even, found.clock.count) == (True, count)
        assert float(found.clock.step) == pytest.approx(1 / rate, rel=0.035 if count == 12 else 0.01)
        times = [end for number, end in enumerate(ends) if number not in (3, 4, 8)]  # equal neighbours are one image
        merged = timing([end - begin for begin, end in pairwise(times)])
        assert merged is not None
        assert (merged.clock.even, merged.clock.count) == (True, count) or (rate, unit) == (60, 10)


def test_a_rest_is_one_step_of_rounded_and_of_uneven_delays() -> None:
    rounded = timing([2000, *[30, 30, 40] * 4, 2000])
    assert rounded is not None
    assert (rounded.clock.even, rounded.clock.count) == (True, 14)
    uneven = timing([2000, *[100, 150] * 6, 3000])
    assert uneven is not None
    assert (uneven.clock.even, uneven.clock.seconds) == (False, pytest.approx(1.5 + 2 * float(uneven.clock.step)))


def test_exact_multiples_count_as_often_as_they_last() -> None:
    for delays, step, counts in (
        ([100, 200, 100], 100, [1, 2, 1]),
        ([10, 30, 10, 30], 10, [1, 3, 1, 3]),
        ([10, 10, 20, 10, 10], 10, [1, 1, 2, 1, 1]),
        ([100 / 3, 100 / 3, 200 / 3], 100 / 3, [1, 1, 2]),
    ):
        found = timing(delays)
        assert found is not None
        assert found.clock.step == Fraction(str(step)) / 1000
        assert np.diff(found.starts).tolist() == counts
    assert timing([0, 0, 500]) is None
    assert timing([100]) is None


def test_even_animations_are_read_without_a_word(recwarn: pytest.WarningsRecorder, tmp_path: Path) -> None:
    path = animation(tmp_path / "a.gif", [100, 200, 100, 100])
    found = timing([100, 200, 100, 100])
    assert found is not None
    warn_of_uneven(path, found.clock, None)
    assert numbers(read_images(path)) == [0, 1, 1, 2, 3]
    assert not recwarn.list
