"""`stzoo predict` and `stzoo rollout`: the next frames of a file, written to another file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stzoo.cli.shared import (
    Arguments,
    Commands,
    add_any_device,
    add_backend,
    add_bits,
    add_command,
    add_every,
    add_map,
    add_matched,
    add_model,
    add_precision,
    add_size_and_color,
    add_units,
    check_model_name,
    resize_of,
)
from stzoo.errors import FramesError
from stzoo.files import check_name

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from stzoo.forecaster import Forecaster
    from stzoo.frames import CallerFrames

# Suffixes of what can be written, as `stzoo.frames` has them, which imports torch.
PICTURES, ARRAYS, MAPS = (".gif", ".png", ".apng", ".webp", ".mp4", ".avi"), (".npy", ".npz"), (".nc", ".nc4", ".zarr")
UNREAD = (
    ".grib",
    ".grib2",
    ".grb",
    ".grb2",
    ".grib1",
    ".grb1",
    ".h5",
    ".hdf5",
    ".hdf",
    ".he5",
)  # of formats that are not read


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
        "folder for images; if INPUT is netCDF or Zarr also in .nc or .zarr. Pictures of an array or a map are drawn "
        "in the shades of the model's range of values or, if it has none, of the past frames",
    )
    add_map(parser, "a netCDF or Zarr INPUT")
    add_every(parser, "INPUT")
    parser.add_argument(
        "--start",
        type=float,
        metavar="SECONDS",
        help="where in a video or an animation the past begins: its first frame is the one that is shown SECONDS after "
        "the beginning, and the model reads as many frames from there as it needs. The skill of the forecast against "
        "the frames that really followed is printed (default: the last frames of INPUT)",
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
        help="write two panels, as one animation, video or folder of images: what is known (the past, and what really "
        "followed it if --start leaves room for that), and the past with the forecast",
    )
    add_bits(parser)
    add_units(parser)
    add_size_and_color(parser)
    add_matched(parser)
    add_precision(parser, auto=True)
    add_backend(parser, auto=True)
    add_any_device(parser)
    parser.add_argument(
        "--no-check",
        action="store_true",
        help="do not try the model on the last known frames first, which warns if it does worse than repeating the "
        "last frame (with --start on the frames that followed), and costs a second forecast",
    )


def _run(arguments: Arguments) -> None:
    given = Path(os.path.expanduser(arguments.input))
    _check_words(arguments, given)

    from stzoo.engine.memory import memory_errors_told
    from stzoo.frames import ReadingOptions, check_writable, kind_of, read, refuse_address, seconds_between, write
    from stzoo.frames.fields import check_map_options
    from stzoo.models import stride_of
    from stzoo.opening import load

    check_map_options(given, arguments.variable, arguments.time)
    if not given.exists():
        refuse_address(str(given))
        raise FramesError(f"{given} does not exist")
    check_writable(arguments.out, given, drawn=True)
    model = load(arguments.model, device=arguments.device, precision=arguments.precision, backend=arguments.backend)
    steps = model.spec.frames_out if arguments.steps is None else arguments.steps
    of_pictures, to_pictures = (kind_of(path) == "pictures" for path in (given, arguments.out))
    options = ReadingOptions(
        resize=resize_of(arguments), color=arguments.color, every=arguments.every, start=arguments.start,
        fps=arguments.fps, bits=arguments.bits, variable=arguments.variable, time=arguments.time,
        units=arguments.units, missing=arguments.missing,
    )  # fmt: skip
    reading = partial(read, given, model.spec, stride_of(model.module), options)
    with memory_errors_told("this forecast"):
        draw = _drawing(arguments, given, model, reading()) if to_pictures and not of_pictures else None
        checked = not arguments.no_check
        if checked and arguments.start is not None:
            _tell_skill(model, reading, steps)
        future = model.rollout(
            given,
            steps,
            **vars(options),
            matched=arguments.matched,
            check=checked and arguments.start is None,
            progress=True,
        )
        if draw is not None:
            future = draw(future)
        elif arguments.side_by_side:
            future = _beside_the_truth(arguments, given, model.spec.frames_in, future)
    seconds = seconds_between(given, arguments.every, arguments.fps) if of_pictures else None
    write(arguments.out, future, seconds, issued=reading().issued if arguments.out.suffix.lower() in MAPS else None)
    print(f"{steps} frames -> {arguments.out}")


def _check_words(arguments: Arguments, given: Path) -> None:
    """Refuse what is wrong in the words alone, before torch is imported, which takes seconds.

    Raises:
        FramesError: the input does not exist, or the output cannot be written from it; both are told.
        UnknownModelError: there is no such model.
    """
    if given.suffix.lower() in UNREAD:  # the reader of maps says how such a file is converted
        return
    named = MAPS if given.suffix.lower() in MAPS else ()
    wrong = ""
    try:
        check_name(arguments.out, given, (*named, *PICTURES, *ARRAYS), folder=True)
    except FramesError as error:
        wrong = str(error)
    if not given.exists() and ":/" not in str(given):
        raise FramesError(f"{given} does not exist{wrong and f', and {wrong}'}")
    if wrong:
        raise FramesError(wrong)
    if arguments.side_by_side and arguments.out.suffix.lower() not in (*PICTURES, ""):
        raise FramesError(
            f"--side-by-side is for pictures: OUT must be a folder, or end in {', '.join(PICTURES)}, and it is "
            f"{arguments.out.name}"
        )
    check_model_name(arguments.model)


def _tell_skill(model: Forecaster, reading: Callable[..., CallerFrames], steps: int) -> None:
    """Print how good a forecast is beside what really followed, as far as that is known. Warn if it is bad."""
    from stzoo.hindcast import tried, warn_unless_it_fits

    try:
        source = reading(extra=max(0, steps))
        found = tried(model.engine, model.spec, source.past, source.observed, source.keeps)
    except FramesError:  # it may be in frames that the forecast does not need
        return
    if found is None:
        return
    skill = "no skill, since nothing changes" if found.skill is None else f"skill {found.skill:.2f}"
    followed = "frame" if found.steps == 1 else f"{found.steps} frames"
    print(
        f"{skill}: the MSE is {found.mse:.3g}, and that of repeating the last frame {found.persistence_mse:.3g}, "
        f"on the {followed} that really followed"
    )
    warn_unless_it_fits(found)


def _beside_the_truth(arguments: Arguments, given: Path, read: int, future: list[Image.Image]) -> list[Image.Image]:
    """The forecast of pictures beside the past and as many of the frames that really followed as the file still has."""
    from stzoo.frames import moving_pictures
    from stzoo.viz import side_by_side

    wanted = read if arguments.start is None else read + len(future)
    coming = moving_pictures(given, arguments.every, last=wanted, start=arguments.start, fps=arguments.fps)
    seen = [image.convert("L") if arguments.color == "gray" else image for image in coming]
    return side_by_side(seen[:read], seen[read:], future)


def _drawing(
    arguments: Arguments, given: Path, model: Forecaster, source: CallerFrames
) -> Callable[[Any], list[Image.Image]]:
    """What makes pictures of the forecast of an array or a map, and prints in which shades.

    With --side-by-side the past is beside it, in the same shades. Rain is drawn in dBR, whatever its unit.

    Raises:
        FramesError: these frames are no pictures.
    """
    import torch

    from stzoo.frames import drawable, kind_of, shades_of
    from stzoo.frames.arrays import open_array
    from stzoo.frames.layout import find_layout
    from stzoo.models import stride_of
    from stzoo.viz import side_by_side

    spec, layout = model.spec, ""
    if kind_of(given) == "array":
        array = open_array(given, named=arguments.variable)
        stride = 1 if arguments.size == "model" else stride_of(model.module)
        layout = find_layout(array.shape, spec, stride, None, alpha=array.dtype == "uint8")
    frames = source.collect(map(source.frame, source.past.unbind(1)), source.past.shape[1])

    def numbers(frames: Any) -> np.ndarray:
        clip = drawable(frames, layout, spec.channels, arguments.time)
        return clip if source.unit is None else source.unit.to_dbr(torch.from_numpy(clip)).numpy()

    past = numbers(frames)
    shades = shades_of(past, spec, arguments.bits)

    def drawn(future: Any) -> list[Image.Image]:
        if shades.meaning:
            print(shades)
        pictures = shades.images(numbers(future))
        return side_by_side(shades.images(past), [], pictures) if arguments.side_by_side else pictures

    return drawn
