"""One unit: read its clips or windows, forecast those of one size together, write the forecasts, mark the unit."""

from __future__ import annotations

import errno
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from stzoo import frames as frames_room
from stzoo import hub
from stzoo.engine.forking import set_threads
from stzoo.engine.handing_out import future
from stzoo.engine.memory import check_kept
from stzoo.errors import ForecastError, FramesError, IntegrityError, StzooError, printable
from stzoo.forecaster import Forecaster
from stzoo.frames.arrays import CallerFrames
from stzoo.frames.axes import axes_of
from stzoo.frames.fields import open_field
from stzoo.frames.options import ReadingOptions
from stzoo.models import stride_of
from stzoo.published.fetching import find
from stzoo.scale.archive import ArchiveWindows, names_of, read_windows
from stzoo.scale.clips import line_ends, place_of, read_clip, read_clip_list
from stzoo.scale.folder import ArchiveFolder
from stzoo.scale.plan import ForecastOptions, Plan

# Errors of one file's name, which cost its own forecast and no other: it is too long, no name for this file system, or
# something else stands in its place.
_OF_THE_NAME = (
    errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY,
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What a worker is told. Its paths are absolute, so that they mean the same to every worker.

    Attributes:
        source: what is forecast.
        folder: where the forecasts go.
        plan: what decides their bytes.
        model: the model's files, as the process that began the run found them.
        model_name: how the model was asked for.
    """

    source: Path
    folder: ArchiveFolder
    plan: Plan
    model: hub.Resolved
    model_name: str


class UnitForecaster(Protocol):
    """Makes the forecasts of one kind of source."""

    def forecast(self, numbers: range) -> list[tuple[str, int, FramesError]]:
        """Write the forecasts of those items. Returns name, number and reason of each item that has no forecast."""


def work_here(job: Job, units: list[int]) -> Iterator[tuple[int, int]]:
    """Make units in this process, one after the other. Yields each unit, and how many of its items failed.

    Raises:
        StzooError: as `Worker.do`.
    """
    threads = torch.get_num_threads()
    try:
        worker = Worker(job)
        for unit in units:
            yield unit, worker.do(unit)
    finally:
        torch.set_num_threads(threads)


class Worker:
    """Makes units, with a model that is loaded once, before the first of them."""

    def __init__(self, job: Job):
        self._job = job
        self._forecaster: UnitForecaster | None = None

    def do(self, unit: int) -> int:
        """Make a unit, unless it is finished already. Returns how many of its items failed.

        Raises:
            StzooError: no worker can go on, because the model failed or nothing can be written.
        """
        job = self._job
        failed = job.folder.failed(unit)
        if failed is not None:
            return failed
        numbers = job.plan.numbers(unit)
        try:
            self._forecaster = self._forecaster or _forecaster_of(job)
            with job.folder.written():
                failures = self._forecaster.forecast(numbers)
                lines = [json.dumps({"item": name, "index": i, "error": str(error)}) for name, i, error in failures]
                if hasattr(os, "sync"):
                    os.sync()  # a power cut must not leave a marker without the forecasts that it stands for
                job.folder.mark(unit, lines)
        except StzooError:
            raise
        except Exception as error:
            what = printable(f"{type(error).__name__}: {error}".splitlines()[0])
            raise StzooError(
                f"forecasting items {numbers.start} to {numbers[-1]} failed: {what}; if memory was short, begin anew "
                "with a smaller --unit; otherwise the same command goes on"
            ) from error
        return len(lines)


def open_model(job: Job) -> Forecaster:
    """The model of the plan, from the files of the job or, if they are not on this machine, by its name.

    Raises:
        IntegrityError: the file that this machine has holds another model.
    """
    plan, found = job.plan, job.model
    if not found.path.is_file() or (found.codec is not None and not found.codec.is_file()):
        found = find(job.model_name, progress=False)
    here = hub.file_sha256(found.path), None if found.codec is None else hub.file_sha256(found.codec)
    if here != (plan.model_sha256, plan.codec_sha256):
        raise IntegrityError(f"{found.path} has sha256 {here[0]}, expected {plan.model_sha256}: it is another model")
    found = replace(found, sha256=here[0], codec_sha256=here[1])
    options = plan.options
    model = Forecaster.from_files(found, job.model_name, precision=options.precision, backend=options.backend)
    return model.to(options.device)


def _forecaster_of(job: Job) -> UnitForecaster:
    if job.plan.options.threads is not None:
        set_threads(job.plan.options.threads)
    model = open_model(job)
    return ArchiveForecaster(job, model) if job.plan.kind == "archive" else ClipsForecaster(job, model)


class ClipsForecaster:
    """Forecasts of clips: one file each."""

    def __init__(self, job: Job, model: Forecaster):
        self._job, self._model = job, model
        self._ends = line_ends(job.folder.clips)

    def forecast(self, numbers: range) -> list[tuple[str, int, FramesError]]:
        options, folder = self._job.plan.options, self._job.folder
        clips = dict(zip(numbers, read_clip_list(folder.clips, self._ends, numbers), strict=True))
        read = {
            i: clip.refused(path) or read_clip(path, self._model, options)
            for i, clip in clips.items()
            for path in [place_of(clip, self._job.source)]
        }
        errors = {i: past for i, past in read.items() if isinstance(past, FramesError)}
        sources = {i: past for i, past in read.items() if not isinstance(past, FramesError)}
        for i, made in forecast_together(self._model, sources, options).items():
            if isinstance(made, FramesError):
                errors[i] = made
                continue
            path = folder.forecasts / f"{clips[i].out}.{options.format}"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                pace = _pace(place_of(clips[i], self._job.source), path, options.every)
                frames_room.write(path, made, pace, issued=sources[i].issued)
            except FramesError as error:
                errors[i] = error
            except OSError as error:
                if error.errno not in _OF_THE_NAME:
                    raise
                errors[i] = FramesError(f"its forecast cannot be written: {error}")
        return [(clips[i].name, i, error) for i, error in sorted(errors.items())]


def _pace(clip: Path, forecast: Path, every: int) -> float | None:
    """Seconds from frame to frame of a clip, if both it and its forecast are moving pictures, else None."""
    pictures = all(frames_room.kind_of(path) == "pictures" for path in (clip, forecast))
    return frames_room.seconds_between(clip, every) if pictures else None


class ArchiveForecaster:
    """Forecasts of an archive: a unit is a chunk of the store along time."""

    def __init__(self, job: Job, model: Forecaster):
        self._job, self._model = job, model

    def forecast(self, numbers: range) -> list[tuple[str, int, FramesError]]:
        import zarr

        options, model = self._job.plan.options, self._model
        with open_field(self._job.source, options.variable, options.time) as field:
            windows = ArchiveWindows.of(field, model.spec.frames_in, options)
            read = read_windows(
                self._job.source,
                field,
                numbers,
                windows,
                model.spec,
                stride_of(model.module),
                ReadingOptions(units=options.units, missing=options.missing),
            )
            names = names_of(field, numbers, windows)
            read_as = list(axes_of(field, model.spec.channels, windows.time).values())
            kept = [name for name in field.dims if name in read_as and name != windows.time]
            order = [read_as.index(name) for name in (windows.time, *kept)]
            name = str(field.name)
        array = zarr.open_array(self._job.folder.store / name, mode="r+")
        values = np.full((len(numbers), *array.shape[1:]), array.fill_value, array.dtype)
        sources = {at: past for at, past in enumerate(read) if not isinstance(past, FramesError)}
        errors = {at: past for at, past in enumerate(read) if isinstance(past, FramesError)}
        for at, made in forecast_together(model, sources, options).items():
            if isinstance(made, FramesError):
                errors[at] = made
            else:
                values[at] = made.transpose(order).reshape(values.shape[1:])  # with the dimensions of length 1
        array[numbers.start : numbers.stop] = values
        return [(names[at], numbers[at], error) for at, error in sorted(errors.items())]


def forecast_together(model: Forecaster, sources: dict[int, CallerFrames], options: ForecastOptions) -> dict[int, Any]:
    """What `Forecaster.rollout` returns for each source, `options.steps` frames of its own kind, by the same keys.

    Sources whose past frames (B, T, C, H, W) agree in all but B, and of which all or none may have cells that nobody
    observed, go through the model together. A source of which the model makes NaN or infinite values gets a
    `FramesError` instead of frames, and costs the others nothing.
    """
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, source in sources.items():
        alike[(source.observed is None, *source.past.shape[1:])].append(i)
    made = dict[int, Any]()
    for numbers in alike.values():
        first = sources[numbers[0]]
        largest = max((sources[i].frame_shape for i in numbers), key=math.prod)
        check_kept(sum(len(sources[i].past) for i in numbers), options.steps, largest, first.past.device)
        frames: dict[int, list[Any]] = {i: [] for i in numbers}
        while numbers:
            try:
                _extend(frames, model, {i: sources[i] for i in numbers}, options)
                break
            except ForecastError as error:
                bad = {i: found for i in numbers if (found := _failure(model, sources[i], options.steps))}
                made |= bad or dict.fromkeys(numbers, FramesError(str(error)))
                numbers = [i for i in numbers if i not in made]
        made |= {i: sources[i].collect(frames.pop(i), options.steps) for i in numbers}
    return made


def _extend(
    frames: dict[int, list[Any]], model: Forecaster, sources: dict[int, CallerFrames], options: ForecastOptions
) -> None:
    """Forecast the sources together, and append the frames that their lists lack.

    Raises:
        ForecastError: a forecast is not finite; the frames before it have been appended.
    """
    past = torch.cat([source.past for source in sources.values()])
    masks = [source.observed for source in sources.values() if source.observed is not None]
    sizes, there = [len(source.past) for source in sources.values()], min(len(frames[i]) for i in sources)
    seen = torch.cat(masks) if masks else None
    keeps = options.missing == "keep"
    coming = future(model.engine, model.spec, past, options.steps, observed=seen, keeps=keeps, matched=options.matched)
    for at, frame in enumerate(coming):
        if at >= there:
            for i, part in zip(sources, frame.split(sizes), strict=True):
                frames[i].append(sources[i].frame(part))


def _failure(model: Forecaster, source: CallerFrames, steps: int) -> FramesError | None:
    """Why there is no forecast of this source alone; None if there is one."""
    try:
        for _ in future(model.engine, model.spec, source.past, steps, observed=source.observed):
            pass
    except ForecastError as error:
        return FramesError(str(error))
    return None
