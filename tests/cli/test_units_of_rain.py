"""Rain in mm/h through files: netCDF, Zarr, .npy, archives, clips of one's own. The unit and the holes come back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stzoo.cli import main
from stzoo.data import Reading, own_clips
from stzoo.errors import DataError, FramesError, SpecError
from stzoo.forecaster import Forecaster
from stzoo.frames import write
from stzoo.frames.rain import DBR
from stzoo.opening import create
from stzoo.scale import forecast_archive
from stzoo.spec import ModelSpec
from stzoo.train.fine_tuning import fine_tune

xr = pytest.importorskip("xarray", reason="the extra `array` is not installed")


@pytest.fixture
def model(spec: ModelSpec, tmp_path: Path) -> Forecaster:
    """It is also saved in the folder `model`."""
    torch.manual_seed(1)
    made = create(spec.replace(value_range=DBR, mean=[-10.2], std=[16.0], fill=-10.2))
    made.save_pretrained(tmp_path / "model")
    return made


def rates(frames: int = 6) -> Any:
    """(frames, 20, 18) in mm/h, in steps of 0.01, with a corner that nobody observed, and dates five minutes apart."""
    values = np.random.default_rng(0).gamma(0.4, 6, (1, 20, 18)).round(2).repeat(frames, 0)
    values[:, :6, :7] = np.nan
    times = np.datetime64("2024-05-01T12:00", "ns") + np.arange(frames) * np.timedelta64(5, "m")
    return xr.DataArray(
        values,
        dims=("time", "y", "x"),
        name="rain",
        coords={"time": times},
        attrs={"units": "mm h-1", "source": "made"},
    )


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("packed", [False, True])
def test_maps_come_back_in_their_unit_whole_and_with_their_holes(
    model: Forecaster, tmp_path: Path, suffix: str, packed: bool
) -> None:
    given = rates()
    packing = {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -1} if packed else {"dtype": "float32"}
    store = given.to_dataset().to_netcdf if suffix == ".nc" else given.to_dataset().to_zarr
    store(tmp_path / f"in{suffix}", encoding={"rain": packing})
    command = ["predict", str(tmp_path / f"in{suffix}"), "--model", str(tmp_path / "model"), "--no-check"]
    assert main([*command, "-o", str(tmp_path / f"out{suffix}")]) == 0
    opened = xr.open_dataset(tmp_path / f"out{suffix}", **({} if suffix == ".nc" else {"consolidated": False}))
    with opened:
        future = opened["rain"].load()
    expected = model.predict(given.values.astype(np.float32), units="mm/h")
    names = {"standard_name": "rainfall_rate", "long_name": "rain rate"}  # added to what the input says
    assert future.attrs == {"units": "mm h-1", "source": "made"} | names
    assert future.dtype.kind == "f"
    np.testing.assert_allclose(future, expected, rtol=2e-4, atol=2e-4)  # float32 of numbers that were packed
    assert np.isnan(future).sum() >= 4 * 42
    on_grid = np.abs(future * 100 - (future * 100).round()) < 1e-3
    assert float(on_grid.where(future > 0, False).mean()) < 0.2  # the steps of the packing are not those of the answer
    assert future.time.values[0] == np.datetime64("2024-05-01T12:30")
    assert main([*command, "--missing", "fill", "-o", str(tmp_path / f"filled{suffix}")]) == 0
    opened = xr.open_dataset(tmp_path / f"filled{suffix}", **({} if suffix == ".nc" else {"consolidated": False}))
    with opened:
        assert not opened["rain"].isnull().any()


def test_arrays_in_files_and_pictures_of_them(
    model: Forecaster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = rates().values.astype(np.float32)
    np.save(tmp_path / "in.npy", given)
    command = ["rollout", str(tmp_path / "in.npy"), "--model", str(tmp_path / "model"), "--steps", "3", "--no-check"]
    assert main([*command, "--units", "mm/h", "-o", str(tmp_path / "out.npy")]) == 0
    expected = model.rollout(given, 3, units="mm/h")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
    # pictures are drawn in dBR, in which light rain is seen beside heavy rain
    assert main([*command, "--units", "mm/h", "-o", str(tmp_path / "out")]) == 0
    assert "values from -10.4 to 40.6, the range of the model, in dBR" in capsys.readouterr().out
    with np.errstate(divide="ignore"):
        dbr = np.where(expected < 0.1, -10.2, 10 * np.log10(expected))
    from PIL import Image

    drawn = np.stack([np.asarray(Image.open(path)) for path in sorted((tmp_path / "out").iterdir())])
    shades = np.nan_to_num((dbr + 10.4) / 51).clip(0, 1) * 255
    np.testing.assert_allclose(drawn, shades, atol=0.51)
    # without a unit they are taken as dBR, and whoever forgot it is told, or refused if they are too large for dBR
    with pytest.warns(UserWarning, match="none of these numbers is below 0, .*; if they are rates, say units='mm/h'"):
        assert main([*command, "-o", str(tmp_path / "again.npy")]) == 0
    np.save(tmp_path / "in.npy", given * 9)
    assert main([*command, "-o", str(tmp_path / "again.npy")]) == 2
    assert "units='mm/h'" in capsys.readouterr().err
    assert main([*command, "--units", "cm3", "-o", str(tmp_path / "again.npy")]) == 2
    assert "units is 'cm3'; it may be mm/h, dBZ, dBR" in capsys.readouterr().err


def test_an_archive_has_the_forecasts_of_its_windows(model: Forecaster, tmp_path: Path) -> None:
    given = rates(9)
    given.to_netcdf(tmp_path / "day.nc")
    report = forecast_archive(tmp_path / "day.nc", tmp_path / "model", 3, tmp_path / "out", unit=4, in_process=True)
    assert (report.forecasts, report.failed) == (6, 0)
    with xr.open_zarr(tmp_path / "out" / "forecasts.zarr", consolidated=False) as got:
        future = got["rain"].load()
    assert future.attrs["units"] == "mm h-1"
    for window in range(6):
        np.testing.assert_allclose(
            future[window], model.rollout(given[window : window + 4], 3), rtol=1e-3, atol=1e-3, equal_nan=True
        )
    assert np.isnan(future).any()
    assert not np.isnan(future).all()
    unnamed = given.drop_attrs() if hasattr(given, "drop_attrs") else given.copy().assign_attrs(units="")
    unnamed.to_netcdf(tmp_path / "unnamed.nc")
    common: dict[str, Any] = {"units": "mm/hr", "missing": "fill", "in_process": True}
    forecast_archive(tmp_path / "unnamed.nc", tmp_path / "model", 3, tmp_path / "filled", **common)
    with xr.open_zarr(tmp_path / "filled" / "forecasts.zarr", consolidated=False) as got:
        filled = got["rain"].load()
    assert filled.attrs["units"] == "mm/hr"
    np.testing.assert_allclose(filled.values[~np.isnan(future)], future.values[~np.isnan(future)], rtol=1e-3, atol=1e-3)
    assert not np.isnan(filled).any()
    with pytest.raises(DataError, match="missing"):  # a run goes on as it began
        forecast_archive(
            tmp_path / "unnamed.nc", tmp_path / "model", 3, tmp_path / "filled", **common | {"missing": "keep"}
        )
    with pytest.raises(FramesError, match="units is 'mm'"):
        forecast_archive(tmp_path / "day.nc", tmp_path / "model", 3, tmp_path / "no", units="mm", in_process=True)
    assert not (tmp_path / "no").exists()


def test_clips_of_a_folder(model: Forecaster, tmp_path: Path) -> None:
    """Arrays in mm/h beside others that are codes; each has the forecast that it has alone, with holes in its own."""
    clips = tmp_path / "clips"
    clips.mkdir()
    given = rates().values.astype(np.float32)
    np.save(clips / "hole.npy", given)
    np.save(clips / "whole.npy", np.nan_to_num(given))
    np.save(clips / "integers.npy", np.nan_to_num(given).astype(np.int16))
    np.save(clips / "wrong.npy", given - 3)
    report = forecast_archive(clips, tmp_path / "model", 3, tmp_path / "out", units="mm/h", in_process=True)
    assert (report.forecasts, report.failed) == (4, 1)
    for name in ("hole", "whole", "integers"):
        alone = model.rollout(clips / f"{name}.npy", 3, units="mm/h")
        together = np.load(tmp_path / "out" / "forecasts" / f"{name}.npy")
        np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-3)
        assert np.isnan(together).any() == (name == "hole")
    assert "no rain rate is negative" in (tmp_path / "out" / "errors.jsonl").read_text()


def test_training_and_measuring_read_the_unit(
    model: Forecaster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clips in mm/h and in the attribute's unit are those of the same clips in dBR, with the same cells known."""
    given = rates(80)
    with np.errstate(divide="ignore"):
        dbr = np.where(given < 0.1, -10.2, 10 * np.log10(given)).astype(np.float32)
    dbr[np.isnan(given)] = np.nan
    files = {"rate": "r.npy", "map": "m.nc", "dbr": "d.npy", "dbz": "z.npy"}
    for name, file in files.items():
        folder = tmp_path / name
        folder.mkdir()
        if file.endswith(".nc"):
            (given / 3600).assign_attrs(units="kg m-2 s-1").to_netcdf(folder / file)
        else:
            dbz = np.where(given < 0.1, -32, 10 * np.log10(200 * np.maximum(given, 1e-9) ** 1.6))
            np.save(
                folder / file, {"rate": given.values, "dbr": dbr, "dbz": np.where(np.isnan(given), np.nan, dbz)}[name]
            )
    units = {"rate": "mm/h", "map": None, "dbr": None, "dbz": "dBZ"}
    read = {}
    for name, unit in units.items():
        data = own_clips.open_folder(tmp_path / name, Reading.of(model.spec, units=unit))
        (recording,) = data.split("train", 4, 4).recordings
        read[name] = recording
        np.testing.assert_allclose(recording.frames, read["rate"].frames, atol=1e-4)
        np.testing.assert_array_equal(recording.valid, read["rate"].valid)
    assert not read["dbr"].valid.all()  # type: ignore[union-attr]
    figures = []
    for name, unit in units.items():
        command = ["evaluate", str(tmp_path / "model"), "--data", str(tmp_path / name), "--steps", "2"]
        assert main([*command, *(["--units", unit] if unit else [])]) == 0
        figures.append(capsys.readouterr().out)
    assert len(set(figures)) == 1
    tuned = fine_tune(model, tmp_path / "rate", steps=1, units="mm/h", progress=False)
    assert tuned.spec.value_range == DBR
    with pytest.raises(SpecError, match="a dataset knows its own units"):
        fine_tune(model, own_clips.open_folder(tmp_path / "dbr", Reading.of(model.spec)), steps=1, units="mm/h")


def test_what_has_no_unit_is_refused(
    model: Forecaster, forecaster: Forecaster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    write(tmp_path / "pictures" / "a.gif", [Image.new("L", (16, 16), 20 * i) for i in range(9)])
    np.save(tmp_path / "wrong.npy", np.full((30, 16, 16), -9.0))
    rain = Reading.of(model.spec, units="mm/h")
    with pytest.raises(DataError, match=r"a.gif holds pictures, whose shades are in no unit"):
        own_clips.open_folder(tmp_path / "pictures", rain).split("train", 2, 1)
    with pytest.raises(DataError, match=r"wrong.npy.*given -9 mm/h, and no rain rate is negative"):
        own_clips.open_folder(tmp_path / "wrong.npy", rain).split("train", 2, 1)
    with pytest.raises(FramesError, match="is for models of rain, and this is none"):
        own_clips.open_folder(tmp_path / "wrong.npy", Reading.of(forecaster.spec, units="mm/h"))
    out, named = ["-o", str(tmp_path / "out")], ["--model", str(tmp_path / "model")]
    assert main(["predict", str(tmp_path / "pictures" / "a.gif"), *named, "--units", "dBZ", *out]) == 2
    assert "pictures hold shades" in capsys.readouterr().err
    assert (
        main(["evaluate", str(tmp_path / "model"), "--dataset", "kth", "--data", str(tmp_path), "--units", "dBZ"]) == 2
    )
    assert "--units is for your own clips" in capsys.readouterr().err
