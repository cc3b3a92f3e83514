"""Which dimension of a map is which: time, rows, columns, channels and samples.

A map is an xarray DataArray. Its dimensions go by many names; what names leave open, CF attributes of the coordinates
say (cfconventions.org). Nothing is guessed from the values.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from itertools import permutations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stzoo.errors import FramesError, printable

if TYPE_CHECKING:
    import xarray as xr

_TIME = (
    "time", "valid_time", "t", "times", "datetime", "date", "dates", "timestamp", "validtime", "time_counter",
    "ocean_time", "xtime",
)  # fmt: skip
_LEAD = (
    "step",
    "lead_time",
    "leadtime",
    "prediction_timedelta",
    "forecast_period",
)  # the time of a forecast, where no other is
_BATCH = ("batch", "sample", "member", "ensemble", "realization", "number")
_CHANNEL = ("channel", "channels", "band", "bands", "variable")
_SPATIAL = (
    ("y", "x"),
    ("lat", "lon"),
    ("latitude", "longitude"),
    ("row", "column"),
    ("row", "col"),
    ("height", "width"),
    ("n", "e"),
)
_TWINS = (  # such names differ in these alone, as xgrid_0 and ygrid_1 do: what stands for rows, and for columns
    ("y", "x"), ("lat", "lon"), ("lat", "long"), ("latitude", "longitude"), ("row", "col"), ("row", "column"),
    ("north", "east"), ("south", "west"), ("northing", "easting"), ("height", "width"), ("along", "cross"),
    ("along", "across"), ("along", "x"), ("line", "sample"), ("line", "element"), ("line", "pixel"), ("scan", "pixel"),
)  # fmt: skip
_ROWS = {
    "y", "lat", "lats", "latitude", "latitudes", "rlat", "northing", "northings", "north", "south", "row", "rows",
    "ny", "nlat", "nj", "yc", "yt", "yu", "yv", "eta", "nrow", "nrows", "line", "lines", "nlines", "scanline",
    "scanlines", "xlat", "tlat", "ulat", "geolat",
}  # fmt: skip
_COLUMNS = {
    "x", "lon", "lons", "long", "lng", "longitude", "longitudes", "rlon", "easting", "eastings", "east", "west",
    "col", "cols", "column", "columns", "nx", "nlon", "ni", "xc", "xt", "xu", "xv", "xi", "ncol", "ncols", "ncolumn",
    "ncolumns", "pixel", "pixels", "npixels", "xlong", "xlon", "tlong", "tlon", "ulong", "ulon", "geolon",
}  # fmt: skip
_VERTICAL = {"z", "lev", "level", "plev", "pressure", "depth", "height", "altitude", "isobaricinhpa", "bottom", "top"}
_STANDARD = {
    "latitude": "Y", "grid_latitude": "Y", "projection_y_coordinate": "Y",
    "longitude": "X", "grid_longitude": "X", "projection_x_coordinate": "X",
}  # fmt: skip
_DEGREES = re.compile(r"degrees?_?(north|n|east|e)$", re.IGNORECASE)

Side = Literal["Y", "X", "Z"]


def time_of(field: xr.DataArray, named: str | None = None) -> Hashable:
    """The name of the dimension of time.

    A dimension that is called `time` is the one. Otherwise its coordinate says so (the attribute `standard_name: time`
    or `axis: T`, a unit such as "hours since 2000-01-01", or dates as values), or it has another well-known name, such
    as `valid_time`, `Time` or `t`; or it is the lead time of a forecast. Of several such dimensions those of length 1,
    as the time at which a forecast was issued, are passed by.

    Args:
        field: the map.
        named: the caller's choice: a dimension, or a coordinate along it. None finds it out.

    Raises:
        FramesError: there is no such dimension, nothing says which it is, or two are likely.
    """
    if named is not None:
        along: tuple[Hashable, ...] = (named,) if named in field.dims else ()
        along = along or (field.coords[named].dims if named in field.coords else ())
        if len(along) != 1:
            raise FramesError(f"no dimension is named {printable(repr(named))}, {_given(field)}; name the one of time")
        return along[0]
    likely = [name for name in field.dims if _like_time(field, name)]
    likely = [name for name in likely if field.sizes[name] != 1] or likely
    if "time" in likely:
        return "time"
    said = [name for name in likely if _says_time(field, name)]
    called = [name for name in likely if str(name).lower() in _TIME]
    found = [name for name in said if name in called] or said or called or likely
    if len(found) == 1:
        return found[0]
    if found:
        raise FramesError(
            f"the time may be {printable(' or '.join(map(str, found)))}, {_given(field)}; say which with time=NAME (on "
            "the command line --time NAME)"
        )
    raise FramesError(
        f"expected a dimension named time, {_given(field)}; say which it is with time=NAME (on the command line --time "
        "NAME), or rename yours, such as .rename(NAME='time')"
    )


def has_time(field: xr.DataArray, named: str | None = None) -> bool:
    """Whether `time_of` finds a dimension of time."""
    try:
        time_of(field, named)
    except FramesError:
        return False
    return True


def _given(field: xr.DataArray) -> str:
    return printable(f"given {', '.join(f'{name}: {size}' for name, size in field.sizes.items()) or 'one value'}")


def _like_time(field: xr.DataArray, dimension: Hashable) -> bool:
    """Whether the name or a coordinate of a dimension says that it is one of times or of lead times."""
    called = str(dimension).lower()
    if called in _TIME or called in _LEAD or _says_time(field, dimension):
        return True
    own = field.coords.get(dimension)
    return own is not None and (own.dtype.kind == "m" or own.attrs.get("standard_name") == "forecast_period")


def _says_time(field: xr.DataArray, dimension: Hashable) -> bool:
    """Whether a coordinate along the dimension holds times."""
    along = [name for name, each in field.coords.items() if each.dims == (dimension,)]
    return any(is_clock(field.coords[name], own=name == dimension) for name in along)


def is_clock(coordinate: xr.DataArray, *, own: bool) -> bool:
    """Whether a coordinate of one axis holds times: by its values or its attributes.

    Args:
        coordinate: its attributes, and the first of its values, are looked at.
        own: it has the name of its dimension, so that `axis: T` describes the dimension.
    """
    attributes = coordinate.attrs
    if attributes.get("standard_name") == "time" or (own and attributes.get("axis") == "T"):
        return True
    if coordinate.dtype.kind == "O" and coordinate.size:
        return hasattr(coordinate[:1].values[0], "calendar")  # a date of cftime
    return coordinate.dtype.kind == "M" or (own and " since " in str(attributes.get("units", "")))


def axes_of(field: xr.DataArray, channels: int, time: Hashable = "time") -> dict[str, Hashable]:
    """Which dimension is which: letters of the layout, in the order BTCHW -> names of the dimensions.

    Rows and columns are what names, such as (y, x), (rlat, rlon) or (south_north, west_east), or CF attributes of the
    coordinates say, or the coordinates of latitude and longitude, by the dimension along which they change. Otherwise
    they are the two dimensions that remain, in their order. Further dimensions of length 1, such as one level, are left
    out.

    Args:
        field: a map with a dimension of time, two of space, and perhaps one of channels and one of samples.
        channels: another dimension of this size is taken for the channels if no name says which is.
        time: the name of the dimension of time.

    Raises:
        FramesError: there is no dimension `time`, or the other dimensions cannot be told apart.
    """
    if time not in field.dims:
        raise FramesError(f"no dimension is named {printable(repr(time))}, {_given(field)}")
    rest = [name for name in field.dims if name != time]
    batch = _several(field, [name for name in rest if str(name).lower() in _BATCH])
    channel = _several(field, [name for name in rest if str(name).lower() in _CHANNEL])
    space, spare = _space(field, [name for name in rest if str(name).lower() not in (*_BATCH, *_CHANNEL)], channels)
    many = [name for name in spare if field.sizes[name] != 1]
    for candidates in (many, spare):
        if not channel and len(candidates) == 1 and field.sizes[candidates[0]] == channels:
            channel, many = candidates, [name for name in many if name not in candidates]
    if len(batch) > 1 or len(channel) > 1 or len(space) != 2 or many:
        other = next(
            (
                f", or say with time={name} (--time {name}) that this is the time"
                for name in many
                if _like_time(field, name)
            ),
            "",
        )
        names = ["time" if time == "time" else printable(f"time (here {time})"), "two of space"]
        raise FramesError(
            f"expected the dimensions {names[0]}, {names[1]} and at most one named channel and one named sample, "
            f"{_given(field)}; rename dimensions, such as to y (rows) and x (columns), or select one place along each "
            f"that is too many, such as .isel({printable(str(next(iter(many), 'level')))}=0){printable(other)}"
        )
    letters = "B" * len(batch) + "T" + "C" * len(channel) + "HW"
    return dict(zip(letters, [*batch, time, *channel, *space], strict=True))


def single_dimensions(field: xr.DataArray, axes: dict[str, Hashable]) -> list[Hashable]:
    """The dimensions that `axes_of` left out. Each has length 1."""
    return [name for name in field.dims if name not in axes.values()]


def as_layout(field: xr.DataArray, axes: dict[str, Hashable]) -> xr.DataArray:
    """The map with the dimensions that `axes_of` found, in their order; those of length 1 that it left out are gone."""
    return field.isel(dict.fromkeys(single_dimensions(field, axes), 0)).transpose(*axes.values())


def _several(field: xr.DataArray, names: list[Hashable]) -> list[Hashable]:
    """Those of several names whose dimension is longer than 1, or else the first one."""
    return [name for name in names if field.sizes[name] != 1] or names[:1]


def _space(field: xr.DataArray, names: list[Hashable], channels: int) -> tuple[list[Hashable], list[Hashable]]:
    """The dimensions of rows and columns, in that order, or none if they are not clear; and the rest of `names`."""
    pair = _well_known(names)
    if not pair:
        sides = {name: side_of(field, name) for name in names}
        rows, columns = ([name for name in names if sides[name] == side] for side in "YX")
        known = [*rows, *columns]
        unknown = [name for name in names if name not in known]
        if len(rows) > 1 or len(columns) > 1:
            return [], names
        if len(known) < 2:
            unknown = _likely(field, unknown, 2 - len(known), channels)
        if len(known) == 2:
            pair = known
        elif len(known) + len(unknown) != 2:
            return [], names
        elif not known or (rows and sides[unknown[0]] == "Z"):  # a section along a meridian is read as it stands
            pair = [name for name in names if name in (*known, *unknown)]
            pair = pair[::-1] if not known and _crosswise(field, *pair) else pair
        else:
            pair = [*rows, *unknown] if rows else [*unknown, *columns]
    return pair, [name for name in names if name not in pair]


def _likely(field: xr.DataArray, names: list[Hashable], wanted: int, channels: int) -> list[Hashable]:
    """Those of `names` that may be rows or columns: none of length 1, and not the one that may be the channels."""
    longer = [name for name in names if field.sizes[name] != 1]
    names = longer if len(longer) >= wanted else names
    if len(names) == wanted + 1:
        rest = [name for name in names if field.sizes[name] != channels]
        names = rest if len(rest) == wanted else names
    return names


def _well_known(names: list[Hashable]) -> list[Hashable]:
    """The two of `names` that are well known for rows and columns, in that order; empty if there are no such names."""
    known = {str(name).lower(): name for name in names}
    for pair in _SPATIAL:
        if known.keys() >= set(pair):
            return [known[name] for name in pair]
    twins = [pair for pair in permutations(names, 2) if _are_twins(*map(str, pair))]
    return list(twins[0]) if len(twins) == 1 else []


def _are_twins(rows: str, columns: str) -> bool:
    """Whether two names differ only in a part that stands for rows in the one and for columns in the other."""
    rows, columns = (re.sub(r"[^a-z]", "", name.lower()) for name in (rows, columns))
    return any(
        rows == columns[: found.start()] + row + columns[found.end() :]
        for row, column in _TWINS
        for found in re.finditer(column, columns)
    )


def side_of(field: xr.DataArray, dimension: Hashable) -> Side | None:
    """Whether a dimension is that of rows (Y), of columns (X) or of height (Z); None if nothing says so.

    Its own coordinate and its name are asked first, and then the other coordinates along it, if they agree.
    """
    own = _side(dimension, field.coords[dimension].attrs if dimension in field.coords else {})
    if own is not None:
        return own
    others = {_side(name, each.attrs) for name, each in field.coords.items() if each.dims == (dimension,)} - {None, "Z"}
    return others.pop() if len(others) == 1 else None


def _side(name: Hashable, said: dict[Hashable, Any]) -> Side | None:
    """What the attributes of a coordinate say of its side, or else its name."""
    if said.get("axis") in ("X", "Y", "Z"):
        return said["axis"]
    if said.get("standard_name") in _STANDARD:
        return "Y" if _STANDARD[said["standard_name"]] == "Y" else "X"
    degrees = _DEGREES.match(str(said.get("units", "")))
    if degrees:
        return "Y" if degrees[1][0].lower() == "n" else "X"
    words = set(re.split(r"[^a-z]+", str(name).lower()))
    for side, known in (("Y", _ROWS), ("X", _COLUMNS), ("Z", _VERTICAL)):
        if words & known:
            return side  # type: ignore[return-value]
    return None


_CLEARLY = 2.0  # so many times as much must the coordinates change one way as the other
_LOOKED_AT = 32  # places along a dimension


def _crosswise(field: xr.DataArray, first: Hashable, second: Hashable) -> bool:
    """Whether coordinates of both dimensions say that the first one is that of columns.

    Latitudes change along the rows' dimension, longitudes along that of the columns. On a map that is turned, or on
    unequal distances, the products of the changes tell.
    """
    along, across = 1.0, 1.0  # how far the first is the dimension of rows, and how far the second is
    for name, each in field.coords.items():
        side = _side(name, each.attrs) if set(each.dims) == {first, second} and each.dtype.kind in "iuf" else None
        if side not in ("X", "Y"):
            continue
        changes = [_change(each.transpose(first, second), dimension) for dimension in (first, second)]
        changes = changes if side == "Y" else changes[::-1]
        along, across = along * changes[0], across * changes[1]
    return across > _CLEARLY * along


def _change(places: xr.DataArray, dimension: Hashable) -> float:
    """By how many degrees neighbours along a dimension differ in the mean, about; 0 if unknown."""
    some = {name: slice(None, None, -(-size // _LOOKED_AT)) for name, size in places.sizes.items()}
    try:
        values = places.isel(some).to_numpy().astype(np.float64)
    except Exception:  # whatever the library raises on damaged bytes, which are reported when they are needed
        return 0.0
    steps = np.diff(values, axis=places.dims.index(dimension))
    steps = np.abs((steps[np.isfinite(steps)] + 180) % 360 - 180)  # 359 and 1 are neighbours
    return float(steps.mean()) / some[dimension].step if len(steps) else 0.0
