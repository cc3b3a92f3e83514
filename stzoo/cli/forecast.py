"""`stzoo predict` and `stzoo rollout`: the next frames of a file, written to another file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from stzoo.cli.shared import (
    Arguments,
    Commands,
    add_any_device,
    add_bits,
    add_command,
    add_every,
    add_map,
    add_model,
    add_precision,
    add_size_and_color,
    resize_of,
)
from stzoo.errors import FramesError, StzooError

if TYPE_CHECKING:
    from PIL import Image

    from stzoo.forecaster import Forecaster


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
    add_map(parser, "a netCDF or Zarr INPUT")
    add_every(parser, "INPUT")
    parser.add_argument(
        "--start",
        type=float,
        metavar="SECONDS",
        help="where in a video or an animation the past begins: its first frame is the one that is shown SECONDS after "
        "the beginning, and the model reads as many frames from there as it needs (default: the last frames of INPUT)",
    )
    parser.add_argument(
        "--fps",
        type=float,
        metavar="F",
        help="read a video or an animation at F frames a second, as if it had been recorded so, before --every thins "
        "the frames; choose the rate that the model was trained on. Of a folder of images, which say no times, F says "
        "how many images make a second (default: the rate of INPUT). The forecast plays at the pace of the frames "
        "that were read",
    )
    parser.add_argument(
        "--side-by-side",
        action="store_true",
        help="write the past, what really followed if --start leaves room for it, and the forecast next to each other, "
        "as one animation, video or folder of images",
    )
    add_bits(parser)
    add_size_and_color(parser)
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
    from stzoo.frames import check_writable, kind_of, refuse_address, seconds_between, write
    from stzoo.frames.fields import check_map_options

    given = Path(os.path.expanduser(arguments.input))
    check_map_options(given, arguments.variable, arguments.time)
    if given.exists():
        check_writable(arguments.out, given)
    else:
        refuse_address(str(given))
        raise FramesError(f"{given} does not exist{_also_wrong(arguments.out, given)}")
    pictures = kind_of(given) == "pictures"
    if arguments.side_by_side and not (pictures and kind_of(arguments.out) == "pictures"):
        raise FramesError(
            "--side-by-side is for pictures: INPUT and OUT must be videos, animations or folders of images"
        )
    model = load(arguments.model, device=arguments.device, precision=arguments.precision)
    steps = model.spec.frames_out if arguments.steps is None else arguments.steps
    resize = resize_of(arguments)
    with memory_errors_told("this forecast"):
        if arguments.side_by_side:
            future = _side_by_side(arguments, given, model, steps, resize)
        else:
            future = model.rollout(
                given,
                steps,
                resize=resize,
                color=arguments.color,
                every=arguments.every,
                start=arguments.start,
                fps=arguments.fps,
                bits=arguments.bits,
                variable=arguments.variable,
                time=arguments.time,
                check=not arguments.no_check,
                progress=True,
            )
    seconds = seconds_between(given, arguments.every, arguments.fps) if pictures else None
    write(arguments.out, future, seconds)
    print(f"{steps} frames -> {arguments.out}")


def _side_by_side(
    arguments: Arguments, given: Path, model: Forecaster, steps: int, resize: bool | None
) -> list[Image.Image]:
    """Past, truth and forecast in one row of panels. Of the truth there are as many frames as the file still has."""
    from stzoo.frames import moving_pictures, whole_number
    from stzoo.viz import side_by_side

    every, steps, read = whole_number("every", arguments.every), whole_number("steps", steps), model.spec.frames_in
    wanted = read if arguments.start is None else read + steps
    seen = list(moving_pictures(given, every, last=wanted, start=arguments.start, fps=arguments.fps, progress=True))
    past, truth = seen[:read], seen[read:]
    return side_by_side(past, truth, model.rollout(past, steps, resize=resize, color=arguments.color, progress=True))


def _also_wrong(out: Path, given: Path) -> str:
    """What is wrong with the output, to be said after what is wrong with the input; nothing if it can be written."""
    from stzoo.frames import check_writable

    try:
        check_writable(out, given)
    except StzooError as error:
        return f", and {error}"
    return ""
