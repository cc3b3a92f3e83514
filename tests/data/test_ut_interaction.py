import os
from pathlib import Path

import pytest
from gray_videos import write_video

from stzoo.data import Reading, ut_interaction
from stzoo.errors import DataError

READING = Reading(channels=1, height=16, width=16)


def test_sequences_split_and_names_that_are_no_recordings_are_left_alone(tmp_path: Path) -> None:
    recordings = ("set1/0_1_4", "set1/1_7_0", "set1/2_8_5", "set2/3_19_1", "set2/4_17_2", "set2/5_20_3")
    for name in (*recordings, "set2/notes", "set2/6_2_9"):
        write_video(tmp_path / f"{name}.avi", [100] * 12)
    data = ut_interaction.open_folder(tmp_path, READING)
    names = {part: [s.path.stem for s in segments] for part, segments in data.segments.items()}
    assert names == {"train": ["0_1_4", "5_20_3"], "validation": ["1_7_0", "4_17_2"], "test": ["2_8_5", "3_19_1"]}
    assert len(data.split("train", 5, 5)) == 2 * 3
    assert len(data.split("test", 3, 3)) == 2 * 2  # one every five frames
    alone = ut_interaction.open_folder(tmp_path, READING, ("set1",))
    assert [s.path.stem for s in alone.segments["test"]] == ["2_8_5"]
    with pytest.raises(DataError, match="holds no set3 with files named clip_sequence_class"):
        ut_interaction.open_folder(tmp_path, READING, ("set3",))


def test_the_real_recordings() -> None:
    folder = Path(os.environ.get("STZOO_DATA", "")) / "ut_interaction"
    if not folder.is_dir():
        pytest.skip("set STZOO_DATA to a folder that holds ut_interaction/ to run this test")
    data = ut_interaction.open_folder(folder, READING)
    counts = {part: len(segments) for part, segments in data.segments.items()}
    assert sum(counts.values()) == 108
    sequences = {p: {int(s.path.stem.split("_")[1]) for s in segments} for p, segments in data.segments.items()}
    assert sequences["test"] == {8, 9, 18, 19}
    assert sequences["validation"] == {7, 17}
    assert sequences["train"].isdisjoint(sequences["test"] | sequences["validation"])
