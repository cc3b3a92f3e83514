"""The options that say what models are measured on, and the clips that they name: for `evaluate` and `compare`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stzoo import catalog
from stzoo.cli.shared import Arguments, add_dataset, chosen_dataset, dataset_and_folder
from stzoo.data import DATASETS, protocol_name
from stzoo.errors import DataError, SpecError
from stzoo.published import published
from stzoo.spec import ModelSpec

# The keys of `stzoo.metrics.DEFINITIONS`, which imports torch.
_DEFINITIONS = ("stzoo", "stzoo-lpips", "stzoo-rain", "stzoo-rain-rates", "stzoo-units", "openstl", "simvp-2022")


def add_protocol(parser: argparse.ArgumentParser, *, default: str, steps: str) -> None:
    """The dataset and how it is read, ``--steps``, ``--limit``, ``--part``, ``--definition`` and ``--size``.

    Args:
        default: which dataset it is if no option says so, in words.
        steps: the default of ``--steps``, in words.
    """
    add_dataset(parser, default=default)
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="number of frames to forecast; beyond those that a model forecasts at once, it continues from its own "
        f"forecasts (default: {steps})",
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="number of sequences to measure; the report says so (default: all)",
    )
    parser.add_argument(
        "--part",
        choices=("test", "validation"),
        default="test",
        help="part of the dataset to measure on; choices between models are made on validation (default: %(default)s)",
    )
    parser.add_argument(
        "--definition",
        choices=_DEFINITIONS,
        help="definition of the metrics: stzoo; stzoo-lpips, which adds LPIPS, whose weights are downloaded once; "
        "stzoo-rain, which adds scores of rain events; stzoo-rain-rates, which measures rates in mm/h, and the place "
        "and the area of rain; stzoo-units, which are errors of a cell in the units of the data; openstl, which "
        "computes them as the tables of OpenSTL did; or simvp-2022, as SimVP's code of 2022 did (default: that of the "
        "dataset, which is stzoo-rain for radar, stzoo-rain-rates for radar-crops and radar-fields, stzoo-units for "
        "taxinyc, and stzoo for every other)",
    )
    parser.add_argument(
        "--size",
        choices=("model", "own"),
        default="model",
        help="size of the frames that are measured: with model, that which the model was trained on; with own, that of "
        "your own clips, on which the model then runs (default: %(default)s)",
    )


def dataset_of(source: str) -> str | None:
    """The dataset that a model is for by its name, if stzoo reads it; None if its name says nothing of it."""
    known = catalog.entries().get(source) or published().get(source)
    return None if known is None or known.dataset not in DATASETS else known.dataset


def steps_of(arguments: Arguments, default: int) -> int:
    """What ``--steps`` says. Raises `SpecError` if it is below 1."""
    steps: int = default if arguments.steps is None else arguments.steps
    if steps < 1:
        raise SpecError(f"--steps is {steps}; it must be at least 1")
    return steps


@dataclass(frozen=True)
class Protocol:
    """What models are measured on.

    Attributes:
        name: what reports call it.
        clips: past and future frames, a `ClipSource`.
        definition: of the metrics, a key of `stzoo.metrics.DEFINITIONS`.
        files: how many files of one's own the clips are from; None for another dataset.
    """

    name: str
    clips: Any
    definition: str
    files: int | None


def protocol_of(
    arguments: Arguments,
    spec: ModelSpec,
    chooser: str | None,
    frames_in: int,
    steps: int,
    *,
    codec: bool = False,
    matched: bool = False,
) -> Protocol:
    """What the options of `add_protocol` name.

    Args:
        arguments: those of a command that has these options.
        spec: of a model that reads the frames.
        chooser: the model whose name chooses the dataset if no option names one; None for clips.
        frames_in, steps: how many frames of each clip are given and forecast.
        codec, matched: as in `protocol_name`.

    Raises:
        SpecError: the options contradict each other, or there are not so many clips.
        DataError: the dataset cannot be opened, or has no such clips.
    """
    if arguments.limit is not None and arguments.limit < 1:
        raise SpecError(f"--limit is {arguments.limit}; it must be at least 1")
    default = "clips" if chooser is None else dataset_of(chooser) or "clips"
    own_size = arguments.size == "own"
    with _own_clips_told(arguments, chooser, default):
        dataset, data = chosen_dataset(arguments, spec, default, own_size=own_size)
        definition = arguments.definition or DATASETS[dataset].definition
        _check_rain(definition, dataset, spec)
        clips: Any = data.split(arguments.part, frames_in, steps)
    name = protocol_name(dataset, frames_in, steps, codec=codec, every=arguments.every, matched=matched)
    name += ", frames at their own size" if own_size else ""
    name += "" if arguments.part == "test" else f", {arguments.part} part"
    name += ", files that cannot be read left out" if arguments.skip_bad else ""
    files = len(set(clips.places[: arguments.limit, 0].tolist())) if dataset == "clips" else None
    if arguments.limit is not None:
        from stzoo.data.joined import first_clips

        if arguments.limit > len(clips):
            raise SpecError(f"--limit is {arguments.limit}; it may be 1 to {len(clips)}")
        clips = first_clips(clips, arguments.limit)
        name += f", first {arguments.limit} sequences only"
    return Protocol(name, clips, definition, files)


def _check_rain(definition: str, dataset: str, spec: ModelSpec) -> None:
    """Raises `SpecError` if a definition that measures rain is to measure something else."""
    from stzoo.frames.rain import is_rain

    if not definition.startswith("stzoo-rain") or DATASETS[dataset].definition.startswith("stzoo-rain"):
        return
    if not is_rain(spec.value_range):
        raise SpecError(
            f"--definition {definition} measures rain, and the values of this model are no dBR as those of tau-radar "
            "are; use stzoo or stzoo-units"
        )


@contextmanager
def _own_clips_told(arguments: Arguments, chooser: str | None, default: str) -> Iterator[None]:
    """An error of a dataset that only a model's name has chosen says how clips of one's own are measured."""
    try:
        yield
    except DataError as error:
        if dataset_and_folder(arguments)[0] is not None or default == "clips":
            raise
        named = f"{chooser} is measured on {default}, by its name; for other files add --dataset clips"
        raise DataError(f"{error}; {named}") from error
