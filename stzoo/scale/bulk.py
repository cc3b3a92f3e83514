"""`forecast_archive`: everything that can be refused is refused first, then units are done until none is left."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic

import torch
from tqdm import tqdm

from stzoo import hub
from stzoo.errors import MissingExtraError
from stzoo.files import replacing
from stzoo.frames.fields import open_field
from stzoo.scale.archive import Windows, create_store
from stzoo.scale.forecasting import Job
from stzoo.scale.options import UNIT
from stzoo.scale.order import Order
from stzoo.scale.plan import Plan, RunFolder
from stzoo.scale.planning import planned
from stzoo.scale.running import has_ray, on_ray, one_by_one, ray_started
from stzoo.scale.sources import clips_of, write_list


@dataclass(frozen=True)
class Report:
    """What a run came to.

    Attributes:
        out: the folder.
        forecasts: asked for in all.
        failed: of these; errors.jsonl says why.
        earlier: of these, finished by runs before this one.
        seconds: that the others took, with the loading of the model and without the start of Ray.
        workers: that made them.
    """

    out: str
    forecasts: int
    failed: int
    earlier: int
    seconds: float
    workers: int

    @property
    def rate(self) -> float:
        """Forecasts a second, of this run."""
        return (self.forecasts - self.earlier) / max(self.seconds, 1e-9)

    def to_dict(self) -> dict[str, object]:
        return asdict(self) | {"rate": self.rate}

    def __str__(self) -> str:
        text = f"{self.forecasts:,} forecasts"
        if self.failed:
            text += f" ({self.failed:,} failed, see errors.jsonl)"
        made = self.forecasts - self.earlier
        if self.earlier:
            text += f", {self.earlier:,} of them there before" + (f"; {made:,}" if made else "")
        if made:
            crew = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
            text += f" in {self.seconds:,.0f} s, {self.rate:,.1f} a second with {crew}"
        return f"{text} -> {self.out}"


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
    keep_size: bool = False,
    unit: int = UNIT,
    device: str = "cpu",
    precision: str = "float32",
    threads: int | None = None,
    workers: int | None = None,
    in_process: bool = False,
    progress: bool = False,
) -> Report:
    """Forecast every clip of a folder or a table, or from every start in an archive; run again, it goes on.

    Args:
        source: a folder of clips, a .parquet table of their paths, or a .zarr, .nc or .nc4 archive.
        model: whatever `stzoo.load` opens.
        steps: frames of one forecast.
        out: the folder to write; docs/scale.md says what is in it.
        every: use frames 0, every, 2 * every, ... of a clip, or frames so far apart of an archive.
        stride: of an archive: frames between two starts, 1 by default.
        column: of a table: the one that holds paths, "path" by default. Relative ones are relative to the table.
        format: of clips: the suffix of their forecasts, "npy" by default.
        keep_size: leave images and videos at their own size; else they get the model's.
        unit: forecasts that are made together and kept together.
        device: "cpu" or "cuda", that each worker has one of.
        precision: as in `stzoo.load`.
        threads: of torch in a worker; by default 1 on Ray, and in this process those it has.
        workers: on Ray; by default as many as there is room for.
        in_process: do without Ray, as where it is not installed.
        progress: a bar.

    Raises:
        SpecError, DataError, FramesError: what cannot be done, before anything is written.
        MissingExtraError: Ray, or what reads the source, is not installed; the message holds the pip command.
        WeightsError: as `stzoo.load`. StzooError: the model failed or nothing can be written; the same call goes on.
    """
    order = Order(
        source=Path(source),
        model=os.fspath(model),
        steps=steps,
        out=Path(out),
        every=every,
        stride=stride,
        column=column,
        format=format,
        keep_size=keep_size,
        unit=unit,
        device=device,
        precision=precision,
        threads=threads,
        workers=workers,
        in_process=in_process,
    )
    if workers is not None and not has_ray():
        raise MissingExtraError('--workers need an extra: pip install "stzoo[scale]"; or leave them out')
    found = hub.resolve(model, progress=progress)
    folder = RunFolder(order.out)
    plan = folder.settled(planned(order, found))
    return _run(order, folder, plan, found, progress)


def _run(order: Order, folder: RunFolder, plan: Plan, found: hub.Resolved, progress: bool) -> Report:
    use_ray = not order.in_process and has_ray()
    if plan.threads is None:
        plan = replace(plan, threads=1 if use_ray else torch.get_num_threads())
    assert plan.threads is not None
    finished = (folder.path / "done").is_dir() and len(folder.done()) == plan.units
    with ExitStack() as stack:
        workers = 1
        if use_ray and not finished:  # before anything is written: there may be no room
            workers = stack.enter_context(ray_started(order.workers, plan.threads, plan.device))
        stack.enter_context(folder.locked())
        plan = folder.settled(plan)  # again: another process may have begun here meanwhile
        _begin(order, folder, plan)
        done = folder.done()
        units = [unit for unit in range(plan.units) if unit not in done]
        earlier, failed = sum(len(plan.numbers(unit)) for unit in done), sum(done.values())
        job = Job(order.source.resolve(), RunFolder(folder.path.resolve()), plan, _absolute(found), order.model)
        start = monotonic()
        with tqdm(total=plan.items, initial=earlier, unit=" forecasts", smoothing=0.05, disable=not progress) as bar:
            if units:
                for unit, bad in on_ray(job, units, workers) if use_ray else one_by_one(job, units):
                    failed += bad
                    bar.update(len(plan.numbers(unit)))
        seconds = monotonic() - start
        folder.finish()
    return Report(str(order.out), plan.items, failed, earlier, round(seconds, 3), min(workers, max(1, len(units))))


def _absolute(found: hub.Resolved) -> hub.Resolved:
    """A worker may be in another folder."""
    return replace(found, path=found.path.absolute(), codec=None if found.codec is None else found.codec.absolute())


def _begin(order: Order, folder: RunFolder, plan: Plan) -> None:
    """What is there before the first forecast: each part whole or not at all, and made once."""
    folder.begin(plan)
    if plan.kind == "archive" and not folder.store.exists():
        with open_field(order.source) as field:
            windows = Windows(field.sizes["time"], plan.spec["frames_in"], plan.every, plan.stride or 1)
            create_store(folder.store, field, windows, plan.steps, plan.unit)
    elif plan.kind != "archive" and not folder.clips.exists():
        with replacing(folder.clips) as partial, partial.open("wb") as file:
            write_list(file, clips_of(order.source, order.column or "path"))
