"""Files of forecasts as the CF conventions want them, looked at with the netCDF library itself, not with xarray."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stzoo.cli.main import main
from stzoo.forecaster import Forecaster
from stzoo.frames.cf import rain_attributes

xr = pytest.importorskip("xarray")
netcdf = pytest.importorskip("netCDF4")
cftime = pytest.importorskip("cftime")


def radar(times: Sequence[Any] | np.ndarray, units: str = "1") -> Any:
    """A map on a projected grid, with what its coordinates refer to: bounds and the projection."""
    values = np.random.default_rng(0).random((len(times), 16, 12), dtype=np.float32)
    about_y = {"standard_name": "projection_y_coordinate", "units": "m", "bounds": "y_bnds"}
    return xr.Dataset(
        {
            "rain": (("time", "y", "x"), values, {"units": units, "long_name": "rain", "grid_mapping": "crs"}),
            "crs": ((), np.int32(0), {"grid_mapping_name": "transverse_mercator", "semi_major_axis": 6377397.155}),
            "y_bnds": (("y", "nv"), np.zeros((16, 2))),
        },
        coords={
            "time": ("time", times),
            "y": ("y", 1000.0 * np.arange(16)[::-1], about_y),
            "x": ("x", 1000.0 * np.arange(12), {"standard_name": "projection_x_coordinate", "units": "m"}),
            "lat": (("y", "x"), np.full((16, 12), 50.0), {"standard_name": "latitude", "units": "degrees_north"}),
        },
    )


FIVE_MINUTES = np.datetime64("2015-05-15T10:00", "ns") + np.arange(6) * np.timedelta64(5, "m")


def written(saved: Path, given: Any, *options: str) -> Any:
    """The file that `stzoo rollout` writes for a dataset, opened."""
    given.to_netcdf(saved.with_name("in.nc"))
    words = ["rollout", str(saved.with_name("in.nc")), "--model", str(saved), "--steps", "3", "--no-check"]
    assert main([*words, *options, "-o", str(saved.with_name("out.nc"))]) == 0
    return netcdf.Dataset(saved.with_name("out.nc"))


@pytest.fixture
def saved(forecaster: Forecaster, tmp_path: Path) -> Path:
    forecaster.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_forecast_says_when_it_was_made_and_on_what_grid(saved: Path, forecaster: Forecaster) -> None:
    given = radar(FIVE_MINUTES)
    with written(saved, given) as file:
        assert file.Conventions.startswith("CF-")
        rain, time, period, issued = (file[n] for n in ("rain", "time", "forecast_period", "forecast_reference_time"))
        assert rain.units == "1"
        assert set(rain.coordinates.split()) == {"lat", "forecast_period", "forecast_reference_time"}
        assert rain.grid_mapping == "crs"
        assert file["crs"].grid_mapping_name == "transverse_mercator"
        assert file["crs"].semi_major_axis == 6377397.155
    # in memory it may lie among what the file's packing was
    with xr.open_dataset(saved.with_name("in.nc"), decode_coords="all") as maps:
        coming = forecaster.predict(maps, variable="rain")
    assert "grid_mapping" not in coming.attrs
    coming.to_netcdf(saved.with_name("from_memory.nc"))
    with netcdf.Dataset(saved.with_name("from_memory.nc")) as file:
        assert file["rain"].grid_mapping == "crs"
        assert "crs" in file.variables
    with written(saved, given) as file:
        rain, time, period, issued = (file[n] for n in ("rain", "time", "forecast_period", "forecast_reference_time"))
        assert (time.standard_name, time.calendar) == ("time", "proleptic_gregorian")
        valid = netcdf.num2date(time[:], time.units, time.calendar)
        assert [str(each) for each in valid] == [f"2015-05-15 10:{m}:00" for m in (30, 35, 40)]
        assert str(netcdf.num2date(issued[...], issued.units, issued.calendar)) == "2015-05-15 10:25:00"
        assert (period.standard_name, period.units, period.dimensions) == ("forecast_period", "minutes", ("time",))
        assert period[:].tolist() == [5, 10, 15]
        assert "bounds" not in file["y"].ncattrs()  # which are not there
        assert "_FillValue" not in file["y"].ncattrs()
        np.testing.assert_array_equal(rain[:].data, forecaster.rollout(given.rain, 3).values)
        assert rain.filters()["zlib"]


def test_a_file_is_a_forecast_again_when_it_is_read(saved: Path) -> None:
    written(saved, radar(FIVE_MINUTES)).close()
    with xr.open_dataset(saved.with_name("out.nc")) as back:
        again = back.load()
    assert set(again.rain.coords) >= {"time", "y", "x", "lat", "forecast_period", "forecast_reference_time"}
    both = xr.concat(
        [radar(FIVE_MINUTES).rain.drop_vars("lat"), again.rain.drop_vars(set(again.coords) - {*"yx", "time"})], "time"
    )
    with written(saved, both.to_dataset()) as file:  # without a projection: there is none to name
        assert "grid_mapping" not in file["rain"].ncattrs()
        assert file["forecast_period"][:].tolist() == [5, 10, 15]


@pytest.mark.parametrize(
    ("times", "options", "periods"),
    [
        (FIVE_MINUTES[0] + np.arange(8) * np.timedelta64(5, "m"), ["--every", "2"], [10, 20, 30]),
        (FIVE_MINUTES[0] + np.arange(6) * np.timedelta64(90, "s"), [], [1.5, 3, 4.5]),
        (np.arange("2019-08", "2020-02", dtype="datetime64[M]").astype("M8[ns]"), [], [44640, 86400, 131040]),
        ([cftime.DatetimeNoLeap(2020, 2, day) for day in range(23, 29)], [], [1440, 2880, 4320]),
    ],
)
def test_lead_times_are_minutes(saved: Path, times: Any, options: list[str], periods: list[float]) -> None:
    with written(saved, radar(times), *options) as file:
        assert file["forecast_period"][:].tolist() == periods


def test_numbers_that_are_no_dates_have_no_lead_times(saved: Path) -> None:
    with written(saved, radar(np.arange(6.0))) as file:
        assert not {"forecast_period", "forecast_reference_time"} & set(file.variables)


@pytest.mark.parametrize(
    ("units", "name"),
    [
        ("mm h-1", "rainfall_rate"),
        ("mm/h", "rainfall_rate"),
        ("dBZ", "equivalent_reflectivity_factor"),
        ("dBR", None),
        ("K", None),
        ("1", None),
    ],
)
def test_units_of_rain_have_standard_names(units: str, name: str | None) -> None:
    assert rain_attributes({"units": units}).get("standard_name") == name
    own = {"units": units, "standard_name": "lwe_precipitation_rate", "long_name": "my rain"}
    assert not rain_attributes(own)
