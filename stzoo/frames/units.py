"""What a map's attribute `units` says, compared with the units that a model was trained in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stzoo.errors import FramesError
from stzoo.frames.rain import UNITS, RainUnit, is_amount, is_rain, rain_unit
from stzoo.spec import shown

if TYPE_CHECKING:
    import xarray as xr

_PHYSICAL = {
    "m", "mm", "cm", "dm", "km", "um", "gpm", "dam", "in", "inch", "ft", "metre", "metres", "meter", "meters",
    "s", "sec", "second", "seconds", "h", "hr", "hour", "hours", "min", "minute", "minutes", "d", "day", "days",
    "month", "year", "k", "kelvin", "c", "degc", "celsius", "f", "degf", "fahrenheit", "°c", "°f", "g", "kg", "mg",
    "ug", "t", "pa", "hpa", "kpa", "bar", "mbar", "mb", "millibar", "millibars", "n", "j", "kj", "mj", "w", "kw", "mol",
    "ppm", "ppb", "ppmv", "du", "kt", "kts", "knot", "knots", "dbz", "dbm", "%", "percent", "per_cent", "degree",
    "degrees", "deg", "rad", "sr", "psu", "v", "hz", "vehicles",
}  # fmt: skip


def unit_of(
    field: xr.DataArray, value_range: tuple[float, float] | None, asked: RainUnit | None = None, bits: int | None = None
) -> RainUnit | None:
    """The unit of rain in which the numbers of a map are, after a check that they fit the model as far as is known.

    For a model of rain it is the one that the caller or the attribute `units` names. A map without that attribute, or
    with units that are not known here, is accepted: its floats are in the units of the model, and its integers are
    scaled, if they are uint8 or `bits` says how. Models with the range [0, 1] read fractions, such as gray levels; of
    other models the units are not known.

    Args:
        field: the map.
        value_range: that of the model's spec, by which its units are known.
        asked: the unit that the caller names, of a model of rain.
        bits: the caller's choice of how integers are scaled.

    Returns:
        The unit of the numbers; None if they are in the units of the model, or stand for its range.

    Raises:
        FramesError: the units contradict each other or those of the model, or nothing says what integers mean.
    """
    stated = field.attrs.get("units")
    stated = stated if isinstance(stated, str) else ""
    of_rain = rain_unit(stated)
    if is_rain(value_range):
        unit = _agreed(stated, of_rain, asked)
        _check_integers(field, value_range, unit, bits)
        return unit
    if value_range == (0.0, 1.0) and field.dtype.kind not in "iu" and (of_rain or is_physical(stated)):
        raise FramesError(
            f"the values are in {shown(stated)}, as the attribute units says, and the model's are in "
            "1, that is fractions from 0 to 1; convert the values, or correct the attribute if they are converted "
            "already: .assign_attrs(units='1')"
        )
    _check_integers(field, value_range, None, bits)
    return None


def _agreed(stated: str, of_rain: RainUnit | None, asked: RainUnit | None) -> RainUnit | None:
    """The unit that the attribute of a map (`stated`, which is `of_rain`) and the caller (`asked`) agree on."""
    if asked is not None:
        if of_rain is not None and (of_rain.scale, of_rain.of_a_rate) != (asked.scale, asked.of_a_rate):
            raise FramesError(
                f"the values are in {shown(stated)}, as the attribute units says, and not in {asked.name}; leave out "
                "units (in commands --units), or correct the attribute"
            )
        return of_rain or asked
    if of_rain is not None:
        return of_rain
    if is_amount(stated):
        raise FramesError(
            f"the values are in {shown(stated)}, as the attribute units says, which is an amount of rain and not a "
            "rate: divide them by the hours in which it fell, and say .assign_attrs(units='mm/h')"
        )
    if is_physical(stated):
        raise FramesError(
            f"the values are in {shown(stated)}, as the attribute units says, and the model reads rain in "
            f"{', '.join(UNITS)} or other spellings of these; convert the values, or correct the attribute, such as "
            "with .assign_attrs(units='mm/h')"
        )
    return None


def _check_integers(
    field: xr.DataArray, value_range: tuple[float, float] | None, unit: RainUnit | None, bits: int | None
) -> None:
    """Raises `FramesError` if the values are integers, and nothing says what they mean."""
    if field.dtype.kind not in "iu" or value_range is None or value_range == (0.0, 1.0):
        return
    if unit is not None or bits is not None or field.dtype == "uint8":
        return
    low, high = value_range
    named = ", or say in which unit they are: .assign_attrs(units='mm/h')" if is_rain(value_range) else ""
    wanted = "dBR" if is_rain(value_range) else "the model's units"
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
