"""`stzoo published`: what can be done with the checkpoints that others published, besides loading them by name."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from pathlib import Path

from stzoo.cli.shared import Arguments, Commands, add_command, add_json
from stzoo.errors import SpecError, WeightsError
from stzoo.published import PublishedCheckpoint, info
from stzoo.published.records import best_for

CLIPS = 8  # that are forecast to verify a model


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "published",
        help="try a checkpoint that others published on drawn clips, or write the table of all of them",
        description="Checkpoints that others published are loaded by name, as the catalogue's models are; 'stzoo list "
        "--published' shows the names. 'stzoo published ACTION --help' explains the options of ACTION.",
        epilog="Example: stzoo published verify tau-mmnist-paper.openstl-ep2000",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    verify = add_command(
        actions,
        "verify",
        _verify,
        help="load a published checkpoint and see whether it behaves as a forecaster",
        description="Load a published checkpoint, from its publisher if it is not on this machine, and forecast small "
        "drawn clips: for Moving MNIST and Moving Fashion-MNIST moving digits and shapes, on which it must be better "
        "than persistence; for the others blobs that drift, of which the forecast must be finite, within range, not "
        "flat, and different for different clips, which does not show that the weights are trained. The exit code is 2 "
        "if the forecast is not so.",
        example="stzoo published verify tau-mmnist-paper.openstl-ep2000",
    )
    verify.add_argument(
        "name",
        metavar="NAME",
        help="the checkpoint's name, as 'stzoo list --published' shows it, or an entry of the catalogue that takes one",
    )
    add_json(verify)
    page = add_command(
        actions,
        "page",
        _page,
        help="write the table of all published checkpoints",
        description="For maintainers: write the page with the table of all published checkpoints, each supported by "
        "this version of stzoo or not, and why.",
        example="stzoo published page",
    )
    page.add_argument(
        "--out",
        type=Path,
        default=Path("docs/published.md"),
        metavar="FILE",
        help="file to write (default: %(default)s)",
    )


def _verify(arguments: Arguments) -> None:
    """Print how the model behaved. Raises `WeightsError` at the end if that is not as a forecaster does."""
    from stzoo.evaluate.report import as_json
    from stzoo.opening import load
    from stzoo.published.behaviour import behaviour

    found = info(arguments.name)
    record = found if isinstance(found, PublishedCheckpoint) else best_for(found)
    if record is None:
        raise SpecError(
            f"{arguments.name} is an entry of the catalogue that takes no published file; if it has weights, verify it "
            "with 'stzoo catalog verify'"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not behave as published")  # what this command finds itself
        model = load(record.name)
    what = f"forecasting {CLIPS} drawn clips of {model.spec.frames_out} frames each with {record.name}"
    print(f"{what} ...", file=sys.stderr, flush=True)
    verdict = behaviour(record, model.spec, model.module, clips=CLIPS, steps=model.spec.frames_out)
    if arguments.json:
        print(as_json(dataclasses.asdict(verdict) | {"ok": verdict.ok}))
    elif verdict.ok:
        print(verdict)
    if not verdict.ok:
        raise WeightsError(str(verdict))


def _page(arguments: Arguments) -> None:
    from stzoo.published.page import write_page

    print(write_page(arguments.out))
