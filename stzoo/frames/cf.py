"""Forecasts described as the CF conventions ask for (cfconventions.org), so that forecasters' programs read the files.

What a map says of itself is kept. Added is what follows from the forecast: how far ahead of the last observation each
time is, and the standard name of what a unit of rain measures.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from stzoo.frames.rain import rain_unit

if TYPE_CHECKING:
    import xarray as xr

CONVENTIONS = "CF-1.9"  # the first version that has integers of 64 bits, in which times are written, and unsigned ones
_ISSUED, _PERIOD = "forecast_reference_time", "forecast_period"  # also their standard names
_STANDARD_NAMES: Mapping[str, str] = MappingProxyType(  # of what `rain_unit` knows; decibels of a rate have none
    {"rate": "rainfall_rate", "dBZ": "equivalent_reflectivity_factor"}
)
_LONG_NAMES: Mapping[str, str] = MappingProxyType(
    {"rate": "rain rate", "dBZ": "radar reflectivity", "dBR": "rain rate in decibels above 1 mm/h"}
)
_REFERENCES = ("bounds", "climatology", "grid_mapping", "ancillary_variables", "cell_measures", "formula_terms")


def cf_dataset(forecast: xr.DataArray, issued: xr.DataArray | None = None) -> xr.Dataset:
    """The dataset to write for a forecast.

    Args:
        forecast: what `Forecaster.rollout` returned.
        issued: the date of the last past frame, as `CallerFrames.issued` has it. With it there are the coordinates
            forecast_reference_time, and forecast_period in minutes, beside the times.

    Returns:
        The forecast under its own name, or as "forecast" if it has none that a file can hold, and its coordinates.
    """
    taken = {None, *forecast.coords, *forecast.dims}
    name = "forecast" if forecast.name in taken else forecast.name
    dataset = forecast.to_dataset(name=name).copy()
    if issued is not None:
        lead = _lead(forecast[issued.name], issued.to_numpy()[()])
        dataset = dataset.assign_coords({each: about for each, about in lead.items() if each not in forecast.dims})
        dataset[issued.name].attrs = {"standard_name": "time"} | dataset[issued.name].attrs
    for each in dataset.coords:
        dataset[each].encoding["_FillValue"] = None  # coordinates have no missing values
    for variable in dataset.variables.values():
        about = referring(variable.attrs, dataset.variables)
        variable.attrs = {key: value for key, value in about.items() if key not in _REFERENCES}
        # where xarray looks for what it must not list among the coordinates
        variable.encoding |= {key: value for key, value in about.items() if key in _REFERENCES}
    dataset[name].attrs.update(rain_attributes(dataset[name].attrs))
    dataset.attrs = global_attributes(name)
    return dataset


def global_attributes(name: Hashable) -> dict[str, str]:
    """The attributes of a file with forecasts of the variable `name`."""
    return {"Conventions": CONVENTIONS, "title": f"forecast of {name}", "source": "forecast by stzoo"}


def referring(attributes: Mapping[Hashable, Any], there: Collection[Hashable]) -> dict[Hashable, Any]:
    """Attributes of a variable, without those that name other variables which are not among those that are there."""
    return {key: value for key, value in attributes.items() if key not in _REFERENCES or _are_there(value, there)}


def rain_attributes(attributes: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    """The attributes that a map of rain lacks: standard_name and long_name, by its units. Empty for other maps."""
    units = attributes.get("units")
    unit = rain_unit(units) if isinstance(units, str) else None
    if unit is None:
        return {}
    of_mass = unit.scale == "rate" and "kg" in unit.name.lower()
    standard = "precipitation_flux" if of_mass else _STANDARD_NAMES.get(unit.scale)
    wanted = {"standard_name": standard, "long_name": _LONG_NAMES[unit.scale]}
    return {key: value for key, value in wanted.items() if value is not None and key not in attributes}


def _lead(times: xr.DataArray, issued: Any) -> dict[str, Any]:
    """When the forecast was issued, and how far ahead each of its times is, in minutes."""
    ahead = np.asarray(times.to_numpy() - issued).astype("timedelta64[us]") / np.timedelta64(1, "m")
    whole = bool((ahead % 1 == 0).all())
    about = {"standard_name": _PERIOD, "long_name": "time since the last observation", "units": "minutes"}
    return {
        _ISSUED: ((), issued, {"standard_name": _ISSUED, "long_name": "time of the last observation"}),
        _PERIOD: (times.dims, ahead.astype(np.int32) if whole else ahead, about),
    }


def _are_there(reference: Any, there: Collection[Hashable]) -> bool:
    """Whether all variables are there that a text such as "crs" or "crs: x y" names."""
    return all(word.removesuffix(":") in there for word in str(reference).split())
