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
        ("lat", "something"), ("ygrid_0", "xgrid_0"), ("YDim", "XDim"), ("dimy", "dimx"), ("yh", "xh"), ("yq", "xq"),
        ("YG", "XG"), ("nrows", "ncols"), ("nrow", "ncolumn"), ("nyt", "nxt"), ("N", "E"), ("line", "pixel"),
        ("scanline", "ground_pixel"), ("lines", "samples"), ("along_track", "cross_track"), ("latc", "lonc"),
        ("number_of_scans", "number_of_pixels"), ("y_1", "x_0"), ("imageY", "imageX"), ("northing2", "easting2"),
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


PLACES = np.add.outer(np.arange(8.0), 0.1 * np.arange(9.0))  # changes along its first dimension, mostly


@pytest.mark.parametrize(
    "coords",
    [
        {"lon": ("i", np.arange(8)), "lat": ("j", np.arange(9))},
        {"a": ("i", np.arange(8), {"units": "degrees_east"})},
        {"lon": (("i", "j"), PLACES), "lat": (("j", "i"), PLACES.T[:, ::-1] * 0 + np.arange(9)[:, None])},
        {"a": (("i", "j"), 355 + PLACES, {"units": "degrees_east"})},
        {"XLAT": (("i", "j"), np.where(np.arange(9) > 2, np.arange(9.0), np.nan) + np.zeros((8, 9)))},
        {"lon": (("i", "j"), 3 * PLACES), "lat": (("i", "j"), np.add.outer(np.arange(8), 9.0 * np.arange(9)))},
    ],
)
def test_coordinates_of_latitude_and_longitude_tell_rows_and_columns(coords: dict[str, Any]) -> None:
    for names in (("time", "i", "j"), ("time", "j", "i")):
        given = xr.DataArray(np.zeros((2, 8, 9)), dims=("time", "i", "j"), coords=coords).transpose(*names)
        assert axes_of(given, 1) == {"T": "time", "H": "j", "W": "i"}


@pytest.mark.parametrize(
    "coords",
    [
        {"lon": ("i", np.arange(8)), "lat": ("i", np.arange(8))},  # along a path
        {"lon": (("i", "j"), np.zeros((8, 9))), "lat": (("i", "j"), np.full((8, 9), np.nan))},
        {name: (("i", "j"), np.add.outer(np.arange(8), np.arange(9))) for name in ("lat", "lon")},
        {"lat": (("i", "j"), PLACES), "lon": (("i", "j"), np.full((8, 9), "there"))},
    ],
)
def test_coordinates_that_tell_nothing_leave_the_order(coords: dict[str, Any]) -> None:
    given = xr.DataArray(np.zeros((2, 8, 9)), dims=("time", "i", "j"), coords=coords)
    assert axes_of(given, 1) == {"T": "time", "H": "i", "W": "j"}


def test_of_two_dimensions_of_time_the_longer_one_is_taken_if_the_other_has_length_one() -> None:
    issued = pd.to_datetime(["2024-01-01"])
    hours = pd.timedelta_range("0h", periods=3, freq="h")
    for dims, sizes, expected in (
        (("forecast_period", "forecast_reference_time", "y", "x"), (3, 1, 4, 5), "forecast_period"),
        (("time", "step", "y", "x"), (1, 3, 4, 5), "step"),
        (("time", "lead", "y", "x"), (1, 3, 4, 5), "lead"),
        (("time", "valid_time", "y", "x"), (1, 3, 4, 5), "valid_time"),
        (("time", "step", "y", "x"), (3, 1, 4, 5), "time"),
        (("time", "step", "y", "x"), (1, 1, 4, 5), "time"),
    ):
        given = a_map(*dims, sizes=sizes)
        first = dims[0] if sizes[0] == 1 else dims[1]
        given = given.assign_coords({first: issued, expected: hours[: given.sizes[expected]]})
        assert time_of(given) == expected
        assert axes_of(given, 2, expected) == {"T": expected, "H": "y", "W": "x"}
    both = a_map("time", "step", "y", "x", sizes=(2, 3, 4, 5))
    with pytest.raises(FramesError, match=r"\.isel\(step=0\), or say with time=step \(--time step\) that this is"):
        axes_of(both, 1, time_of(both))


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
