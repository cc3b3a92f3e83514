"""`stzoo train`: an entry of the catalogue from scratch, or any model further on other clips."""

from __future__ import annotations

import dataclasses
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from stzoo import catalog
from stzoo.cli.shared import MODEL, Arguments, Commands, add_command, add_dataset, add_device, chosen_dataset
from stzoo.errors import SpecError
from stzoo.published import published

if TYPE_CHECKING:
    from stzoo.train.processes import Processes


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "train",
        _run,
        help="train a model of the catalogue, or fine-tune one; run again, it continues",
        description="Train the model NAME of the catalogue from scratch by its recipe, or fine-tune MODEL on other "
        "clips. The same command, run again, continues where it was interrupted.",
        example="stzoo train tau-mmnist --mnist DIR --out RUN",
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="name of the model to train from scratch, as 'stzoo list' shows it"
    )
    parser.add_argument("--from", dest="source", metavar="MODEL", help=f"the model to fine-tune instead: {MODEL}")
    for option, metavar, what in (
        ("--channels", "C", "channels C of a frame"),
        ("--frames-in", "N", "past frames"),
        ("--frames-out", "N", "frames to forecast"),
    ):
        help = f"with --from: number of {what}, if MODEL was trained with another number"
        parser.add_argument(option, type=int, metavar=metavar, help=help)
    parser.add_argument(
        "--freeze",
        action="append",
        default=[],
        metavar="PART",
        help="with --from: parameters whose names begin with PART, such as encoder, stay unchanged; may be given "
        "several times",
    )
    add_dataset(parser, default="the one that the recipe names")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="RUN",
        help="run folder, where checkpoints, the log and the best weights are written",
    )
    parser.add_argument(
        "--recipe",
        metavar="RECIPE",
        help="recipe to train by: a .toml file, or the name of one that comes with stzoo (default: the one called "
        "NAME; with --from the one called fine-tune)",
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--steps", type=int, metavar="N", help="number of steps to train")
    budget.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="minutes to train, which are converted once into a number of steps, at the speed measured on this machine "
        "(default: the minutes that the recipe names)",
    )
    parser.add_argument(
        "--horizon",
        type=int,
        metavar="N",
        help="number of frames ahead that the model is trained and validated, through its own forecasts, so that it is "
        "best at the length that you will roll out (default: the one of the recipe, mostly that of one forecast)",
    )
    parser.add_argument(
        "--blend",
        type=float,
        metavar="SHARE",
        help="with --from: the SHARE of what training changes that is kept, from 0.01 to 1; 0.5 may be better where "
        "the clips show less than what you will forecast, such as one person of many (default: the one of the recipe, "
        "mostly 1, which is all of it)",
    )
    parser.add_argument(
        "--codec",
        metavar="CODEC",
        help="for a modular model: the trained codec that it works with, given in one of the ways that MODEL is "
        "(default: the codec that the catalogue names, which is trained first if it has no weights)",
    )
    parser.add_argument(
        "--codec-minutes",
        type=float,
        metavar="M",
        help="for a modular model: minutes to train its codec, if that must be trained first (default: the minutes "
        "that the codec's recipe names)",
    )
    add_device(parser, None, "where to train (default: cuda if torch finds a GPU, else cpu)")
    parser.add_argument(
        "--micro-batch",
        type=int,
        metavar="N",
        help="largest number of clips that go through the model at once; a small one needs less memory for the same "
        "batch (default: the whole batch)",
    )
    parser.add_argument(
        "--tracker",
        dest="trackers",
        action="append",
        default=[],
        metavar="TRACKER",
        help="send the log to TRACKER as well: tensorboard, which writes into RUN/trackers, wandb, mlflow, or another "
        "one that the package accelerate knows, if its own package is installed; may be given several times",
    )


def _run(arguments: Arguments) -> None:
    from stzoo.machine import default_device
    from stzoo.train.processes import joined
    from stzoo.train.trackers import check_trackers

    _check_positive(arguments, "steps", "minutes", "horizon", "codec_minutes", "micro_batch")
    if arguments.device == "cuda" and default_device() != "cuda":
        raise SpecError("--device is cuda, but torch finds no GPU on this machine; use --device cpu")
    if (arguments.name is None) == (arguments.source is None):
        raise SpecError("name an entry to train from scratch, or a checkpoint to go on from with --from; not both")
    check_trackers(arguments.trackers)
    (_train if arguments.source is None else _fine_tune)(arguments, joined(arguments.device))


def _train(arguments: Arguments, processes: Processes) -> None:
    from stzoo.train.entry import train_entry
    from stzoo.train.recipe import read_recipe

    if arguments.name in published():
        raise SpecError(
            f"{arguments.name} has weights already; train it further with: stzoo train --from {arguments.name}"
        )
    entry, recipe = catalog.info(arguments.name), read_recipe(arguments.recipe or arguments.name)
    if arguments.freeze or arguments.blend is not None or _changes(arguments):
        raise SpecError("--freeze, --blend, --channels, --frames-in and --frames-out are for --from")
    with processes.one_first():  # which decodes videos, and keeps the frames
        dataset, data = chosen_dataset(arguments, entry.spec, recipe.dataset, recipe.zoom)
    best = train_entry(
        entry,
        dataclasses.replace(recipe, dataset=dataset).adjusted(horizon=arguments.horizon),
        data,
        arguments.out,
        processes,
        steps=arguments.steps,
        minutes=arguments.minutes,
        codec=arguments.codec,
        codec_minutes=arguments.codec_minutes,
        micro_batch=arguments.micro_batch,
        trackers=tuple(arguments.trackers),
    )
    if processes.first:
        _tell(arguments, best, dataset)


def _fine_tune(arguments: Arguments, processes: Processes) -> None:
    from stzoo.opening import load
    from stzoo.train.fine_tuning import RECIPE, fine_tune
    from stzoo.train.recipe import read_recipe

    if arguments.codec is not None or arguments.codec_minutes is not None:
        raise SpecError("--codec and --codec-minutes are for training a modular entry; --from brings its own codec")
    recipe = read_recipe(arguments.recipe or RECIPE).adjusted(horizon=arguments.horizon, blend=arguments.blend)
    with processes.one_first():
        model = load(arguments.source, adapt=_changes(arguments), device=processes.device, progress=processes.first)
        dataset, data = chosen_dataset(arguments, model.spec, recipe.dataset, recipe.zoom)
    if processes.first:
        print(model.report)  # which says what was adapted
    fine_tune(
        model,
        data,
        out=arguments.out,
        recipe=dataclasses.replace(recipe, dataset=dataset),
        steps=arguments.steps,
        minutes=arguments.minutes,
        freeze=tuple(arguments.freeze),
        micro_batch=arguments.micro_batch,
        trackers=tuple(arguments.trackers),
    )
    if processes.first:
        _tell(arguments, arguments.out / "best", dataset)


def _changes(arguments: Arguments) -> dict[str, int]:
    """The fields of the spec that options change, with their new values."""
    fields = ("channels", "frames_in", "frames_out")
    return {f: getattr(arguments, f) for f in fields if getattr(arguments, f) is not None}


def _check_positive(arguments: Arguments, *options: str) -> None:
    """Raises `SpecError` if one of these options was given a number that is not positive and finite."""
    for option in options:
        given = getattr(arguments, option)
        if given is not None and not 0 < given < math.inf:
            raise SpecError(f"--{option.replace('_', '-')} is {given}; it must be positive")


def _tell(arguments: Arguments, best: Path, dataset: str) -> None:
    """Print where the best weights are, and the command that measures them."""

    def quoted(path: Path) -> str:
        return shlex.quote(str(path))

    where = (
        f"--mnist {quoted(arguments.mnist)}"
        if arguments.mnist is not None
        else f"--dataset {dataset} --data {quoted(arguments.data)}"
    )
    where += "" if arguments.every == 1 else f" --every {arguments.every}"
    where += " --skip-bad" if arguments.skip_bad else ""
    where += "" if arguments.units is None else f" --units {shlex.quote(arguments.units)}"
    where += "" if arguments.horizon is None else f" --steps {arguments.horizon}"
    print(f"best weights: {best}\nmeasure them: stzoo evaluate {quoted(best)} {where}")
