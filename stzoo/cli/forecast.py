"""`stzoo predict` and `stzoo rollout`: the next frames of a file, written to another file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from stzoo.cli.shared import (
    Arguments,
    Commands,
    add_any_device,
    add_command,
    add_every,
    add_keep_size,
    add_model,
    add_precision,
)
from stzoo.errors import FramesError, StzooError


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "predict",
        _run,
        help="forecast one block of frames from a video, an animation, a folder of images or an array",
        description="Forecast the frames that follow INPUT: as many as the model was trained to forecast.",
        example="stzoo predict clip.mp4 --model tau-ut -o next.gif",
    )
    _add_options(parser)
    parser.set_defaults(steps=None)

    parser = add_command(
        commands,
        "rollout",
        _run,
        help="forecast any number of frames, autoregressively",
        description="Forecast N frames that follow INPUT. Beyond those that the model forecasts at once, it continues "
        "from its own forecasts.",
        example="stzoo rollout clip.mp4 --model tau-ut --steps 40 -o future.gif",
    )
    _add_options(parser)
    parser.add_argument("--steps", type=int, required=True, metavar="N", help="number of frames to forecast")


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input",
        type=Path,
        metavar="INPUT",
        help="the past frames: a video, a GIF, PNG or WebP animation, a folder of images, or an array in .npy, .npz, "
        ".nc or .zarr",
    )
    add_model(parser)
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="OUT",
        help="where the forecast is written: a file that ends in .gif, .png, .webp, .mp4, .avi, .npy or .npz, or a "
        "folder for images; if INPUT is netCDF or Zarr, OUT ends in .nc, .zarr, .npy or .npz",
    )
    add_every(parser, "INPUT")
    add_keep_size(parser)
    add_precision(parser, auto=True)
    add_any_device(parser)
    parser.add_argument(
        "--no-check",
        action="store_true",
        help="do not try the model on the last known frames first, which warns if it does worse than repeating the "
        "last frame, and costs a second forecast",
    )


def _run(arguments: Arguments) -> None:
    from stzoo.engine.memory import memory_errors_told
    from stzoo.forecaster import load
    from stzoo.frames import check_writable, kind_of, write

    given = Path(os.path.expanduser(arguments.input))
    if given.exists():
        check_writable(arguments.out, given)
    else:
        raise FramesError(f"{given} does not exist{_also_wrong(arguments.out, given)}")
    model = load(arguments.model, device=arguments.device, precision=arguments.precision)
    steps = model.spec.frames_out if arguments.steps is None else arguments.steps
    resize = kind_of(given) == "pictures" and not arguments.keep_size  # arrays always keep their size
    with memory_errors_told("this forecast"):
        future = model.rollout(
            given, steps, resize=resize, every=arguments.every, check=not arguments.no_check, progress=True
        )
    write(arguments.out, future)
    print(f"{steps} frames -> {arguments.out}")


def _also_wrong(out: Path, given: Path) -> str:
    """What is wrong with the output, to be said after what is wrong with the input; nothing if it can be written."""
    from stzoo.frames import check_writable

    try:
        check_writable(out, given)
    except StzooError as error:
        return f", and {error}"
    return ""
