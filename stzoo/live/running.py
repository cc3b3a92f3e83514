"""Forecasts of a source in real time, always from its newest pictures, and where they go."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
from PIL import Image

from stzoo.errors import FramesError
from stzoo.frames.images import ANIMATED, check_folder, write_images
from stzoo.frames.video import WRITTEN, write_video
from stzoo.frames.writing import writing_errors_named
from stzoo.live.pushing import Live
from stzoo.live.sources import Feed

LONGEST_RATE = 30.0  # pictures a second of a recording, at most
_LOOK = 0.2  # seconds between two looks at whether to stop


@dataclass(frozen=True)
class Moment:
    """One forecast.

    Attributes:
        number: of the newest picture that it reads; the first picture of the source has number 0.
        newest: that picture.
        forecast: the pictures that follow it.
        seconds: since the start of the run.
    """

    number: int
    newest: Image.Image
    forecast: list[Image.Image]
    seconds: float


class Pace:
    """Counts pictures and forecasts, and says once a second how it goes."""

    def __init__(self, say: Callable[[str], None]):
        self.forecasts = self.dropped = 0
        self._say, self.start = say, time.monotonic()
        self._said = self.start

    def look(self, arrived: int) -> None:
        """Say a line if a second has passed since the last one."""
        if time.monotonic() - self._said >= 1:
            self._said = time.monotonic()
            self._say(self.line(arrived))

    def line(self, arrived: int) -> str:
        seconds = time.monotonic() - self.start
        return (
            f"{seconds:6.1f} s: {arrived} frames in, {self.forecasts} forecasts, {self.dropped} frames dropped "
            "because the model is slower"
        )


class Ended:
    """Why a run ended: set by `moments` when its last forecast was handed out."""

    reason = ""
    error: FramesError | None = None


def moments(
    feed: Feed, live: Live, *, steps: int, seconds: float | None, pace: Pace, stop: threading.Event, ended: Ended
) -> Iterator[Moment]:
    """A forecast after another, each from the newest pictures, until the source ends or somebody stops it.

    Pictures that came while a forecast was made are read before the next one. If there were more than the model reads,
    the older ones are dropped, and a recurrent model begins anew. An error of the source ends the iterator, too, so
    that what was written so far can be finished; it is then in `ended`.
    """
    expected = 0
    while not stop.is_set():
        if seconds is not None and time.monotonic() - pace.start >= seconds:
            ended.reason = f"{seconds:g} seconds are over"
            return
        try:
            taken = feed.take(_LOOK)
        except EOFError:
            ended.reason = f"{feed.origin.name} ended after {feed.arrived} frames"
            return
        except FramesError as error:
            ended.error = error
            return
        if taken and taken[0][0] != expected:
            pace.dropped += taken[0][0] - expected
            live.reset()
        ready = False
        for number, picture in taken:
            ready, expected = live.read(picture), number + 1
        if ready:
            forecast = live.forecast(steps)
            pace.forecasts += 1
            yield Moment(number, picture, forecast, time.monotonic() - pace.start)
        pace.look(feed.arrived)
    ended.reason = "stopped"


def check_out(out: Path) -> None:
    """Raises `FramesError` if forecasts cannot be written to `out`: see `write_moments`."""
    if out.suffix and out.suffix.lower() not in (*ANIMATED, *WRITTEN):
        raise FramesError(f"cannot write {out.name}; use {', '.join((*ANIMATED, *WRITTEN))}, or a folder")
    if not out.parent.is_dir():
        raise FramesError(f"the folder {out.parent} does not exist; create it first")
    if not out.suffix:
        check_folder(out)
    elif out.is_dir():
        raise FramesError(f"{out} is a folder; name a file")


def write_moments(out: Path, coming: Iterator[Moment], rate: Callable[[], float | None]) -> None:
    """Write forecasts as they come.

    Args:
        out: a folder gets an animated PNG for each forecast, named after the number of the newest picture that it
            reads. A .gif, .png or .webp file always holds the newest forecast, whole. A .mp4 or .avi file is a
            recording in real time: the newest picture, and beside it the last one of its forecast.
        coming: the forecasts.
        rate: tells the pictures a second of the source, once one has come.

    Raises:
        OSError: the disk is full, or does not take the file for another reason; the message names the file.
    """
    with writing_errors_named(out):
        if out.suffix.lower() in WRITTEN:
            first = next(coming, None)
            if first is not None:
                pace = min(rate() or LONGEST_RATE, LONGEST_RATE)
                write_video(out, _recorded(first, coming, pace), 1 / pace)
            return
        if not out.suffix:
            out.mkdir(exist_ok=True)
        for moment in coming:
            seconds = 1 / (rate() or 10)
            write_images(out if out.suffix else out / f"{moment.number:08d}.png", moment.forecast, seconds)


def _recorded(first: Moment, coming: Iterator[Moment], pace: float) -> Iterator[Image.Image]:
    """Each forecast beside its newest picture, as often as it takes until the next forecast is there."""
    before, written = side_by_side(first), 0
    for moment in coming:
        due = round((moment.seconds - first.seconds) * pace)
        for _ in range(due - written):
            yield before
        written, before = max(written, due), side_by_side(moment)
    yield before


def side_by_side(moment: Moment) -> Image.Image:
    """The newest picture, and the last one of its forecast, of the same size."""
    last = moment.forecast[-1]
    sheet = Image.new(last.mode, (2 * last.width, last.height))
    sheet.paste(moment.newest.convert(last.mode).resize(last.size), (0, 0))
    sheet.paste(last, (last.width, 0))
    return sheet


def show(coming: Iterator[Moment]) -> Iterator[Moment]:
    """Draw the forecasts in the terminal as they pass, two pixels a letter, beside their newest picture."""
    sys.stdout.write("\x1b[2J")
    for moment in coming:
        sys.stdout.write("\x1b[H" + drawn(side_by_side(moment), *shutil.get_terminal_size()) + "\n")
        sys.stdout.flush()
        yield moment


def drawn(image: Image.Image, columns: int, lines: int) -> str:
    """The image as text for a terminal of so many columns and lines, of which three are left free."""
    scale = min(columns / image.width, 2 * max(1, lines - 3) / image.height)
    width, height = max(1, int(image.width * scale)), max(2, int(image.height * scale) // 2 * 2)
    pixels = np.asarray(image.convert("RGB").resize((width, height)))
    rows = []
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        cells = (
            f"\x1b[38;2;{a[0]};{a[1]};{a[2]};48;2;{b[0]};{b[1]};{b[2]}m\u2580"
            for a, b in zip(upper.tolist(), lower.tolist(), strict=True)
        )
        rows.append("".join(cells) + "\x1b[0m")
    return "\n".join(rows)


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """Inside the block, Ctrl-C and SIGTERM set `stop`; a second one acts as usual.

    Nothing changes outside of the main thread, where Python allows no handlers.
    """
    usual = {signal.SIGINT: signal.getsignal(signal.SIGINT), signal.SIGTERM: signal.getsignal(signal.SIGTERM)}

    def heard(number: int, _: FrameType | None) -> None:
        stop.set()
        for each, handler in usual.items():
            signal.signal(each, handler)
        os.write(2, b"\nstzoo: finishing what was written\n")  # not by print, which may be in the middle of another

    here = threading.current_thread() is threading.main_thread()
    for each in usual if here else ():
        signal.signal(each, heard)
    try:
        yield
    finally:
        for each, handler in usual.items() if here else ():
            signal.signal(each, handler)
