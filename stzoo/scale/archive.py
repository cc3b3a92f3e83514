"""An archive with a time dimension: its windows, and the Zarr store that holds the forecast from the end of each."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stzoo.engine.memory import check_kept
from stzoo.errors import DataError, FramesError, printable
from stzoo.files import replacing
from stzoo.forecaster import Forecaster
from stzoo.frames.arrays import CallerFrames, FrameSelection, read_array
from stzoo.frames.axes import as_layout, axes_of, time_of
from stzoo.frames.cf import global_attributes, rain_attributes, referring
from stzoo.frames.fields import check_read, open_field
from stzoo.frames.netcdf import MAX_CHUNK
from stzoo.frames.options import ReadingOptions
from stzoo.frames.rain import RainUnit, asked_unit
from stzoo.frames.times import clock_of, dates_in_text
from stzoo.frames.units import unit_of
from stzoo.models import stride_of
from stzoo.scale.plan import ForecastOptions
from stzoo.spec import ModelSpec

if TYPE_CHECKING:
    import xarray as xr

_CHUNK = 2**24  # values in a chunk of the store; more only where one step of a unit has more
_PROBES = 8  # windows that are read before the first forecast
_ISSUED: Mapping[str, str] = MappingProxyType(
    {"standard_name": "forecast_reference_time", "long_name": "time of the last observation"}
)
_OWN = ("step", "lead_time")  # what the store adds to the archive's dimensions and coordinates


@dataclass(frozen=True)
class ArchiveWindows:
    """The windows of an archive: the past frames that each forecast reads.

    Attributes:
        frames: frames of the archive.
        frames_in: frames of a window.
        every: how many frames of the archive lie from one frame of a window to the next.
        stride: how many frames lie from the start of one window to that of the next.
        time: the name of the archive's dimension of time.
    """

    frames: int
    frames_in: int
    every: int
    stride: int
    time: Hashable = "time"

    @classmethod
    def of(cls, field: xr.DataArray, frames_in: int, options: ForecastOptions) -> ArchiveWindows:
        """The windows of an archive for a model that reads `frames_in` frames.

        Raises:
            FramesError: the archive has no dimension of time, or it is not clear which it is.
        """
        time = time_of(field, options.time)
        return cls(field.sizes[time], frames_in, options.every, options.stride or 1, time)

    @property
    def span(self) -> int:
        """Frames of the archive from the first to the last of a window, both counted."""
        return (self.frames_in - 1) * self.every + 1

    def __len__(self) -> int:
        return max(0, (self.frames - self.span) // self.stride + 1)

    def ends(self) -> slice:
        """The last frame of each window, which is when its forecast is issued."""
        return slice(self.span - 1, None, self.stride)


def check_archive(path: Path, model: Forecaster, options: ForecastOptions) -> tuple[int, str]:
    """Read a few windows, of which at least one must be sound.

    Returns:
        How many windows there are, and the archive's fingerprint.

    Raises:
        DataError: the archive is too short, its times do not rise, or its forecasts cannot be stored.
        FramesError: it cannot be opened, or none of the windows that were read is sound.
        MemoryNeededError: there is no memory for the forecasts of one unit.
    """
    with open_field(path, options.variable, options.time) as field:
        try:
            unit_of(field, model.spec.value_range, asked_unit(options.units, model.spec.value_range))  # which raises
            windows = ArchiveWindows.of(field, model.spec.frames_in, options)
        except FramesError as error:
            raise FramesError(f"{path}: {error}") from error
        if not len(windows):
            raise DataError(f"{path} has {windows.frames} times; a forecast reads {windows.span}, from first to last")
        check_storable(field, options.unit, windows.time)
        chosen, tried = ReadingOptions(units=options.units, missing=options.missing), []
        for number in range(0, len(windows), -(-len(windows) // _PROBES)):
            tried += read_windows(
                path, field, range(number, number + 1), windows, model.spec, stride_of(model.module), chosen
            )
            if not isinstance(tried[-1], FramesError):
                frame, together = tried[-1].past.shape[2:], min(options.unit, len(windows))
                check_kept(together, options.steps, frame, torch.device("cpu"), size=field.dtype.itemsize)
                return len(windows), archive_fingerprint(field, windows.time)
    raise FramesError(f"{path}: {tried[0]}")


def archive_fingerprint(field: xr.DataArray, time: Hashable) -> str:
    """sha256 of an archive's names, sizes, dtype and times. Its values are not read."""
    said = [str(field.name), [[str(name), size] for name, size in field.sizes.items()], str(field.dtype)]
    digest = hashlib.sha256(repr(said).encode())
    clock = clock_in(field, time)
    if clock is not None:
        times = field[clock].to_numpy()
        digest.update(times.tobytes() if times.dtype.kind != "O" else repr(times.tolist()).encode())
    return digest.hexdigest()


def clock_in(field: xr.DataArray, time: Hashable) -> Hashable | None:
    """The name of the coordinate that holds the times of the archive; None if it has none.

    Along a dimension that is called `time` it is only the coordinate of that name, as in archives that were begun by
    versions that knew no other.
    """
    return clock_of(field, time) if time != "time" or time in field.coords else None


def times_in(field: xr.DataArray, time: Hashable) -> np.ndarray | None:
    """The times of the archive (N,), as dates if they are written as text; None if it has none."""
    clock = clock_in(field, time)
    if clock is None:
        return None
    times = field[clock].to_numpy()
    dates = dates_in_text(times) if times.dtype.kind in "SUO" else None
    return times if dates is None else dates.astype("datetime64[ns]")


def time_step(field: xr.DataArray, time: Hashable) -> Any | None:
    """The median time between neighbouring frames, in the type of the archive's times; None if it has no times.

    Raises:
        DataError: the times do not rise, there is only one, or they are not times or numbers.
    """
    times = times_in(field, time)
    if times is None:
        return None
    try:
        steps = np.sort(times[1:] - times[:-1])
        step = steps[len(steps) // 2]
        if step > 0 * step:
            return step
    except (TypeError, IndexError):  # names of days; a single frame
        pass
    raise DataError(
        f"the archive needs at least two times, and they must rise; or leave them out: .drop_vars({str(time)!r})"
    )


def _is_regular(times: np.ndarray, step: Any) -> bool:
    """Whether neighbours are `step` apart, to a thousandth of it: hours or days in a file come back rounded."""
    return bool(np.all(np.abs((times[1:] - times[:-1]) - step) <= step / 1000))


def read_windows(
    source: Path,
    field: xr.DataArray,
    numbers: range,
    windows: ArchiveWindows,
    spec: ModelSpec,
    stride: int | None,
    options: ReadingOptions,
) -> list[CallerFrames | FramesError]:
    """The windows with these numbers, each checked, or why it cannot be read.

    Where windows overlap, the part of the archive that they cover is read once.

    Args:
        source: the archive's file or store.
        field: the open archive, with the dimension of time and those of a frame, in any order.
        numbers: the numbers of the windows.
        windows: which frames each window has.
        spec: the spec of the model.
        stride: what height and width must be multiples of; None: they must be the spec's own.
        options: in which units the numbers are, and what a forecast holds where nothing was observed.
    """
    time, every = windows.time, windows.every
    axes, step = axes_of(field, spec.channels, time), time_step(field, time)
    times = times_in(field, time)
    layout = "".join(axes)
    unit = unit_of(field, spec.value_range, asked_unit(options.units, spec.value_range))
    starts = [number * windows.stride for number in numbers]
    bounds = slice(starts[0], starts[-1] + windows.span)
    shared: np.ndarray | None = None
    sound = True
    try:
        check_read(source, field, bounds, time)
        if windows.stride < windows.span:
            shared = _values(field, axes, bounds)
    except Exception:  # whatever the library raises on damaged bytes: the windows that hold them are found below
        sound = False

    def read_window(start: int) -> CallerFrames | FramesError:
        which = slice(start, start + windows.span)
        try:
            if step is not None and times is not None and not _is_regular(times[which], step):
                raise FramesError(f"its times are not {_shown(step)} apart, as most of the archive's are")
            if shared is not None:
                at = slice(start - bounds.start, start - bounds.start + windows.span, every)
                frames = shared[(slice(None),) * layout.index("T") + (at,)]
            else:
                if not sound:
                    check_read(source, field, which, time)
                frames = _values(field, axes, slice(which.start, which.stop, every))
            return read_array(frames, FrameSelection(spec, stride, None, options, unit=unit), layout)
        except FramesError as error:
            return error
        except MemoryError:  # no fault of the archive: the unit is tried again
            raise
        except Exception as error:
            return FramesError(f"the values cannot be read: {printable(str(error))}")

    return [read_window(start) for start in starts]


def _values(field: xr.DataArray, axes: dict[str, Hashable], which: slice) -> np.ndarray:
    return as_layout(field.isel({axes["T"]: which}), axes).to_numpy()


def _shown(step: Any) -> str:
    return str(step.astype("timedelta64[s]").item() if isinstance(step, np.timedelta64) else step)


def names_of(field: xr.DataArray, numbers: range, windows: ArchiveWindows) -> list[str]:
    """When each of these forecasts is issued; the number of its last past frame if the archive has no times."""
    ends = range(windows.frames)[windows.ends()][numbers.start : numbers.stop]
    times = times_in(field, windows.time)
    if times is None:
        return [f"frame {end}" for end in ends]
    chosen = times[list(ends)]
    return [str(np.datetime_as_string(t, unit="s") if times.dtype.kind == "M" else t) for t in chosen]


def create_store(
    path: Path, field: xr.DataArray, windows: ArchiveWindows, steps: int, unit: int, rain: RainUnit | None = None
) -> None:
    """Write an empty store, whole or not at all. Workers fill it, each its own chunks of time.

    Its array has the archive's dimension of time (one for each window), step (1 to `steps`), and the archive's others
    in their order, and the archive's name, dtype and attributes; its attribute `units` names the unit `rain`, if there
    is one. A chunk holds `unit` forecasts.

    Raises:
        DataError: the archive has a dimension whose name the store needs, or a unit of it is too large for one chunk.
    """
    time = windows.time
    check_storable(field, unit, time)
    import xarray as xr
    import zarr

    sizes = [size for name, size in field.sizes.items() if name != time]
    at_once = max(1, min(steps, _CHUNK // (unit * math.prod(sizes))))
    dtype = field.dtype.newbyteorder("=")
    with replacing(path) as partial:
        coordinates = xr.Dataset(coords=_coordinates(field, windows, steps), attrs=global_attributes(field.name))
        for variable in coordinates.variables.values():  # bounds of a time or an axis are not copied
            variable.attrs = referring(variable.attrs, coordinates.variables)
        coordinates.to_zarr(partial, consolidated=False, zarr_format=3)
        array = zarr.open_group(partial, mode="r+").create_array(
            str(field.name),
            shape=(len(windows), steps, *sizes),
            chunks=(unit, at_once, *sizes),
            dtype=dtype,
            fill_value=np.nan if dtype.kind == "f" else 0,
            dimension_names=[str(time), "step", *(str(name) for name in field.dims if name != time)],
        )
        about = referring(field.attrs, coordinates.variables) | ({} if rain is None else {"units": rain.name})
        apart = {*coordinates.dims, *str(about.get("grid_mapping", "")).replace(":", " ").split()}
        beside = " ".join(str(name) for name in coordinates.coords if name not in apart)
        array.attrs.update(_plain(about | rain_attributes(about) | ({"coordinates": beside} if beside else {})))


def _coordinates(field: xr.DataArray, windows: ArchiveWindows, steps: int) -> dict[Hashable, Any]:
    """The archive's own coordinates, except those along time; then `step`, the times and `lead_time`."""
    time = windows.time
    kept = {name: c.drop_encoding() for name, c in field.coords.items() if time not in c.dims and name not in _OWN}
    coordinates: dict[Hashable, Any] = {
        name: c.astype(object) if c.dtype.kind == "U" else c  # of the two sorts of text, the one that Zarr specifies
        for name, c in kept.items()
    }
    coordinates["step"] = ("step", np.arange(1, steps + 1), {"long_name": "frames ahead"})
    step, clock, times = time_step(field, time), clock_in(field, time), times_in(field, time)
    if step is not None and clock is not None and times is not None:
        is_text = field[clock].dtype.kind in "SUO" and times.dtype.kind == "M"
        of_file = {} if is_text else field[clock].encoding
        packed = {key: value for key, value in of_file.items() if key in ("units", "calendar", "dtype")}
        issued = times.dtype.kind == "M" or hasattr(times[0], "calendar")
        about = field[clock].attrs | dict(_ISSUED if issued else {})
        coordinates[clock] = (time, times[windows.ends()], about, packed)
        apart = step.item() if isinstance(step, np.generic) and step.dtype.kind in "iu" else step  # which would wrap
        lead = [k * windows.every * apart for k in range(1, steps + 1)]
        about = {"standard_name": "forecast_period", "long_name": "time since the last observation"}
        coordinates["lead_time"] = ("step", np.array(lead, _lead_dtype(step)), about)
    return coordinates


def check_storable(field: xr.DataArray, unit: int, time: Hashable) -> None:
    """Raises `DataError` in the cases of `create_store`."""
    taken = [str(name) for name in field.dims if name in _OWN]
    if taken:
        raise DataError(f"the archive has a dimension {taken[0]}, a name that the forecasts need; rename it")
    frame = math.prod(size for name, size in field.sizes.items() if name != time)
    if unit * frame > MAX_CHUNK:
        raise DataError(
            f"{unit} frames of the archive have {unit * frame:,} values, and one chunk of a store may have "
            f"{MAX_CHUNK:,}; choose a --unit of at most {MAX_CHUNK // frame}"
        )


def _lead_dtype(step: Any) -> Any:
    return "timedelta64[us]" if isinstance(step, timedelta) else None


def _plain(attributes: dict[Hashable, Any]) -> dict[str, Any]:
    """The attributes as JSON holds them: arrays as lists, and whatever else JSON does not know as text."""

    def plain(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)

    return dict(json.loads(json.dumps({str(name): value for name, value in attributes.items()}, default=plain)))
