"""netCDF files and Zarr stores as people have them: other names, several variables, packed and masked values."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stzoo.cli import main
from stzoo.errors import FramesError
from stzoo.forecaster import Forecaster
from stzoo.frames.fields import open_field
from stzoo.opening import create
from stzoo.spec import ModelSpec

xr = pytest.importorskip("xarray", reason="the extra `array` is not installed")
zarr = pytest.importorskip("zarr")
netcdf4 = pytest.importorskip("netCDF4")
pd = pytest.importorskip("pandas")


@pytest.fixture
def values(frames: np.ndarray) -> np.ndarray:
    """(6, 16, 16) float32 in [0, 1]."""
    return (frames / 255).astype(np.float32)


@pytest.fixture
def era5(values: np.ndarray, tmp_path: Path) -> Path:
    """A file as the Climate Data Store writes it, with one variable."""
    dims = ("valid_time", "pressure_level", "latitude", "longitude")
    hours = pd.date_range("2024-02-29T18", periods=6, freq="h")
    dataset = xr.Dataset(
        {"t": (dims, values[:, None], {"GRIB_paramId": 130})},
        {
            "valid_time": ("valid_time", hours, {"standard_name": "time"}),
            "pressure_level": [500.0],
            "latitude": ("latitude", np.linspace(60, 45, 16), {"units": "degrees_north"}),
            "longitude": ("longitude", np.arange(16.0), {"units": "degrees_east"}),
            "number": 0,
            "expver": ("valid_time", ["0001"] * 6),
        },
    )
    dataset.to_netcdf(tmp_path / "era5.nc")
    return tmp_path / "era5.nc"


def test_era5_as_it_comes_today(forecaster: Forecaster, era5: Path, values: np.ndarray) -> None:
    future = forecaster.rollout(era5, 7)
    assert future.dims == ("valid_time", "pressure_level", "latitude", "longitude")
    np.testing.assert_array_equal(future.values[:, 0], forecaster.rollout(values, 7))
    np.testing.assert_array_equal(future.valid_time.values, pd.date_range("2024-03-01", periods=7, freq="h"))
    assert future.valid_time.attrs["standard_name"] == "time"
    assert (future.pressure_level.values, future.number.item()) == ([500.0], 0)
    assert future.latitude.values[0] == 60  # which descends, as it did
    with xr.open_dataset(era5) as dataset:
        streamed = next(forecaster.stream(dataset, variable="t"))
    xr.testing.assert_identical(streamed, future.isel(valid_time=0))


def wrf(path: Path, values: np.ndarray, *, minutes: bool) -> Path:
    with netcdf4.Dataset(path, "w") as file:
        for name, size in {
            "Time": None, "DateStrLen": 19, "south_north": 16, "west_east": 16, "west_east_stag": 17,
        }.items():  # fmt: skip
            file.createDimension(name, size)
        times = file.createVariable("Times", "S1", ("Time", "DateStrLen"))
        for i in range(len(values)):
            times[i] = list(f"2000-01-24_{18 + i}:00:00")
        grid = ("Time", "south_north", "west_east")
        for name in ("XLAT", "XLONG", "LANDMASK", "T2"):
            file.createVariable(name, "f4", grid)[:] = values
        file.createVariable("U10", "f4", ("Time", "south_north", "west_east_stag"))[:] = 0
        if minutes:
            clock = file.createVariable("XTIME", "f4", ("Time",))
            clock.units, clock[:] = "minutes since 2000-01-24 18:00:00", 60 * np.arange(len(values))
            file["T2"].coordinates = "XLONG XLAT XTIME"
    return path


@pytest.mark.parametrize("minutes", [True, False])
def test_wrf(forecaster: Forecaster, values: np.ndarray, minutes: bool, tmp_path: Path) -> None:
    path = wrf(tmp_path / "wrf.nc", values, minutes=minutes)
    with pytest.raises(FramesError, match=r"there are T2, U10; choose one with variable=NAME \(on the command line"):
        forecaster.predict(path)
    future = forecaster.predict(path, variable="T2")
    assert future.dims == ("Time", "south_north", "west_east")
    np.testing.assert_array_equal(future.values, forecaster.predict(values))
    times = future["XTIME" if minutes else "Time"]
    assert times.dims == ("Time",)
    np.testing.assert_array_equal(times.values, pd.date_range("2000-01-25", periods=4, freq="h"))


def test_several_variables(
    forecaster: Forecaster, values: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    dims = ("time", "y", "x")
    dataset = xr.Dataset({"u": (dims, values), "v": (dims, values[::-1].copy())}, {"time": range(6)})
    described = dataset[["u"]].assign(
        mask=(dims, values), u_bnds=((*dims, "bnds"), np.stack([values, values], -1)),
        quality=(dims, np.zeros((6, 16, 16), np.uint8), {"flag_values": [0, 1]}), crs=0, edges=(dims, values),
    )  # fmt: skip
    described.u.attrs["ancillary_variables"] = "edges"
    for suffix in ("nc", "zarr"):
        for name, each in {"two": dataset, "one": described}.items():
            path = tmp_path / f"{name}.{suffix}"
            each.to_netcdf(path) if suffix == "nc" else each.to_zarr(path, consolidated=False)
        np.testing.assert_array_equal(forecaster.predict(tmp_path / f"one.{suffix}"), forecaster.predict(values))
        two = tmp_path / f"two.{suffix}"
        for wrong, message in (("w", "'w' is not there; there are u, v"), ("time", "'time' is no map.*there are u, v")):
            with pytest.raises(FramesError, match=rf"two\.{suffix}: the variable {message}"):
                forecaster.predict(two, variable=wrong)
        expected = forecaster.predict(values[::-1].copy())
        np.testing.assert_array_equal(forecaster.predict(two, variable="v"), expected)
        command = ["predict", str(two), "--model", str(tmp_path / "model"), "-o", str(tmp_path / f"out.{suffix}")]
        assert main(command) == 2
        assert "--variable NAME" in capsys.readouterr().err
        assert main([*command, "--variable", "v"]) == 0
        capsys.readouterr()
        with open_field(tmp_path / f"out.{suffix}") as field:
            np.testing.assert_array_equal(field, expected)
    np.testing.assert_array_equal(forecaster.predict(dataset, variable="v"), expected)
    np.testing.assert_array_equal(forecaster.predict(described), forecaster.predict(values))
    with pytest.raises(FramesError, match="variable is 'w', but a DataArray is one variable already"):
        forecaster.predict(dataset.u, variable="w")


def test_the_time_is_what_the_caller_says(
    forecaster: Forecaster, values: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    xr.DataArray(values, dims=("scan", "y", "x"), name="rain").to_netcdf(tmp_path / "a.nc")
    command = ["rollout", str(tmp_path / "a.nc"), "--model", str(tmp_path / "model"), "--steps", "5"]
    command += ["-o", str(tmp_path / "b.nc")]
    assert main(command) == 2
    assert "given scan: 6, y: 16, x: 16; say which it is with time=NAME" in capsys.readouterr().err
    assert main([*command, "--time", "scan"]) == 0
    with xr.open_dataarray(tmp_path / "b.nc") as got:
        assert got.dims == ("scan", "y", "x")
        np.testing.assert_array_equal(got, forecaster.rollout(values, 5))


def test_variable_and_time_are_for_maps(forecaster: Forecaster, values: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", u=values, v=values[::-1])
    np.testing.assert_array_equal(
        forecaster.predict(tmp_path / "a.npz", variable="v"), forecaster.predict(values[::-1])
    )
    for given, message in (
        (values, "given a ndarray, so leave them out"),
        (tmp_path / "a.npy", r"a\.npy is neither"),
    ):
        with pytest.raises(FramesError, match=message):
            forecaster.predict(given, variable="u")
    with pytest.raises(FramesError, match=r"a\.npz is none"):
        forecaster.predict(tmp_path / "a.npz", time="t")


UNITS = ("months since 2000-01-15", "years since 1990-01-01", "fortnights since 2000-01-01", "hours since 0000-00-00")


@pytest.mark.parametrize("unit", UNITS)
def test_times_in_units_without_dates_stay_numbers(
    forecaster: Forecaster, values: np.ndarray, unit: str, tmp_path: Path
) -> None:
    given = xr.DataArray(values, {"time": ("time", np.arange(6.0), {"units": unit})}, ("time", "y", "x"), "sst")
    given.to_netcdf(tmp_path / "a.nc")
    future = forecaster.predict(tmp_path / "a.nc")
    np.testing.assert_array_equal(future.values, forecaster.predict(values))
    assert (future.time.values.tolist(), future.time.attrs["units"]) == ([6, 7, 8, 9], unit)


@pytest.mark.parametrize("calendar", ["360_day", "noleap"])
def test_times_of_other_calendars(forecaster: Forecaster, values: np.ndarray, calendar: str, tmp_path: Path) -> None:
    clock = ("time", np.arange(6.0), {"units": "days since 2004-02-23", "calendar": calendar})
    xr.DataArray(values, {"time": clock}, ("time", "y", "x"), "sst").to_netcdf(tmp_path / "a.nc")
    future = forecaster.predict(tmp_path / "a.nc")
    days = [(date.month, date.day) for date in future.time.values]
    assert days == {"360_day": [(2, 29), (2, 30), (3, 1), (3, 2)], "noleap": [(3, 1), (3, 2), (3, 3), (3, 4)]}[calendar]


def store(path: Path, values: np.ndarray, version: Any, fill: Any, **attributes: Any) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=version)
    names = ["time", "y", "x"]
    options: dict[str, Any] = {"dimension_names": names} if version == 3 else {}
    for name, each in {"v": values, "time": np.arange(len(values))}.items():
        axes = names[: each.ndim]
        extra = {"dimension_names": axes} if options else {}
        array = group.create_array(
            name, shape=each.shape, dtype=each.dtype, fill_value=0 if name == "time" else fill, **extra
        )
        array[:] = each
        array.attrs.update(({} if options else {"_ARRAY_DIMENSIONS": axes}) | (attributes if name == "v" else {}))
    return path


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("fill", [0, 1, 255])
def test_a_fill_value_of_zarr_is_a_value(
    forecaster: Forecaster, frames: np.ndarray, version: int, fill: int, tmp_path: Path
) -> None:
    frames = np.where(frames < 80, fill, frames).astype(np.uint8)
    future = forecaster.predict(store(tmp_path / "a.zarr", frames, version, fill))
    assert future.dtype == np.uint8
    np.testing.assert_array_equal(future.values, forecaster.predict(frames))
    assert future.time.values.tolist() == [6, 7, 8, 9]  # the time 0 is no missing one
    values = np.where(frames < 100, fill // 255, frames / 255).astype(np.float32)
    future = forecaster.predict(store(tmp_path / "b.zarr", values, version, fill // 255))
    np.testing.assert_array_equal(future.values, forecaster.predict(values))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("stated", ["number", "encoded", "missing_value"])
def test_attributes_say_what_is_missing(
    spec: ModelSpec, values: np.ndarray, version: int, stated: str, tmp_path: Path
) -> None:
    model = create(spec.replace(fill=0.5))
    holes = np.where(values < 0.3, np.float32(-1), values)
    said = {
        "number": {"_FillValue": -1.0},
        "encoded": {"_FillValue": "AAAAAAAA8L8="},  # -1.0 as xarray writes it
        "missing_value": {"missing_value": -1.0},
    }[stated]
    future = model.predict(store(tmp_path / "a.zarr", holes, version, 0, **said))
    expected = model.predict(np.where(values < 0.3, np.float32(0.5), values))
    np.testing.assert_array_equal(future.values, expected)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("packed", [True, False])
def test_what_xarray_masks_is_masked(
    spec: ModelSpec, values: np.ndarray, version: Any, packed: bool, tmp_path: Path
) -> None:
    """In format 2, xarray writes `_FillValue` as the array's fill value, and nowhere else."""
    model = create(spec.replace(fill=0.5))
    field = xr.DataArray(values, dims=("time", "y", "x"), name="v").where(values >= 0.3)
    how = {"dtype": "int16", "scale_factor": 1e-3, "_FillValue": -1} if packed else {"_FillValue": -9999.0}
    field.to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=False, encoding={"v": how})
    future = model.predict(tmp_path / "a.zarr")
    np.testing.assert_allclose(future.values, model.predict(field.fillna(0.5).values), atol=5e-3)


@pytest.mark.parametrize("version", [2, 3])
def test_packed_integers_come_back_as_plain_floats(
    forecaster: Forecaster, values: np.ndarray, version: Any, tmp_path: Path
) -> None:
    packed = np.round((values - 0.5) * 1000).astype(np.int16)
    path = store(tmp_path / "a.zarr", packed, version, 0, scale_factor=1e-3, add_offset=0.5)
    future = forecaster.predict(path)
    assert future.dtype.kind == "f"
    np.testing.assert_allclose(future.values, forecaster.predict(packed * 1e-3 + 0.5), atol=1e-5)
    assert not {"scale_factor", "add_offset"} & {*future.attrs, *future.encoding}
    with (
        xr.open_dataset(path, engine="zarr", consolidated=False, mask_and_scale=False) as raw,
        pytest.raises(FramesError, match=r"packed integers, as the attribute scale_factor says; unpack"),
    ):
        forecaster.predict(raw.v)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.grib", "is a GRIB file, which is not read; convert it to netCDF"),
        ("a.GRB2", "is a GRIB file"),
        ("a.h5", r"is an HDF5 file, which does not name its axes.*h5py\.File\(PATH\)\[NAME\]"),
    ],
)
def test_other_formats_are_refused_with_the_way_out(
    forecaster: Forecaster, name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FramesError, match=f"does not exist, and {message}"):
        forecaster.predict(tmp_path / name)
    (tmp_path / name).write_bytes(b"GRIB")
    with pytest.raises(FramesError, match=f"{name} {message}"):
        forecaster.predict(tmp_path / name)
    assert main(["predict", str(tmp_path / name), "--model", "tau-mmnist", "-o", str(tmp_path / "b.nc")]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_stated_fill_values_are_read_within_bounds(forecaster: Forecaster, values: np.ndarray, tmp_path: Path) -> None:
    path = store(tmp_path / "a.zarr", values, 2, 0)
    (path / "v" / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": ["time", "y", "x"], "_FillValue": "nonsense"}))
    np.testing.assert_array_equal(forecaster.predict(path).values, forecaster.predict(values))
    (path / "v" / ".zattrs").write_text("[" * 100_000)
    with pytest.raises(FramesError, match=r"a\.zarr"):
        forecaster.predict(path)
