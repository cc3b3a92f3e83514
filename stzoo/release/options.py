"""The options of `stzoo catalog`. Imports no torch: every command line passes here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stzoo.data import DATASETS
from stzoo.data.options import add_options, add_precision


def add_actions(catalog: argparse.ArgumentParser) -> None:
    """``pack``, ``add``, ``verify``, ``publish``, ``speed``, ``cards``, ``leaderboard``; each sets `run`."""
    actions = catalog.add_subparsers(required=True, metavar="ACTION")

    def action(name: str, run: Any, help: str) -> argparse.ArgumentParser:
        parser = actions.add_parser(name, help=help, description=help)
        parser.set_defaults(run=run)
        return parser

    parser = action("pack", _pack, "measure a run's best weights and enter them in this checkout")
    parser.add_argument("name")
    parser.add_argument("run_folder", type=Path, metavar="RUN")
    parser.add_argument("--after", type=Path, metavar="RUN0", help="the run that RUN was fine-tuned from")
    _add_measuring(parser)

    parser = action("add", _add, "measure the weights of a folder that save_pretrained wrote and enter them")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", required=True, help="of a new entry, or of one that has this spec and no weights")
    parser.add_argument("--summary", help="one line; this and the next four are for a new entry, which needs them")
    parser.add_argument("--unsuited", help="what the model must not be used for, in a sentence or two")
    parser.add_argument("--license", help="of the weights")
    parser.add_argument("--data-terms", help="of what they were trained on")
    parser.add_argument("--citation", help="what to cite")
    parser.add_argument("--recipe", required=True, help="how they were trained: a command, or where it is written")
    parser.add_argument("--sequences", type=int, required=True, metavar="N", help="that were seen in training")
    parser.add_argument("--hours", type=float, required=True, metavar="H", help="that training took")
    _add_measuring(parser)

    parser = action("verify", _verify, "check every entry, and its weights: hash, tensors, golden forecast")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--json", action="store_true")

    parser = action("publish", _publish, "send weights to an organisation of a hub, and note where they are")
    parser.add_argument("destination", metavar="hf://ORG")
    parser.add_argument("names", nargs="*", metavar="NAME", help="all with weights in the package, by default")
    parser.add_argument("--private", action="store_true", help="repositories that only members of ORG can read")

    parser = action("speed", _speed, "enter the speed that `stzoo benchmark NAME --json` found")
    parser.add_argument("name")
    parser.add_argument("report", type=Path, metavar="REPORT.json")
    parser.add_argument("--hardware", required=True, help="what it was measured on, for the card")

    parser = action("cards", _cards, "write a page for each entry from the manifest; with data, two animations as well")
    parser.add_argument("names", nargs="*", metavar="NAME", help="all, by default")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--data", type=Path, metavar="DIR", help="folder of the dataset, to make animations of")
    where.add_argument("--mnist", type=Path, metavar="DIR", help="the same as --dataset mmnist --data DIR")
    parser.add_argument("--dataset", choices=sorted(DATASETS), help="what DIR holds; by default what NAME is for")
    parser.add_argument("--out", type=Path, default=Path("docs/models"), help="folder; docs/models by default")

    parser = action("leaderboard", _leaderboard, "write every figure of the manifest beside those of papers")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder; docs by default")


def _add_measuring(parser: argparse.ArgumentParser) -> None:
    """Of the actions that measure weights before they enter them."""
    add_options(parser)
    add_precision(parser)
    parser.add_argument(
        "--horizons", type=int, nargs="+", metavar="STEPS", help="measure each; the model's own by default"
    )
    parser.add_argument("--hardware", required=True, help="what training ran on, for the card")


def _pack(arguments: argparse.Namespace) -> None:
    from stzoo.train.commands import run_pack

    run_pack(arguments)


def _add(arguments: argparse.Namespace) -> None:
    from stzoo.release.commands import run_add

    run_add(arguments)


def _verify(arguments: argparse.Namespace) -> None:
    from stzoo.release.commands import run_verify

    run_verify(arguments)


def _publish(arguments: argparse.Namespace) -> None:
    from stzoo.release.commands import run_publish

    run_publish(arguments)


def _speed(arguments: argparse.Namespace) -> None:
    from stzoo.release.speed import enter_speed

    print(enter_speed(arguments.name, arguments.report, arguments.hardware))


def _cards(arguments: argparse.Namespace) -> None:
    from stzoo.release.commands import run_cards

    run_cards(arguments)


def _leaderboard(arguments: argparse.Namespace) -> None:
    from stzoo.release.leaderboard import write_leaderboard

    for path in write_leaderboard(arguments.out):
        print(path)
