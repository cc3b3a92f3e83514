"""`stzoo list` and `stzoo info`: what is in the catalogue, and what others published."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

from stzoo import catalog
from stzoo.catalog import Entry
from stzoo.cli.shared import Arguments, Commands, add_command, add_json, is_path
from stzoo.errors import SpecError, UnknownModelError
from stzoo.published import PublishedCheckpoint, info, list_published, published
from stzoo.published.records import best_for, called_after


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "list",
        _list,
        help="list the models of the catalogue",
        description="List the models of the catalogue, one on each line: its name, 'weights' if it has trained weights "
        "or 'others' if it takes weights that others published, what it forecasts, and the terms of the data that the "
        "weights were trained on. With --published, list the checkpoints that others published instead: name, "
        "'supported' if stzoo can open it, parameters and MSE as their publisher states them, and what is in doubt.",
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
    parser.add_argument(
        "--dataset",
        metavar="DATASET",
        help="list only models for DATASET, such as mmnist; with --published also a word of its name, such as weather",
    )
    parser.add_argument("--pretrained", action="store_true", help="list only models with trained weights")
    parser.add_argument(
        "--published", action="store_true", help="list the checkpoints that others published, instead of the catalogue"
    )
    parser.add_argument(
        "--supported", action="store_true", help="with --published: list only those that stzoo can open"
    )
    add_json(parser)

    parser = add_command(
        commands,
        "info",
        _info,
        help="show the card of one model, or of a checkpoint that others published",
        description="Show the card of one model: its architecture, frames and weights, its measured figures with the "
        "commands that print them, its training, its licence and what to cite. Of a checkpoint that others published: "
        "its publisher and address, what its publisher fed it, and its publisher's figures, which we did not measure. "
        "Of a folder or a file of your own: its architecture, frames and weights.",
        example="stzoo info tau-kth.openstl-ep100",
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        help="the model's name, as 'stzoo list' or 'stzoo list --published' shows it; or a folder that save_pretrained "
        "or 'stzoo train' wrote, or a .safetensors file",
    )
    add_json(parser)


def _list(arguments: Arguments) -> None:
    if arguments.published:
        _list_published(arguments)
        return
    if arguments.supported:
        raise SpecError("--supported is for --published; stzoo supports every model of its own catalogue")
    names = catalog.list_models(
        arguments.pattern, arch=arguments.arch, dataset=arguments.dataset, pretrained=arguments.pretrained or None
    )
    entries = [catalog.info(name) for name in names]
    if not entries:
        known = catalog.entries().values()
        raise _nothing(sorted({e.dataset for e in known}), sorted({e.spec.arch for e in known}))
    taken = {entry.name: best_for(entry) for entry in entries}
    if arguments.json:
        rows = [
            {
                "name": entry.name,
                "kind": entry.kind,
                "arch": entry.spec.arch,
                "dataset": entry.dataset,
                "pretrained": entry.weights is not None,
                "takes": None if (record := taken[entry.name]) is None else record.name,
                "data_terms": entry.data_terms,
            }
            for entry in entries
        ]
        print(json.dumps(rows))
        return
    width = max((len(name) for name in names), default=0)
    for entry in entries:
        terms = f" [{entry.data_terms}]" if entry.weights else ""  # they decide what trained weights may be used for
        there = "weights" if entry.weights else "others" if taken[entry.name] else "-"
        print(f"{entry.name:<{width}}  {there:<8} {entry.summary}{terms}")
    print(
        f"{len(list_published(supported=True))} checkpoints that others published can be loaded by name as well: ",
        end="",
    )
    print("stzoo list --published")


def _nothing(datasets: list[str], architectures: list[str]) -> UnknownModelError:
    """The error of a list that is empty."""
    there = f"there are models for {', '.join(datasets)}, of {', '.join(architectures)}"
    return UnknownModelError(f"no name matches this pattern and these filters; {there}")


def _list_published(arguments: Arguments) -> None:
    """One line for each checkpoint of others. Raises `SpecError` if --pretrained stands beside --published."""
    if arguments.pretrained:
        raise SpecError("--pretrained is for the catalogue; every published checkpoint has weights, so leave it out")
    names = list_published(
        arguments.pattern, dataset=arguments.dataset, arch=arguments.arch, supported=arguments.supported or None
    )
    records = [published()[name] for name in names]
    if not records:
        known = published().values()
        architectures = {str(r.described["arch"]) for r in known if r.described is not None}
        raise _nothing(sorted({r.dataset for r in known}), sorted(architectures))
    if arguments.json:
        print(json.dumps([_plain(record) for record in records]))
        return
    width = max((len(name) for name in names), default=0)
    for record in records:
        there = "supported" if record.unsupported is None else "not yet"
        figures = f"{there:<9}  {record.parameters or '-':>7}  MSE {record.figures.get('mse', '-'):<8}"
        print(f"{record.name:<{width}}  {figures} {record.unsupported or record.doubt or ''}".rstrip())
    print("Figures are the publishers' own, and were not measured by us: stzoo info NAME")
    opened, other = (len(list_published(supported=supported)) for supported in (True, False))
    counted = f"There are {opened + other} such files; stzoo can open {opened}"
    print(f"{counted}, and lacks the architectures of the other {other}")


def _plain(record: PublishedCheckpoint) -> dict[str, object]:
    """A record as JSON has it. Its spec stands for the fields that it is made of."""
    made_of = ("described", "frames")
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record) if f.name not in made_of}
    return fields | {"spec": None if record.described is None else record.spec.to_dict()}


def _info(arguments: Arguments) -> None:
    if is_path(arguments.name):
        _print_saved(arguments.name, arguments.json)
        return
    found = info(arguments.name)
    if not arguments.json and isinstance(found, Entry):
        print(found if found.weights is not None else found.card(_absent(found)))
        if names := [record.name for record in called_after(found)]:
            print(f"  published     {', '.join(names)}: by others, loaded by these names")
    elif not arguments.json:
        print(found)
    elif isinstance(found, PublishedCheckpoint):
        print(json.dumps(_plain(found), indent=2))
    else:
        _print_entry(found)


def _print_saved(source: str, as_json: bool) -> None:
    """The card of a model in a folder or in a .safetensors file.

    Raises:
        WeightsError: there is no model. SpecError: its spec is wrong.
    """
    from stzoo.hub import resolve
    from stzoo.hub.card import README

    saved = resolve(source)
    size, readme = saved.path.stat().st_size, saved.path.parent / README
    if as_json:
        print(json.dumps({"path": str(saved.path), "sha256": saved.sha256, "spec": saved.spec.to_dict()}, indent=2))
        return
    print(f"{source}: a model on this machine", *catalog.lines(catalog.described(saved.spec)), sep="\n")
    print(f"  weights       {saved.path.name}, {size / 1e6:.1f} MB, sha256 {saved.sha256[:12]}...")
    if Path(os.path.expanduser(source)).is_dir() and readme.is_file():
        print(f"  card          {readme}")


def _absent(entry: Entry) -> str:
    """What there is for an entry without weights."""
    train = f"stzoo train {entry.name} --data DIR --out RUN"
    record = best_for(entry)
    if record is not None:
        mse = f", MSE {record.figures['mse']}" if "mse" in record.figures else ""
        return f"none of its own; stzoo.load takes {record.name} ({record.by}{mse}); or train them: {train}"
    others = [f"{r.name} ({r.by}) is not taken by itself: {r.unsupported or r.doubt}" for r in called_after(entry)]
    return f"none yet; {'; '.join([*others, f'train them: {train}'])}"


def _print_entry(entry: Entry) -> None:
    fields = {f.name: getattr(entry, f.name) for f in dataclasses.fields(entry) if f.name != "spec"}
    plain = {k: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for k, v in fields.items()}  # type: ignore[arg-type]
    taken = best_for(entry)
    plain |= {"spec": entry.spec.to_dict(), "takes": None if taken is None else taken.name}
    plain |= {"published": [record.name for record in called_after(entry)]}
    plain |= {key: [dataclasses.asdict(row) for row in getattr(entry, key)] for key in ("metrics", "speed")}
    print(json.dumps(plain, indent=2))
