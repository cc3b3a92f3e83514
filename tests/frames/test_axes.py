"""Which dimension of a map is which: by name, by CF attributes, and otherwise by a refusal that says what to do."""

from typing import Any

import numpy as np
import pytest

from stzoo.errors import FramesError
from stzoo.frames.axes import as_layout, axes_of, time_of

xr = pytest.importorskip("xarray", reason="the extra `array` is not installed")
pd = pytest.importorskip("pandas")
cftime = pytest.importorskip("cftime")


def a_map(*dims: str, sizes: tuple[int, ...] = (), **coords: Any) -> Any:
    return xr.DataArray(np.zeros(sizes or range(2, 2 + len(dims)), np.float32), dims=dims, coords=coords)


@pytest.mark.parametrize(
    "name", ["time", "valid_time", "Time", "TIME", "t", "datetime", "date", "time_counter", "ocean_time", "step"]
)
def test_time_is_known_by_its_name(name: str) -> None:
    assert time_of(a_map("y", name, "x")) == name


CLOCKS = {
    "standard_name": ("a", [1, 2], {"standard_name": "time"}),
    "axis": ("a", [1, 2], {"axis": "T"}),
    "unit": ("a", [1, 2], {"units": "months since 2000-01-01"}),
    "dates": ("a", pd.date_range("2020", periods=2), {}),
    "dates of cftime": ("a", [cftime.Datetime360Day(2000, 2, d) for d in (29, 30)], {}),
}


@pytest.mark.parametrize("kind", CLOCKS)
def test_time_is_known_by_its_coordinate(kind: str) -> None:
    assert time_of(a_map("a", "y", "x", a=CLOCKS[kind])) == "a"
    if kind not in ("axis", "unit"):
        assert time_of(a_map("a", "y", "x", when=CLOCKS[kind])) == "a"


def test_a_dimension_called_time_is_the_time_and_the_caller_decides_where_it_is_not_clear() -> None:
    assert time_of(a_map("valid_time", "time", "y", "x")) == "time"
    assert time_of(a_map("t", "date", "y", "x", date=("date", range(3), {"axis": "T"}))) == "date"
    with pytest.raises(FramesError, match=r"the time may be valid_time or t, given valid_time: 2, t: 3.*time=NAME"):
        time_of(a_map("valid_time", "t", "y"))
    assert time_of(a_map("valid_time", "t", "y"), "t") == "t"
    assert time_of(a_map("a", "y", "x", when=CLOCKS["dates"]), "when") == "a"
    with pytest.raises(FramesError, match="no dimension is named 'z', given t: 2, y: 3"):
        time_of(a_map("t", "y"), "z")
    with pytest.raises(FramesError, match=r"expected a dimension named time, given a: 2, b: 3.*--time NAME"):
        time_of(a_map("a", "b"))


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ("y", "x"), ("latitude", "longitude"), ("lat", "lon"), ("rlat", "rlon"), ("northing", "easting"),
        ("south_north", "west_east"), ("south_north_stag", "west_east"), ("south_north", "west_east_stag"),
        ("projection_y_coordinate", "projection_x_coordinate"), ("ny", "nx"), ("nj", "ni"), ("nlat", "nlon"),
        ("lat_0", "lon_0"), ("nav_lat", "nav_lon"), ("eta_rho", "xi_rho"), ("yc", "xc"), ("grid_yt", "grid_xt"),
        ("Y", "X"), ("Latitude", "Longitude"), ("rows", "cols"), ("level", "lon"), ("something", "x"),
        ("lat", "something"),
    ],
)  # fmt: skip
def test_rows_and_columns_are_known_by_name_in_any_order(rows: str, columns: str) -> None:
    for dims in (("time", rows, columns), ("time", columns, rows), (columns, "time", rows)):
        assert axes_of(a_map(*dims), 1) == {"T": "time", "H": rows, "W": columns}


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ({"axis": "Y"}, {"axis": "X"}),
        ({"standard_name": "grid_latitude"}, {"standard_name": "grid_longitude"}),
        ({"standard_name": "projection_y_coordinate"}, {}),
        ({}, {"units": "degrees_east"}),
        ({"units": "degree_N"}, {"units": "degreesE"}),
    ],
)
def test_rows_and_columns_are_known_by_attributes(rows: dict[str, str], columns: dict[str, str]) -> None:
    given = a_map("time", "i", "j", i=("i", range(3), columns), j=("j", range(4), rows))
    assert axes_of(given, 1) == {"T": "time", "H": "j", "W": "i"}


def test_where_nothing_tells_the_order_holds() -> None:
    for dims in (("time", "i", "j"), ("time", "line", "pixel"), ("time", "dim_1", "dim_2")):
        assert axes_of(a_map(*dims), 1) == {"T": "time", "H": dims[1], "W": dims[2]}
    assert axes_of(a_map("time", "level", "lat"), 1) == {"T": "time", "H": "level", "W": "lat"}  # a section
    with pytest.raises(FramesError, match=r"given time: 2, x: 3, column: 4; rename dimensions, such as to y \(rows\)"):
        axes_of(a_map("time", "x", "column"), 1)
    with pytest.raises(FramesError, match=r"time \(here t\), two of space.*height: 4.*select.*\.isel\(height=0\)"):
        axes_of(a_map("t", "y", "height", "x", sizes=(2, 3, 4, 5)), 1, "t")


def test_dimensions_of_length_one_are_left_out() -> None:
    given = a_map("number", "expver", "time", "level", "y", "height", "x", sizes=(1, 1, 2, 1, 3, 1, 4))
    axes = axes_of(given, 1)
    assert axes == {"B": "number", "T": "time", "H": "y", "W": "x"}
    assert as_layout(given, axes).dims == ("number", "time", "y", "x")
    pair = a_map("time", "level", "band", "x", "y", sizes=(2, 1, 3, 5, 4))
    assert axes_of(pair, 3) == {"T": "time", "C": "band", "H": "y", "W": "x"}
    assert axes_of(a_map("time", "polarisation", "level", "i", "j", sizes=(2, 3, 1, 5, 4)), 3) == {
        "T": "time", "C": "polarisation", "H": "i", "W": "j",
    }  # fmt: skip
