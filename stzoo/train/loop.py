"""Training: a fixed number of steps by any number of processes, judged on held-out clips, resumed exactly."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from stzoo.codec import Codec
from stzoo.data import ClipSource
from stzoo.engine.forking import use_one_thread_if_forked
from stzoo.engine.memory import memory_errors_told
from stzoo.errors import SpecError, TrainingError
from stzoo.progress import tqdm
from stzoo.spec import ModelSpec, shown
from stzoo.train.allocator import memory_kept
from stzoo.train.assignment import Assignment
from stzoo.train.denormals import denormals_flushed
from stzoo.train.folder import RunFolder
from stzoo.train.interruption import SavingClock, StopRequest, stop_requests
from stzoo.train.memory import check_memory
from stzoo.train.pace import steps_within
from stzoo.train.processes import joined
from stzoo.train.recipe import Recipe
from stzoo.train.run import Run, check_module
from stzoo.train.speedups import made_ahead
from stzoo.train.trackers import Trackers, check_trackers
from stzoo.train.validation import validate
from stzoo.weights import Origin

_OTHER_WEIGHTS = "They are damaged or too large, or their training diverged; use other weights"
CHECK_EVERY = 20  # steps from one look at the loss to the next: it is logged, and training stops if it diverged


def train(
    spec: ModelSpec,
    recipe: Recipe,
    training: ClipSource,
    validation: ClipSource,
    out: Path,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    device: str | None = None,
    progress: bool = True,
    codec: Codec | None = None,
    start: Mapping[str, Tensor] | None = None,
    origin: Origin | None = None,
    micro_batch: int | None = None,
    trackers: Sequence[str] = (),
) -> Path:
    """Train a model. Called again with the same arguments, it goes on from the last checkpoint.

    The first checkpoint is written after five seconds, later ones by time and after each validation. Ctrl-C and SIGTERM
    save one more after the current step, and stop (KeyboardInterrupt; SystemExit with code 143). A second signal stops
    at once. Several processes stop at once; their last checkpoint is kept.

    Started by `accelerate launch` or `torchrun`, each of the processes takes an equal share of every batch, and their
    gradients are averaged. The result is that of one process, except that BatchNorm normalises each share by itself
    (docs/training.md). Another number of processes may go on with the run.

    The number of steps is fixed when the run begins, and kept in the run folder, so that a resumed run has the same
    schedule. Clip i of `training` belongs to step i // batch, so no state of the data needs saving.

    Args:
        spec: the model.
        recipe: how it is trained.
        training: the clips it learns from, without an end, see `stzoo.train.clips.endless`.
        validation: held-out clips, on which the weights that are kept are chosen.
        out: the run folder, made if it does not exist.
        steps: the number of steps; by default, as many as fit into `minutes`.
        minutes: the time there is, from which the number of steps follows at the pace measured on this machine; by
            default the recipe's. It is not used if `steps` is given.
        device: "cpu" or "cuda"; by default the GPU if there is one.
        progress: show a progress bar.
        codec: the trained codec of a modular spec. It is not trained further, and is saved with the weights.
        start: the weights to begin from, which are validated first; by default random ones.
        origin: whose weights `start` was made of, which is noted in the weights that are written.
        micro_batch: the largest number of clips that go through the model at once. Their gradients are added up, so a
            smaller number needs less memory for the same batch. By default all of them.
        trackers: what else gets each record of log.jsonl: names of trackers that Accelerate knows, such as
            "tensorboard" and "wandb" (docs/training.md). They may change whenever the run goes on.

    Returns:
        The folder of the weights with the lowest validation error, which `stzoo.load` reads. Only the first process
        writes it.

    Raises:
        TrainingError: the weights to begin from hold or forecast values that are not finite, the loss diverged (the
            last good checkpoint is kept), `out` holds another run or only damaged
            checkpoints, the batch cannot be shared among the processes, another process has ended, or a tracker cannot
            be started.
        SpecError: a modular spec comes without its codec, or with another one; the recipe asks for what the
            architecture does not have; or there is no such tracker.
        MemoryNeededError: there is less memory than a step needs; the message says what needs less.
        MissingExtraError: there are several processes or trackers, and accelerate or the package of a tracker is not
            installed.
    """
    use_one_thread_if_forked()
    check_trackers(trackers)
    if steps is not None and (type(steps) is not int or steps < 1):
        raise SpecError(f"steps is {shown(steps)}; it must be a whole number, at least 1")
    assignment = Assignment(spec, recipe, training, codec=codec, start=start, micro_batch=micro_batch, origin=origin)
    assignment.check()
    _check_start(assignment)
    check_module(assignment)  # before the folder has a plan
    processes = joined(device)
    check_memory(spec, recipe, micro_batch, processes)
    folder = RunFolder(out)

    def choose_steps() -> int:
        throwaway = Run(assignment, processes.silent(), folder.latents)
        return steps_within(recipe.minutes if minutes is None else minutes, throwaway)

    # denormals would make a backward pass many times slower
    locked = folder.locked() if processes.first else nullcontext()
    with locked, denormals_flushed(), memory_kept(), memory_errors_told("training"):
        identity = assignment.identity(validation)
        processes.agree(identity | {"steps": steps})
        total = folder.plan(identity, steps, choose_steps) if processes.first else 0
        total = processes.from_first(total)
        _check_clips(recipe, training, total)
        about = {"spec": spec.to_dict(), "recipe": recipe.to_dict(), "steps": total}
        told = Trackers(trackers if processes.first else (), folder.trackers, about)
        with made_ahead(training, recipe, processes.device, total * recipe.batch) as clips, told:
            run = Run(replace(assignment, training=clips), processes, folder.latents)
            shows = progress and processes.first
            _begin(run, folder, told, validation, total, shows)
            _loop(run, folder, told, validation, total, shows)
        processes.wait()  # the first one saves last
    return folder.best


def _check_start(assignment: Assignment) -> None:
    """Raises `TrainingError` if the weights to begin from, or those of the codec, are not finite numbers."""
    codec = {} if assignment.codec is None else assignment.codec.module.state_dict()
    for owner, weights in (("weights to begin from", assignment.start or {}), ("weights of the codec", codec)):
        for name, tensor in weights.items():
            if not tensor.isfinite().all():
                raise TrainingError(f"{name} of the {owner} holds NaN or infinite values. {_OTHER_WEIGHTS}")


def _check_clips(recipe: Recipe, training: ClipSource, total: int) -> None:
    """Raises `TrainingError` if the clips would be at their end before the run is."""
    needed = recipe.cached_clips or total * recipe.batch
    if len(training) < needed:
        raise TrainingError(
            f"{total:,} steps need {needed:,} clips, and the training part has {len(training):,}; make it endless with "
            "stzoo.train.clips.endless, or take fewer steps"
        )


def _begin(run: Run, folder: RunFolder, trackers: Trackers, validation: ClipSource, total: int, progress: bool) -> None:
    """Go on from the last checkpoint, if there is one; validate the weights that were given, if there is none."""
    processes = run.processes
    checkpoint = processes.from_first(folder.restore() if processes.first else None)
    if checkpoint:
        run.restore(checkpoint)
    trackers.start(first=run.step + 1 if checkpoint else 0)
    if checkpoint:
        if processes.first and math.isfinite(run.best):
            _mend_best(run, folder, validation, checkpoint.get("kept"))
    elif run.assignment.start is not None and processes.first:
        found = _validated(run, folder, validation)
        if not math.isfinite(found["validation_mse"]):
            raise TrainingError(f"what the weights to begin from forecast is not finite. {_OTHER_WEIGHTS}")
        _log(run, folder, trackers, {"step": 0} | found)
    if progress:
        where = f"goes on from step {run.step:,}" if checkpoint else "begins at step 0"
        print(f"{folder.path}: training {where} of {total:,}", file=sys.stderr)
    if processes.count > 1:
        del checkpoint  # as large as everything that trains
        run.take_weights_of_first()


def _mend_best(run: Run, folder: RunFolder, validation: ClipSource, kept: str | None) -> None:
    """If best/ is damaged or missing, the weights that the checkpoint's step would have saved take its place."""
    if folder.mend_best(run.assignment.spec, kept, run.assignment.origin):
        return
    warnings.warn(
        f"{folder.best} is damaged or missing; the weights of step {run.step:,} take its place, until a "
        "validation finds better ones",
        stacklevel=2,
    )
    run.best = math.inf
    _validated(run, folder, validation)


def _loop(run: Run, folder: RunFolder, trackers: Trackers, validation: ClipSource, total: int, progress: bool) -> None:
    """Take steps until there are `total`. All processes take them; the first one logs, validates and saves."""
    recipe, first, clock = run.recipe, run.processes.first, SavingClock(run.recipe.checkpoint_minutes * 60)
    with (
        tqdm(total=total * recipe.batch, initial=run.step * recipe.batch, unit="seq", disable=not progress) as bar,
        stop_requests(heard=run.processes.count == 1) as asked,
    ):
        while run.step < total:
            loss = run.advance(total)
            stops = asked.signal is not None  # a signal that comes later is for the next step
            bar.update(recipe.batch)

            validates = run.step % recipe.validate_every == 0 or run.step == total
            looks = validates or run.step % CHECK_EVERY == 0
            saves = first and (validates or stops or clock.due(looks))
            if not looks and not saves:
                continue  # to look at the loss would be to wait for a GPU
            found = loss.item()
            if looks:
                record: dict[str, Any] = {"step": run.step, "loss": run.check_loss(found)}
                if not first:
                    continue  # it has nothing to keep, and waits for the first one when gradients are averaged
                bar.set_postfix(loss=f"{found:.4g}", refresh=False)
            saves = saves and run.is_good(found)
            if saves:
                run.check_finite()
            if validates:
                record |= _validated(run, folder, validation)
            if looks:
                _log(run, folder, trackers, record)
            if validates and progress:
                error = record["validation_mse"]
                bar.write(f"step {run.step} of {total}: validation MSE {error:.2f}, best {run.best:.2f}", sys.stderr)
            if saves:
                began = time.monotonic()
                folder.save(run.state())
                clock.saved(time.monotonic() - began)
            if stops and run.step < total:
                bar.close()
                _stop(asked, folder, run.step, total, saves)


def _stop(asked: StopRequest, folder: RunFolder, step: int, total: int, saved: bool) -> NoReturn:
    kept = "is saved" if saved else "is not saved, because its loss diverges; the checkpoint before it is kept"
    print(
        f"stzoo: stopped by {asked.signal_name}. Step {step:,} of {total:,} {kept}: {folder.path}. "
        "The same command goes on from there",
        file=sys.stderr,
    )
    asked.stop()


def _validated(run: Run, folder: RunFolder, validation: ClipSource) -> dict[str, float]:
    """The validation error of `Run.judged`, for the log. Its weights are kept if they are the best so far."""
    spec, judged = run.assignment.spec, run.judged()
    found = validate(judged, spec, run.recipe, validation, run.device, folder.picture(run.step))
    if found["validation_mse"] < run.best:
        run.best = found["validation_mse"]
        folder.keep(spec, judged.state_dict(), run.assignment.origin)
    return found


def _log(run: Run, folder: RunFolder, trackers: Trackers, record: dict[str, Any]) -> None:
    """Add to the log what was found after this step, the time in seconds since 1970, and the number of clips seen."""
    record = record | {"seconds": round(time.time(), 1), "sequences": run.step * run.recipe.batch}
    folder.log(record)
    trackers.log(record)
