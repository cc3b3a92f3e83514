"""One unit: read its clips or windows, forecast those of one size together, write, mark."""

from __future__ import annotations

import errno
import json
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from stzoo import frames as frames_room
from stzoo import hub
from stzoo.errors import FramesError, IntegrityError, MissingExtraError, StzooError
from stzoo.forecaster import Forecaster
from stzoo.frames.arrays import Source
from stzoo.frames.dataarray import axes_of, opened
from stzoo.models import stride_of
from stzoo.scale.archive import Windows, names_of, pasts
from stzoo.scale.plan import Plan, RunFolder
from stzoo.scale.sources import line_ends, place_of, read_list


@dataclass(frozen=True)
class Job:
    """What a worker is told. Paths mean the same to all of them.

    Attributes:
        source, folder, plan: from where, to where, and what.
        model: what the driver found.
        model_name: how it was asked for.
    """

    source: Path
    folder: RunFolder
    plan: Plan
    model: hub.Resolved
    model_name: str


class Unit(Protocol):
    """Forecasts of one kind of source."""

    def forecast(self, numbers: range) -> list[tuple[str, int, FramesError]]:
        """Write the forecasts of those items; name, number and reason of each that has none."""


class Worker:
    """Does units, with a model that is loaded once, at the first."""

    def __init__(self, job: Job):
        self._job = job
        self._unit: Unit | None = None

    def do(self, unit: int) -> int:
        """How many items of the unit failed. One that is finished already is left alone.

        Raises:
            StzooError: nobody can go on: the model failed, or nothing can be written.
        """
        job = self._job
        failed = job.folder.failed(unit)
        if failed is not None:
            return failed
        numbers = job.plan.numbers(unit)
        try:
            self._unit = self._unit or _unit_of(job)
            failures = self._unit.forecast(numbers)
            lines = [json.dumps({"item": name, "index": i, "error": str(error)}) for name, i, error in failures]
            job.folder.mark(unit, lines)
        except StzooError:
            raise
        except OSError as error:
            raise StzooError(
                f"{job.folder.path} cannot be written: {error}; what is finished stays, and the same command goes on"
            ) from error
        except Exception as error:
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            raise StzooError(
                f"forecasting items {numbers.start} to {numbers[-1]} failed: {what}; where memory was short, begin "
                "anew with a smaller --unit; else the same command goes on"
            ) from error
        return len(lines)


def open_model(job: Job) -> Forecaster:
    """The very model of the plan, from the file that the driver found or, where that is not here, by its name.

    Raises:
        IntegrityError: it is another file here.
    """
    plan, found = job.plan, job.model
    if not found.path.is_file() or (found.codec is not None and not found.codec.is_file()):
        found = hub.resolve(job.model_name, progress=False)
    here = hub.file_sha256(found.path), None if found.codec is None else hub.file_sha256(found.codec)
    if here != (plan.model_sha256, plan.codec_sha256):
        raise IntegrityError(f"{found.path} has sha256 {here[0]}, expected {plan.model_sha256}: another model")
    found = replace(found, sha256=here[0])
    return Forecaster.from_files(found, job.model_name, precision=plan.precision).to(plan.device)


def _unit_of(job: Job) -> Unit:
    if job.plan.threads is not None:
        torch.set_num_threads(job.plan.threads)
    model = open_model(job)
    return ArchiveUnit(job, model) if job.plan.kind == "archive" else ClipsUnit(job, model)


class ClipsUnit:
    """Of clips: one file each."""

    def __init__(self, job: Job, model: Forecaster):
        self._job, self._model = job, model
        self._ends = line_ends(job.folder.clips)

    def forecast(self, numbers: range) -> list[tuple[str, int, FramesError]]:
        plan, folder = self._job.plan, self._job.folder
        clips = dict(zip(numbers, read_list(folder.clips, self._ends, numbers), strict=True))
        read = {
            i: read_clip(place_of(clip, self._job.source), self._model, plan.every, plan.keep_size)
            for i, clip in clips.items()
        }
        errors = {i: past for i, past in read.items() if isinstance(past, FramesError)}
        sources = {i: past for i, past in read.items() if not isinstance(past, FramesError)}
        for i, future in forecasts(self._model, sources, plan.steps).items():
            path = folder.forecasts / f"{clips[i].out}.{plan.format}"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                frames_room.write(path, future)
            except FramesError as error:
                errors[i] = error
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:  # that one is the clip's
                    raise
                errors[i] = FramesError(f"its forecast cannot be written: {error}")
        return [(clips[i].name, i, error) for i, error in sorted(errors.items())]


class ArchiveUnit:
    """Of an archive: a chunk of the store along time."""

    def __init__(self, job: Job, model: Forecaster):
        self._job, self._model = job, model

    def forecast(self, numbers: range) -> list[tuple[str, int, FramesError]]:
        import zarr

        plan, model = self._job.plan, self._model
        with opened(self._job.source) as field:
            windows = Windows(field.sizes["time"], model.spec.frames_in, plan.every, plan.stride or 1)
            read = pasts(field, numbers, windows, model.spec, stride_of(model.module))
            names = names_of(field, numbers, windows)
            read_as = list(axes_of(field, model.spec.channels).values())
            order = [read_as.index(name) for name in ("time", *(n for n in field.dims if n != "time"))]
            name = str(field.name)
        array = zarr.open_array(self._job.folder.store / name, mode="r+")
        values = np.full((len(numbers), *array.shape[1:]), array.fill_value, array.dtype)
        sources = {at: past for at, past in enumerate(read) if not isinstance(past, FramesError)}
        for at, future in forecasts(model, sources, plan.steps).items():
            values[at] = future.transpose(order)
        array[numbers.start : numbers.stop] = values
        return [(names[at], numbers[at], past) for at, past in enumerate(read) if isinstance(past, FramesError)]


def read_clip(path: Path, model: Forecaster, every: int, keep_size: bool) -> Source | FramesError:
    """A clip's last frames, checked; or why they cannot be read, whatever the library that tried calls it.

    Raises:
        MissingExtraError: what reads such a file is not installed. MemoryError.
    """
    resize = frames_room.kind_of(path) == "pictures" and not keep_size
    try:
        return frames_room.read(path, model.spec, stride_of(model.module), resize=resize, every=every)
    except FramesError as error:
        return error
    except (MissingExtraError, MemoryError):
        raise
    except Exception as error:
        return FramesError(f"{path} cannot be read: {error}")


def forecasts(model: Forecaster, sources: dict[int, Source], steps: int) -> dict[int, Any]:
    """What `Forecaster.rollout` returns for each; those whose frames are of one size go through the model together."""
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, source in sources.items():
        alike[tuple(source.past.shape[1:])].append(i)
    made = dict[int, Any]()
    for numbers in alike.values():
        pasts = [sources[i].past for i in numbers]
        sizes = [len(past) for past in pasts]
        frames: dict[int, list[Any]] = {i: [] for i in numbers}
        for frame in model.stream(torch.cat(pasts), steps, layout="BTCHW"):
            for i, part in zip(numbers, frame.split(sizes), strict=True):
                frames[i].append(sources[i].frame(part))
        made |= {i: sources[i].collect(frames[i]) for i in numbers}
    return made
