"""From a checkpoint to one's own clips."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stzoo.data import Dataset, Reading, open_dataset
from stzoo.errors import SpecError
from stzoo.forecaster import Forecaster, load
from stzoo.train.loop import train
from stzoo.train.processes import joined
from stzoo.train.recipe import Recipe, read_recipe
from stzoo.train.shuffled import endless

RECIPE = "fine-tune"  # that lies beside those of the entries


def fine_tune(
    model: Forecaster,
    clips: Dataset | str | os.PathLike[str],
    *,
    minutes: float | None = None,
    steps: int | None = None,
    out: str | os.PathLike[str] | None = None,
    recipe: Recipe | None = None,
    freeze: Sequence[str] = (),
    progress: bool = True,
    micro_batch: int | None = None,
) -> Forecaster:
    """Train `model` further on other clips. `model` itself stays as it is.

    Other numbers of channels or frames come from ``stzoo.load(name, adapt={"channels": 3})``, whose report says what
    was averaged and what begins anew.

    Args:
        clips: a folder of videos or images, an array file (`stzoo.data.own_clips`), or any dataset; its validation part
            chooses the weights that are kept.
        minutes, steps: the budget; the recipe's minutes where neither is given.
        out: the run folder, from which the same call goes on if it was interrupted; a temporary one where None. Several
            processes (`train`) need one that all of them can read.
        recipe: in place of ``stzoo.train.read_recipe("fine-tune")``.
        freeze: beginnings of the names of parameters that stay as they are, such as "encoder".
        micro_batch: as in `train`.

    Returns:
        The forecaster with the best validation error, the untouched one included: it is never worse there than `model`.

    Raises:
        DataError: no clips, or none that are long enough. TrainingError: see `train`.
        SpecError: nothing in the model is called what `freeze` names.
    """
    processes = joined(str(next(model.module.parameters()).device))
    device = str(processes.device)
    if out is None and processes.count > 1:
        raise SpecError("several processes need a run folder that all of them can read; pass `out`")
    chosen = recipe or read_recipe(RECIPE)
    spec = model.spec
    horizon = chosen.horizon or spec.frames_out
    with processes.one_first():  # which decodes videos, and keeps the frames
        data = (
            open_dataset("clips", Path(clips), Reading.of(spec, zoom=chosen.zoom))
            if isinstance(clips, (str, os.PathLike))
            else clips
        )
        shown, held_out = (data.split(part, spec.frames_in, horizon) for part in ("train", "validation"))
    training = endless(shown, spec, chosen.flips, chosen.seed, device)
    chosen = dataclasses.replace(chosen, freeze=(*chosen.freeze, *freeze))
    with tempfile.TemporaryDirectory() as scratch:
        best = train(
            spec, chosen, training, held_out, Path(out or scratch),
            steps=steps, minutes=minutes, device=device, progress=progress, start=model.module.state_dict(),
            micro_batch=micro_batch,
        )  # fmt: skip
        tuned = load(best, device=device)
    if out is None:  # the folder is gone
        tuned.report = dataclasses.replace(tuned.report, source="fine-tuned weights", sha256=None)
    return tuned
