import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stzoo import frames as room
from stzoo.codec import load_codec
from stzoo.errors import FramesError, MissingExtraError
from stzoo.forecaster import Forecaster
from stzoo.opening import create
from stzoo.spec import ModelSpec

xr = pytest.importorskip("xarray", reason="the extra `array` is not installed")
pd = pytest.importorskip("pandas")
cftime = pytest.importorskip("cftime")


@pytest.fixture
def field(frames: np.ndarray) -> Any:
    """Six hours of float32 in [0, 1], with coordinates of every sort."""
    return xr.DataArray(
        (frames / 255).astype(np.float32),
        dims=("time", "latitude", "longitude"),
        name="t2m",
        attrs={"units": "1"},
        coords={
            "time": ("time", pd.date_range("2019-02-28T20", periods=6, freq="h"), {"long_name": "valid time"}),
            "latitude": ("latitude", np.linspace(58, 50, 16), {"units": "degrees_north"}),
            "longitude": np.arange(16),
            "area": (("latitude", "longitude"), np.ones((16, 16))),
            "level": 850,
            "age": ("time", np.arange(6)),
        },
    )


def test_a_list_of_maps_is_one_map_after_the_remedy_in_its_error(forecaster: Forecaster, field: Any) -> None:
    maps = list(field)
    with pytest.raises(FramesError, match=r'a list of DataArray; make one map .* xarray.concat\(frames, "time"\)'):
        forecaster.predict(maps)
    xr.testing.assert_equal(forecaster.predict(xr.concat(maps, "time")), forecaster.predict(field))


def test_a_dataarray_comes_back_with_its_times_continued(
    forecaster: Forecaster, frames: np.ndarray, field: Any
) -> None:
    future = forecaster.rollout(field, steps=12)
    np.testing.assert_array_equal(future.values, forecaster.rollout((frames / 255).astype(np.float32), 12))
    expected = np.datetime64("2019-03-01T02") + np.arange(12) * np.timedelta64(1, "h")
    np.testing.assert_array_equal(future.time.values, expected)
    assert future.time.attrs == {"long_name": "valid time"}
    assert (future.dims, future.name, future.attrs, future.dtype) == (field.dims, "t2m", {"units": "1"}, np.float32)
    assert set(future.coords) == {"time", "latitude", "longitude", "area", "level"}
    for name in ("latitude", "longitude", "area", "level"):
        xr.testing.assert_identical(future[name].variable, field[name].variable)
    both = xr.concat([field.drop_vars("age"), future], "time")
    assert len(set(np.diff(both.time.values))) == 1
    assert field.sel(time="2019-03-01T00").size == both.sel(time="2019-03-01T00").size


def test_a_stream_yields_frames_with_their_times(forecaster: Forecaster, field: Any) -> None:
    stream = forecaster.stream(field)
    future = forecaster.rollout(field, 9)
    for i in range(9):
        xr.testing.assert_identical(next(stream), future.isel(time=i))


TIMES: dict[str, tuple[Any, Any]] = {
    "days": (pd.date_range("2020-02-25", periods=6), pd.date_range("2020-03-02", periods=5)),
    "no leap days": (
        [cftime.DatetimeNoLeap(2020, 2, d) for d in range(23, 29)],
        [cftime.DatetimeNoLeap(2020, 3, d) for d in range(1, 6)],
    ),
    "months of 30 days": (
        [cftime.Datetime360Day(2020, m, 30) for m in range(1, 7)],
        [cftime.Datetime360Day(2020, m, 30) for m in range(7, 12)],
    ),
    "minutes": (np.arange(0, 30, 5), np.arange(30, 55, 5)),
    "small integers": (np.arange(250, 256, dtype=np.uint8), np.arange(256, 261)),
    "seconds": (np.arange(6) * 0.1, 0.6 + np.arange(5) * 0.1),
    "float32 days": ((np.arange(6) / 24).astype(np.float32), (np.arange(6, 11) / 24).astype(np.float32)),
    "lead times": (pd.to_timedelta(np.arange(6) * 6, "h"), pd.to_timedelta(np.arange(6, 11) * 6, "h")),
    "dates that were rounded": (
        np.array(["2020-01-01T00:00", "2020-01-01T00:59:59.900", "2020-01-01T02", "2020-01-01T03"], "datetime64[ns]"),
        None,
    ),
}


@pytest.mark.parametrize("kind", TIMES)
def test_times_of_every_kind_go_on(forecaster: Forecaster, field: Any, kind: str) -> None:
    past, expected = TIMES[kind]
    given = field.isel(time=slice(len(past))).assign_coords(time=past)
    times = forecaster.rollout(given, 5).time
    if expected is None:
        hours = (times.values - np.datetime64("2020-01-01")) / np.timedelta64(1, "h")
        np.testing.assert_allclose(hours, range(4, 9), atol=1e-3)
    elif np.asarray(past).dtype.kind == "f":
        np.testing.assert_allclose(times.values, expected, rtol=1e-6)
    else:
        np.testing.assert_array_equal(times.values, np.asarray(expected))
    assert times.dtype == given.time.dtype or kind == "small integers"


def test_every_kth_frame_has_k_times_the_step(forecaster: Forecaster, field: Any) -> None:
    long = xr.concat([field.drop_vars("time")] * 3, "time").assign_coords(time=pd.date_range("2020", periods=18))
    future = forecaster.predict(long, every=4)
    np.testing.assert_array_equal(future.time.values, pd.date_range("2020-01-21", periods=4, freq="4D"))
    xr.testing.assert_identical(future, forecaster.predict(long.isel(time=[4, 8, 12, 16])))


@pytest.mark.parametrize(
    "times",
    [
        pd.to_datetime(["2020-01-31", "2020-02-29", "2020-03-31", "2020-04-30"]),
        pd.to_datetime(["2020-01-01"] * 4),
        pd.to_datetime(["2020-01-04", "2020-01-03", "2020-01-02", "2020-01-01"]),
        pd.to_datetime(["2020-01-01", "2020-01-02", None, "2020-01-04"]),
        [0.0, 1.0, np.nan, 3.0],
        ["a", "b", "c", "d"],
        [True, False, True, False],
    ],
)
def test_times_without_a_step_are_refused(forecaster: Forecaster, field: Any, times: Any) -> None:
    given = field.isel(time=slice(4)).assign_coords(time=times)
    with pytest.raises(FramesError, match=r"cannot be continued.*drop_vars\('time'\)"):
        forecaster.predict(given)
    with pytest.raises(FramesError, match="cannot be continued"):
        forecaster.stream(given)  # at once, not at the first frame
    assert "time" not in forecaster.predict(given.drop_vars("time")).coords


def test_only_the_times_that_are_used_must_have_a_step(spec: ModelSpec, field: Any) -> None:
    times = [0, 7, 10, 11, 12, 13]
    assert create(spec).predict(field.assign_coords(time=times)).time.values.tolist() == [14, 15, 16, 17]
    one = create(spec.replace(frames_in=1, frames_out=1))
    assert one.predict(field.assign_coords(time=times)).time.values.tolist() == [14]
    with pytest.raises(FramesError, match="at least two"):
        one.predict(field.isel(time=[0]))


def test_dimensions_may_stand_in_any_order(forecaster: Forecaster, field: Any) -> None:
    expected = forecaster.predict(field)
    for dims in (("longitude", "time", "latitude"), ("latitude", "longitude", "time")):
        future = forecaster.predict(field.transpose(*dims))
        assert future.dims == dims
        xr.testing.assert_identical(future.transpose(*expected.dims), expected)
    renamed = field.drop_vars(["latitude", "longitude", "area"]).rename(latitude="i", longitude="j")
    np.testing.assert_array_equal(forecaster.predict(renamed).values, expected.values)


def test_channels_and_samples(spec: ModelSpec, field: Any) -> None:
    torch.manual_seed(0)
    model = create(spec.replace(channels=2))
    pair = xr.concat([field, 1 - field], pd.Index(["u", "v"], name="variable")).drop_vars("age")
    batch = xr.concat([pair, pair.copy(data=pair.values[..., ::-1])], pd.Index([3, 7], name="sample"))
    future = model.rollout(batch, 6)
    assert future.dims == batch.dims
    assert future.coords["variable"].values.tolist() == ["u", "v"]
    for sample in (3, 7):
        alone = model.rollout(batch.sel(sample=sample).transpose("time", "variable", ...), 6)
        np.testing.assert_allclose(
            future.sel(sample=sample).transpose(*alone.dims).values, alone.values, rtol=1e-5, atol=1e-6
        )
    by_size = model.rollout(pair.rename(variable="polarisation"), 6)  # the only one left, and of the right size
    np.testing.assert_allclose(by_size.values, model.rollout(pair, 6).values, rtol=1e-5, atol=1e-6)
    with pytest.raises(FramesError, match=r"expected the dimensions time.*level: 5.*\.isel"):
        model.predict(pair.drop_vars("level").expand_dims(level=5))
    with pytest.raises(FramesError, match=r"expected \(T>=4, 2, H, W\) .* the model takes 2 channels"):
        model.predict(field)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64", ">f4"])
def test_dtypes_are_those_of_arrays(forecaster: Forecaster, frames: np.ndarray, field: Any, dtype: str) -> None:
    values = frames.astype(dtype) if dtype in ("uint8", "int16") else (frames / 255).astype(dtype)
    future = forecaster.rollout(field.copy(data=values), 5)
    assert future.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(future.values, forecaster.rollout(values, 5))


def test_missing_values_are_the_specs_affair(spec: ModelSpec, forecaster: Forecaster, field: Any) -> None:
    holes = field.where(field.latitude < 57)
    with pytest.raises(FramesError, match="holds NaN"):
        forecaster.predict(holes)
    torch.manual_seed(0)
    filling = create(spec.replace(fill=0.5))
    xr.testing.assert_identical(filling.predict(holes), filling.predict(holes.fillna(0.5)))


def test_bad_input_is_refused_with_the_way_out(forecaster: Forecaster, field: Any) -> None:
    cases: list[tuple[Any, str]] = [
        (
            field.to_dataset().assign(z=field),
            r"expected one variable .*there are t2m, z; choose one with variable=NAME",
        ),
        (field.mean("time").to_dataset(), "expected one variable over time and space, there are none among t2m"),
        (field.drop_vars("time").rename(time="frame"), r"dimension named time, given frame: 6, .*rename"),
        (field.isel(latitude=0), "expected the dimensions time, two of space"),
        (field.isel(time=slice(3)), "at least 4 past frames, given 3"),
        (field * 2, r"expected values in \[0, 1\]"),
        (field.astype(str), "no agreed scale"),
    ]
    for given, message in cases:
        with pytest.raises(FramesError, match=message):
            forecaster.predict(given)
    with pytest.raises(FramesError, match=r"a map is not resized, .*DataArray\.interp"):
        forecaster.predict(field, resize=True)
    with pytest.raises(FramesError, match=r"color='gray' .* is for pictures and arrays; .*mean"):
        forecaster.predict(field, color="gray")


def test_a_map_of_any_size_comes_back_at_its_own(forecaster: Forecaster, field: Any) -> None:
    """With its coordinates, as the array of its values does."""
    odd = field.isel(latitude=slice(15), longitude=slice(13))
    future = forecaster.rollout(odd, 6)
    xr.testing.assert_identical(future.latitude, odd.latitude)
    xr.testing.assert_identical(future.longitude, odd.longitude)
    np.testing.assert_array_equal(future.values, forecaster.rollout(odd.values, 6))


class Counted(xr.backends.BackendArray):
    """A lazy array that writes down which times were asked for."""

    def __init__(self, values: np.ndarray):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.asked: list[Any] = []

    def __getitem__(self, key: Any) -> np.ndarray:
        self.asked.append(key.tuple[0])
        return self.values[key.tuple]


def test_only_the_frames_that_the_model_reads_are_loaded(forecaster: Forecaster, field: Any) -> None:
    lazy = Counted(field.values)
    variable = xr.Variable(field.dims, xr.core.indexing.LazilyIndexedArray(lazy))
    given = xr.DataArray(variable, coords={"time": field.time})
    np.testing.assert_array_equal(forecaster.predict(given).values, forecaster.predict(field).values)
    assert lazy.asked == [slice(2, 6, 1)]


def test_dask_arrays_work(forecaster: Forecaster, field: Any) -> None:
    pytest.importorskip("dask")
    xr.testing.assert_identical(forecaster.predict(field.chunk(time=2)), forecaster.predict(field))


def test_codecs_keep_the_times_of_the_frames(field: Any) -> None:
    codec = load_codec("vqvae-mmnist", pretrained=False)
    given = field.isel(time=[0, 1, 3])
    painted = codec.reconstruct(given)
    np.testing.assert_array_equal(painted.time.values, given.time.values)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.filterwarnings("error")
def test_files_are_read_and_written_like_dataarrays(
    forecaster: Forecaster, field: Any, suffix: str, tmp_path: Path
) -> None:
    path, out = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    bounds = xr.DataArray(np.zeros((6, 2)), dims=("time", "bounds"))
    dataset = field.drop_vars("time").assign_coords(time=field.time).to_dataset().assign(time_bounds=bounds)
    dataset.to_netcdf(path) if suffix == ".nc" else dataset.to_zarr(path, consolidated=False)
    future = forecaster.rollout(path, 7)
    expected = forecaster.rollout(field, 7)
    np.testing.assert_array_equal(future.values, expected.values)
    np.testing.assert_array_equal(future.time.values, expected.time.values)
    assert (future.name, future.dims, set(future.coords)) == ("t2m", field.dims, set(expected.coords))
    room.write(out, future)
    options: dict[str, Any] = {} if suffix == ".nc" else {"engine": "zarr", "consolidated": False}
    with xr.open_dataset(out, **options) as back:
        np.testing.assert_array_equal(back.t2m.values, expected.values)
        np.testing.assert_array_equal(back.time.values, expected.time.values)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, out.name]


def test_packed_files_are_unpacked_and_forecasts_are_not_packed(
    forecaster: Forecaster, field: Any, tmp_path: Path
) -> None:
    packed = {"t2m": {"dtype": "int16", "scale_factor": 1e-4, "_FillValue": -1}}
    field.to_netcdf(tmp_path / "a.nc", encoding=packed)
    room.write(tmp_path / "b.nc", forecaster.predict(tmp_path / "a.nc"))
    with xr.open_dataset(tmp_path / "b.nc") as back:
        np.testing.assert_allclose(back.t2m.values, forecaster.predict(field).values, atol=5e-3)
        assert "scale_factor" not in back.t2m.encoding


def test_files_of_other_content_are_refused(forecaster: Forecaster, field: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    field.to_dataset().assign(u10=field).to_netcdf(path)
    with pytest.raises(FramesError, match=r"a\.nc: expected one variable.*t2m, u10"):
        forecaster.predict(path)
    field.isel(time=0).to_netcdf(path)
    with pytest.raises(FramesError, match=r"a\.nc: .*none among t2m"):
        forecaster.predict(path)
    field.to_netcdf(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(FramesError, match=r"a\.nc is damaged"):
        forecaster.predict(path)
    for name in ("none.nc", "none.zarr"):
        with pytest.raises(FramesError, match=rf"{name} does not exist"):
            forecaster.predict(tmp_path / name)
    field.to_zarr(tmp_path / "a.zarr", consolidated=False)
    largest = max((p for p in (tmp_path / "a.zarr" / "t2m").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])
    with pytest.raises(FramesError, match=r"a\.zarr: the values cannot be read"):
        forecaster.predict(tmp_path / "a.zarr")
    with pytest.raises(FramesError, match=r"cannot write b\.nc: the frames have no coordinates"):
        room.write(tmp_path / "b.nc", field.values)
    with pytest.raises(FramesError, match=r"cannot write b\.nc"):
        room.write(tmp_path / "b.nc", field.assign_attrs(bad={"a": 1}))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nc", "a.zarr"]


@pytest.mark.parametrize(("missing", "suffix"), [("xarray", ".nc"), ("netCDF4", ".nc"), ("zarr", ".zarr")])
def test_without_the_extra_the_pip_command_is_told(
    missing: str, suffix: str, forecaster: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=r'pip install "stzoo\[array\]"'):
        forecaster.predict(tmp_path / f"a{suffix}")
    assert forecaster.predict(np.zeros((4, 16, 16))).shape == (4, 16, 16)  # which asks for nothing


def test_neither_xarray_nor_pyav_is_imported_before_it_is_needed() -> None:
    code = "import sys, stzoo.forecaster; print([m for m in ('xarray', 'av', 'zarr', 'netCDF4') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_era5(spec: ModelSpec) -> None:
    path = Path(os.environ.get("STZOO_DATA", "")) / "era5" / "era5_t2m_uk_2019-03.nc"
    if "STZOO_DATA" not in os.environ or not path.is_file():
        pytest.skip("set STZOO_DATA to a folder that holds era5/ to run this test")
    model = create(spec.replace(value_range=None, mean=[280.0], std=[10.0]))
    with xr.open_dataset(path) as dataset:
        field = dataset.t2m.isel(latitude=slice(32), longitude=slice(48))
        future = model.rollout(field, 24)
        np.testing.assert_array_equal(future.time.values, pd.date_range("2019-04-01", periods=24, freq="h"))
        xr.testing.assert_identical(future.latitude, field.latitude)
        np.testing.assert_array_equal(future.values, model.rollout(field.values, 24))
    assert model.predict(path).sizes == {"time": 4, "latitude": 33, "longitude": 49}


def saved(field: Any, path: Path) -> Path:
    field.drop_vars("level").to_netcdf(path, engine="netcdf4")
    return path


def test_a_file_that_refers_to_another_is_refused(forecaster: Forecaster, field: Any, tmp_path: Path) -> None:
    """HDF5 would open what it names, and hand on what stands there."""
    h5py = pytest.importorskip("h5py")
    saved(field, tmp_path / "other.nc")
    (tmp_path / "secret").write_bytes(bytes(2048))
    for how in ("link", "virtual", "external"):
        path = tmp_path / f"{how}.nc"
        with h5py.File(path, "w") as file:
            if how == "link":
                file["x"] = h5py.ExternalLink(str(tmp_path / "other.nc"), "/t2m")
            elif how == "virtual":
                layout = h5py.VirtualLayout((6, 16, 16), "f4")
                layout[:] = h5py.VirtualSource(str(tmp_path / "other.nc"), "t2m", (6, 16, 16))
                file.create_virtual_dataset("x", layout)
            else:
                file.create_dataset("x", (6, 16, 16), "u1", external=[(str(tmp_path / "secret"), 0, 1536)])
        with pytest.raises(FramesError, match=rf"{how}\.nc refers to another file, which is not opened"):
            forecaster.predict(path)


def test_axes_and_chunks_of_absurd_size_are_refused(forecaster: Forecaster, tmp_path: Path) -> None:
    """All that is in these files is what their values are where nothing was written."""
    netcdf4 = pytest.importorskip("netCDF4")
    sizes = {
        "axis": ((10**10, 16, 16), None, r"'time' has 10,000,000,000 values along one axis"),
        "chunk": ((8, 2**20, 2**20), (1, 2**14, 2**14), r"'v' is stored in chunks of [\d,]+ values"),
        "frame": ((8, 2**13, 2**13), (1, 16, 16), r"the frames to read hold 268,435,456 values"),
    }
    for name, (shape, chunks, message) in sizes.items():
        with netcdf4.Dataset(tmp_path / f"{name}.nc", "w") as file:
            for dimension, size in zip(("time", "y", "x"), shape, strict=True):
                file.createDimension(dimension, size)
            file.createVariable("time", "f8", ("time",), chunksizes=(min(shape[0], 1024),))
            file.createVariable("v", "u1", ("time", "y", "x"), chunksizes=chunks or (1, 16, 16), zlib=True)
        with pytest.raises(FramesError, match=message):
            forecaster.predict(tmp_path / f"{name}.nc")
    with netcdf4.Dataset(tmp_path / "samples.nc", "w") as file:
        for dimension, size in {"sample": 2**22, "time": 8, "y": 16, "x": 16}.items():
            file.createDimension(dimension, size)
        file.createVariable("v", "u1", ("sample", "time", "y", "x"), chunksizes=(1, 8, 16, 16), zlib=True)
    with pytest.raises(
        FramesError, match=r"samples\.nc: the frames to read hold 4,294,967,296 values; at most 67,108,864"
    ):
        forecaster.predict(tmp_path / "samples.nc")


@pytest.mark.parametrize("suffix", [".nc", ".nc4"])
@pytest.mark.parametrize("kind", ["NETCDF4", "NETCDF3_CLASSIC"])
def test_damaged_netcdf_files_are_named(
    suffix: str, kind: Any, forecaster: Forecaster, field: Any, tmp_path: Path
) -> None:
    path = tmp_path / f"a{suffix}"
    field.drop_vars("level").to_netcdf(path, engine="netcdf4", format=kind)
    whole = path.read_bytes()
    assert forecaster.predict(path).shape == (4, 16, 16)
    for content in (b"", b"CDF\1", b"no netCDF" * 99, whole[:100], whole[: len(whole) // 2], whole[:8] + bytes(2000)):
        path.write_bytes(content)
        with pytest.raises(FramesError, match=rf"a\{suffix}"):
            forecaster.predict(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FramesError, match=rf"a\{suffix} is no {suffix} store"):
        forecaster.predict(path)


def test_damaged_zarr_stores_are_named(forecaster: Forecaster, field: Any, tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    for version in (2, 3):
        whole, path = tmp_path / f"whole{version}.zarr", tmp_path / "a.zarr"
        field.drop_vars("level").to_zarr(whole, zarr_format=version, consolidated=False)
        assert forecaster.predict(whole).shape == (4, 16, 16)
        name = ".zarray" if version == 2 else "zarr.json"
        good = json.loads((whole / "t2m" / name).read_text())
        codec = {"id": "pickle", "name": "pickle"}
        key = "filters" if version == 2 else "codecs"
        grid = {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**20, 16, 16]}}}
        bad: list[tuple[str, str]] = [
            ("{", "damaged or no .zarr file"),
            ("[]", "damaged or no .zarr file"),
            ("[" * 100_000, "damaged or no .zarr file"),
            (" " * 2**21, "no description of an array"),
            (json.dumps(good | {"shape": [-1, 16, 16]}), "a.zarr"),
            (json.dumps(good | {"shape": [10**18, 10**18, 10**18]}), "a.zarr"),
            (json.dumps(good | {key: [codec]}), "packed with 'pickle', which is not unpacked here"),
            (
                json.dumps(good | ({"chunks": [2**20, 16, 16]} if version == 2 else grid)),
                "chunks of 268,435,456 values",
            ),
        ]
        for content, message in bad:
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(whole, path)
            (path / "t2m" / name).write_text(content)
            with pytest.raises(FramesError, match=message):
                forecaster.predict(path)
        for chunk in [p for p in (path / "t2m").rglob("*") if p.is_file() and p.name != name]:
            chunk.write_bytes(b"garbage" if chunk.name[0].isdigit() else chunk.read_bytes())
        (path / "t2m" / name).write_text(json.dumps(good))
        with pytest.raises(FramesError, match=r"a\.zarr: the values cannot be read"):
            forecaster.predict(path)
    (tmp_path / "file.zarr").write_bytes(b"PK")
    with pytest.raises(FramesError, match=r"file\.zarr is no \.zarr store"):
        forecaster.predict(tmp_path / "file.zarr")
