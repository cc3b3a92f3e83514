"""TaxiNYC on small files of its format, and on the real ones where they are at hand."""

import os
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from stzoo.data import Reading, open_dataset
from stzoo.data.taxinyc import FILES
from stzoo.errors import DataError, MissingExtraError

h5py = pytest.importorskip("h5py")

READING = Reading(channels=2, height=16, width=8)
REAL = Path(os.environ.get("STZOO_DATA", "/nowhere")) / "taxinyc"


def hours(first: date, days: int) -> list[str]:
    return [f"{first + timedelta(d):%Y%m%d}{h:02d}" for d in range(days) for h in range(24)]


def write(path: Path, rows: list[tuple[str, float]]) -> None:
    """Inflow is the level, outflow half of it, everywhere."""
    levels = np.array([level for _, level in rows], np.float64)
    data = np.broadcast_to(np.stack([levels, levels / 2], 1)[:, :, None, None], (len(rows), 2, 16, 8))
    with h5py.File(path, "w") as file:
        file["data"] = data
        file["date"] = np.array([when.encode() for when, _ in rows], "S10")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """2010: 3 days, a gap of one, 2 days; hour h of day d has 100 d + h + 1. 2011 to 2013: one day. 2014: 90 days."""
    for year in (2010, 2011, 2012, 2013):
        days = 3 if year == 2010 else 1
        rows = [(when, 100.0 * (i // 24) + i % 24 + 1) for i, when in enumerate(hours(date(year, 1, 1), days))]
        if year == 2010:
            rows += [(when, 400.0 + i % 24 + 1) for i, when in enumerate(hours(date(2010, 1, 5), 2))]
        write(tmp_path / f"taxinyc_{year - 2000}.h5", rows)
    write(tmp_path / FILES[-1], [(when, 1.0 + i) for i, when in enumerate(hours(date(2014, 1, 1), 90))])
    return tmp_path


def inflow(folder: Path, part: str = "train", frames: int = 24) -> torch.Tensor:
    """(clips, frames) of one cell."""
    source = open_dataset("taxinyc", folder, READING).split(part, 1, frames - 1)  # type: ignore[arg-type]
    clip = source.clips(0, len(source))
    whole = torch.cat([clip.past, clip.future], 1)
    assert whole.dtype == torch.float32
    torch.testing.assert_close(whole[:, :, 1], whole[:, :, 0] / 2)
    return whole[:, :, 0, 5, 3]


def test_windows_are_consecutive_hours_and_cross_no_gap(folder: Path) -> None:
    found = inflow(folder)
    assert len(found) == sum(24 * days - 23 for days in (3, 2, 1, 1, 1, 10))
    assert found[20].tolist() == [*range(21, 25), *range(101, 121)]  # across midnight
    assert found[24 * 3 - 23].tolist() == [*range(401, 425)]  # the first behind the gap


def test_the_last_forty_days_test_and_those_before_them_validate(folder: Path) -> None:
    data = open_dataset("taxinyc", folder, READING)
    assert inflow(folder, "test")[-1].tolist() == [*range(90 * 24 - 23, 90 * 24 + 1)]
    assert inflow(folder, "train")[-1].tolist() == [*range(9 * 24 + 1, 10 * 24 + 1)]
    told = data.describe().splitlines()
    assert "40 whole days from 2014-01-11 to 2014-02-19" in told[2]
    assert "40 whole days from 2014-02-20 to 2014-03-31" in told[3]


@pytest.mark.parametrize(("part", "first"), [("validation", 10), ("test", 50)])
def test_the_past_may_begin_before_the_part_and_no_hour_to_forecast_does(folder: Path, part: str, first: int) -> None:
    data = open_dataset("taxinyc", folder, READING)
    for frames_in in (1, 100, 10 * 24):
        source = data.split(part, frames_in, 24)  # type: ignore[arg-type]
        future = source.clips(0, len(source)).future[:, :, 0, 5, 3]
        assert future[:, 0].tolist() == [*range(first * 24 + 1, (first + 40) * 24 - 22)]
        assert future[-1, -1] == (first + 40) * 24


def test_rows_out_of_order_are_sorted_and_those_of_an_hour_are_added_up(folder: Path) -> None:
    before = inflow(folder)
    with h5py.File(folder / FILES[0]) as file:
        rows = [
            (when.decode(), float(level)) for when, level in zip(file["date"], file["data"][:, 0, 0, 0], strict=True)
        ]
    write(folder / FILES[0], [(when, level - 1) for when, level in rows[::-1]] + [(when, 1.0) for when, _ in rows])
    assert torch.equal(inflow(folder), before)


def test_a_negative_count_is_none(folder: Path) -> None:
    write(folder / FILES[1], [(when, -5.0 if i == 3 else 7.0) for i, when in enumerate(hours(date(2011, 1, 1), 1))])
    assert 0 in inflow(folder)
    assert inflow(folder).min() == 0


def test_a_day_without_two_of_its_hours_is_left_out_and_one_without_the_skipped_hour_is_not(folder: Path) -> None:
    count = len(inflow(folder))
    skipped = [(when, 0.0 if i == 2 else 7.0) for i, when in enumerate(hours(date(2011, 3, 13), 1))]
    write(folder / FILES[1], skipped)
    assert len(inflow(folder)) == count
    write(folder / FILES[1], skipped[:2] + skipped[3:])
    assert len(inflow(folder)) == count
    write(folder / FILES[1], [(when, 0.0 if i < 2 else 7.0) for i, when in enumerate(hours(date(2011, 9, 1), 1))])
    assert len(inflow(folder)) == count - 1


def test_files_that_are_absent_or_damaged(folder: Path) -> None:
    (folder / FILES[2]).unlink()
    with pytest.raises(DataError, match=rf"{FILES[2]} does not exist; TaxiNYC is the five files {FILES[0]}, .*"):
        open_dataset("taxinyc", folder, READING)
    skipping = Reading(channels=2, height=16, width=8, skip_bad=True)
    with pytest.warns(UserWarning, match=f"left out: .*{FILES[2]}"):
        assert len(open_dataset("taxinyc", folder, skipping).split("train", 12, 12)) == sum((49, 25, 1, 1, 217))
    (folder / FILES[-1]).write_bytes(b"no HDF5")
    with pytest.warns(UserWarning, match=FILES[-1]):
        data = open_dataset("taxinyc", folder, skipping)
    with pytest.raises(DataError, match="test part is empty"):
        data.split("test", 12, 12)


def test_other_content(folder: Path) -> None:
    write(folder / FILES[3], [("2013010124", 1.0)])
    with pytest.raises(DataError, match=r"date 0 is b'2013010124'; expected YYYYMMDD and an hour 00 to 23"):
        open_dataset("taxinyc", folder, READING)
    with h5py.File(folder / FILES[3], "w") as file:
        file["data"], file["date"] = np.zeros((3, 2, 8, 16)), np.array([b"2013010100"] * 3)
    with pytest.raises(DataError, match=r"data is \(3, 2, 8, 16\) and date \(3,\); expected \(N, 2, 16, 8\)"):
        open_dataset("taxinyc", folder, READING)
    write(folder / FILES[3], [(when, 1.0) for when in hours(date(2013, 1, 1), 1)])
    write(folder / FILES[-1], [(when, 1.0) for when in hours(date(2014, 1, 1), 79)])
    with pytest.raises(DataError, match="87 whole days, 79 of them in taxinyc_14"):
        open_dataset("taxinyc", folder, READING)


def test_other_frames_and_no_h5py(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="TaxiNYC has frames of 2x16x8"):
        open_dataset("taxinyc", folder, Reading(channels=2, height=8, width=16))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"stzoo\[array\]"):
        open_dataset("taxinyc", folder, READING)


@pytest.mark.skipif(not REAL.is_dir(), reason="TaxiNYC is not at hand: set STZOO_DATA")
def test_the_real_files() -> None:
    data = open_dataset("taxinyc", REAL, READING)
    assert "40 whole days from 2014-11-22 to 2014-12-31" in data.describe()
    assert len(data.split("train", 12, 12)) > 37_000
    with h5py.File(REAL / FILES[-1]) as file:
        dates, rows = file["date"][()], file["data"][()]
    clip = data.split("test", 12, 12).clips(0, 1)
    hour = rows[dates == b"2014112209"]  # the tenth of the first day
    np.testing.assert_array_equal(clip.future[0, 9].numpy(), hour.sum(0))
    with pytest.raises(DataError, match="no hour of the test part has 2208 hours without a gap before it"):
        data.split("test", 92 * 24, 24)  # since September
