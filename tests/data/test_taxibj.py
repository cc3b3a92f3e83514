"""TaxiBJ on small files of its format: one number a half hour, so every expectation is arithmetic on dates."""

import shutil
import sys
import warnings
import zlib
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from stzoo.data import Reading, open_dataset
from stzoo.data.taxibj import FILES
from stzoo.errors import DataError, MissingExtraError

h5py = pytest.importorskip("h5py")

READING = Reading(channels=2, height=32, width=32)
SKIPPING = Reading(channels=2, height=32, width=32, skip_bad=True)
BJ13, BJ14, BJ15, BJ16 = FILES


def half_hours(first: date, days: int) -> list[bytes]:
    return [f"{first + timedelta(d):%Y%m%d}{s:02d}".encode() for d in range(days) for s in range(1, 49)]


def write(path: Path, dates: list[bytes], level: np.ndarray | float) -> None:
    """Inflow is the level, outflow half of it, everywhere."""
    levels = np.broadcast_to(np.asarray(level, np.float64), (len(dates),))
    both = np.stack([levels, levels / 2], 1).astype(np.float32)
    data = np.broadcast_to(both[:, :, None, None], (len(dates), 2, 32, 32))
    with h5py.File(path, "w") as file:
        file["data"] = data
        file["date"] = np.array(dates, "S10")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2013: 5 days, of which the third lacks a half hour. 2014: 2 days, a gap of one, 1 day. 2016: 58 days."""
    folder = tmp_path_factory.mktemp("written")
    third = half_hours(date(2013, 7, 3), 1)
    del third[20]
    thirteen = half_hours(date(2013, 7, 1), 2) + third + half_hours(date(2013, 7, 4), 2)
    write(folder / BJ13, thirteen, 100.0)
    fourteen = half_hours(date(2014, 3, 1), 2) + half_hours(date(2014, 3, 4), 1)
    level = np.arange(144.0)
    level[7] = -3
    write(folder / BJ14, fourteen, level)
    write(folder / BJ15, half_hours(date(2015, 3, 1), 1)[5:] + half_hours(date(2015, 3, 2), 1), 50.0)
    sixteen = np.full(58 * 48, 10.0)
    sixteen[2 * 48 : 30 * 48] = 1000  # validation: far beyond the training part's 200
    sixteen[30 * 48 :] = np.arange(28 * 48) % 200
    sixteen[0] = 200
    write(folder / BJ16, half_hours(date(2015, 11, 1), 58), sixteen)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may harm."""
    for file in written.iterdir():
        shutil.copyfile(file, tmp_path / file.name)
    return tmp_path


def test_counts_follow_from_the_dates(folder: Path) -> None:
    data = open_dataset("taxibj", folder, READING)
    # Runs of whole days: 2013 of 2 and 2, 2014 of 2 and 1, 2015 of 1 (its first day lacks five), 2016 of 2.
    assert len(data.split("train", 4, 4)) == sum(48 * days - 7 for days in (2, 2, 2, 1, 1, 2))
    assert len(data.split("validation", 4, 4)) == len(data.split("test", 4, 4)) == 28 * 48 - 7
    assert len(data.split("test", 6, 12)) == 28 * 48 - 17


def test_a_clip_is_consecutive_half_hours_scaled_by_the_training_part(folder: Path) -> None:
    data = open_dataset("taxibj", folder, READING)
    clip = data.split("test", 4, 4).clips(0, 2)
    assert clip.past.shape == clip.future.shape == (2, 4, 2, 32, 32)
    assert clip.past.dtype == torch.float32
    inflow = torch.cat([clip.past, clip.future], 1)[:, :, 0, 3, 5]
    torch.testing.assert_close(inflow * 200, torch.stack([torch.arange(8.0), torch.arange(1.0, 9.0)]))
    torch.testing.assert_close(clip.past[:, :, 1], clip.past[:, :, 0] / 2)


def test_windows_cross_midnight_but_no_gap(folder: Path) -> None:
    train = open_dataset("taxibj", folder, READING).split("train", 4, 4)
    first = 2 * (2 * 48 - 7)  # after 2013's two runs
    inflow = train.clips(first, first + 2 * 48 - 7 + 48 - 7)
    inflow = torch.cat([inflow.past, inflow.future], 1)[:, :, 0, 0, 0] * 200
    torch.testing.assert_close(inflow[44], torch.arange(44.0, 52.0))  # 22:00 to 02:00
    torch.testing.assert_close(inflow[2 * 48 - 8], torch.arange(88.0, 96.0))  # the last before the gap
    torch.testing.assert_close(inflow[2 * 48 - 7], torch.arange(96.0, 104.0))  # the first behind it
    assert inflow[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 0]  # a negative count is none


def test_what_training_has_not_seen_is_clipped_and_told(folder: Path) -> None:
    data = open_dataset("taxibj", folder, READING)
    clip = data.split("validation", 4, 4).clips(0, 1)
    assert clip.past.min() == clip.future.max() == 1
    told = data.describe().splitlines()
    assert "0 and 200 taxis" in told[1]
    assert "10 whole days from 2013-07-01 to 2015-11-02, 0.000% clipped" in told[2]
    assert "28 whole days from 2015-11-03 to 2015-11-30, 100.000% clipped" in told[3]
    assert "28 whole days from 2015-12-01 to 2015-12-28, 0.000% clipped" in told[4]


def test_the_scale_is_blind_to_validation_and_test(folder: Path) -> None:
    before = open_dataset("taxibj", folder, READING).split("train", 4, 4).clips(0, 9).past
    with h5py.File(folder / BJ16, "r+") as file:
        file["data"][2 * 48 :] = 5000
    assert torch.equal(open_dataset("taxibj", folder, READING).split("train", 4, 4).clips(0, 9).past, before)


def test_missing_file(folder: Path) -> None:
    (folder / BJ14).unlink()
    with pytest.raises(DataError, match=f"{BJ14} does not exist; TaxiBJ is the four files {BJ13}, .*{BJ16}"):
        open_dataset("taxibj", folder, READING)
    with pytest.warns(UserWarning, match=f"left out: .*{BJ14}"):
        data = open_dataset("taxibj", folder, SKIPPING)
    assert len(data.split("train", 4, 4)) == sum(48 * days - 7 for days in (2, 2, 1, 2))


def test_without_the_last_file_no_other_days_become_the_test(folder: Path) -> None:
    (folder / BJ16).write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=f"{BJ16} is damaged or no HDF5 file"):
        open_dataset("taxibj", folder, READING)
    with pytest.warns(UserWarning, match=BJ16):
        data = open_dataset("taxibj", folder, SKIPPING)
    assert len(data.split("train", 4, 4)) == sum(48 * days - 7 for days in (2, 2, 2, 1, 1))
    assert "test         nothing" in data.describe()
    for part in ("validation", "test"):
        with pytest.raises(DataError, match=f"{part} part is empty"):
            data.split(part, 4, 4)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{BJ13} does not exist"):
        open_dataset("taxibj", tmp_path, READING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match="holds none of"):
            open_dataset("taxibj", tmp_path, SKIPPING)


@pytest.mark.parametrize("key", ["data", "date"])
def test_missing_key(folder: Path, key: str) -> None:
    with h5py.File(folder / BJ15, "r+") as file:
        del file[key]
    with pytest.raises(DataError, match=f"{BJ15} has no array '{key}'"):
        open_dataset("taxibj", folder, READING)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data", np.zeros((91, 2, 32, 31)), r"data is \(91, 2, 32, 31\) and date \(91,\); expected \(N, 2, 32, 32\)"),
        ("data", np.zeros((90, 2, 32, 32)), r"data is \(90, 2, 32, 32\) and date \(91,\)"),
        ("data", np.full((91, 2, 32, 32), b"7"), "of type .S1; expected numbers"),
        ("data", np.full((91, 2, 32, 32), np.nan), "NaN or infinity in row 0"),
        ("date", np.array([b"2015030100"] * 91), "date 0 is b'2015030100'; expected YYYYMMDD"),
        ("date", np.array([b"2015030149"] * 91), "date 0 is"),
        ("date", np.array([b"2015023001"] * 91), "date 0 is"),
        ("date", np.array([b"yesterday"] * 91), "date 0 is"),
        ("date", np.arange(91), "date 0 is 0"),
        ("date", np.zeros((91, 1)), r"date \(91, 1\)"),
    ],
)
def test_wrong_contents(folder: Path, key: str, value: np.ndarray, message: str) -> None:
    with h5py.File(folder / BJ15, "r+") as file:
        del file[key]
        file[key] = value
    with pytest.raises(DataError, match=f"{BJ15}: .*{message}"):
        open_dataset("taxibj", folder, READING)


def test_an_absurd_length_allocates_nothing(folder: Path) -> None:
    with h5py.File(folder / BJ15, "w") as file:
        file.create_dataset("data", (10**9, 2, 32, 32), "f8", chunks=(1, 2, 32, 32))
        file.create_dataset("date", (10**9,), "S10", chunks=(1000,))
    with pytest.raises(DataError, match="at most 17568"):
        open_dataset("taxibj", folder, READING)


def test_too_few_days_and_no_scale(folder: Path) -> None:
    write(folder / BJ16, half_hours(date(2015, 11, 1), 55), 1.0)
    with pytest.raises(DataError, match=f"55 of them in {BJ16}"):
        open_dataset("taxibj", folder, READING)
    for name in FILES:
        write(folder / name, half_hours(date(2015, 11, 1), 57), 0.0)
    with pytest.raises(DataError, match="every flow to train on is 0"):
        open_dataset("taxibj", folder, READING)


def test_texts_as_dates_and_integers_as_flows(folder: Path) -> None:
    with h5py.File(folder / BJ13, "r+") as file:
        texts, data = [t.decode() for t in file["date"][()]], file["data"][()]
        del file["date"], file["data"]
        file["date"] = texts
        file["data"] = data.astype(np.int32)
    train = open_dataset("taxibj", folder, READING).split("train", 4, 4)
    assert train.clips(0, 1).past.unique().tolist() == [0.25, 0.5]


@pytest.mark.parametrize("change", [{"channels": 1}, {"height": 64}, {"width": 64}, {"every": 2}])
def test_other_frames_are_refused(tmp_path: Path, change: dict[str, int]) -> None:
    with pytest.raises(DataError, match="2x32x32"):
        open_dataset("taxibj", tmp_path, Reading(**({"channels": 2, "height": 32, "width": 32} | change)))


def test_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"stzoo\[array\]"):
        open_dataset("taxibj", tmp_path, READING)


def test_a_file_made_to_harm_is_refused(folder: Path) -> None:
    for what, message in (("circle", "in a circle"), ("link", "refers to another file"), ("chunk", "unpacks to more")):
        (folder / BJ15).unlink()
        with h5py.File(folder / BJ15, "w") as file:
            file["date"] = np.array([b"2015010101"])
            if what == "circle":
                file["g"] = file["/"]
            elif what == "link":
                file["data"] = h5py.ExternalLink(str(folder / BJ14), "data")
            else:
                data = file.create_dataset("data", (1, 2, 32, 32), "u1", chunks=(1, 2, 32, 32), compression="gzip")
                data.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(2**26), 9))
        with pytest.raises(DataError, match=f"{BJ15}.*{message}"):
            open_dataset("taxibj", folder, READING)
