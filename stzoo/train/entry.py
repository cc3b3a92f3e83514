"""An entry of the catalogue trained from scratch, and before it its codec if that has no weights yet."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from stzoo import catalog
from stzoo.catalog import Entry
from stzoo.codec import Codec, load_codec
from stzoo.data import ClipSource, Dataset
from stzoo.errors import SpecError
from stzoo.models import build
from stzoo.spec import ModelSpec
from stzoo.train.assignment import check_from_scratch
from stzoo.train.clips import endless
from stzoo.train.loop import train
from stzoo.train.memory import check_memory
from stzoo.train.objectives import check
from stzoo.train.processes import Processes
from stzoo.train.recipe import Recipe, read_recipe
from stzoo.train.trackers import check_trackers


def train_entry(
    entry: Entry,
    recipe: Recipe,
    data: Dataset,
    out: Path,
    processes: Processes,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    codec: str | None = None,
    codec_minutes: float | None = None,
    micro_batch: int | None = None,
    trackers: Sequence[str] = (),
) -> Path:
    """Train `entry` by `recipe`; run again with the same arguments, it continues from the last checkpoint.

    A modular entry needs a trained codec. It is `codec` if that is given, else the codec that the entry names; if that
    one has no weights, it is trained first, by its own recipe, in the folder `out`/codec.

    Args:
        recipe: how the entry is trained; its `dataset` is also that of a codec that is trained first.
        data: the clips; its validation part chooses the weights that are kept.
        out: the run folder, made if it is absent.
        processes: those that train together, as `stzoo.train.processes.joined` returns them.
        steps, minutes: the budget; the recipe's minutes if neither is given.
        codec: of a modular entry: a source of a trained codec, as `stzoo.load_codec` takes it.
        codec_minutes: the budget of a codec that is trained first; the minutes of its recipe if None.
        micro_batch, trackers: as in `train`; a codec that is trained first is tracked as well.

    Returns:
        The folder of the weights with the best validation error, which `stzoo.load` or `stzoo.load_codec` reads.

    Raises:
        SpecError: the recipe does not fit the architecture, or a codec or its minutes are given where they have no
            meaning. WeightsError: the codec cannot be loaded. MemoryNeededError, TrainingError, MissingExtraError: as
            `train`.
    """
    device = str(processes.device)

    def parts(spec: ModelSpec, recipe: Recipe) -> tuple[ClipSource, ClipSource]:
        horizon = recipe.horizon or spec.frames_out
        with processes.one_first():  # which decodes videos, and keeps the frames
            clips, held_out = (data.split(part, spec.frames_in, horizon) for part in ("train", "validation"))
        return clips, held_out

    def trained(
        spec: ModelSpec, recipe: Recipe, out: Path, codec: Codec | None, steps: int | None, minutes: float | None
    ) -> Path:
        clips, held_out = parts(spec, recipe)
        training = endless(clips, spec, recipe.flips, recipe.seed, device)
        return train(
            spec, recipe, training, held_out, out,
            steps=steps, minutes=minutes, device=device, codec=codec, micro_batch=micro_batch, trackers=trackers,
        )  # fmt: skip

    check_trackers(trackers)
    check_from_scratch(recipe)
    check(build(entry.spec, "meta"), entry.spec, recipe)  # before a codec is trained for it
    check_memory(entry.spec, recipe, micro_batch, processes)
    if entry.codec is None:
        if codec is not None or codec_minutes is not None:
            raise SpecError(f"{entry.name} has no codec; --codec and --codec-minutes are for modular entries")
        return trained(entry.spec, recipe, out, None, steps, minutes)
    named = catalog.info(entry.codec.entry)
    source: str | Path = named.name if codec is None else codec
    if codec is None and named.weights is None:
        parts(entry.spec, recipe)  # so that clips that are too short for it are refused before its codec is trained
        if processes.first:
            print(f"first the codec, {named.name}, which has no weights yet", file=sys.stderr)
        its_recipe = dataclasses.replace(read_recipe(named.name), dataset=recipe.dataset)
        source = trained(named.spec, its_recipe, out / "codec", None, None, codec_minutes)
    elif codec_minutes is not None:
        raise SpecError("--codec-minutes is for a codec that must be trained first; this one has weights")
    with processes.one_first():
        loaded = load_codec(source)
    return trained(entry.spec, recipe, out, loaded, steps, minutes)
