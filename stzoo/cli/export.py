"""`stzoo export`: a model as one file that runs without stzoo."""

from __future__ import annotations

from pathlib import Path

from stzoo.cli.shared import MODEL, Arguments, Commands, add_command


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "export",
        _run,
        help="write a model as one file that runs without stzoo: ONNX or torch.export",
        description="Write a model as one file that runs without stzoo. The file takes past frames and gives back the "
        "next ones; docs/export.md shows how to run it.",
        example="stzoo export tau-mmnist --format onnx -o tau.onnx",
    )
    parser.add_argument("source", metavar="MODEL", help=f"the model to write: {MODEL}")
    parser.add_argument("--format", required=True, metavar="FORMAT", help="format of the file: onnx or torch-export")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="file to write, which ends in .onnx for onnx and in .pt2 for torch-export",
    )
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="number of frames that the file forecasts (default: as many as the model forecasts at once)",
    )


def _run(arguments: Arguments) -> None:
    from stzoo.export import check_exportable
    from stzoo.opening import load

    check_exportable(arguments.format, arguments.out, arguments.steps)
    print(load(arguments.source).export(arguments.format, arguments.out, steps=arguments.steps))
