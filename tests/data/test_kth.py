import os
from pathlib import Path

import numpy as np
import pytest
from gray_videos import brightness, write_video

from stzoo.data import Reading, kth
from stzoo.errors import DataError

READING = Reading(channels=1, height=16, width=16)
LIST = """Sequences of KTH, as the authors describe them.

person01_boxing_d1\t\tframes\t1-10, 12-30, 28-40, 45-60
person11_boxing_d4    \t\tframes\t1-20, 21-40, 41-50
person15_walking_d3\tframes\t1-12, 13-22, 23-31, 30-39
person17_running_d2\t\tframes\t5-25, 1-9, 26-40, 41-60
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Frame n, counted from 1, has brightness 3n."""
    for name in ("person01_boxing_d1", "person11_boxing_d4", "person15_walking_d3", "person17_running_d2"):
        write_video(tmp_path / name.split("_")[1] / f"{name}_uncomp.avi", [3 * n for n in range(1, 56)])
    (tmp_path / "00sequences.txt").write_text(LIST)
    return tmp_path


def test_ranges_count_from_one_and_persons_split(folder: Path) -> None:
    data = kth.open_folder(folder, READING)
    firsts = {
        part: [round(brightness(windows.clips(i, i + 1).past[0, 0]) / 3) for i in range(len(windows))]
        for part in ("train", "validation", "test")
        for windows in [data.split(part, 5, 5)]  # type: ignore[arg-type]
    }
    # by hand: every window of ten frames inside a range, cut where the recording of 55 frames ends
    starts = lambda *ranges: [t for a, b in ranges for t in range(a, min(b, 55) - 10 + 2)]  # noqa: E731
    assert firsts["train"] == starts((1, 10), (12, 30), (28, 40), (45, 60), (1, 20), (21, 40), (41, 50))
    assert firsts["validation"] == [1, 13, 30]  # one every 20 frames: the first of each range that is long enough
    assert firsts["test"] == [5, 26, 41]
    assert "train        7 segments of 2 files" in data.describe()


def test_other_persons_can_test(folder: Path) -> None:
    data = kth.open_folder(folder, READING, test={1}, validation=())
    assert {s.path.name for s in data.segments["test"]} == {"person01_boxing_d1_uncomp.avi"}
    assert len({s.path for s in data.segments["train"]}) == 3
    with pytest.raises(DataError, match="the validation part is empty"):
        data.split("validation", 2, 2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("person02_boxing_d1 frames 1-95, 96", r"00sequences\.txt, line 2: expected .* found 'person02"),
        ("person02_boxing_d1 frames", "line 2"),
        ("person02_boxing_d1 frames 9-5", "line 2"),
        ("person02_boxing_d1 frames 0-5", "line 2"),
        ("person02_boxing_d1 1-5", "line 2"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "00sequences.txt").write_text(f"person01_boxing_d1 frames 1-9\n{line}\n")
    with pytest.raises(DataError, match=message):
        kth.read_sequences(tmp_path / "00sequences.txt")


def test_what_is_missing_is_named(folder: Path) -> None:
    write_video(folder / "person02_boxing_d1_uncomp.avi", [1])
    with pytest.raises(DataError, match=r"person02_boxing_d1_uncomp\.avi is not in .*00sequences\.txt"):
        kth.open_folder(folder, READING)
    (folder / "00sequences.txt").write_text("nothing\n")
    with pytest.raises(DataError, match="names no recording"):
        kth.open_folder(folder, READING)
    (folder / "00sequences.txt").unlink()
    with pytest.raises(DataError, match="belongs beside its recordings"):
        kth.open_folder(folder, READING)


def test_the_real_list_and_recordings() -> None:
    folder = Path(os.environ.get("STZOO_DATA", "")) / "kth"
    if not folder.is_dir():
        pytest.skip("set STZOO_DATA to a folder that holds kth/ to run this test")
    listed = kth.read_sequences(folder / "00sequences.txt")
    assert len(listed) == 598  # of 25 * 6 * 4; person13_handclapping_d3 does not exist, and one is not listed
    assert "person13_handclapping_d3" not in listed
    short = {name for name, ranges in listed.items() if len(ranges) != 4}
    assert short == {
        "person11_boxing_d4", "person13_handwaving_d3", "person14_handwaving_d3", "person15_boxing_d4",
        "person22_boxing_d1",
    }  # fmt: skip
    assert sum(map(len, listed.values())) == 4 * 598 - 5
    assert listed["person03_walking_d4"][2:] == ((232, 338), (338, 432))  # share a frame
    data = kth.open_folder(folder, READING)
    windows = data.split("validation", 10, 40)  # person 15 waves
    ranges = listed["person15_handwaving_d1"]
    assert len(windows) == sum(len(range(0, b - a + 1 - 50 + 1, kth.HOP)) for a, b in ranges)
    moving = windows.clips(0, len(windows))
    assert moving.past.dtype == moving.future.dtype
    assert np.abs(np.diff(moving.future.numpy().astype(int), axis=1)).mean() > 0.3
