"""`forecast_archive`: whatever must be refused is refused first; then units are made until none is left.

What is asked for stands here from end to end: `ArchiveRequest` checks it, and the function's arguments name it. An
option that decides what is written is also a field of `ForecastOptions`, which plan.json holds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

import torch

from stzoo import hub
from stzoo.errors import DataError, SpecError
from stzoo.forecaster import Forecaster
from stzoo.frames.arrays import ARRAYS
from stzoo.frames.fields import FIELDS, open_field
from stzoo.frames.images import ANIMATED
from stzoo.frames.rain import asked_unit
from stzoo.frames.units import unit_of
from stzoo.frames.video import WRITTEN
from stzoo.progress import tqdm
from stzoo.published.fetching import find
from stzoo.scale.archive import ArchiveWindows, check_archive, create_store
from stzoo.scale.clips import TABLE, ListedClip, check_clips, is_table, list_clips, lists, write_clip_list
from stzoo.scale.folder import ArchiveFolder
from stzoo.scale.plan import UNIT, ForecastOptions, Plan, SourceKind
from stzoo.scale.ray import ray_started, uses_ray, work_on_ray
from stzoo.scale.report import ArchiveReport
from stzoo.scale.worker import Job, work_here
from stzoo.spec import ModelSpec

FORMATS = tuple(suffix[1:] for suffix in (*ARRAYS, *ANIMATED, *WRITTEN, ".nc"))


@dataclass(frozen=True, kw_only=True)
class ArchiveRequest:
    """What is asked for. It is checked when it is made, as far as that is possible without opening anything.

    Attributes:
        source: a folder of clips, a table of their paths, or an archive.
        model: the name or the path of the model.
        out: the folder to write, or to go on in.
        options: what decides the bytes that are written.
        column: the column of a table that holds paths; None for the default.
        workers: how many workers Ray runs; None for as many as there is room for.
        in_process: work without Ray, in this process.

    Raises:
        SpecError: a number is below 1, or an option does not go with this source or with another option.
        DataError: the source does not exist or is of no known kind, or the folder `out` cannot be written.
        MissingExtraError: workers are asked for, and Ray is not installed.
    """

    source: Path
    model: str
    out: Path
    options: ForecastOptions
    column: str | None
    workers: int | None
    in_process: bool

    def __post_init__(self) -> None:
        kind, options = self.kind, self.options
        if self.workers is not None and self.workers < 1:
            raise SpecError(f"--workers is {self.workers}; it must be at least 1")
        if self.workers is not None and self.in_process:
            raise SpecError("--workers is the number of workers of Ray; leave it out with --in-process")
        if options.stride is not None and kind != "archive":
            raise SpecError("--stride is for archives; only the last frames of a clip are read")
        if self.column is not None and kind != "table":
            raise SpecError(f"--column is for {TABLE} tables")
        if kind == "archive" and (options.format, options.size, options.color) != (None, None, None):
            raise SpecError(
                "--format, --size and --color are for clips; an archive's forecasts have its own size, and go to one "
                "Zarr store"
            )
        if options.format is not None and options.format not in FORMATS:
            raise SpecError(f"--format is {options.format!r}; it may be {', '.join(FORMATS)}")
        self._check_out()
        uses_ray(self.workers, self.in_process)

    @property
    def kind(self) -> SourceKind:
        """What the source is. Raises `DataError` if it is nothing that can be forecast here."""
        source, suffix = self.source, self.source.suffix.lower()
        if not source.exists():
            raise DataError(f"{source} does not exist")
        if suffix in FIELDS:
            return "archive"
        if is_table(source):
            return "table"
        if source.is_dir():
            return "folder"
        raise DataError(
            f"{source} is neither a folder nor a {TABLE} table nor a {' or '.join(FIELDS)} archive; "
            "use stzoo rollout to forecast a single clip"
        )

    @property
    def on_ray(self) -> bool:
        """Whether workers on Ray make the forecasts."""
        return uses_ray(self.workers, self.in_process)

    def clips(self) -> Iterator[ListedClip]:
        """Every clip of a folder or a table, in order. Raises `DataError` if the table cannot be read."""
        return list_clips(self.source, self.column or "path", self.options.format or "npy", self.out)

    def _check_out(self) -> None:
        out = self.out.resolve()
        if out.is_relative_to(self.source.resolve()):
            raise DataError(f"{self.out} lies in {self.source}, whose clips would grow by its forecasts; name another")
        if self.out.exists() and not self.out.is_dir():
            raise DataError(f"{self.out} is not a folder; name a folder, or a new one")
        if not out.parent.is_dir():
            raise DataError(f"the folder {out.parent} does not exist; make it first")


def forecast_archive(
    source: str | os.PathLike[str],
    model: str | os.PathLike[str],
    steps: int,
    out: str | os.PathLike[str],
    *,
    every: int = 1,
    stride: int | None = None,
    column: str | None = None,
    format: str | None = None,
    size: str | None = None,
    color: str | None = None,
    unit: int = UNIT,
    device: str = "cpu",
    precision: str = "float32",
    threads: int | None = None,
    variable: str | None = None,
    time: str | None = None,
    units: str | None = None,
    missing: str = "keep",
    matched: bool = False,
    backend: str = "torch",
    workers: int | None = None,
    in_process: bool = False,
    progress: bool = False,
) -> ArchiveReport:
    """Forecast every clip of a folder or a table, or from every start in an archive. The same call again goes on.

    Args:
        source: a folder of clips, a .parquet table of their paths, or a .zarr, .nc or .nc4 archive.
        model: whatever `stzoo.load` opens.
        steps: frames of one forecast.
        out: the folder to write; docs/scale.md says what is in it.
        every: use frames 0, every, 2 * every, ... of a clip, or frames of an archive that are so far apart.
        stride: frames between two starts in an archive, 1 by default.
        column: the column of a table that holds paths, "path" by default. Relative paths start at the table's folder.
        format: the suffix of the files with the forecasts of clips, "npy" by default.
        size: "model" leaves the forecasts of images and videos in the model's size, and "own" runs the model at theirs.
            By default they are forecast at the model's size and brought back to theirs. Arrays and maps always run at
            their own size.
        color: "gray" makes one gray forecast of images, videos and arrays in colour. By default a model that reads gray
            forecasts each of their channels.
        unit: how many forecasts are made together and kept together.
        device: where each worker runs the model, "cpu" or "cuda".
        precision: the number format in which the model computes, as in `stzoo.load`.
        threads: threads of torch in each worker; by default 1 on Ray, and without Ray as many as torch has now.
        variable: which variable of an archive, or of each netCDF or Zarr file among the clips, is forecast, if there
            are several.
        time: the name of their dimension of time, if neither its name nor its attributes tell.
        units, missing: of a model of rain, as in `Forecaster.rollout`, for archives, maps and arrays.
        matched: as in `Forecaster.rollout`.
        backend: what computes in each worker, "torch" or "onnxruntime", as in `stzoo.load`.
        workers: how many workers Ray runs; by default as many as there is room for.
        in_process: work without Ray, in this process, which is also what happens if Ray is not installed.
        progress: show a progress bar, and say so if Ray is not installed.

    Raises:
        SpecError, DataError, FramesError: what cannot be done. Nothing has been written then.
        MissingExtraError: Ray, or what reads the source, is not installed; the message holds the pip command.
        WeightsError: the model cannot be opened, as in `stzoo.load`.
        StzooError: the model failed, or nothing can be written. The same call goes on where this one stopped.
    """
    options = ForecastOptions(
        steps=steps,
        every=every,
        stride=stride,
        size=size,
        color=color,
        format=format,
        unit=unit,
        precision=precision,
        device=device,
        threads=threads,
        variable=variable,
        time=time,
        units=units,
        missing=missing,
        matched=matched,
        backend=backend,
    )
    request = ArchiveRequest(
        source=Path(source),
        model=os.fspath(model),
        out=Path(out),
        options=options,
        column=column,
        workers=workers,
        in_process=in_process,
    )
    if progress and not request.on_ray and not in_process:
        print('Ray is not installed (pip install "stzoo[scale]"): one unit is made after the other', file=sys.stderr)
    found = find(model, progress=progress)
    plan = ArchiveFolder(request.out).agreed(_plan(request, found))
    return _run(request, plan, found, progress)


def _plan(request: ArchiveRequest, found: hub.Resolved) -> Plan:
    """The plan of a request, once it is known that the model can read the source. Writes nothing."""
    options, archive = request.options, request.kind == "archive"
    if options.device == "cuda" and not torch.cuda.is_available() and not request.on_ray:
        raise SpecError("--device is cuda, but torch finds no GPU here; use --device cpu")
    if options.device == "cuda" and not torch.cuda.is_available() and options.precision == "auto":
        raise SpecError("torch finds no GPU here to choose a precision by; name --precision float32 or bfloat16")
    model = Forecaster.from_files(found, request.model, precision=options.precision, backend=options.backend)
    if options.precision == "auto":
        model = model.to(options.device)  # which decides
    if archive:
        items, sha256 = check_archive(request.source, model, options)
    else:
        items, sha256 = check_clips(request.clips(), request.source, model, options, beside=request.out)
    return Plan(
        kind=request.kind,
        items=items,
        source_sha256=sha256,
        model_sha256=found.sha256,
        codec_sha256=found.codec_sha256,
        spec=found.spec.to_dict(),
        options=replace(
            options,
            stride=(options.stride or 1) if archive else None,
            format=None if archive else options.format or "npy",
            precision=model.engine.precision,
        ),
    )


def _run(request: ArchiveRequest, plan: Plan, found: hub.Resolved, progress: bool) -> ArchiveReport:
    """Make the units that the folder lacks."""
    folder = ArchiveFolder(request.out)
    threads = plan.options.threads or (1 if request.on_ray else torch.get_num_threads())
    plan = replace(plan, options=replace(plan.options, threads=threads))
    complete = folder.done.is_dir() and len(folder.finished()) == plan.units
    with ExitStack() as stack:
        workers = 1
        if request.on_ray and not complete:  # before anything is written: there may be no room for the workers
            workers = stack.enter_context(ray_started(request.workers, threads, plan.options.device))
        stack.enter_context(folder.locked())
        plan = folder.agreed(plan)  # again: another process may have begun a run here meanwhile
        with folder.written():
            _begin(request, folder, plan)
        finished = folder.finished()
        units = [unit for unit in range(plan.units) if unit not in finished]
        earlier, failed = sum(len(plan.numbers(unit)) for unit in finished), sum(finished.values())
        job = Job(request.source.resolve(), ArchiveFolder(folder.path.resolve()), plan, _absolute(found), request.model)
        start = monotonic()
        with tqdm(total=plan.items, initial=earlier, unit=" forecasts", smoothing=0.05, disable=not progress) as bar:
            for unit, bad in work_on_ray(job, units, workers) if request.on_ray else work_here(job, units):
                failed += bad
                bar.update(len(plan.numbers(unit)))
        seconds = monotonic() - start
        with folder.written():
            folder.finish()
    return ArchiveReport(
        out=str(request.out),
        forecasts=plan.items,
        failed=failed,
        earlier=earlier,
        seconds=round(seconds, 3),
        workers=min(workers, max(1, len(units))),
    )


def _absolute(found: hub.Resolved) -> hub.Resolved:
    """The same files by absolute paths: a worker may be in another folder."""
    return replace(found, path=found.path.absolute(), codec=None if found.codec is None else found.codec.absolute())


def _begin(request: ArchiveRequest, folder: ArchiveFolder, plan: Plan) -> None:
    """Write what must be there before the first forecast: each part whole or not at all, and only once.

    Raises:
        DataError: forecasts that were made are gone, the source has changed since it was looked at, or the list of
            clips is damaged and cannot be restored.
    """
    kept = folder.store if plan.kind == "archive" else folder.forecasts
    if (
        not kept.exists()
        and folder.done.is_dir()
        and any(failed < len(plan.numbers(unit)) for unit, failed in folder.finished().items())
    ):
        raise DataError(f"{kept} is gone, although forecasts were made; remove {folder.done} to have them made again")
    folder.begin(plan)
    if plan.kind == "archive" and not folder.store.exists():
        with open_field(request.source, plan.options.variable, plan.options.time) as field:
            options, spec = plan.options, ModelSpec.from_dict(plan.spec)
            windows = ArchiveWindows.of(field, spec.frames_in, options)
            rain = unit_of(field, spec.value_range, asked_unit(options.units, spec.value_range))
            create_store(folder.store, field, windows, options.steps, options.unit, rain)
    elif plan.kind != "archive":

        def write(path: Path) -> bool:
            with path.open("wb") as file:
                return write_clip_list(file, request.clips()) == plan.source_sha256

        folder.list_clips(write, lambda path: lists(path, plan.source_sha256))
