"""What a map's attribute `units` says, compared with the units that a model was trained in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stzoo.errors import FramesError
from stzoo.spec import shown

if TYPE_CHECKING:
    import xarray as xr

DBR = (-10.4, 40.6)  # the range of models of rain, in dBR; see `stzoo.data.radar`
_MEANINGS = {
    DBR: "dBR, that is 10 log10(rain rate in mm/h)",
    (0.0, 1.0): "1, that is fractions from 0 to 1",
}
_DECIBELS_OF_RAIN = {"dbr", "db", "dbrr", "dbrainrate", "10log10mmh", "10log10mmhr", "dbmmh", "dbmmhr"}
_PHYSICAL = {
    "m", "mm", "cm", "dm", "km", "um", "gpm", "dam", "in", "inch", "ft", "metre", "metres", "meter", "meters",
    "s", "sec", "second", "seconds", "h", "hr", "hour", "hours", "min", "minute", "minutes", "d", "day", "days",
    "month", "year", "k", "kelvin", "c", "degc", "celsius", "f", "degf", "fahrenheit", "°c", "°f", "g", "kg", "mg",
    "ug", "t", "pa", "hpa", "kpa", "bar", "mbar", "mb", "millibar", "millibars", "n", "j", "kj", "mj", "w", "kw", "mol",
    "ppm", "ppb", "ppmv", "du", "kt", "kts", "knot", "knots", "dbz", "dbm", "%", "percent", "per_cent", "degree",
    "degrees", "deg", "rad", "sr", "psu", "v", "hz", "vehicles",
}  # fmt: skip


def check_units(field: xr.DataArray, value_range: tuple[float, float] | None) -> None:
    """Check that a map is in the units of the model, as far as both are known.

    Models of rain are in dBR, and models with the range [0, 1] in fractions, such as gray levels; of other models the
    units are not known. A map without the attribute `units`, or with units that are not known here, is accepted, and
    so are integers for a model with the range [0, 1], which are scaled from the range of their dtype.

    Args:
        field: the map.
        value_range: that of the model's spec, by which its units are known.

    Raises:
        FramesError: the units contradict each other. The message names both.
    """
    meaning = None if value_range is None else _MEANINGS.get(value_range)
    stated = field.attrs.get("units")
    if meaning is None or not isinstance(stated, str):
        return
    if value_range == DBR:
        wrong = is_physical(stated) and not _is_rain(stated)
    else:
        wrong = field.dtype.kind not in "iu" and (_is_rain(stated) or is_physical(stated))
    if wrong:
        raise FramesError(
            f"the values are in {shown(stated)}, as the attribute units says, and the model's are in {meaning}; "
            "convert the values, or correct the attribute if they are converted already: "
            f".assign_attrs(units={'dBR' if value_range == DBR else '1'!r})"
        )


def holds_numbers(field: xr.DataArray, value_range: tuple[float, float] | None, bits: int | None = None) -> bool:
    """Whether the integers of a map are numbers in the model's units, which are not scaled from the range of a dtype.

    They are if the attribute `units` says so. Otherwise they are scaled for models with the range [0, 1], or if `bits`
    says how, or if they are uint8, in which 0 to 255 stand for the range of the model, as in the data of radars.

    Args:
        field: the map.
        value_range: that of the model's spec; without one all integers are numbers in its units anyway.
        bits: the caller's choice of how integers are scaled.

    Raises:
        FramesError: nothing says what the integers mean, or `bits` contradicts the attribute.
    """
    if field.dtype.kind not in "iu" or value_range is None or value_range == (0.0, 1.0):
        return False
    stated = field.attrs.get("units")
    if value_range == DBR and isinstance(stated, str) and _is_rain(stated):
        if bits is not None:
            raise FramesError(
                f"bits={bits} says how integers are scaled; these are numbers in {shown(stated)}, as the attribute "
                "units says, so leave it out"
            )
        return True
    if bits is not None or field.dtype == "uint8":
        return False
    low, high = value_range
    wanted = "dBR" if value_range == DBR else "the model's units"
    named = ", or say that they are in dBR already: .assign_attrs(units='dBR')" if value_range == DBR else ""
    raise FramesError(
        f"nothing says what the {field.dtype.name} values mean: the model reads {wanted}, from {low:g} to {high:g}. "
        f"Convert them to floats in that range{named}. Only uint8 is scaled: 0 to 255 stand for the range"
    )


def is_physical(units: str) -> bool:
    """Whether `units` is a known unit with a dimension, such as "K", "mm h-1" or "m**2 s**-2", or a percentage.

    "1", "(0 - 1)" and ratios of equal units, such as "kg kg-1", are not.
    """
    words = [word for word in re.findall(r"per_cent|[a-z°%]+", units.lower()) if word not in ("per", "since")]
    ratio = len(words) == 2 and words[0] == words[1]
    return bool(words) and not ratio and all(word in _PHYSICAL for word in words)


def _is_rain(units: str) -> bool:
    """Whether `units` is one of the spellings of dBR."""
    return re.sub(r"[^a-z0-9]", "", units.lower()) in _DECIBELS_OF_RAIN
