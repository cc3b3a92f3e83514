"""An archive with a time dimension: its windows, and the Zarr store that takes a forecast from the end of each."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stzoo.errors import DataError, FramesError
from stzoo.files import replacing
from stzoo.frames.arrays import CallerFrames, FrameSelection, read_array
from stzoo.frames.dataarray import axes_of
from stzoo.frames.fields import MAX_CHUNK
from stzoo.spec import ModelSpec

if TYPE_CHECKING:
    import xarray as xr

_CHUNK = 2**24  # values, or of one step where a unit has more
_OWN = ("step", "lead_time")


@dataclass(frozen=True)
class Windows:
    """The pasts of an archive: `frames_in` frames, `every` apart, beginning each `stride` frames."""

    frames: int
    frames_in: int
    every: int
    stride: int

    @property
    def span(self) -> int:
        """Frames from the first to the last of one."""
        return (self.frames_in - 1) * self.every + 1

    def __len__(self) -> int:
        return max(0, (self.frames - self.span) // self.stride + 1)

    def ends(self) -> slice:
        """The last past frame of each: when its forecast is issued."""
        return slice(self.span - 1, None, self.stride)


def fingerprint(field: xr.DataArray) -> str:
    """sha256 of what an archive says of itself: names, sizes, dtype and times. Its values are not read."""
    said = [str(field.name), [[str(name), size] for name, size in field.sizes.items()], str(field.dtype)]
    digest = hashlib.sha256(repr(said).encode())
    if "time" in field.coords:
        times = field["time"].to_numpy()
        digest.update(times.tobytes() if times.dtype.kind != "O" else repr(times.tolist()).encode())
    return digest.hexdigest()


def time_step(field: xr.DataArray) -> Any | None:
    """The most usual time between neighbouring frames; None where the archive has no times.

    Raises:
        DataError: times that do not rise, or that are none.
    """
    if "time" not in field.coords:
        return None
    times = field["time"].to_numpy()
    try:
        steps = np.sort(times[1:] - times[:-1])
        step = steps[len(steps) // 2]
        if step > 0 * step:
            return step
    except (TypeError, IndexError):  # names of days; a single frame
        pass
    raise DataError("the archive's times must be at least two, and rise; leave them out: .drop_vars('time')")


def _is_regular(times: np.ndarray, step: Any) -> bool:
    """Are neighbours `step` apart? A thousandth is let pass: hours or days of a file come back rounded."""
    return bool(np.all(np.abs((times[1:] - times[:-1]) - step) <= step / 1000))


def pasts(
    field: xr.DataArray, unit: range, windows: Windows, spec: ModelSpec, stride: int | None
) -> list[CallerFrames | FramesError]:
    """The windows of those numbers, checked, or why they cannot be read. Where they overlap, the archive is read once.

    Args:
        field: the archive.
        unit: numbers of windows.
        stride: what height and width must be multiples of; None: they must be the spec's.
    """
    axes, step, every = axes_of(field, spec.channels), time_step(field), windows.every
    layout = "".join(axes)
    first = [number * windows.stride for number in unit]
    bounds = slice(first[0], first[-1] + windows.span)
    slab: np.ndarray | None = None
    if windows.stride < windows.span:
        try:
            slab = _values(field, axes, bounds)
        except Exception:  # whatever the library raises on damaged bytes: which windows they lie in is seen below
            slab = None

    def past(start: int) -> CallerFrames | FramesError:
        which = slice(start, start + windows.span)
        try:
            if step is not None and not _is_regular(field["time"].to_numpy()[which], step):
                raise FramesError(f"its times are not {_shown(step)} apart, as most of the archive are")
            if slab is not None:
                at = slice(start - bounds.start, start - bounds.start + windows.span, every)
                frames = slab[(slice(None),) * layout.index("T") + (at,)]
            else:
                frames = _values(field, axes, slice(which.start, which.stop, every))
            return read_array(frames, FrameSelection(spec, stride, None, 1), layout)
        except FramesError as error:
            return error
        except Exception as error:
            return FramesError(f"the values cannot be read: {error}")

    return [past(start) for start in first]


def _values(field: xr.DataArray, axes: dict[str, Hashable], which: slice) -> np.ndarray:
    return field.isel(time=which).transpose(*axes.values()).to_numpy()


def _shown(step: Any) -> str:
    return str(step.astype("timedelta64[s]").item() if isinstance(step, np.timedelta64) else step)


def names_of(field: xr.DataArray, unit: range, windows: Windows) -> list[str]:
    """When each forecast of a unit is issued, or without times, the number of its last past frame."""
    ends = range(windows.frames)[windows.ends()][unit.start : unit.stop]
    if "time" not in field.coords:
        return [f"frame {end}" for end in ends]
    times = field["time"].to_numpy()[list(ends)]
    return [str(np.datetime_as_string(t, unit="s") if times.dtype.kind == "M" else t) for t in times]


def create_store(path: Path, field: xr.DataArray, windows: Windows, steps: int, unit: int) -> None:
    """An empty store, whole or not at all: (time, step, the archive's other dimensions), one unit a chunk of time.

    Raises:
        DataError: the archive has a dimension of a name that is needed, or a unit of it is too much for one chunk.
    """
    check_storable(field, unit)
    import xarray as xr
    import zarr

    rest = [name for name in field.dims if name != "time"]
    kept = {name: c.drop_encoding() for name, c in field.coords.items() if "time" not in c.dims and name not in _OWN}
    coordinates: dict[Hashable, Any] = {
        name: c.astype(object) if c.dtype.kind == "U" else c  # of the two sorts of text, the one that Zarr specifies
        for name, c in kept.items()
    }
    coordinates["step"] = ("step", np.arange(1, steps + 1), {"long_name": "frames ahead"})
    step = time_step(field)
    if step is not None:
        times = field["time"].variable[windows.ends()]
        packed = {key: value for key, value in field["time"].encoding.items() if key in ("units", "calendar", "dtype")}
        coordinates["time"] = ("time", times.to_numpy(), times.attrs, packed)
        lead = [k * windows.every * step for k in range(1, steps + 1)]
        about = {"standard_name": "forecast_period", "long_name": "time from the last past frame"}
        coordinates["lead_time"] = ("step", np.array(lead, _lead_dtype(step)), about)
    frame = math.prod(field.sizes[name] for name in rest)
    at_once = max(1, min(steps, _CHUNK // (unit * frame)))
    dtype = field.dtype.newbyteorder("=")
    with replacing(path) as partial:
        xr.Dataset(coords=coordinates).to_zarr(partial, consolidated=False, zarr_format=3)
        array = zarr.open_group(partial, mode="r+").create_array(
            str(field.name),
            shape=(len(windows), steps, *(field.sizes[name] for name in rest)),
            chunks=(unit, at_once, *(field.sizes[name] for name in rest)),
            dtype=dtype,
            fill_value=np.nan if dtype.kind == "f" else 0,
            dimension_names=["time", "step", *map(str, rest)],
        )
        array.attrs.update(_plain(field.attrs))


def check_storable(field: xr.DataArray, unit: int) -> None:
    """Raises `DataError` as `create_store` does."""
    taken = [str(name) for name in field.dims if name in _OWN]
    if taken:
        raise DataError(f"the archive has a dimension {taken[0]}, which forecasts need for their own; rename it")
    frame = math.prod(size for name, size in field.sizes.items() if name != "time")
    if unit * frame > MAX_CHUNK:
        raise DataError(
            f"{unit} frames of the archive are {unit * frame:,} values, and one part of a store may have "
            f"{MAX_CHUNK:,}; choose a --unit of at most {MAX_CHUNK // frame}"
        )


def _lead_dtype(step: Any) -> Any:
    return "timedelta64[us]" if isinstance(step, timedelta) else None


def _plain(attributes: dict[Hashable, Any]) -> dict[str, Any]:
    """As JSON knows them."""

    def plain(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)

    return dict(json.loads(json.dumps({str(name): value for name, value in attributes.items()}, default=plain)))
