"""`stzoo evaluate`: the figures of a model on the test part of a dataset."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from stzoo.cli.protocol import add_protocol, protocol_of, steps_of
from stzoo.cli.shared import (
    MODEL,
    Arguments,
    Commands,
    add_any_device,
    add_backend,
    add_command,
    add_json,
    add_matched,
    add_precision,
)
from stzoo.errors import SpecError


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
    add_protocol(
        parser,
        default="the one that MODEL is for by its name, if stzoo reads it; else clips",
        steps="as many as it forecasts at once",
    )
    add_matched(parser)
    add_precision(parser)
    add_backend(parser)
    add_any_device(parser)
    written = parser.add_mutually_exclusive_group()
    written.add_argument(
        "--csv", action="store_true", help="print CSV instead of text: one row for each step, for a codec one row"
    )
    add_json(written)


def _run(arguments: Arguments) -> None:
    from stzoo.codec import Codec
    from stzoo.evaluate import EvaluationReport, evaluate, evaluate_codec
    from stzoo.forecaster import Forecaster
    from stzoo.machine import check_device
    from stzoo.models import architecture_of
    from stzoo.published.fetching import find

    device = check_device(arguments.device)
    found = find(arguments.source)
    spec, codec = found.spec, architecture_of(found.spec).is_codec
    if codec:
        _refuse_options_of_forecasters(arguments)
    steps = 1 if codec else steps_of(arguments, spec.frames_out)
    protocol = protocol_of(
        arguments, spec, arguments.source, spec.frames_in, steps, codec=codec, matched=arguments.matched
    )
    model: Any = (Codec if codec else Forecaster).from_files(found, arguments.source).to(device)
    run: Any = evaluate_codec if codec else partial(evaluate, matched=arguments.matched, backend=arguments.backend)
    report: Any = run(
        model,
        protocol.clips,
        name=arguments.source,
        protocol=protocol.name,
        definition=protocol.definition,
        precision=arguments.precision,
    )
    if isinstance(report, EvaluationReport):
        report = replace(report, files=protocol.files)
    print(report.to_json() if arguments.json else report.to_csv() if arguments.csv else report)


def _refuse_options_of_forecasters(arguments: Arguments) -> None:
    """Raises `SpecError` if an option was given that has no meaning for a codec."""
    if arguments.steps is not None:
        raise SpecError("--steps is for forecasters; a codec is measured on the first two frames of each sequence")
    if arguments.matched:
        raise SpecError("--matched is for forecasters; a codec forecasts nothing")
    if arguments.backend != "torch":
        raise SpecError("--backend is for forecasters; torch computes what a codec makes")
