"""`stzoo live`: forecasts of a camera, a stream or a video, while it plays."""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

from stzoo.cli.shared import (
    Arguments,
    Commands,
    add_any_device,
    add_backend,
    add_command,
    add_every,
    add_matched,
    add_model,
    add_precision,
    add_size_and_color,
    resize_of,
)
from stzoo.errors import FramesError, SpecError


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "live",
        _run,
        help="forecast a camera, a stream in the network or a video while it plays",
        description="Forecast FEED in real time, always from its newest frames: what comes while a forecast is made "
        "is read afterwards, and dropped if it is more than the model reads. Every second a line says how it goes. "
        "Ctrl-C ends the command, and the files are whole.",
        example="stzoo live 0 --model tau-ut -o ahead.mp4",
    )
    parser.add_argument(
        "source",
        metavar="FEED",
        help="FEED is a camera by its number (0 is the first one), the address of a stream, which begins with http://, "
        "https://, rtsp:// or udp://, or a video or an animation, which is played at its own pace",
    )
    add_model(parser)
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="OUT",
        help="where forecasts are written. A folder gets an animated PNG for each of them. A file that ends in .gif, "
        ".png or .webp always holds the newest one. A file that ends in .mp4 or .avi records the newest frame and the "
        "last frame of its forecast, side by side, in real time",
    )
    parser.add_argument(
        "--show", action="store_true", help="draw the same two pictures in the terminal, which must show 24-bit colours"
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="number of frames to forecast each time (default: as in training)"
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        metavar="N",
        help="number of seconds of FEED after which to stop (default: at its end, or at Ctrl-C)",
    )
    add_every(parser, "FEED")
    add_size_and_color(parser, arrays=False)
    add_matched(parser)
    add_precision(parser, auto=True)
    add_backend(parser, auto=True)
    add_any_device(parser)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be more than 0")
    return value


def _run(arguments: Arguments) -> None:
    from stzoo.frames import whole_number
    from stzoo.live import running
    from stzoo.live.sources import Feed, find_origin
    from stzoo.opening import load

    if arguments.out is None and not arguments.show:
        raise SpecError("say where the forecasts go: -o OUT writes them to a file or a folder, --show draws them here")
    if arguments.show and not sys.stdout.isatty():
        raise SpecError("--show draws in a terminal, which this output is not; use -o OUT")
    every = whole_number("every", arguments.every)
    origin = find_origin(arguments.source)
    if arguments.out is not None:
        running.check_out(arguments.out, origin)
    model = load(arguments.model, device=arguments.device, precision=arguments.precision, backend=arguments.backend)
    steps = model.spec.frames_out if arguments.steps is None else whole_number("steps", arguments.steps)
    resize = resize_of(arguments)
    live = model.live(resize=resize, color=arguments.color, matched=arguments.matched)
    running.warm_up(live, model.spec)

    stop = threading.Event()
    feed = Feed(origin, every=every, keep=model.spec.frames_in, seconds=arguments.seconds)
    pace = running.Pace(feed, running.say_below if arguments.show else running.say, stop)
    longest = running.longest_side(arguments.out, model.spec, resize)
    with running.stop_on_signals(stop), feed, pace:
        coming = running.moments(feed, live, steps=steps, pace=pace, stop=stop, longest=longest)
        if arguments.show:
            coming = running.show(coming)
        if arguments.out is not None:
            running.write_moments(arguments.out, coming, lambda: feed.rate)
        for _ in coming:  # if nothing is written; a writer leaves none
            pass
    if feed.error is not None:
        raise feed.error
    if live.needed and not pace.forecasts:
        raise FramesError(f"{feed.reason}: no forecast, since the model reads {model.spec.frames_in} frames at a time")
    running.say(pace.line())
    where = f" -> {arguments.out}" if arguments.out is not None and pace.forecasts else ""
    running.say(f"{pace.summary(steps)}{where}")
