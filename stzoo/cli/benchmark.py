"""`stzoo benchmark`: how fast a model forecasts, or how fast clips are read beside how fast they train."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from stzoo import catalog
from stzoo.cli.shared import (
    MODEL,
    PICTURE,
    Arguments,
    Commands,
    add_backend,
    add_command,
    add_dataset,
    add_device,
    add_json,
    add_precision,
    check_picture,
    chosen_dataset,
)
from stzoo.errors import SpecError

_OF_FORECASTS = ("precision", "backend", "batch", "steps", "device", "threads", "against", "repeats", "stream", "plot")
_OF_LOADER = ("data", "mnist", "dataset", "every", "skip_bad", "units", "download")


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "benchmark",
        _run,
        help="latency, throughput, share of this machine's peak, and memory",
        description="Measure how fast a model forecasts on this machine: latency, throughput, the share of the "
        "machine's peak that it reaches, and memory. With --loader, measure instead how fast clips are read and how "
        "fast they train; the options that name a dataset and how it is read belong to --loader.",
        example="stzoo benchmark tau-mmnist --batch 16 --against plain",
    )
    _add_options(parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        nargs="?",
        default="tau-mmnist",
        metavar="MODEL",
        help=f"the model to measure: {MODEL}; with --loader, MODEL is an entry of the catalogue, whose recipe says "
        "how clips are read and trained on (default: %(default)s)",
    )
    add_precision(parser, auto=True)
    add_backend(parser, auto=True)
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="number of clips in one pass (default: %(default)s)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="number of frames that one pass forecasts (default: as many as the model forecasts at once)",
    )
    add_device(parser, "cpu", "where the model runs (default: %(default)s)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="number of threads (default: as many as torch chooses)"
    )
    parser.add_argument(
        "--against", choices=["plain"], help="measure the plain float32 module as well, taking turns with the model"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        metavar="N",
        help="number of passes to measure (default: as many as fit into about 15 seconds, at most 100)",
    )
    parser.add_argument(
        "--stream", action="store_true", help="measure the memory of streaming 20 and 1,000 frames as well"
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="OUT.png",
        help=f"file to draw a picture to, which shows the model below the roofline of this machine; {PICTURE}",
    )
    add_json(parser)
    parser.add_argument(
        "--loader", action="store_true", help="measure instead how fast clips are read, and how fast they train"
    )
    add_dataset(parser, default="the one that the recipe names", required=False)


def _run(arguments: Arguments) -> None:
    """Measure, print, and draw the picture that --plot names. Whatever can be refused is refused first."""
    if arguments.loader:
        _refuse(arguments, _OF_FORECASTS, "measures forecasts; leave it out with --loader")
        _measure_loader(arguments)
    else:
        _refuse(arguments, _OF_LOADER, "is for --loader")
        _measure_forecasts(arguments)


def _measure_forecasts(arguments: Arguments) -> None:
    from stzoo.benchmark.setting import Setting

    setting = Setting(
        source=arguments.name,
        precision=arguments.precision,
        backend=arguments.backend,
        batch=arguments.batch,
        steps=arguments.steps,
        device=arguments.device,
        threads=arguments.threads,
        against_plain=arguments.against == "plain",
        repeats=arguments.repeats,
        stream=arguments.stream,
    )
    if arguments.plot is not None:
        check_picture("--plot", arguments.plot)
    from stzoo.benchmark.measure import benchmark

    report = benchmark(setting, progress=True)
    print(report.to_json() if arguments.json else report, flush=True)
    if arguments.plot is not None:
        from stzoo.benchmark.roofline import roofline_chart

        roofline_chart(report).save(arguments.plot)


def _measure_loader(arguments: Arguments) -> None:
    from stzoo.machine import default_device
    from stzoo.train.clips import endless
    from stzoo.train.pace import pace
    from stzoo.train.recipe import read_recipe

    spec, recipe = catalog.info(arguments.name).spec, read_recipe(arguments.name)
    _, data = chosen_dataset(arguments, spec, recipe.dataset, recipe.zoom)
    clips = data.split("train", spec.frames_in, recipe.horizon or spec.frames_out)
    found = pace(spec, recipe, endless(clips, spec, recipe.flips, recipe.seed, default_device()))
    print(json.dumps(dataclasses.asdict(found)) if arguments.json else found)


def _refuse(arguments: Arguments, names: tuple[str, ...], says: str) -> None:
    """Raises `SpecError` if one of these options was given, because it would not be read."""
    parser = argparse.ArgumentParser()
    _add_options(parser)
    for name in names:
        if getattr(arguments, name) != parser.get_default(name):
            raise SpecError(f"--{name.replace('_', '-')} {says}")
