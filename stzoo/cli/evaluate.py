"""`stzoo evaluate`: the figures of a model on the test part of a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from stzoo import catalog
from stzoo.cli.shared import (
    MODEL,
    Arguments,
    Commands,
    add_any_device,
    add_backend,
    add_command,
    add_dataset,
    add_json,
    add_matched,
    add_precision,
    chosen_dataset,
    dataset_and_folder,
)
from stzoo.errors import DataError, SpecError

# The keys of `stzoo.metrics.DEFINITIONS`, which imports torch.
_DEFINITIONS = ("stzoo", "stzoo-rain", "stzoo-rain-rates", "openstl", "simvp-2022")


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "evaluate",
        _run,
        help="measure a model on its test protocol, beside persistence",
        description="Measure a model on the test part of a dataset. Each figure of a forecaster stands beside that "
        "of persistence, which repeats the last past frame; the skill is 1 - MSE / MSE of persistence. Of a codec, the "
        "frames that it reconstructs are measured.",
        example="stzoo evaluate tau-mmnist --mnist DIR",
    )
    parser.add_argument("source", metavar="MODEL", help=f"the model to measure: {MODEL}")
    add_dataset(parser, default="the one that MODEL is for by its name, if stzoo reads it; else clips")
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="number of frames to forecast; beyond those that the model forecasts at once, it continues from its own "
        "forecasts (default: as many as it forecasts at once)",
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
        help="definition of the metrics: stzoo; stzoo-rain, which adds scores of rain events; stzoo-rain-rates, which "
        "measures rates in mm/h, and the place and the area of rain; openstl, which computes them as the tables of "
        "OpenSTL did; or simvp-2022, as SimVP's code of 2022 did (default: that of the dataset, which is stzoo-rain "
        "for radar, stzoo-rain-rates for radar-crops and radar-fields, and stzoo for every other)",
    )
    parser.add_argument(
        "--size",
        choices=("model", "own"),
        default="model",
        help="size of the frames that are measured: with model, that which the model was trained on; with own, that of "
        "your own clips, on which the model then runs (default: %(default)s)",
    )
    add_matched(parser)
    add_precision(parser)
    add_backend(parser)
    add_any_device(parser)
    parser.add_argument(
        "--csv", action="store_true", help="print CSV instead of text: one row for each step, for a codec one row"
    )
    add_json(parser)


@contextmanager
def _own_clips_told(arguments: Arguments, default: str) -> Iterator[None]:
    """An error of a dataset that only the model's name has chosen says how clips of one's own are measured."""
    try:
        yield
    except DataError as error:
        if dataset_and_folder(arguments)[0] is not None or default == "clips":
            raise
        named = f"{arguments.source} is measured on {default}, by its name; for other files add --dataset clips"
        raise DataError(f"{error}; {named}") from error


def _run(arguments: Arguments) -> None:
    from stzoo.codec import Codec
    from stzoo.data import DATASETS, protocol_name
    from stzoo.data.joined import first_clips
    from stzoo.evaluate import EvaluationReport, evaluate, evaluate_codec
    from stzoo.forecaster import Forecaster
    from stzoo.machine import check_device
    from stzoo.models import architecture_of
    from stzoo.published import published
    from stzoo.published.fetching import find

    device = check_device(arguments.device)
    found = find(arguments.source)
    codec = architecture_of(found.spec).is_codec
    model: Any = (Codec if codec else Forecaster).from_files(found, arguments.source).to(device)
    known = catalog.entries().get(arguments.source) or published().get(arguments.source)
    default = "clips" if known is None or known.dataset not in DATASETS else known.dataset
    own_size = arguments.size == "own"
    with _own_clips_told(arguments, default):
        dataset, data = chosen_dataset(arguments, model.spec, default, own_size=own_size)
    if codec and arguments.steps is not None:
        raise SpecError("--steps is for forecasters; a codec is measured on the first two frames of each sequence")
    if codec and arguments.matched:
        raise SpecError("--matched is for forecasters; a codec forecasts nothing")
    if codec and arguments.backend != "torch":
        raise SpecError("--backend is for forecasters; torch computes what a codec makes")
    steps = 1 if codec else model.spec.frames_out if arguments.steps is None else arguments.steps
    if steps < 1:
        raise SpecError(f"--steps is {steps}; it must be at least 1")
    protocol = protocol_name(
        dataset, model.spec.frames_in, steps, codec=codec, every=arguments.every, matched=arguments.matched
    )
    protocol += ", frames at their own size" if own_size else ""
    protocol += "" if arguments.part == "test" else f", {arguments.part} part"
    with _own_clips_told(arguments, default):
        clips: Any = data.split(arguments.part, model.spec.frames_in, steps)
    files = len(clips.recordings) if dataset == "clips" else None
    if arguments.limit is not None:
        if not 1 <= arguments.limit <= len(clips):
            raise SpecError(f"--limit is {arguments.limit}; it may be 1 to {len(clips)}")
        clips = first_clips(clips, arguments.limit)
        protocol += f", first {arguments.limit} sequences only"
    run: Any = evaluate_codec if codec else partial(evaluate, matched=arguments.matched, backend=arguments.backend)
    report: Any = run(
        model,
        clips,
        name=arguments.source,
        protocol=protocol,
        definition=arguments.definition or DATASETS[dataset].definition,
        precision=arguments.precision,
    )
    if isinstance(report, EvaluationReport):
        report = replace(report, files=files)
    print(report.to_json() if arguments.json else report.to_csv() if arguments.csv else report)
