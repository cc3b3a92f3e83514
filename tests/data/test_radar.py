import os
from pathlib import Path

import numpy as np
import pytest
import torch

from stzoo.data import Reading, radar, radar_crops, radar_fields
from stzoo.data.joined import JoinedClips
from stzoo.data.recordings import RecordedClips
from stzoo.errors import DataError
from stzoo.frames.values import to_units
from stzoo.spec import ModelSpec

READING = Reading(channels=1, height=64, width=64)
SPEC = ModelSpec(arch="tau", frames_in=3, frames_out=3, channels=1, height=64, width=64, value_range=radar.DBR)


def event(folder: Path, name: str, frames: np.ndarray, step_minutes: float = 5) -> None:
    np.savez(folder / f"{name}.npz", frames=frames, step_minutes=step_minutes)


@pytest.fixture
def rain() -> np.ndarray:
    """(12, 96, 128): the left half was never observed, rain everywhere else, drier and drier."""
    frames = np.random.default_rng(0).integers(2, 160, (12, 96, 128), dtype=np.uint8)
    frames[:, :, :40] = radar.NOTHING
    frames[6:, :, 80:] = radar.DRY
    return frames


def test_events_are_split_whole_and_what_was_not_observed_is_masked(tmp_path: Path, rain: np.ndarray) -> None:
    for name in ("bom2_20180616", "fmi_20160928", "a_train"):
        event(tmp_path, name, rain)
    data = radar.open_folder(tmp_path, READING)
    for part, name in (("train", "a_train"), ("validation", "fmi_20160928"), ("test", "bom2_20180616")):
        windows = data.split(part, 3, 3)  # type: ignore[arg-type]
        assert [r.name for r in windows.recordings] == [name]
    assert "a_train" in data.describe()
    windows = data.split("train", 3, 3)
    # by hand: columns 0 and 32 begin left of 40; of 64 at most 16 may be unknown (0.75 observed): 32 and 64 remain
    assert {tuple(p[2:]) for p in windows.places} == {(y, x) for y in (0, 32) for x in (32, 64)}
    clip = windows.clips(0, 1)
    _, t, y, x = windows.places[0]
    cut = rain[t : t + 6, y : y + 64, x : x + 64]
    assert clip.valid is not None
    np.testing.assert_array_equal(clip.valid[0, :, 0].numpy(), cut[3:] != 0)
    np.testing.assert_array_equal(clip.past[0, :, 0].numpy(), np.maximum(cut[:3], 1))  # unknown reads as dry


def test_shares_are_those_of_a_slow_count(rain: np.ndarray) -> None:
    wet = rain > 1
    shares = radar._shares(wet, 6, 64, 64, 32)
    assert shares.shape == (7, 2, 3)
    for t, y, x in np.ndindex(shares.shape):
        slow = wet[t : t + 6, 32 * y : 32 * y + 64, 32 * x : 32 * x + 64].mean()
        assert shares[t, y, x] == pytest.approx(slow)


def test_mostly_dry_crops_are_left_out(tmp_path: Path, rain: np.ndarray) -> None:
    event(tmp_path, "dry", np.full((12, 96, 128), radar.DRY, np.uint8))
    with pytest.raises(DataError, match="the train part has no crop of 6 frames of 64x64"):
        radar.open_folder(tmp_path, READING).split("train", 3, 3)


def test_crops_keep_the_dry_ones_and_each_event_counts_the_same(tmp_path: Path, rain: np.ndarray) -> None:
    event(tmp_path, "dry", np.full((7, 80, 128), radar.DRY, np.uint8))
    event(tmp_path, "wet", rain)
    event(tmp_path, "unobserved", np.full_like(rain, radar.NOTHING))
    clips = radar_crops.open_folder(tmp_path, READING).split("train", 3, 3)
    assert isinstance(clips, RecordedClips)
    counts = {r.name: (clips.places[:, 0] == i).sum() for i, r in enumerate(clips.recordings)}
    assert counts == {"dry": radar_crops.PER_EVENT, "wet": radar_crops.PER_EVENT, "unobserved": 0}
    of_dry, of_wet = (
        {tuple(map(int, p[1:])) for p in clips.places if clips.recordings[p[0]].name == name} for name in ("dry", "wet")
    )
    # by hand: two starts of 6 in 7 frames; rows 0 and 16 of 80; columns 0 to 64
    assert of_dry == {(t, y, x) for t in (0, 1) for y in (0, 16) for x in (0, 16, 32, 48, 64)}
    # columns 0 to 39 are unknown: of 64 at most 16 may be
    assert of_wet == {(t, y, x) for t in range(7) for y in (0, 16, 32) for x in (32, 48, 64)}
    again = radar_crops.open_folder(tmp_path, READING).split("train", 3, 3)
    assert isinstance(again, RecordedClips)
    np.testing.assert_array_equal(again.places, clips.places)


def test_crops_to_train_on_are_about_five_minutes_apart(tmp_path: Path, rain: np.ndarray) -> None:
    wet = np.where(rain == radar.NOTHING, radar.DRY, rain).astype(np.uint8)
    for name, minutes in (("as_it_is", 6), ("thinned", 2), ("too_slow", 10), ("too_fast_for_any", 3.5)):
        event(tmp_path, name, wet, minutes)
    clips = radar_crops.open_folder(tmp_path, READING).split("train", 2, 2)
    assert isinstance(clips, RecordedClips)
    found = [(each.name, len(each.frames)) for each in clips.recordings]
    assert found == [("as_it_is", 12), ("thinned", 6), ("thinned", 6)]
    np.testing.assert_array_equal(clips.recordings[2].frames[:, 0], wet[1::2])  # type: ignore[index]
    counts = np.bincount(clips.places[:, 0])
    assert [counts[0], counts[1] + counts[2]] == [radar_crops.PER_EVENT] * 2


def test_measured_crops_stand_once_and_by_event(tmp_path: Path, rain: np.ndarray) -> None:
    for name in radar.TEST:
        event(tmp_path, name, np.maximum(rain, radar.DRY))
    clips = radar_crops.open_folder(tmp_path, READING).split("test", 3, 3)
    assert isinstance(clips, JoinedClips)
    assert [(part.name, len(part.source), part.step_minutes) for part in clips.parts] == [
        ("bom2_20180616", 6, 5.0),  # starts 0, 3 and 6; columns 0 and 64
        ("mch_20160711", 6, 5.0),
    ]
    with pytest.raises(DataError, match=r"the validation part has no crop of 6 frames of 64x64 of which"):
        radar_crops.open_folder(tmp_path, READING).split("validation", 3, 3)


def test_fields_are_whole_and_of_any_size(tmp_path: Path, rain: np.ndarray) -> None:
    event(tmp_path, "bom2_20180616", rain)
    event(tmp_path, "mch_20160711", np.full((9, 70, 50), radar.DRY, np.uint8))  # dry, and smaller than a crop
    np.savez(tmp_path / "fmi_20160928.npz", frames=rain)  # does not say how often it was seen
    fields = radar_fields.open_folder(tmp_path, READING)
    clips = fields.split("test", 3, 3)
    assert [(p.name, len(p.source), p.step_minutes) for p in clips.parts] == [
        ("bom2_20180616", 4, 5.0),  # starts 0, 2, 4 and 6
        ("mch_20160711", 2, 5.0),
    ]
    second = clips.clips(1, 2)
    assert second.valid is not None
    np.testing.assert_array_equal(second.past[0, :, 0].numpy(), np.maximum(rain[2:5], 1))
    np.testing.assert_array_equal(second.future[0, :, 0].numpy(), np.maximum(rain[5:8], 1))
    np.testing.assert_array_equal(second.valid[0, :, 0].numpy(), rain[5:8] != 0)
    assert clips.clips(4, 6).future.shape == (2, 3, 1, 70, 50)
    with pytest.raises(DataError, match="frames of 96x128 and 70x50"):
        clips.clips(3, 5)
    with pytest.raises(IndexError):
        clips.clips(5, 7)
    assert fields.split("validation", 3, 3).parts[0].step_minutes is None
    with pytest.raises(DataError, match="train on radar-crops"):
        fields.split("train", 3, 3)
    thinned = radar_fields.open_folder(tmp_path, Reading(channels=1, height=64, width=64, every=3))
    assert thinned.split("test", 1, 1).parts[0].step_minutes == 15


def test_units_are_decibels_of_the_rain_rate() -> None:
    stored = np.array([1, 2, 52, 102], np.uint8)  # 2 stands for 0.1 mm/h, and 50 steps of 0.2 are ten times as much
    frames = to_units(torch.from_numpy(stored), SPEC).numpy()
    np.testing.assert_allclose(10 ** (frames[1:] / 10), [0.1, 1.0, 10.0], rtol=1e-5)
    assert frames[0] == pytest.approx(-10.2)


def test_bad_files_are_named(tmp_path: Path, rain: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"holds no \.npz"):
        radar.open_folder(tmp_path, READING)
    np.savez(tmp_path / "other.npz", rain=rain)
    with pytest.raises(DataError, match=r"other\.npz has no array 'frames'"):
        radar.open_folder(tmp_path, READING).split("train", 3, 3)
    event(tmp_path, "good", rain)
    (tmp_path / "torn.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:2000])
    event(tmp_path, "floats", rain.astype(np.float32))
    np.save(tmp_path / "plain.npy", rain)
    (tmp_path / "plain.npy").rename(tmp_path / "plain.npz")
    os.mkfifo(tmp_path / "fifo.npz")
    lenient = Reading(channels=1, height=64, width=64, skip_bad=True)
    with pytest.warns(UserWarning, match="left out") as warned:
        windows = radar.open_folder(tmp_path, lenient).split("train", 3, 3)
    bad = {"other", "torn", "floats", "plain", "fifo"}
    assert {name for name in bad if any(f"{name}.npz" in str(w.message) for w in warned)} == bad
    assert [r.name for r in windows.recordings] == ["good"]
    with pytest.raises(DataError, match="one channel; this model reads 3"):
        radar.open_folder(tmp_path, Reading(channels=3, height=64, width=64))


def test_the_real_events() -> None:
    folder = Path(os.environ.get("STZOO_DATA", "")) / "radar"
    if not folder.is_dir():
        pytest.skip("set STZOO_DATA to a folder that holds radar/ to run this test")
    data = radar.open_folder(folder, Reading(channels=1, height=128, width=128))
    windows = data.split("test", 6, 12)
    assert {r.name for r in windows.recordings} == set(radar.TEST)
    assert len(windows) > 100
    rows = [
        (p.name, len(p.source), p.step_minutes)
        for p in radar_fields.open_folder(folder, READING).split("test", 6, 12).parts
    ]
    assert rows == [("bom2_20180616", 22, 6.0), ("mch_20160711", 12, 5.0)]
