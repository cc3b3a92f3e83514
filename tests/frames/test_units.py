"""The attribute `units` of a map must not contradict the units of the model."""

import re

import numpy as np
import pytest

from stzoo.data import radar
from stzoo.errors import FramesError
from stzoo.forecaster import Forecaster
from stzoo.frames import rain
from stzoo.opening import create
from stzoo.spec import ModelSpec

xr = pytest.importorskip("xarray", reason="the extra `array` is not installed")


def test_the_range_of_rain_is_that_of_the_radar_data() -> None:
    assert rain.DBR == radar.DBR


def test_a_model_of_rain_takes_rain_alone(spec: ModelSpec) -> None:
    model = create(spec.replace(value_range=radar.DBR, mean=[-10.2], std=[16.0], fill=-10.2))
    values = np.full((4, 16, 16), 3, np.float32)
    given = xr.DataArray(values, dims=("time", "y", "x"))
    for stated in ("mm", "kg m-2", "K", "%", "mm3 h-1", "h mm-1"):
        why = "is an amount of rain" if stated in ("mm", "kg m-2") else "the model reads rain in mm/h, dBZ, dBR"
        for each in (given, given.astype(np.uint8)):
            with pytest.raises(FramesError, match=rf"in '{re.escape(stated)}', as .* {why}.*units='mm/h'"):
                model.predict(each.assign_attrs(units=stated))
    as_they_are = model.predict(values)
    for unknown in ("", None, "something"):
        future = model.predict(given.assign_attrs(units=unknown))
        np.testing.assert_array_equal(future.values, as_they_are)
        assert future.attrs == {"units": unknown}


def test_the_caller_and_the_attribute_must_agree(spec: ModelSpec) -> None:
    model = create(spec.replace(value_range=radar.DBR, mean=[-10.2], std=[16.0], fill=-10.2))
    given = xr.DataArray(np.full((4, 16, 16), 3, np.float32), dims=("time", "y", "x"))
    rate = model.predict(given.values, units="mm/h")
    for stated, asked, told in ((None, "mm/h", "mm/h"), ("mm", "mm/h", "mm/h"), ("mm h-1", "mm/hr", "mm h-1")):
        future = model.predict(given if stated is None else given.assign_attrs(units=stated), units=asked)
        np.testing.assert_array_equal(future.values, rate)
        assert future.attrs == {"units": told}
    with pytest.raises(FramesError, match="in 'dBZ', as the attribute units says, and not in mm/h"):
        model.predict(given.assign_attrs(units="dBZ"), units="mm/h")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", ">i2", "int32", "int64"])
def test_integers_in_the_models_unit_are_numbers_and_not_scaled(spec: ModelSpec, dtype: str) -> None:
    model = create(spec.replace(value_range=radar.DBR, mean=[-10.2], std=[16.0], fill=-10.2))
    values = np.random.default_rng(0).integers(0, 41, (4, 16, 16))
    given = xr.DataArray(values.astype(dtype), dims=("time", "y", "x"), attrs={"units": "dBR"})
    future = model.predict(given)
    assert future.dtype == np.dtype(dtype)
    low = 0 if dtype == "uint8" else -10
    floats = model.predict(values.astype(np.float32), missing="fill")
    np.testing.assert_array_equal(future, floats.round().clip(low, 41))
    with pytest.raises(
        FramesError, match="bits=8 says how integers are scaled; these are numbers in dBR, so leave it out"
    ):
        model.predict(given, bits=8)
    with pytest.raises(FramesError, match="given 50 dBR, and no rain exceeds 46.99 dBR"):
        model.predict(xr.full_like(given, 50))


def test_integers_of_which_nothing_says_what_they_mean_are_refused(spec: ModelSpec) -> None:
    values = np.full((4, 16, 16), 10, np.int16)
    given = xr.DataArray(values, dims=("time", "y", "x"))
    for value_range, remedy in (
        (radar.DBR, r"floats in that range, or say .*units='mm/h'"),
        ((200.0, 330.0), "floats"),
    ):
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
