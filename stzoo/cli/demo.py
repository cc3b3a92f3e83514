"""`stzoo demo`: a forecast that needs neither data nor network."""

from __future__ import annotations

from pathlib import Path

from stzoo.cli.shared import Arguments, Commands, add_any_device, add_command


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "demo",
        _run,
        help="forecast drawn digits, without dataset or network; writes a GIF and a PNG strip",
        description="Draw moving digits, forecast them with a pretrained model, and write a GIF and a PNG strip that "
        "show the forecast beside the truth. This needs neither a dataset nor a network.",
        example="stzoo demo --out pictures",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder that the pictures are written to (default: the current folder)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="number that chooses the digits and their paths (default: %(default)s)",
    )
    add_any_device(parser)


def _run(arguments: Arguments) -> None:
    from stzoo.demo import demo

    result = demo(arguments.out, arguments.seed, arguments.device)
    print(f"MSE {result.mse:.1f}, persistence {result.persistence_mse:.1f} (summed over a frame, mean of 10 frames)")
    print(f"{result.gif}: truth | forecast, 10 past and 40 future frames")
    print(f"{result.strip}: past | truth | forecast | error")
