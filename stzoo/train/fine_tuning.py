"""Fine-tuning: a checkpoint is trained further on other clips."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stzoo.adapting import ANEW
from stzoo.data import Dataset, Reading, open_dataset
from stzoo.errors import SpecError
from stzoo.forecaster import Forecaster
from stzoo.opening import load
from stzoo.train.clips import endless
from stzoo.train.loop import train
from stzoo.train.processes import joined
from stzoo.train.recipe import Recipe, read_recipe
from stzoo.train.trackers import check_trackers

RECIPE = "fine-tune"  # the default, beside the recipes of the entries


def fine_tune(
    model: Forecaster,
    clips: Dataset | str | os.PathLike[str],
    *,
    minutes: float | None = None,
    steps: int | None = None,
    horizon: int | None = None,
    blend: float | None = None,
    out: str | os.PathLike[str] | None = None,
    recipe: Recipe | None = None,
    freeze: Sequence[str] = (),
    progress: bool = True,
    micro_batch: int | None = None,
    units: str | None = None,
    trackers: Sequence[str] = (),
) -> Forecaster:
    """Train a model further on other clips. `model` itself is not changed.

    For clips with another number of channels or frames, pass a model that was loaded with
    ``stzoo.load(name, adapt={"channels": 3})``. Its report says which weights were averaged and which begin anew.

    Args:
        model: the forecaster to begin from.
        clips: a folder of videos or images, an array file (`stzoo.data.own_clips`), or any dataset. Its validation part
            decides which weights are kept.
        minutes: how long to train; by default the recipe's minutes. It is not used if `steps` is given.
        steps: the number of steps.
        horizon: how many frames ahead the model is trained and validated, so that the weights are chosen at the length
            that you will roll out; by default the recipe's, which is one forecast. Clips must be longer by as much.
        blend: how much of what training changes is kept, from 0.01 to 1; by default the recipe's, which is all of it.
            With 0.5 the weights lie half-way between those of `model` and the tuned ones. That may be better where the
            clips show less than what you will forecast, such as one person of many (docs/real-video.md).
        out: the run folder, from which the same call goes on after an interruption; by default a temporary folder,
            which is removed at the end and kept after an interruption, if there is a checkpoint in it. Several
            processes (see `train`) need one that all of them can read.
        recipe: how to train; by default ``stzoo.train.read_recipe("fine-tune")``.
        freeze: parameters whose names begin with one of these are not trained, for example "encoder".
        progress: show a progress bar.
        micro_batch: the largest number of clips that go through the model at once, as in `train`.
        units: of a model of rain, the unit of the numbers in a folder or file, as in `Forecaster.rollout`.
        trackers: what else gets the log, as in `train`. Files of theirs are in `out`.

    Returns:
        The forecaster with the lowest validation error, on the device of `model`. The untouched model counts too, so
        the error is never higher than that of `model`.

    Raises:
        DataError: there are no clips, or none that are long enough.
        SpecError: `horizon` is not 1 to 1024, or `blend` not 0.01 to 1; `blend` is below 1 and some weights of `model`
            were never trained, because they are random or begin anew; no parameter has a name that begins as `freeze`
            says, several processes or trackers come without `out`, there is no such tracker, or `units` comes with a
            dataset, which knows its own.
        TrainingError, MissingExtraError: see `train`.
    """
    check_trackers(trackers)
    if trackers and out is None:
        raise SpecError("trackers write into the run folder, which is a temporary one here; pass `out`")
    processes = joined(str(next(model.module.parameters()).device))
    device = str(processes.device)
    if out is None and processes.count > 1:
        raise SpecError("several processes need a run folder that all of them can read; pass `out`")
    if units is not None and not isinstance(clips, (str, os.PathLike)):
        raise SpecError("units is for a folder or a file of clips; a dataset knows its own units, so leave it out")
    chosen = (recipe or read_recipe(RECIPE)).adjusted(horizon=horizon, blend=blend)
    anew = [line for line in model.report.adapted if line.endswith(ANEW)]
    if chosen.blend < 1 and (model.report.is_random or anew):
        what = "these are random" if model.report.is_random else f"of these, {anew[0]}"
        raise SpecError(f"blend keeps a part of the weights that training begins with, and {what}; leave blend out")
    spec = model.spec
    ahead = chosen.horizon or spec.frames_out
    with processes.one_first():  # it decodes videos and keeps the frames for the others
        data = (
            open_dataset("clips", Path(clips), Reading.of(spec, zoom=chosen.zoom, units=units))
            if isinstance(clips, (str, os.PathLike))
            else clips
        )
        shown, held_out = (data.split(part, spec.frames_in, ahead) for part in ("train", "validation"))
    training = endless(shown, spec, chosen.flips, chosen.seed, device)
    chosen = dataclasses.replace(chosen, freeze=(*chosen.freeze, *freeze))
    origin = model.report.origin and dataclasses.replace(model.report.origin, changed=True)
    folder = Path(tempfile.mkdtemp(prefix="stzoo-") if out is None else out)
    try:
        best = train(
            spec, chosen, training, held_out, folder,
            steps=steps, minutes=minutes, device=device, progress=progress, start=model.module.state_dict(),
            origin=origin, micro_batch=micro_batch, trackers=trackers,
        )  # fmt: skip
        tuned = load(best, device=device)
    except BaseException:
        if out is None and not (folder / "checkpoint.pt").exists():
            shutil.rmtree(folder)
        raise  # a message has said what is kept there: pass the folder as `out` to go on
    if out is None:
        shutil.rmtree(folder)
    if out is None:  # the folder that the report names is gone
        tuned.report = dataclasses.replace(tuned.report, source="fine-tuned weights", sha256=None)
    return tuned
