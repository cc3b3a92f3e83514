"""What `stzoo train` and `stzoo catalog pack` do with their arguments."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stzoo import catalog
from stzoo.codec import Codec, load_codec
from stzoo.data.options import chosen
from stzoo.errors import SpecError
from stzoo.forecaster import load
from stzoo.machine import default_device
from stzoo.models import build
from stzoo.release.commands import measurements
from stzoo.release.pack import pack
from stzoo.spec import ModelSpec
from stzoo.train.clips import endless
from stzoo.train.fine_tuning import RECIPE, fine_tune
from stzoo.train.loop import train
from stzoo.train.objectives import check
from stzoo.train.pace import Pace, pace
from stzoo.train.processes import Processes, joined
from stzoo.train.recipe import Recipe, read_recipe


def run_train(arguments: argparse.Namespace) -> None:
    """Train an entry by its recipe, after its codec where it has one; or fine-tune a checkpoint."""
    _check_positive(arguments, ("steps", "minutes", "codec_minutes", "micro_batch"))
    if arguments.device == "cuda" and default_device() != "cuda":
        raise SpecError("--device is cuda; this machine, or this build of torch, has none")
    if (arguments.name is None) == (arguments.source is None):
        raise SpecError("name an entry to train from scratch, or a checkpoint to go on from with --from; not both")
    (_train_entry if arguments.source is None else _fine_tune)(arguments, joined(arguments.device))


def _train_entry(arguments: argparse.Namespace, processes: Processes) -> None:
    entry = catalog.info(arguments.name)
    spec, recipe = entry.spec, read_recipe(arguments.recipe or arguments.name)
    if arguments.freeze or _changes(arguments):
        raise SpecError("--freeze, --channels, --frames-in and --frames-out are for --from")
    with processes.one_first():  # which decodes videos, and keeps the frames
        dataset, data = chosen(arguments, spec, recipe.dataset, recipe.zoom)
    recipe = dataclasses.replace(recipe, dataset=dataset)
    device = str(processes.device)

    def run(spec: ModelSpec, recipe: Recipe, out: Path, codec: Codec | None, **budget: Any) -> Path:
        horizon = recipe.horizon or spec.frames_out
        with processes.one_first():
            clips, held_out = (data.split(part, spec.frames_in, horizon) for part in ("train", "validation"))
        training = endless(clips, spec, recipe.flips, recipe.seed, device)
        return train(
            spec, recipe, training, held_out, out,
            device=device, codec=codec, micro_batch=arguments.micro_batch, **budget,
        )  # fmt: skip

    check(build(spec, "meta"), recipe)  # before a codec is trained for it
    processes.share(recipe.batch)
    codec = _codec(arguments, entry, dataset, run, processes)
    best = run(spec, recipe, arguments.out, codec, steps=arguments.steps, minutes=arguments.minutes)
    if processes.first:
        _tell(arguments, best, dataset)


def _codec(
    arguments: argparse.Namespace, entry: catalog.Entry, dataset: str, run: Any, processes: Processes
) -> Codec | None:
    """The trained codec of a modular entry: the one given, the entry's own, or one that is trained first."""
    first = None if entry.codec is None else catalog.info(entry.codec.entry)
    if first is None:
        if arguments.codec is not None or arguments.codec_minutes is not None:
            raise SpecError(f"{entry.name} has no codec; --codec and --codec-minutes are for modular entries")
        return None
    untrained = arguments.codec is None and first.weights is None
    if arguments.codec_minutes is not None and not untrained:
        raise SpecError("--codec-minutes is for a codec that must be trained first; this one has weights")
    source: Any = first.name if arguments.codec is None else arguments.codec
    if untrained:
        if processes.first:
            print(f"first the codec, {first.name}, which has no weights yet", file=sys.stderr)
        recipe = dataclasses.replace(read_recipe(first.name), dataset=dataset)
        source = run(first.spec, recipe, arguments.out / "codec", None, minutes=arguments.codec_minutes)
    with processes.one_first():
        return load_codec(source)


def _fine_tune(arguments: argparse.Namespace, processes: Processes) -> None:
    if arguments.codec is not None or arguments.codec_minutes is not None:
        raise SpecError("--codec and --codec-minutes are for training a modular entry; --from brings its own codec")
    recipe = read_recipe(arguments.recipe or RECIPE)
    with processes.one_first():
        model = load(arguments.source, adapt=_changes(arguments), device=processes.device, progress=processes.first)
        dataset, data = chosen(arguments, model.spec, recipe.dataset, recipe.zoom)
    if processes.first:
        print(model.report)  # and what was adapted
    fine_tune(
        model,
        data,
        out=arguments.out,
        recipe=dataclasses.replace(recipe, dataset=dataset),
        steps=arguments.steps,
        minutes=arguments.minutes,
        freeze=tuple(arguments.freeze),
        micro_batch=arguments.micro_batch,
    )
    if processes.first:
        _tell(arguments, arguments.out / "best", dataset)


def _changes(arguments: argparse.Namespace) -> dict[str, int]:
    """The fields of the spec that the options change."""
    fields = ("channels", "frames_in", "frames_out")
    return {f: getattr(arguments, f) for f in fields if getattr(arguments, f) is not None}


def _check_positive(arguments: argparse.Namespace, options: Sequence[str]) -> None:
    for option in options:
        given = getattr(arguments, option)
        if given is not None and not 0 < given < math.inf:
            raise SpecError(f"--{option.replace('_', '-')} is {given}; it must be positive")


def _tell(arguments: argparse.Namespace, best: Path, dataset: str) -> None:
    where = (
        f"--mnist {arguments.mnist}" if arguments.mnist is not None else f"--dataset {dataset} --data {arguments.data}"
    )
    where += "" if arguments.every == 1 else f" --every {arguments.every}"
    print(f"best weights: {best}\nmeasure them: stzoo evaluate {best} {where}")


def run_pace(arguments: argparse.Namespace) -> Pace:
    """How fast an entry's clips are read, beside how fast they train."""
    spec, recipe = catalog.info(arguments.name).spec, read_recipe(arguments.name)
    _, data = chosen(arguments, spec, recipe.dataset, recipe.zoom)
    clips = data.split("train", spec.frames_in, recipe.horizon or spec.frames_out)
    return pace(spec, recipe, endless(clips, spec, recipe.flips, recipe.seed, default_device()))


def run_pack(arguments: argparse.Namespace) -> None:
    """Enter a run's best weights in this checkout, with their figures at each horizon that was asked for."""
    entry = catalog.info(arguments.name)
    for report in pack(
        entry.name,
        arguments.run_folder,
        measurements(arguments, entry),
        arguments.hardware,
        arguments.precision,
        arguments.after,
    ):
        print(report)
