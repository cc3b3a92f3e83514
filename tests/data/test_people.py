"""Ped2, and people of two datasets at one rate, on small videos whose brightness tells the frame."""

import os
from pathlib import Path

import numpy as np
import pytest
from gray_videos import brightness, write_video

from stzoo.data import Reading, open_dataset
from stzoo.errors import DataError

READING = Reading(channels=1, height=16, width=16)
REAL = Path(os.environ.get("STZOO_DATA", "/nowhere"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """UT-Interaction: a recording of 24 frames in each part. Ped2: two to train on, one to validate and one to test."""
    for name in ("set1/0_1_4", "set1/1_7_0", "set2/2_8_5"):
        write_video(tmp_path / "ut_interaction" / f"{name}.avi", [*range(20, 212, 8)])
    for name in ("training_01", "training_02", "training_15", "testing_01"):
        write_video(tmp_path / "ped2" / f"{name}.mp4", [*range(220, 100, -10)])
    (tmp_path / "ped2" / "training_1.mp4").write_bytes(b"no video, and not named as one of Ped2")
    return tmp_path


def test_ped2_is_split_as_published(folder: Path) -> None:
    data = open_dataset("ped2", folder / "ped2", READING)
    assert len(data.split("train", 4, 4)) == 2 * 5
    assert len(data.split("validation", 4, 4)) == len(data.split("test", 4, 4)) == 1
    with pytest.raises(DataError, match=r"holds no videos named training_01\.mp4"):
        open_dataset("ped2", folder, READING)


def test_both_are_read_at_one_rate(folder: Path) -> None:
    data = open_dataset("people", folder, READING)
    test = data.split("test", 3, 3)
    ut, ped = (part.source.clips(0, 1) for part in test.parts)  # type: ignore[attr-defined]
    assert [part.name for part in test.parts] == ["UT-Interaction", "Ped2"]  # type: ignore[attr-defined]
    np.testing.assert_allclose(np.diff(brightness(ut.past[0])), 24, atol=3)
    np.testing.assert_allclose(np.diff(brightness(ped.past[0])), -10, atol=3)
    assert "every 3" in data.describe()
    assert "UCSD Ped2" in data.describe()


def test_training_begins_at_each_of_three_frames(folder: Path) -> None:
    train = open_dataset("people", folder, READING).split("train", 3, 3)
    ut, ped, slow = (part.source for part in train.parts)  # type: ignore[attr-defined]
    assert (len(ut), len(ped), len(slow)) == (3 * 3, 2 * 7, 7)  # 8 frames from each beginning; 12 frames; 24
    np.testing.assert_allclose(np.diff(brightness(slow.clips(0, 1).past[0])), 8, atol=3)
    firsts = [brightness(ut.clips(i, i + 1).past[0])[0] for i in (0, 3, 6)]
    np.testing.assert_allclose(firsts, [20, 28, 36], atol=3)


def test_a_folder_that_lacks_one_of_them(folder: Path) -> None:
    with pytest.raises(DataError, match="holds no ut_interaction and no ped2; people needs"):
        open_dataset("people", folder / "ped2", READING)


@pytest.mark.skipif(not (REAL / "ped2").is_dir(), reason="Ped2 is not at hand: set STZOO_DATA")
def test_the_real_files() -> None:
    data = open_dataset("ped2", REAL / "ped2", READING)
    lengths = {
        part: sum(len(each.frames) for each in data.split(part, 10, 10).recordings)  # type: ignore[arg-type, attr-defined]
        for part in ("train", "validation", "test")
    }
    assert lengths["train"] + lengths["validation"] == 2550
    assert lengths["test"] == 2010
