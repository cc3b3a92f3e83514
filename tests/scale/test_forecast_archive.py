"""Each forecast is what `Forecaster.rollout` makes of that clip alone."""

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scale.shared import field

import stzoo
from stzoo import cli
from stzoo.errors import DataError, FramesError
from stzoo.scale import forecast_archive
from stzoo.scale.clips import ListedClip, line_ends, list_clips, read_clip_list, survey, write_clip_list
from stzoo.scale.ray import _share
from stzoo.spec import ModelSpec

xr = pytest.importorskip("xarray")
zarr = pytest.importorskip("zarr")


def errors_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("unit", [1, 3, 16])
def test_every_clip_of_a_folder(model: Path, clips: Path, tmp_path: Path, unit: int) -> None:
    out = tmp_path / "out"
    report = forecast_archive(clips, model, 6, out, unit=unit, in_process=True)
    assert (report.forecasts, report.failed, report.earlier) == (7, 1, 0)
    alone = stzoo.load(model)
    for name in ("one.npy", "two.npy", "deep/large.npy", "deep/moving.gif", "deep/er/pictures", "field.nc"):
        expected = alone.rollout(clips / name, 6)
        if isinstance(expected, list):
            expected = np.stack([np.asarray(image) for image in expected])
        got = np.load((out / "forecasts" / name).with_suffix(".npy"))
        assert got.dtype == expected.dtype
        tolerance = 1 if got.dtype == np.uint8 else 1e-5
        np.testing.assert_allclose(got.astype(np.float64), np.asarray(expected, np.float64), atol=tolerance)
    (error,) = errors_of(out)
    assert (error["item"], error["index"]) == ("broken.npy", 0)
    assert "damaged" in error["error"]
    assert len([p for p in (out / "forecasts").rglob("*") if p.is_file()]) == 6
    assert not list(out.rglob("*.tries"))


def test_every_and_pictures_as_pictures(model: Path, clips: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "gifs"
    pictures.mkdir()
    (clips / "deep" / "moving.gif").rename(pictures / "moving.gif")
    forecast_archive(pictures, model, 5, tmp_path / "out", every=2, format="gif", size="model", in_process=True)
    expected = stzoo.load(model).rollout(pictures / "moving.gif", 5, resize=True, every=2)
    with Image.open(tmp_path / "out" / "forecasts" / "moving.gif") as got:
        assert got.n_frames == 5
        got.seek(4)
        difference = np.asarray(got.convert("L"), np.int16) - np.asarray(expected[4], np.int16)
    assert np.abs(difference).max() <= 1


def test_fields_keep_their_coordinates(model: Path, clips: Path, tmp_path: Path) -> None:
    fields = tmp_path / "fields"
    fields.mkdir()
    (clips / "field.nc").rename(fields / "field.nc")
    forecast_archive(fields, model, 5, tmp_path / "out", format="nc", in_process=True)
    with xr.open_dataarray(tmp_path / "out" / "forecasts" / "field.nc") as got:
        expected = stzoo.load(model).rollout(fields / "field.nc", 5)
        lead = ["forecast_reference_time", "forecast_period"]
        xr.testing.assert_allclose(got.drop_vars(lead), expected, atol=1e-5)
        assert got.time.values[0] == np.datetime64("2020-01-01T05")


def test_the_maps_of_a_folder_may_have_several_variables(model: Path, clips: Path, tmp_path: Path) -> None:
    past = field(5).drop_vars(["age", "step"]).rename(time="moment").drop_vars("moment")
    for name in ("one", "deep/two"):
        xr.Dataset({"t": past, "z": 1 - past}).to_netcdf(clips / f"{name}.nc")
    out = tmp_path / "out"
    (clips / "field.nc").unlink()
    report = forecast_archive(clips, model, 2, out, variable="t", time="moment", in_process=True)
    assert (report.forecasts, report.failed) == (8, 1)  # clips that are no maps are read as ever
    expected = stzoo.load(model).rollout(past, 2, time="moment")
    np.testing.assert_allclose(np.load(out / "forecasts" / "deep" / "two.npy"), expected, atol=1e-5)
    with pytest.raises(DataError, match="variable"):
        forecast_archive(clips, model, 2, out, variable="z", time="moment", in_process=True)
    assert forecast_archive(clips, model, 2, out, variable="t", time="moment", in_process=True).earlier == 8


def test_a_folder_that_is_one_clip_and_clips_of_one_stem(model: Path, clips: Path, tmp_path: Path) -> None:
    forecast_archive(clips / "deep" / "er" / "pictures", model, 2, tmp_path / "one", in_process=True)
    assert (tmp_path / "one" / "forecasts" / "pictures.npy").is_file()
    np.savez(clips / "ONE.npz", np.zeros((4, 16, 16), np.uint8))
    (clips / "gone.avi").symlink_to(clips / "nowhere")
    (clips / "again").symlink_to(clips)  # is not followed without end
    outs = [clip.out for clip in list_clips(clips, "path")]
    assert len({out.lower() for out in outs}) == len(outs) == 9
    assert [clip.name for clip in list_clips(clips, "path")] == sorted(clip.name for clip in list_clips(clips, "path"))


@pytest.mark.parametrize("column", ["path", "where"])
def test_every_row_of_a_table(model: Path, clips: Path, tmp_path: Path, column: str) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    paths = ["one.npy", str(clips / "two.npy"), "../clips/one.npy", "absent.npy", "one.npy"]
    parquet.write_table(pa.table({column: paths, "other": range(5)}), clips / "table.parquet")
    out = tmp_path / "out"
    chosen = None if column == "path" else column
    report = forecast_archive(clips / "table.parquet", model, 5, out, column=chosen, unit=2, in_process=True)
    assert (report.forecasts, report.failed) == (5, 1)
    assert [(e["item"], e["index"]) for e in errors_of(out)] == [("absent.npy", 3)]
    files = sorted((out / "forecasts").rglob("*.npy"))
    assert [f.name for f in files] == ["00000000-one.npy", "00000001-two.npy", "00000002-one.npy", "00000004-one.npy"]
    for file, name in zip(files, ("one", "two", "one", "one"), strict=True):
        expected = stzoo.load(model).rollout(np.load(clips / f"{name}.npy"), 5)
        assert np.abs(np.load(file).astype(np.int16) - expected.astype(np.int16)).max() <= 1


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize(("every", "stride", "unit"), [(1, 1, 4), (2, 3, 3), (1, 7, 16)])
def test_every_start_of_an_archive(
    model: Path, archive: Path, tmp_path: Path, suffix: str, every: int, stride: int, unit: int
) -> None:
    past = xr.load_dataarray(archive)
    if suffix == ".zarr":
        archive = archive.with_suffix(".zarr")
        past.drop_encoding().to_zarr(archive, consolidated=False)
    out = tmp_path / "out"
    report = forecast_archive(archive, model, 6, out, every=every, stride=stride, unit=unit, in_process=True)
    with xr.open_dataset(out / "forecasts.zarr", engine="zarr", consolidated=False) as dataset:
        got = dataset["t2m"].load()
    span = 3 * every + 1
    starts = range(0, 30 - span + 1, stride)
    assert got.dims == ("time", "step", "latitude", "longitude")
    assert (got.dtype, got.attrs) == (np.float32, {"units": "1", "valid_max": 1.0})
    assert got.time.attrs["standard_name"] == "forecast_reference_time"  # the valid time is time + lead_time
    np.testing.assert_array_equal(got.time.values, past.time.values[[s + span - 1 for s in starts]])
    np.testing.assert_array_equal(got.step.values, np.arange(1, 7))
    np.testing.assert_array_equal(got.lead_time.values, np.arange(1, 7) * np.timedelta64(every, "h"))
    assert set(got.coords) == {"time", "step", "lead_time", "latitude", "longitude", "area"}
    xr.testing.assert_identical(got.latitude.variable, past.latitude.variable)
    failed = []
    alone = stzoo.load(model)
    for i, start in enumerate(starts):
        window = past[start : start + span]
        if window[::every].isnull().any():
            failed.append(i)
            assert got[i].isnull().all()
            continue
        expected = alone.rollout(window, 6, every=every)
        np.testing.assert_allclose(got[i].values, expected.values, atol=1e-5)
        np.testing.assert_array_equal(expected.time.values, (got.time[i] + got.lead_time).values)
    assert failed == [e["index"] for e in errors_of(out)]
    assert report.failed == len(failed)
    assert zarr.open_array(out / "forecasts.zarr" / "t2m", mode="r").chunks[0] == unit


def test_other_orders_dtypes_and_dimensions(model: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(3).integers(0, 256, (16, 9, 2, 16), dtype=np.uint8)
    height = ("y", np.arange(16.0), {"units": "km", "bounds": "y_bnds"})  # which the store does not hold
    past = xr.DataArray(values, {"y": height}, ("y", "time", "member", "x"), "rain")
    past.to_netcdf(tmp_path / "integers.nc")
    forecast_archive(tmp_path / "integers.nc", model, 3, tmp_path / "out", unit=2, in_process=True)
    with xr.open_dataset(tmp_path / "out" / "forecasts.zarr", engine="zarr", consolidated=False) as dataset:
        got = dataset["rain"].load()
    assert (got.dims, got.dtype, got.shape) == (("time", "step", "y", "member", "x"), np.uint8, (6, 3, 16, 2, 16))
    assert set(got.coords) == {"step", "y"}
    assert got["y"].attrs == {"units": "km"}
    for i in range(6):
        expected = stzoo.load(model).rollout(past[:, i : i + 4], 3).transpose("time", "y", "member", "x")
        assert np.abs(got[i].values.astype(np.int16) - expected.values.astype(np.int16)).max() <= 1


def test_integers_in_the_models_unit_are_numbers(spec: ModelSpec, tmp_path: Path) -> None:
    rain = spec.replace(value_range=(-10.4, 40.6), mean=[-10.2], std=[16.0])
    stzoo.create(rain).save_pretrained(tmp_path / "rain")
    values = np.random.default_rng(3).integers(0, 40, (5, 16, 16)).astype(np.int16)
    past = xr.DataArray(values, dims=("time", "y", "x"), name="rain", attrs={"units": "dBR"})
    past.to_netcdf(tmp_path / "rain.nc")
    forecast_archive(tmp_path / "rain.nc", tmp_path / "rain", 2, tmp_path / "out", in_process=True)
    with xr.open_dataset(tmp_path / "out" / "forecasts.zarr", engine="zarr", consolidated=False) as got:
        assert (got["rain"].dtype, got["rain"].shape) == (np.int16, (2, 2, 16, 16))
        expected = stzoo.load(tmp_path / "rain").rollout(values[1:].astype(np.float32), 2, missing="fill")
        assert np.abs(got["rain"].values[1] - expected).max() <= 0.51
    past.assign_attrs(units="").to_netcdf(tmp_path / "unknown.nc")
    with pytest.raises(FramesError, match="nothing says what the int16 values mean"):
        forecast_archive(tmp_path / "unknown.nc", tmp_path / "rain", 2, tmp_path / "other", in_process=True)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (xr.date_range("0001-02-27", periods=9, calendar="noleap", use_cftime=True), np.timedelta64(2, "D")),
        (np.arange(9) / 4, 0.5),
        (np.arange(9, dtype=np.int32), 2),
    ],
)
@pytest.mark.filterwarnings("error")
def test_other_times_and_channels_with_names(spec: ModelSpec, tmp_path: Path, times: Any, expected: Any) -> None:
    stzoo.create(spec.replace(channels=2)).save_pretrained(tmp_path / "wind")
    values = np.random.default_rng(4).random((9, 2, 16, 16), dtype=np.float32).astype(">f4")
    coordinates = {"time": times, "channel": ["u10", "v10"]}
    xr.DataArray(values, coordinates, ("time", "channel", "y", "x"), "wind").to_netcdf(tmp_path / "wind.nc")
    forecast_archive(tmp_path / "wind.nc", tmp_path / "wind", 3, tmp_path / "out", every=2, in_process=True)
    with xr.open_dataset(tmp_path / "out" / "forecasts.zarr", engine="zarr", consolidated=False) as got:
        assert got.time.values.tolist() == [times[6], times[7], times[8]]
        assert got.channel.values.tolist() == ["u10", "v10"]
        np.testing.assert_array_equal(got.lead_time.values, [k * expected for k in (1, 2, 3)])
        with xr.open_dataarray(tmp_path / "wind.nc") as past:
            alone = stzoo.load(tmp_path / "wind").rollout(past[1:8], 3, every=2)
        np.testing.assert_allclose(got["wind"][1].values, alone.transpose("time", "channel", "y", "x"), atol=1e-5)


def test_an_archive_with_names_of_its_own_and_several_variables(model: Path, tmp_path: Path) -> None:
    past = field(9).drop_vars(["age", "step"]).rename(time="valid_time").expand_dims(pressure_level=[850.0], axis=1)
    path, out = tmp_path / "era5.nc", tmp_path / "out"
    xr.Dataset({"t": past, "z": 1 - past}).to_netcdf(path)
    with pytest.raises(FramesError, match=r"there are t, z; choose one with .*--variable NAME"):
        forecast_archive(path, model, 3, out, in_process=True)
    report = forecast_archive(path, model, 3, out, variable="t", unit=4, in_process=True)
    assert (report.forecasts, report.failed) == (6, 0)
    with xr.open_dataset(out / "forecasts.zarr", engine="zarr", consolidated=False) as got:
        assert got["t"].dims == ("valid_time", "step", "pressure_level", "latitude", "longitude")
        np.testing.assert_array_equal(got.valid_time.values, past.valid_time.values[3:])
        assert (got.pressure_level.values, len(got.lead_time)) == ([850.0], 3)
        for i in (0, 5):
            alone = stzoo.load(model).rollout(past[i : i + 4], 3)
            np.testing.assert_allclose(got["t"][i].values, alone.values, atol=1e-5)
    with pytest.raises(DataError, match="variable"):
        forecast_archive(path, model, 3, out, variable="z", unit=4, in_process=True)
    assert forecast_archive(path, model, 3, out, variable="t", unit=4, in_process=True).earlier == 6


def test_a_time_that_only_the_caller_knows(model: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(5).random((7, 16, 16), dtype=np.float32)
    xr.DataArray(values, dims=("scan", "y", "x"), name="v").to_netcdf(tmp_path / "a.nc")
    report = forecast_archive(tmp_path / "a.nc", model, 2, tmp_path / "out", time="scan", in_process=True)
    assert (report.forecasts, report.failed) == (4, 0)
    with xr.open_dataset(tmp_path / "out" / "forecasts.zarr", engine="zarr", consolidated=False) as got:
        assert got["v"].dims == ("scan", "step", "y", "x")
        np.testing.assert_allclose(got["v"][3].values, stzoo.load(model).rollout(values, 2), atol=1e-5)


def test_windows_across_a_gap_are_left_out(model: Path, tmp_path: Path) -> None:
    field(14).isel(time=[*range(6), *range(8, 14)]).to_netcdf(tmp_path / "gap.nc")
    forecast_archive(tmp_path / "gap.nc", model, 2, tmp_path / "out", in_process=True)
    assert [e["index"] for e in errors_of(tmp_path / "out")] == [3, 4, 5]
    assert "1:00:00 apart" in errors_of(tmp_path / "out")[0]["error"]


def test_a_damaged_part_of_an_archive_costs_its_own_windows(model: Path, tmp_path: Path) -> None:
    store = tmp_path / "archive.zarr"
    field(12).to_zarr(store, consolidated=False, encoding={"t2m": {"chunks": (1, 16, 16)}})
    (store / "t2m" / "c" / "5" / "0" / "0").write_bytes(b"not zstd")
    forecast_archive(store, model, 2, tmp_path / "out", in_process=True)
    assert [e["index"] for e in errors_of(tmp_path / "out")] == [2, 3, 4, 5]


@pytest.mark.parametrize("stride", [1, 6])
def test_a_chunk_that_unpacks_to_more_than_stated_costs_its_own_windows(
    model: Path, tmp_path: Path, stride: int
) -> None:
    h5py = pytest.importorskip("h5py")
    encoding = {"t2m": {"chunksizes": (1, 16, 16), "zlib": True}}
    field(16).to_netcdf(tmp_path / "archive.nc", engine="netcdf4", encoding=encoding)
    with h5py.File(tmp_path / "archive.nc", "a") as file:
        file["t2m"].id.write_direct_chunk((5, 0, 0), zlib.compress(bytes(1 << 26)))
    forecast_archive(tmp_path / "archive.nc", model, 2, tmp_path / "out", stride=stride, in_process=True)
    assert [e["index"] for e in errors_of(tmp_path / "out")] == ([2, 3, 4, 5] if stride == 1 else [])
    assert all("a chunk unpacks to more" in e["error"] for e in errors_of(tmp_path / "out"))


def test_workers_share_gpus_where_there_are_fewer() -> None:
    assert [_share(workers, 2) for workers in (1, 2, 3, 4, 5)] == [1, 1, 1 / 2, 1 / 2, 1 / 3]


def test_a_list_is_read_in_parts(tmp_path: Path) -> None:
    clips = [ListedClip(f"clip {'ü' * i}\n{i}", f"{i}", i) for i in range(50)]
    with (tmp_path / "list").open("wb") as file:
        write_clip_list(file, clips)
    ends = line_ends(tmp_path / "list")
    for part in (range(3), range(17, 33), range(49, 50)):
        assert read_clip_list(tmp_path / "list", ends, part) == clips[part.start : part.stop]
    seen = survey(clips)
    assert seen.count == 50
    assert 4 <= len(seen.probes) <= 10
    assert set(seen.probes) <= set(clips)
    assert survey(clips[:-1]).sha256 != seen.sha256 != survey([clips[1], clips[0], *clips[2:]]).sha256


def test_without_ray_the_command_does_it_in_this_process(
    model: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    command = ["forecast-archive", str(clips), "--model", str(model), "--steps", "2", "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--json"]) == 0
    said = capsys.readouterr()
    assert "Ray is not installed" in said.err
    assert json.loads(said.out)["failed"] == 1
    assert cli.main(command) == 0
    said = capsys.readouterr()
    assert said.out.startswith("7 forecasts (1 failed, see errors.jsonl), 7 of them there before -> ")
    assert cli.main([*command, "--workers", "2"]) == 2
    assert 'pip install "stzoo[scale]"' in capsys.readouterr().err


def test_a_clip_that_overflows_costs_its_own_forecast_alone(spec: ModelSpec, tmp_path: Path) -> None:
    """The others, which went through the model together with it, are what they are without it."""
    model = stzoo.create(spec.replace(value_range=None))
    model.save_pretrained(tmp_path / "model")
    clips = tmp_path / "clips"
    clips.mkdir()
    random = np.random.default_rng(2)
    for name, scale in (("a", 1), ("b", 1), ("c", 1e38), ("d", 1)):
        np.save(clips / f"{name}.npy", random.normal(0, scale, (4, 16, 16)).clip(-3e38, 3e38).astype(np.float32))
    report = forecast_archive(clips, tmp_path / "model", 9, tmp_path / "out", in_process=True)
    assert report.failed == 1
    (error,) = errors_of(tmp_path / "out")
    assert error["item"] == "c.npy"
    assert "that the model made holds" in error["error"]
    for name in "abd":
        got = np.load(tmp_path / "out" / "forecasts" / f"{name}.npy")
        np.testing.assert_allclose(got, model.rollout(clips / f"{name}.npy", 9), rtol=1e-4, atol=1e-5)


def test_when_all_fail_the_command_says_so(
    model: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    (clips / "one.npy").rename(few / "one.npy")
    command = ["forecast-archive", str(few), "--model", str(model), "--steps", "2", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("stzoo.scale.forecast._run", _breaking(few / "one.npy"))
    assert cli.main([*command, "--in-process"]) == 2
    assert "not one of 1 forecasts could be made" in capsys.readouterr().err
    assert (tmp_path / "out" / "errors.jsonl").read_text().count("\n") == 1


def _breaking(clip: Path) -> Any:
    """The run, before which a clip that was sound when it was looked at is damaged."""
    from stzoo.scale import forecast

    run = forecast._run

    def broken(*arguments: Any) -> Any:
        clip.write_bytes(b"x" * clip.stat().st_size)
        return run(*arguments)

    return broken


def test_an_archive_of_any_size(model: Path, tmp_path: Path) -> None:
    whole = field(8)[:, :15, :13]
    whole.to_netcdf(tmp_path / "odd.nc")
    forecast_archive(tmp_path / "odd.nc", model, 5, tmp_path / "out", in_process=True)
    with xr.open_zarr(tmp_path / "out" / "forecasts.zarr", consolidated=False) as made:
        assert made.t2m.shape == (5, 5, 15, 13)
        expected = stzoo.load(model).rollout(whole[1:5].values, 5)
        np.testing.assert_allclose(made.t2m[1].values, expected, atol=1e-5)
