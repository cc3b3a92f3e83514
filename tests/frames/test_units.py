"""The attribute `units` of a map must not contradict the units of the model."""

import re

import numpy as np
import pytest

from stzoo.data import radar
from stzoo.errors import FramesError
from stzoo.forecaster import Forecaster, create
from stzoo.frames import units
from stzoo.spec import ModelSpec

xr = pytest.importorskip("xarray", reason="the extra `array` is not installed")


def test_the_range_of_rain_is_that_of_the_radar_data() -> None:
    assert units.DBR == radar.DBR


def test_a_model_of_rain_takes_decibels_of_the_rain_rate_alone(spec: ModelSpec) -> None:
    model = create(spec.replace(value_range=radar.DBR, mean=[-10.2], std=[16.0], fill=-10.2))
    values = np.full((4, 16, 16), 3, np.float32)
    given = xr.DataArray(values, dims=("time", "y", "x"))
    for stated in ("dBZ", "mm/h", "mm h-1", "mm hr^-1", "kg m-2 s-1", "mm", "K", "%"):
        message = rf"in '{re.escape(stated)}', as .* the model's are in dBR.*units='dBR'"
        for each in (given, given.astype(np.uint8)):
            with pytest.raises(FramesError, match=message):
                model.predict(each.assign_attrs(units=stated))
    expected = model.predict(values)
    for right in ("dBR", "dB", "10 log10(mm/h)", "", None, "something"):
        future = model.predict(given.assign_attrs(units=right))
        np.testing.assert_array_equal(future.values, expected)
        assert future.attrs == {"units": right}


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", ">i2", "int32", "int64"])
def test_integers_in_the_models_unit_are_numbers_and_not_scaled(spec: ModelSpec, dtype: str) -> None:
    model = create(spec.replace(value_range=radar.DBR, mean=[-10.2], std=[16.0], fill=-10.2))
    values = np.random.default_rng(0).integers(0, 41, (4, 16, 16))
    given = xr.DataArray(values.astype(dtype), dims=("time", "y", "x"), attrs={"units": "dBR"})
    future = model.predict(given)
    assert future.dtype == np.dtype(dtype)
    low = 0 if dtype == "uint8" else -10
    np.testing.assert_array_equal(future, model.predict(values.astype(np.float32)).round().clip(low, 40))
    with pytest.raises(FramesError, match="bits=8 says how integers are scaled; these are numbers in 'dBR'"):
        model.predict(given, bits=8)
    with pytest.raises(FramesError, match=r"expected values in \[-10.4, 40.6\] dBR, .*, given \[50, 50\]"):
        model.predict(given * 0 + 50 if dtype != "uint8" else (given * 0 + 50).astype(dtype).assign_attrs(units="dBR"))


def test_integers_of_which_nothing_says_what_they_mean_are_refused(spec: ModelSpec) -> None:
    values = np.full((4, 16, 16), 10, np.int16)
    given = xr.DataArray(values, dims=("time", "y", "x"))
    for value_range, remedy in ((radar.DBR, r"floats in that range, or say .*units='dBR'"), ((200.0, 330.0), "floats")):
        model = create(spec.replace(value_range=value_range, mean=[10.0], std=[16.0]))
        for each in (given, given.astype("uint16"), given.assign_attrs(units="something")):
            with pytest.raises(FramesError, match=f"nothing says what the u?int16 values mean.*{remedy}"):
                model.predict(each)
        codes = given.astype(np.uint8)
        np.testing.assert_array_equal(model.predict(codes), model.predict(codes.values))
        twelve = given.astype(np.uint16)
        np.testing.assert_array_equal(model.predict(twelve, bits=12), model.predict(twelve.values, bits=12))


def test_a_model_of_pictures_takes_fractions(forecaster: Forecaster, frames: np.ndarray) -> None:
    given = xr.DataArray(frames / 255, dims=("time", "y", "x"))
    levels = given.copy(data=frames)  # integers are scaled from the range of their dtype, whatever they count
    of_levels, expected = forecaster.predict(frames), forecaster.predict(frames / 255)
    for stated in ("K", "degC", "mm/h", "m s-1", "m**2 s**-2", "W m^-2", "dBZ", "dBR", "percent", "m"):
        message = rf"in '{re.escape(stated)}', as the attribute units says, and the model's are in 1"
        with pytest.raises(FramesError, match=message):
            forecaster.predict(given.assign_attrs(units=stated))
    for right in ("1", "(0 - 1)", "kg kg-1", "m3 m-3", "m**3 m**-3", "fraction", "dimensionless", 1):
        np.testing.assert_array_equal(forecaster.predict(given.assign_attrs(units=right)).values, expected)
    np.testing.assert_array_equal(forecaster.predict(levels.assign_attrs(units="K")).values, of_levels)


def test_a_model_without_a_range_takes_any_unit(spec: ModelSpec, frames: np.ndarray) -> None:
    model = create(spec.replace(value_range=None, mean=[280.0], std=[10.0]))
    given = xr.DataArray(frames / 255 + 280, dims=("time", "y", "x"), attrs={"units": "K"})
    np.testing.assert_array_equal(model.predict(given).values, model.predict(given.values))
