"""`stzoo list` and `stzoo info`: what is in the catalogue."""

from __future__ import annotations

import dataclasses
import json

from stzoo import catalog
from stzoo.cli.shared import Arguments, Commands, add_command, add_json


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "list",
        _list,
        help="list the models of the catalogue",
        description="List the models of the catalogue, one on each line: its name, 'weights' if trained weights are "
        "published, what it forecasts, and the terms of the data that the weights were trained on.",
        example="stzoo list 'tau-*' --pretrained",
    )
    parser.add_argument(
        "pattern",
        nargs="?",
        default="*",
        metavar="PATTERN",
        help="list only names that match PATTERN, a shell wildcard such as 'tau-*' (default: all names)",
    )
    parser.add_argument("--arch", metavar="ARCH", help="list only models of the architecture ARCH, such as tau")
    parser.add_argument("--dataset", metavar="DATASET", help="list only models for DATASET, such as mmnist")
    parser.add_argument("--pretrained", action="store_true", help="list only models with trained weights")
    add_json(parser)

    parser = add_command(
        commands,
        "info",
        _info,
        help="show the card of one model",
        description="Show the card of one model: its architecture, frames and weights, its measured figures with the "
        "commands that print them, its training, its licence and what to cite.",
        example="stzoo info tau-mmnist",
    )
    parser.add_argument("name", metavar="NAME", help="the model's name, as 'stzoo list' shows it")
    add_json(parser)


def _list(arguments: Arguments) -> None:
    names = catalog.list_models(
        arguments.pattern, arch=arguments.arch, dataset=arguments.dataset, pretrained=arguments.pretrained or None
    )
    entries = [catalog.info(name) for name in names]
    if arguments.json:
        rows = [
            {
                "name": entry.name,
                "kind": entry.kind,
                "arch": entry.spec.arch,
                "dataset": entry.dataset,
                "pretrained": entry.weights is not None,
                "data_terms": entry.data_terms,
            }
            for entry in entries
        ]
        print(json.dumps(rows))
        return
    width = max((len(name) for name in names), default=0)
    for entry in entries:
        terms = f" [{entry.data_terms}]" if entry.weights else ""  # they decide what trained weights may be used for
        print(f"{entry.name:<{width}}  {'weights' if entry.weights else '-':<8} {entry.summary}{terms}")


def _info(arguments: Arguments) -> None:
    entry = catalog.info(arguments.name)
    if not arguments.json:
        print(entry)
        return
    fields = {f.name: getattr(entry, f.name) for f in dataclasses.fields(entry) if f.name != "spec"}
    plain = {k: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for k, v in fields.items()}  # type: ignore[arg-type]
    plain |= {"spec": entry.spec.to_dict()}
    plain |= {key: [dataclasses.asdict(row) for row in getattr(entry, key)] for key in ("metrics", "speed")}
    print(json.dumps(plain, indent=2))
