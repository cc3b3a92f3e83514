"""Windows of recordings, the cache of decoded frames, and the endless order that trains."""

import dataclasses
import resource
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from gray_videos import brightness, write_video

from stzoo.data import DATASETS, FirstClips, Reading, open_dataset
from stzoo.data.recordings import RecordedClips, RecordedDataset, Recording, Segment, decode_once, sliding_clips
from stzoo.errors import DataError
from stzoo.frames.video import read_video
from stzoo.metrics import DEFINITIONS
from stzoo.spec import ModelSpec
from stzoo.train.clips import ENDLESS, Shuffled, endless

READING = Reading(channels=1, height=16, width=16)


def counting(name: str, length: int, first: int = 0, side: int = 4) -> Recording:
    """Frame t is flat t + first."""
    frames = np.arange(first, first + length, dtype=np.uint8)[:, None, None, None]
    return Recording(name, np.broadcast_to(frames, (length, 1, side, side)).copy())


def test_windows_slide_within_recordings_and_never_across() -> None:
    windows = sliding_clips([counting("a", 7), counting("b", 4), counting("c", 6, 100)], 3, 2, 1)
    firsts = [int(windows.clips(i, i + 1).past[0, 0, 0, 0, 0]) for i in range(len(windows))]
    assert firsts == [0, 1, 2, 100, 101]  # b is too short
    clip = windows.clips(1, 4)
    assert clip.past.shape == (3, 3, 1, 4, 4)
    assert clip.future.shape == (3, 2, 1, 4, 4)
    assert clip.valid is None
    np.testing.assert_array_equal(brightness(clip.future), [[4, 5], [5, 6], [103, 104]])
    assert len(sliding_clips([counting("a", 20)], 3, 2, 5)) == 4
    with pytest.raises(IndexError, match="clips 4 to 6 of 5"):
        windows.clips(4, 6)
    with pytest.raises(DataError, match="no recording has 30 frames; the longest, c, has 6"):
        sliding_clips([counting("b", 4), counting("c", 6)], 10, 20, 1)


def test_a_mask_is_cut_where_the_frames_are() -> None:
    frames = np.random.default_rng(0).integers(0, 9, (6, 1, 8, 8), dtype=np.uint8)
    masked = Recording("m", frames, frames > 4)
    windows = RecordedClips((masked, Recording("n", frames)), np.array([[0, 1, 2, 3], [1, 0, 0, 0]]), 2, 3, 4, 5)
    clip = windows.clips(0, 2)
    assert clip.valid is not None
    assert clip.valid.shape == (2, 3, 1, 4, 5)
    np.testing.assert_array_equal(clip.valid[0].numpy(), frames[3:6, :, 2:6, 3:8] > 4)
    np.testing.assert_array_equal(clip.future[0].numpy(), frames[3:6, :, 2:6, 3:8])
    assert clip.valid[1].all()  # nothing of the other recording is unknown
    assert clip.seen is not None
    np.testing.assert_array_equal(clip.seen[0].numpy(), frames[1:3, :, 2:6, 3:8] > 4)
    assert clip.seen[1].all()


def test_videos_are_decoded_once_and_again_when_they_change(tmp_path: Path, own_cache: Path) -> None:
    video = tmp_path / "a.avi"
    write_video(video, [20, 120, 220])
    calls = []

    def decode(path: Path) -> object:
        calls.append(path)
        return read_video(path)

    first = decode_once(video, READING, decode)  # type: ignore[arg-type]
    assert first.shape == (3, 1, 16, 16)
    np.testing.assert_allclose(brightness(first[:]), [20, 120, 220], atol=6)
    np.testing.assert_array_equal(decode_once(video, READING, decode)[1:], first[1:])  # type: ignore[arg-type]
    assert len(calls) == 1
    decode_once(video, Reading(channels=3, height=8, width=8), decode)  # type: ignore[arg-type]
    write_video(video, [5] * 4)
    assert len(decode_once(video, READING, decode)) == 4  # type: ignore[arg-type]
    assert len(calls) == 3
    assert {f.suffix for f in own_cache.iterdir()} == {".uint8"}
    for file in own_cache.iterdir():
        file.write_bytes(file.read_bytes()[:-1])  # as a power cut may leave it
    assert len(decode_once(video, READING, decode)) == 4  # type: ignore[arg-type]
    assert len(calls) == 4


def dataset(folder: Path, **changes: object) -> RecordedDataset:
    files = sorted(folder.glob("*.avi"))
    parts = {"train": tuple(Segment(f) for f in files), "validation": (Segment(files[0], 2, 8),), "test": ()}
    hop = {"train": 1, "validation": 2, "test": 2}
    reading = dataclasses.replace(READING, **changes)  # type: ignore[arg-type]
    return RecordedDataset("Gray", parts, reading, hop, read_video)  # type: ignore[arg-type]


def test_a_damaged_video_names_itself_and_the_others_go_on(tmp_path: Path, own_cache: Path) -> None:
    write_video(tmp_path / "a.avi", list(range(10, 110, 10)))
    write_video(tmp_path / "b.avi", list(range(100, 200, 10)))
    whole = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "bad.avi").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(DataError, match=r"bad\.avi"):
        dataset(tmp_path).split("train", 4, 4)
    assert not any(f.name.startswith(".") for f in own_cache.iterdir())
    with pytest.warns(UserWarning, match=r"left out: .*bad\.avi"):
        windows = dataset(tmp_path, skip_bad=True).split("train", 4, 4)
    assert len(windows) == 6
    with pytest.raises(DataError, match="Gray: the test part is empty"):
        dataset(tmp_path).split("test", 4, 4)
    for file in tmp_path.glob("[ab].avi"):
        file.unlink()
    with pytest.warns(UserWarning, match="left out"), pytest.raises(DataError, match="every recording was left out"):
        dataset(tmp_path, skip_bad=True).split("train", 4, 4)


def test_thousands_of_recordings_need_no_descriptors_of_their_own(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", list(range(10, 110, 10)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(list(Path("/proc/self/fd").iterdir()))
    data = dataset(tmp_path)
    many = dataclasses.replace(data, segments={**data.segments, "train": data.segments["train"] * 300})
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 60, hard))
    try:
        windows = many.split("train", 5, 5)
        assert windows.clips(0, 300).past.shape == (300, 5, 1, 16, 16)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_kinds_of_values_are_not_mixed() -> None:
    floats = Recording("f", np.zeros((5, 1, 4, 4), np.float32))
    with pytest.raises(DataError, match="a holds uint8, f float32; keep them apart"):
        sliding_clips([counting("a", 5), floats], 1, 1, 1)


def test_segments_every_and_zoom(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", list(range(10, 110, 10)))
    part = dataset(tmp_path).split("validation", 2, 2)
    np.testing.assert_allclose(brightness(part.clips(1, 2).past[0]), [50, 60], atol=6)
    every = dataset(tmp_path, every=3).split("train", 2, 2)
    assert len(every) == 1
    np.testing.assert_allclose(brightness(every.clips(0, 1).future[0]), [70, 100], atol=6)
    zoomed = dataset(tmp_path, zoom=1.5)
    assert zoomed.split("train", 2, 2).clips(0, 1).past.shape[-2:] == (24, 24)
    assert zoomed.split("validation", 2, 2).clips(0, 1).past.shape[-2:] == (16, 16)
    assert "train        1 segments of 1 files" in zoomed.describe()


def test_an_epoch_shows_every_clip_once_in_any_batches() -> None:
    source = sliding_clips([counting("a", 12)], 1, 1, 1)
    shuffled = Shuffled(source, "none", 3, (4, 4))
    assert len(shuffled) == ENDLESS
    seen = brightness(shuffled.clips(0, 33).past[:, 0]).reshape(3, 11)
    assert all(sorted(epoch) == list(range(11)) for epoch in seen)
    assert not (seen[0] == seen[1]).all()
    np.testing.assert_array_equal(brightness(shuffled.clips(7, 19).past[:, 0]), seen.flatten()[7:19])
    assert not (brightness(Shuffled(source, "none", 4, (4, 4)).clips(0, 11).past[:, 0]) == seen[0]).all()


@pytest.mark.parametrize(("flips", "expected"), [("none", 1), ("horizontal", 2), ("all", 8)])
def test_mirror_images_are_those_asked_for(flips: str, expected: int) -> None:
    frame = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    mask = frame < 6
    windows = sliding_clips(
        [Recording("r", np.concatenate([frame, frame + 100]), np.concatenate([mask, mask]))], 1, 1, 1
    )
    clip = Shuffled(windows, flips, 0, (4, 4)).clips(0, 200)  # type: ignore[arg-type]
    assert clip.valid is not None
    looks = {p.numpy().tobytes() for p in clip.past}
    square = [np.rot90(m, k) for m in (frame[0, 0], frame[0, 0].T) for k in range(4)]
    allowed = {"none": square[:1], "horizontal": [frame[0, 0], frame[0, 0, :, ::-1]], "all": square}[flips]
    assert looks == {a.tobytes() for a in allowed}
    assert len(looks) == expected
    for past, future, valid in zip(clip.past, clip.future, clip.valid, strict=True):  # mirrored as one
        assert torch.equal(future, past + 100)
        assert torch.equal(valid, past < 6)


def test_windows_of_larger_frames_are_shrunk_to_the_size() -> None:
    ramp = np.broadcast_to(np.linspace(0, 230, 24)[:, None], (24, 24)).astype(np.uint8)
    windows = sliding_clips([Recording("r", np.stack([ramp[None]] * 2))], 1, 1, 1)
    clip = Shuffled(windows, "none", 0, (16, 16)).clips(0, 100)
    assert clip.past.shape == (100, 1, 1, 16, 16)
    assert torch.equal(clip.past, clip.future)
    spread = (clip.past[:, 0, 0, -1, 0].int() - clip.past[:, 0, 0, 0, 0].int()).numpy()
    assert spread.min() < 165  # 150: sixteen of the 24 rows
    assert spread.max() > 205  # 230 less half a pixel at both ends: all of them
    assert ((clip.past[:, :, :, 1:].int() - clip.past[:, :, :, :-1].int()) >= 0).all()


def test_any_source_becomes_endless_and_a_part_has_an_end() -> None:
    class Three:
        def __len__(self) -> int:
            return 3

        def clips(self, start: int, stop: int):
            return sliding_clips([counting("a", 4)], 1, 1, 1).clips(start, stop)

    spec = ModelSpec(arch="tau", frames_in=1, frames_out=1, channels=1, height=4, width=4)
    clips = endless(Three(), spec, "none", 0, "cpu").clips(0, 6)
    assert sorted(brightness(clips.past[:, 0])[:3]) == [0, 1, 2]
    part = FirstClips(Three(), 2)
    assert len(part) == 2
    with pytest.raises(IndexError, match="clips 0 to 3 of 2"):
        part.clips(0, 3)


def test_datasets_are_opened_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no dataset 'kht'; there are clips, "):
        open_dataset("kht", tmp_path, READING)
    with pytest.raises(DataError, match="nowhere does not exist"):
        open_dataset("kth", tmp_path / "nowhere", READING)
    with pytest.raises(DataError, match="mmnist is drawn at 1x64x64"):
        open_dataset("mmnist", tmp_path, READING)


def test_every_record_names_a_file_that_opens_the_dataset_and_a_definition() -> None:
    for record in DATASETS.values():
        assert callable(import_module(f"stzoo.data.{record.module}").open_folder)
        assert record.definition in DEFINITIONS
