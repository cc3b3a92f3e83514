"""How the times of a map go on: at equal steps, by calendar months, and in the form in which they are written."""

from itertools import islice
from typing import Any

import numpy as np
import pytest

from stzoo.errors import FramesError
from stzoo.frames.times import continued, dates_in_text

pd = pytest.importorskip("pandas")
cftime = pytest.importorskip("cftime")


def after(times: Any, count: int = 3, *, counted: bool = False) -> list[Any]:
    return [each.item() for each in islice(continued(np.asarray(times), "time", counted=counted), count)]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pd.date_range("2023-07-01", periods=3, freq="MS"), ["2023-10-01", "2023-11-01", "2023-12-01"]),  # 31 days each
        (pd.date_range("2023-09-15", periods=3, freq="MS") + pd.Timedelta("14D"), ["2024-01-15", "2024-02-15", None]),
        (pd.date_range("2023-08-01", periods=3, freq="3MS"), ["2024-05-01", "2024-08-01", "2024-11-01"]),
        (pd.date_range("2019-01-01", periods=3, freq="YS"), ["2022-01-01", "2023-01-01", "2024-01-01"]),
        (pd.date_range("2024-02-27", periods=2), ["2024-02-29", "2024-03-01", "2024-03-02"]),
    ],
)
def test_dates_go_on_by_months_or_by_days(times: Any, expected: list[str | None]) -> None:
    got = list(islice(continued(times.to_numpy(), "time", counted=False), 3))
    assert {each.dtype for each in got} == {times.dtype}
    for each, day in zip(got, expected, strict=True):
        assert day is None or each == np.datetime64(day)


@pytest.mark.parametrize("kind", ["DatetimeNoLeap", "Datetime360Day", "DatetimeGregorian", "DatetimeJulian"])
def test_dates_of_other_calendars_go_on_by_months(kind: str) -> None:
    date = getattr(cftime, kind)
    got = after(np.array([date(2023, month, 16, 12) for month in (10, 11, 12)], object))
    assert got == [date(2024, month, 16, 12) for month in (1, 2, 3)]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["2024-02-27", "2024-02-28", "2024-02-29"], ["2024-03-01", "2024-03-02", "2024-03-03"]),
        (["2024-12-31T22:00", "2024-12-31T23:00"], ["2025-01-01T00:00", "2025-01-01T01:00", "2025-01-01T02:00"]),
        (["2024-12-31 23:50Z", "2024-12-31 23:55Z"], ["2025-01-01 00:00Z", "2025-01-01 00:05Z", "2025-01-01 00:10Z"]),
        (["2000-01-31_23:00:00", "2000-02-01_00:00:00"], [f"2000-02-01_0{hour}:00:00" for hour in (1, 2, 3)]),
        (["2024-11", "2024-12"], ["2025-01", "2025-02", "2025-03"]),
        (["20240228", "20240229"], ["20240301", "20240302", "20240303"]),
        ([20240228, 20240229], [20240301, 20240302, 20240303]),
        ([20240228.0, 20240229.0], [20240301.0, 20240302.0, 20240303.0]),
        ([20240228.5, 20240228.75], [20240229.0, 20240229.25, 20240229.5]),
        ([2024022822, 2024022823], [2024022900, 2024022901, 2024022902]),
        ([202402292350, 202402292355], [202403010000, 202403010005, 202403010010]),
        ([200010, 200011, 200012], [200101, 200102, 200103]),
        ([200008.0, 200010.0, 200012.0], [200102.0, 200104.0, 200106.0]),
        (["200011", "200012"], ["200101", "200102", "200103"]),
        ([2024365, 2024366], [2025001, 2025002, 2025003]),
        ([2023365.5, 2024001.0], [2024001.5, 2024002.0, 2024002.5]),
        ([*range(200006, 200013), *range(200101, 200103)], [200103, 200104, 200105]),
        ([100000, 100001], [100002, 100003, 100004]),
        ([200012, 200013], [200014, 200015, 200016]),
        ([2024365, 2024367], [2024369, 2024371, 2024373]),
        ([240219.5, 240220.5], [240221.5, 240222.5, 240223.5]),
        ([7, 8], [9, 10, 11]),
        ([0.25, 0.5], [0.75, 1.0, 1.25]),
        ([1704067200, 1704067260], [1704067320, 1704067380, 1704067440]),
    ],
)
def test_times_go_on_as_they_are_written(times: list[Any], expected: list[Any]) -> None:
    assert after(times) == expected


def test_numbers_with_a_unit_are_no_dates() -> None:
    assert after([20240228, 20240229], counted=True) == [20240230, 20240231, 20240232]


def test_bytes_stay_bytes() -> None:
    assert after(np.array([b"2000-01-24_12:00:00", b"2000-01-24_13:00:00"]), 1) == [b"2000-01-24_14:00:00"]


@pytest.mark.parametrize(
    "times",
    [
        ["2024-01-01", "2024-01-02", "2024-01-04"],
        ["2024-01-01", "2024-02-30"],
        ["Monday", "Tuesday"],
        pd.to_datetime(["2020-01-31", "2020-02-29", "2020-03-31"]).to_numpy(),
        [cftime.DatetimeNoLeap(2020, 1, 31), cftime.DatetimeNoLeap(2020, 2, 28), cftime.DatetimeNoLeap(2020, 3, 31)],
        [5],
    ],
)
def test_times_that_cannot_go_on_are_named(times: Any) -> None:
    with pytest.raises(FramesError, match=r"cannot be continued.*same day of every month.*drop_vars\('when'\)"):
        continued(np.asarray(times), "when", counted=False)


@pytest.mark.parametrize(
    ("times", "fault"),
    [
        (["19.02.2024", "20.02.2024"], r"the form of '19.02.2024' is not read; write dates as 2024-01-31"),
        (["2024-02-28T14:00:00+01:00", "2024-02-28T15:00:00+01:00"], r"the time zone of '.*01:00' is not read; .* UTC"),
        ([240219, 240220], "240219 may be a date with a year of two digits"),
        (["240219", "240220"], "240219 may be a date with a year of two digits"),
        ([20240129, 20240229, 20240329], "20240229 and 20240329 are 29 days, 0:00:00 apart, and most are 31 days"),
        (np.array(["2024-01-01", "2024-01-02", "NaT"], "M8[ns]"), r"number 2 of them, .* is missing \(NaT\)"),
        ([0.0, float("nan")], r"number 1 of them, .* is missing \(nan\)"),
        ([3, 2, 1], "they descend"),
        (np.array([3, 2, 1], "u1"), "they descend"),
        ([1, 2, 2, 3], "two neighbours are the same, 2 and 2"),
        ([1, 3, 2], "3 and 2 are in falling order"),
        ([1, 2, 4, 5], "2 and 4 are 2 apart, and most are 1 apart"),
        (np.array(["2024-01-01T00", "2024-01-01T01", "2024-01-01T03", "2024-01-01T04"], "M8[s]"), "2:00:00 apart, and"),
        ([cftime.DatetimeNoLeap(2020, 1, d) for d in (1, 2, 4, 5)], "2 days, 0:00:00 apart, and most are 1 day, 0"),
        ([5], "there is only one"),
    ],
)
def test_what_is_wrong_with_times_is_said(times: Any, fault: str) -> None:
    with pytest.raises(FramesError, match=rf"cannot be continued: .*{fault}.*They must be"):
        continued(np.asarray(times), "when", counted=False)


@pytest.mark.parametrize("times", [["9999-12-30", "9999-12-31"], ["9999-12-31T22:00", "9999-12-31T23:00"]])
def test_dates_that_are_written_end_with_the_year_9999(times: Any) -> None:
    with pytest.raises(FramesError, match="the times reach the year 10000"):
        after(times, 1)


def test_text_that_is_no_date_is_left_alone() -> None:
    assert dates_in_text(np.array(["north", "south"])) is None
    assert dates_in_text(np.arange(3)) is None
