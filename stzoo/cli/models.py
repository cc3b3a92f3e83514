"""`stzoo list` and `stzoo info`: what is in the catalogue, and what others published."""

from __future__ import annotations

import dataclasses
import json

from stzoo import catalog
from stzoo.catalog import Entry
from stzoo.cli.shared import Arguments, Commands, add_command, add_json
from stzoo.errors import SpecError
from stzoo.published import PublishedCheckpoint, info, list_published, published


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "list",
        _list,
        help="list the models of the catalogue",
        description="List the models of the catalogue, one on each line: its name, 'weights' if trained weights are "
        "published, what it forecasts, and the terms of the data that the weights were trained on. With --published, "
        "list the checkpoints that others published instead: name, parameters and MSE as their publisher states them, "
        "and why stzoo cannot open it, if it is known not to.",
        example="stzoo list --published 'tau-*' --dataset kth",
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
    parser.add_argument(
        "--published", action="store_true", help="list the checkpoints that others published, instead of the catalogue"
    )
    add_json(parser)

    parser = add_command(
        commands,
        "info",
        _info,
        help="show the card of one model, or of a checkpoint that others published",
        description="Show the card of one model: its architecture, frames and weights, its measured figures with the "
        "commands that print them, its training, its licence and what to cite. Of a checkpoint that others published: "
        "its publisher and address, what its publisher fed it, and its publisher's figures, which we did not measure.",
        example="stzoo info tau-kth.openstl-ep100",
    )
    parser.add_argument(
        "name", metavar="NAME", help="the model's name, as 'stzoo list' or 'stzoo list --published' shows it"
    )
    add_json(parser)


def _list(arguments: Arguments) -> None:
    if arguments.published:
        _list_published(arguments)
        return
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
    count = sum(record.unsupported is None for record in published().values())
    print(f"{count} checkpoints that others published can be loaded by name as well: stzoo list --published")


def _list_published(arguments: Arguments) -> None:
    """One line for each checkpoint of others. Raises `SpecError` if --pretrained stands beside --published."""
    if arguments.pretrained:
        raise SpecError("--pretrained is for the catalogue; every published checkpoint has weights, so leave it out")
    names = list_published(arguments.pattern, dataset=arguments.dataset, arch=arguments.arch)
    records = [published()[name] for name in names]
    if arguments.json:
        print(json.dumps([_plain(record) for record in records]))
        return
    width = max((len(name) for name in names), default=0)
    for record in records:
        figures = f"{record.parameters or '-':>7}  MSE {record.figures.get('mse', '-'):<8}"
        print(f"{record.name:<{width}}  {figures} {record.unsupported or record.doubt or ''}".rstrip())
    print("Figures are the publishers' own, and were not measured by us: stzoo info NAME")


def _plain(record: PublishedCheckpoint) -> dict[str, object]:
    """A record as JSON has it. Its spec stands for the fields that it is made of."""
    made_of = ("described", "frames")
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record) if f.name not in made_of}
    return fields | {"spec": None if record.described is None else record.spec.to_dict()}


def _info(arguments: Arguments) -> None:
    found = info(arguments.name)
    if not arguments.json:
        print(found)
        names = [name for name, record in published().items() if record.base == arguments.name]
        if names:
            print(f"  published     {', '.join(names)}: by others, loaded by these names")
    elif isinstance(found, PublishedCheckpoint):
        print(json.dumps(_plain(found), indent=2))
    else:
        _print_entry(found)


def _print_entry(entry: Entry) -> None:
    fields = {f.name: getattr(entry, f.name) for f in dataclasses.fields(entry) if f.name != "spec"}
    plain = {k: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for k, v in fields.items()}  # type: ignore[arg-type]
    plain |= {"spec": entry.spec.to_dict()}
    plain |= {key: [dataclasses.asdict(row) for row in getattr(entry, key)] for key in ("metrics", "speed")}
    print(json.dumps(plain, indent=2))
