"""`stzoo convert`: a checkpoint that others published, as a folder that stzoo loads."""

from __future__ import annotations

import argparse
import json
import os
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stzoo.cli.shared import Arguments, Commands, add_command
from stzoo.errors import SpecError, printable
from stzoo.hub.sources import MAX_CONFIG
from stzoo.published.records import PublishedCheckpoint, frames_of_datasets, info, published, told_of
from stzoo.spec import ModelSpec, shown

if TYPE_CHECKING:
    from stzoo.convert import ConvertReport
    from stzoo.weights import Origin

_OF_THE_SPEC = ("value_range", "mean", "std", "fill")  # what --set sets there, and not in its params


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "convert",
        _run,
        help="turn a checkpoint that others published into a folder that stzoo loads",
        description="Turn a checkpoint that others published into a folder that stzoo.load and --model open. Names and "
        "shapes of its tensors tell the architecture, and most sizes. What they do not tell comes from --dataset, from "
        "the options after it, or, all of it, from --model.",
        example="stzoo convert openstl tau.pth --dataset mmnist --out tau-openstl",
    )
    parser.add_argument(
        "origin",
        metavar="ORIGIN",
        help="the project or the people whose code wrote the checkpoint: openstl; official, which stands for the "
        "authors of the architecture; or what an architecture of another package names",
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="the checkpoint to read, a .pth or .ckpt file of tensors",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="the model whose weights the checkpoint holds: a name that 'stzoo list' or 'stzoo list --published' "
        "shows, or a .json file with a spec, such as the config.json of a saved model (default: the tensors tell it)",
    )
    parser.add_argument(
        "--dataset",
        choices=sorted(frames_of_datasets()),
        help="dataset that the checkpoint was trained for: number and size of the frames and the range of their values "
        "are as OpenSTL reads it",
    )
    for option, metavar, what in (
        ("--frames-in", "N", "number of past frames, if no tensor tells it"),
        ("--frames-out", "N", "number of frames that the model forecasts"),
        ("--channels", "C", "number of channels C of a frame, if no tensor tells it"),
    ):
        parser.add_argument(option, type=int, metavar=metavar, help=what)
    parser.add_argument("--size", metavar="HxW", help="height and width of a frame, written HxW, such as 64x64")
    parser.add_argument(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        help="anything else that no tensor tells, as KEY=VALUE, where KEY is one of the architecture's params, or "
        "value_range, mean, std or fill: heads=8, stride=2, value_range=null; may be given several times (default: "
        "what the architecture has by default, and values in [0, 1])",
    )


def _run(arguments: Arguments) -> None:
    from stzoo.convert import convert

    known = _known(arguments)
    if arguments.model is not None and known:
        raise SpecError(
            "--model says everything; leave out --dataset, --frames-in, --frames-out, --channels, --size and --set"
        )
    spec, record = None, published().get(arguments.model)
    presumed: dict[str, Any] = {}
    made_of, checked = None, False
    if record is not None:  # as `stzoo.load` reads it: the file's tensors decide where the record is wrong
        known, presumed = told_of(record)
        made_of, checked = _origin(record, arguments.checkpoint)
    elif arguments.model is not None:
        spec = _spec(arguments.model)
    report = convert(
        arguments.origin, arguments.checkpoint, spec, arguments.out, known=known, presumed=presumed, made_of=made_of
    )
    if record is not None and report.decision is not None:  # what the record leaves out is no assumption of ours
        report = replace(report, decision=replace(report.decision, assumed={}))
    print(report)
    if record is not None and not checked:
        print(f"nothing is known of the content of {record.name}; that this file is it is noted because you say so")
    _print_facts(arguments, report)
    _write_card(arguments, report, made_of)


def _origin(record: PublishedCheckpoint, file: Path) -> tuple[Origin | None, bool]:
    """What to note of the publisher's file, None if there is none, which `convert` says; and whether it was checked.

    Raises `IntegrityError` if it is known to be another file.
    """
    from stzoo.hashing import file_sha256
    from stzoo.published.fetching import origin_of
    from stzoo.published.trust import Pin, check_by_hand

    if not file.is_file() or not (size := file.stat().st_size):
        return None, False
    came = Pin(url=record.url, size=size, sha256=file_sha256(file))
    checked = check_by_hand(record, file, came.sha256)
    return origin_of(record, came), checked


def _print_facts(arguments: Arguments, report: ConvertReport) -> None:
    """Say what was taken from the facts of the data set, because neither a tensor nor an option tells it."""
    if arguments.dataset is None or report.decision is None:
        return
    without = argparse.Namespace(**{**vars(arguments), "dataset": None})
    others = report.decision.told | _known(without).keys()
    facts = {name: value for name, value in frames_of_datasets()[arguments.dataset].items() if name not in others}
    if facts:
        listed = ", ".join(f"{name} {json.dumps(value)}" for name, value in facts.items())
        print(f"from the data set {arguments.dataset}: {listed}")


def _write_card(arguments: Arguments, report: ConvertReport, made_of: Origin | None) -> None:
    """README.md, as `save_pretrained` writes it. One that somebody wrote or edited is kept, with a warning."""
    from stzoo.files import write_atomically
    from stzoo.hub.card import README, Card, origin_card, readme, written_here

    path = report.folder / README
    if os.path.lexists(path) and not written_here(path):
        warnings.warn(f"{path} was written or edited by somebody and is left as it is", stacklevel=2)
        return
    file = printable(arguments.checkpoint.name)
    card = Card(summary=f"The weights of {file}, a checkpoint in the layout of {arguments.origin.lower()}, converted "
                "by stzoo")  # fmt: skip
    if made_of is not None:
        card = origin_card(made_of)
    name = report.folder.resolve().name.encode("utf-8", "replace").decode()  # it may not be valid UTF-8
    write_atomically(path, readme(card, report.spec, name).encode())


def _known(arguments: Arguments) -> dict[str, Any]:
    """The part of the model's spec that options say; single options have precedence over --dataset."""
    known: dict[str, Any] = {} if arguments.dataset is None else dict(frames_of_datasets()[arguments.dataset])
    for name in ("frames_in", "frames_out", "channels"):
        if getattr(arguments, name) is not None:
            known[name] = getattr(arguments, name)
    if arguments.size is not None:
        size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", arguments.size)
        if size is None:
            raise SpecError(f"--size is {shown(arguments.size)}; write height and width as in 64x64")
        known["height"], known["width"] = int(size[1]), int(size[2])
    for text in arguments.set or ():
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise SpecError(f"--set is {shown(text)}; write KEY=VALUE, as in heads=8")
        place = known if key in _OF_THE_SPEC else known.setdefault("params", {})
        try:
            place[key] = json.loads(value)
        except (ValueError, RecursionError):  # no JSON, so text
            place[key] = value
    return known


def _spec(name: str) -> ModelSpec:
    """The spec of a catalogue entry, or of a JSON file.

    The file holds the same JSON as an entry's `spec` or a folder's config.json.

    Raises:
        UnknownModelError: no entry has this name. SpecError: there is no such file, or it is not JSON, or its spec is
            wrong. OSError: the file cannot be read.
    """
    if not name.endswith(".json"):
        return info(name).spec
    file = Path(name)
    if not file.is_file():  # reading a FIFO would wait for ever
        raise SpecError(f"{name} {'is no regular file' if file.exists() else 'does not exist'}; name a spec's file")
    with file.open("rb") as stream:
        content = stream.read(MAX_CONFIG + 1)
    if len(content) > MAX_CONFIG:
        raise SpecError(f"{name} has more than {MAX_CONFIG:,} bytes; a spec is smaller")
    try:
        return ModelSpec.from_dict(json.loads(content.decode("utf-8")))
    except SpecError:
        raise
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{name} is not JSON: {error}") from error
