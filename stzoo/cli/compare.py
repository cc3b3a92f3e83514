"""`stzoo compare`: several models on the same frames, in one table and one picture."""

from __future__ import annotations

from pathlib import Path

from stzoo.cli.protocol import add_protocol, dataset_of, protocol_of, steps_of
from stzoo.cli.shared import (
    MODEL,
    PICTURE,
    Arguments,
    Commands,
    add_any_device,
    add_command,
    add_json,
    add_precision,
    check_picture,
    dataset_and_folder,
)
from stzoo.errors import SpecError


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "compare",
        _run,
        help="measure several models on the same frames, beside persistence; with --plot, draw them",
        description="Measure several models on the same frames, and print a table of them, with persistence, which "
        "repeats the last past frame, in the last row; the skill is 1 - MSE / MSE of persistence. The past is as long "
        "as the longest that any of the models reads, and each model reads the last frames of it.",
        example="stzoo compare tau-mmnist simvp-mmnist --mnist DIR --limit 200 --plot compare.png",
    )
    parser.add_argument("sources", nargs="+", metavar="MODEL", help=f"one or more models to measure: {MODEL}")
    add_protocol(
        parser,
        default="the one that the models are for by their names, if stzoo reads it; else clips",
        steps="the largest number that any of the models forecasts at once",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="OUT.png",
        help="file to draw a picture to: a metric at each step ahead, and below it the truth and each forecast of one "
        f"clip; {PICTURE}",
    )
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="with --plot: name of the metric to draw, as the table shows it (default: mse)",
    )
    parser.add_argument(
        "--clip",
        type=int,
        metavar="K",
        help="with --plot: number K of the sequence to show, from 0 on, of those that are measured (default: 0)",
    )
    add_precision(parser)
    add_any_device(parser)
    written = parser.add_mutually_exclusive_group()
    written.add_argument(
        "--csv", action="store_true", help="print CSV instead of text: one row for each model and step"
    )
    add_json(written)


def _run(arguments: Arguments) -> None:
    """Measure, print, and draw the picture that --plot names. Whatever can be refused is refused first."""
    sources: list[str] = arguments.sources
    twice = next((source for number, source in enumerate(sources) if source in sources[:number]), None)
    if twice is not None:
        raise SpecError(f"{twice} is named twice; name each model once")
    if arguments.plot is None and (arguments.metric is not None or arguments.clip is not None):
        raise SpecError("--metric and --clip say what --plot draws; name the picture with --plot OUT.png")
    if arguments.plot is not None:
        check_picture("--plot", arguments.plot)

    from stzoo.evaluate.comparing import check_clip, check_comparable, check_metric, compare
    from stzoo.forecaster import Forecaster
    from stzoo.machine import check_device
    from stzoo.metrics import DEFINITIONS
    from stzoo.models import architecture_of
    from stzoo.published.fetching import find

    device = check_device(arguments.device)
    found = {source: find(source) for source in sources}
    specs = {source: files.spec for source, files in found.items()}
    for source, spec in specs.items():
        if architecture_of(spec).is_codec:
            raise SpecError(f"{source} is a codec, which forecasts nothing; leave it out")
    check_comparable(specs, sizes=arguments.size == "model")
    frames_in = max(spec.frames_in for spec in specs.values())
    steps = steps_of(arguments, max(spec.frames_out for spec in specs.values()))
    protocol = protocol_of(arguments, specs[sources[0]], _chooser(arguments), frames_in, steps)
    clip = None
    if arguments.plot is not None:
        clip = arguments.clip or 0
        check_clip(clip, len(protocol.clips))
        check_metric(arguments.metric or "mse", protocol.definition, DEFINITIONS[protocol.definition].names)
    comparison = compare(
        {source: Forecaster.from_files(files, source).to(device) for source, files in found.items()},
        protocol.clips,
        protocol=protocol.name,
        definition=protocol.definition,
        precision=arguments.precision,
        clip=clip,
    ).with_files(protocol.files)
    print(comparison.to_json() if arguments.json else comparison.to_csv() if arguments.csv else comparison, flush=True)
    if arguments.plot is not None:
        comparison.chart(arguments.metric or "mse").save(arguments.plot)


def _chooser(arguments: Arguments) -> str | None:
    """The first model whose name says what dataset it is for; None if no name does.

    Raises:
        SpecError: the names of several models say different things, and no option decides.
    """
    known = {source: dataset for source in arguments.sources if (dataset := dataset_of(source)) is not None}
    if dataset_and_folder(arguments)[0] is None and len(set(known.values())) > 1:
        said = ", ".join(f"{source} for {dataset}" for source, dataset in known.items())
        raise SpecError(
            f"by their names the models are for different datasets: {said}; say with --dataset which to use"
        )
    return next(iter(known), None)
