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
