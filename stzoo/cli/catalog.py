"""`stzoo catalog`: what maintainers do with the entries of a checkout; one action for each step."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from stzoo import catalog
from stzoo.catalog import Entry, Training
from stzoo.cli.shared import (
    Arguments,
    Commands,
    add_command,
    add_data_folder,
    add_dataset,
    add_json,
    add_precision,
    chosen_dataset,
    dataset_and_folder,
)
from stzoo.errors import ManifestError, SpecError

if TYPE_CHECKING:
    from stzoo.release.candidate import Measurement
    from stzoo.release.pictures import Footage


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "catalog",
        help="for maintainers: pack a run, add a folder, verify, publish and show the entries of this checkout",
        description="Keep the catalogue of this checkout: weights_manifest.json, the checkpoints and the pages made "
        "from them. 'stzoo catalog ACTION --help' explains the options of ACTION.",
        epilog="Example: stzoo catalog verify",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _register_pack(actions)
    _register_add(actions)
    _register_verify(actions)
    _register_publish(actions)
    _register_speed(actions)
    _register_cards(actions)
    _register_leaderboard(actions)


def _register_pack(actions: Commands) -> None:
    parser = add_command(
        actions,
        "pack",
        _pack,
        help="measure a run's best weights and enter them in this checkout",
        description="Store the best weights of a finished run in float16, measure that file on its test protocol, and "
        "enter both in this checkout.",
        example="stzoo catalog pack tau-mmnist RUN --mnist DIR --hardware '2 CPU cores'",
    )
    parser.add_argument("name", metavar="NAME", help="name of the entry that the run trained")
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="run folder, which 'stzoo train --out RUN' wrote")
    parser.add_argument(
        "--after", type=Path, metavar="RUN0", help="run folder whose best weights RUN was fine-tuned from"
    )
    _add_measuring(parser)


def _pack(arguments: Arguments) -> None:
    from stzoo.release.enter_run import enter_run

    entry = catalog.info(arguments.name)
    for report in enter_run(
        entry.name,
        arguments.run_folder,
        _measurements(arguments, entry),
        arguments.hardware,
        arguments.precision,
        arguments.after,
    ):
        print(report)


def _register_add(actions: Commands) -> None:
    parser = add_command(
        actions,
        "add",
        _add,
        help="measure the weights of a folder that save_pretrained wrote and enter them",
        description="Store the weights of FOLDER in float16, measure that file on its test protocol, and enter both in "
        "this checkout: as a new entry, or in one that has the same spec and no weights. A new entry needs --summary, "
        "--unsuited, --license, --data-terms, --citation and a dataset; an entry that is there already has them.",
        example="stzoo catalog add FOLDER --name my-model --data DIR --recipe 'by hand' --sequences 10000 --hours 2 "
        "--hardware '2 CPU cores'",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder that save_pretrained wrote")
    parser.add_argument("--name", required=True, metavar="NAME", help="name of the entry")
    parser.add_argument("--summary", metavar="TEXT", help="what the model forecasts, in one line")
    parser.add_argument("--unsuited", metavar="TEXT", help="what the model must not be used for, in a sentence or two")
    parser.add_argument("--license", metavar="TEXT", help="licence of the weights")
    parser.add_argument("--data-terms", metavar="TEXT", help="terms under which the training data may be used")
    parser.add_argument("--citation", metavar="TEXT", help="what users of the model should cite")
    parser.add_argument(
        "--recipe",
        required=True,
        metavar="TEXT",
        help="how the weights were trained: the command, or where it is written down",
    )
    parser.add_argument(
        "--sequences", type=int, required=True, metavar="N", help="number of sequences that the model saw in training"
    )
    parser.add_argument("--hours", type=float, required=True, metavar="H", help="hours that training took")
    _add_measuring(parser)


def _add(arguments: Arguments) -> None:
    from stzoo.release.enter_folder import Description, enter_folder

    description = Description(
        summary=arguments.summary,
        unsuited=arguments.unsuited,
        dataset=dataset_and_folder(arguments)[0],
        license=arguments.license,
        data_terms=arguments.data_terms,
        citation=arguments.citation,
    )
    training = Training(
        recipe=arguments.recipe,
        sequences_seen=arguments.sequences,
        hardware=arguments.hardware,
        hours=arguments.hours,
    )

    def protocols(entry: Entry) -> list[Measurement]:
        if entry.kind == "forecaster" and entry.spec.frames_out not in (arguments.horizons or [entry.spec.frames_out]):
            raise SpecError(f"--horizons must hold the model's own, {entry.spec.frames_out}")
        return _measurements(arguments, entry)

    reports = enter_folder(arguments.folder, arguments.name, description, training, protocols, arguments.precision)
    for report in reports:
        print(report)


def _add_measuring(parser: argparse.ArgumentParser) -> None:
    """The options of the actions that measure weights before they enter them; `_measurements` reads them."""
    add_dataset(parser, default="that of the entry")
    add_precision(parser)
    parser.add_argument(
        "--horizons",
        type=int,
        nargs="+",
        metavar="STEPS",
        help="one or more numbers of frames to forecast; each is measured (default: as many as the model forecasts at "
        "once)",
    )
    parser.add_argument("--hardware", required=True, metavar="TEXT", help="what training ran on, for the card")


def _measurements(arguments: Arguments, entry: Entry) -> list[Measurement]:
    """The whole test protocol of an entry at each horizon that was asked for. The dataset is opened last.

    Raises:
        SpecError: options that have no meaning for this entry. DataError: the dataset cannot be opened.
    """
    from stzoo.release.candidate import measurements_of

    if arguments.skip_bad:
        raise SpecError("--skip-bad would measure a part of the protocol under the name of the whole; leave it out")
    if entry.kind == "codec" and arguments.horizons:
        raise SpecError("--horizons are for forecasters; leave them out for a codec")
    for steps in arguments.horizons or []:
        if steps < 1:
            raise SpecError(f"--horizons is {steps}; it must be positive")
    dataset, data = chosen_dataset(arguments, entry.spec, entry.dataset)
    horizons = arguments.horizons or [entry.spec.frames_out]
    return measurements_of(
        entry, dataset, data,
        horizons=horizons, every=arguments.every, units=arguments.units, precision=arguments.precision,
    )  # fmt: skip


def _register_verify(actions: Commands) -> None:
    parser = add_command(
        actions,
        "verify",
        _verify,
        help="check every entry and its weights: hash, tensors, golden forecast",
        description="Check entries and their weights: the hash of the file, its tensors, and the golden forecast, of "
        "which the manifest keeps mean and deviation. Each gets one line; the exit code is 2 if any of them fails.",
        example="stzoo catalog verify tau-mmnist",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="names of the entries to check (default: all)")
    add_json(parser)


def _verify(arguments: Arguments) -> None:
    """One line for each entry; one error at the end if any of them fails."""
    from stzoo.release.verify import verify

    found = []
    for finding in verify(arguments.names):
        found.append(finding)
        if not arguments.json:
            print(finding, flush=True)
    if arguments.json:
        print(json.dumps([dataclasses.asdict(f) | {"ok": f.ok} for f in found]))
    failed = [f.name for f in found if not f.ok]
    if failed:
        raise ManifestError(f"{len(failed)} of {len(found)} fail: {', '.join(failed)}")


def _register_publish(actions: Commands) -> None:
    parser = add_command(
        actions,
        "publish",
        _publish,
        help="send weights to an organisation of a hub, and note where they are",
        description="Send the weights of entries to a hub, each to a repository of its own; read them back, and note "
        "in the manifest where they are.",
        example="stzoo catalog publish hf://ORG tau-mmnist --private",
    )
    parser.add_argument(
        "destination",
        metavar="hf://ORG",
        help="the hub; ORG is the organisation that the repositories belong to",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="names of the entries to send (default: every entry that has weights in the package)",
    )
    parser.add_argument("--private", action="store_true", help="make repositories that only members of ORG can read")


def _publish(arguments: Arguments) -> None:
    """One line for each entry, as soon as it is on the hub and has been read back."""
    from stzoo.release.publish import publish

    for published in publish(arguments.destination, arguments.names, private=arguments.private):
        print(published, flush=True)


def _register_speed(actions: Commands) -> None:
    parser = add_command(
        actions,
        "speed",
        _speed,
        help="enter the speed that 'stzoo benchmark NAME --json' measured",
        description="Enter in the manifest the speed that 'stzoo benchmark NAME --json' measured.",
        example="stzoo catalog speed tau-mmnist REPORT.json --hardware '2 CPU cores'",
    )
    parser.add_argument("name", metavar="NAME", help="name of the entry that was measured")
    parser.add_argument("report", type=Path, metavar="REPORT.json", help="file that holds what the command printed")
    parser.add_argument(
        "--hardware", required=True, metavar="TEXT", help="what the speed was measured on, for the card"
    )


def _speed(arguments: Arguments) -> None:
    from stzoo.release.speed import enter_speed

    print(enter_speed(arguments.name, arguments.report, arguments.hardware))


def _register_cards(actions: Commands) -> None:
    parser = add_command(
        actions,
        "cards",
        _cards,
        help="write a page for each entry from the manifest; with data, two animations as well",
        description="Write a page for each entry from the manifest, with charts of its errors, which need an extra: "
        'pip install "stzoo[plot]". If a folder of data is named, also draw two animations of forecasts of its test '
        "clips: a typical one and one of the worst.",
        example="stzoo catalog cards tau-mmnist --mnist DIR",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="names of the entries to show (default: all)")
    add_data_folder(parser, default="that of NAME", required=False)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("docs/models"),
        metavar="DIR",
        help="folder that the pages are written to (default: %(default)s)",
    )


def _cards(arguments: Arguments) -> None:
    """One line for each file, as soon as it is written."""
    from stzoo.release.pages import write_cards

    for path in write_cards(arguments.names, _footage(arguments), arguments.out):
        print(path, flush=True)


def _footage(arguments: Arguments) -> dict[str, Footage]:
    """The test clips to be shown, by the names of entries: those that are named, or all that the dataset is for.

    Raises:
        UnknownModelError, SpecError, NotPublishedError: names and data do not go together.
        DataError: the dataset cannot be opened.
    """
    from stzoo.data import Reading, open_dataset
    from stzoo.release.pictures import Footage, check_filmed

    dataset, folder = dataset_and_folder(arguments)
    if folder is None:
        if dataset is not None:
            raise SpecError("name the folder of the dataset with --data DIR")
        return {}
    entries = [catalog.info(name) for name in arguments.names]
    if not entries and dataset is None:
        raise SpecError(f"say what {folder} holds with --dataset, or name the entries")
    if not entries:
        names = catalog.list_models(dataset=dataset, pretrained=True, kind="forecaster")
        entries = [catalog.info(name) for name in names]
    found = {}
    for entry in entries:
        check_filmed(entry)
        if dataset not in (None, entry.dataset):
            raise SpecError(f"{entry.name} is shown on {entry.dataset}, the data is {dataset}; leave the entry out")
        data = open_dataset(entry.dataset, folder, Reading.of(entry.spec))
        clips = data.split("test", entry.spec.frames_in, entry.spec.frames_out)
        found[entry.name] = Footage(clips, f"stzoo catalog cards {entry.name} --data DIR")
    return found


def _register_leaderboard(actions: Commands) -> None:
    parser = add_command(
        actions,
        "leaderboard",
        _leaderboard,
        help="write every figure of the manifest beside those of papers",
        description="Write leaderboard.md and leaderboard.csv: every figure of the manifest beside those of papers.",
        example="stzoo catalog leaderboard",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("docs"),
        metavar="DIR",
        help="folder that the two files are written to (default: %(default)s)",
    )


def _leaderboard(arguments: Arguments) -> None:
    from stzoo.release.leaderboard import write_leaderboard

    for path in write_leaderboard(arguments.out):
        print(path)
