"""Forecasts of a source in real time, always from its newest pictures, and where they go.

Forecasts are made in the caller's thread. The source is read in another one; the lines that say how it goes, and the
encoder of a recording, have their own threads as well, so that these and the forecasts do not wait for each other.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue
from types import FrameType

import numpy as np
from PIL import Image

from stzoo.errors import FramesError
from stzoo.files import writing_errors_named
from stzoo.frames.images import ANIMATED, check_folder, write_images
from stzoo.frames.video import WRITTEN, write_video
from stzoo.live.pushing import Live
from stzoo.live.sources import Feed, Origin, counted
from stzoo.spec import ModelSpec

RECORDED_RATE = 10.0  # pictures a second of a recording, at most: encoding leaves time for forecasts
PANEL = 640  # pixels of the longer side of a picture in a recording, at most
_LOOK = 0.2  # seconds between two looks at whether to stop
_SAY = 1.0  # seconds from one line that says how it goes to the next


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
    """Counts forecasts. Inside a ``with`` block a thread says once a second how it goes, whatever else is at work."""

    def __init__(self, feed: Feed, say: Callable[[str], None], stop: threading.Event):
        """Args:
        feed: counts frames.
        say: is given a line each second.
        stop: is set if `say` fails, such as when nobody reads the lines any more; the block then raises its error.
        """
        self.forecasts, self.start = 0, time.monotonic()
        self._feed, self._say, self._stop = feed, say, stop
        self._over, self._error = threading.Event(), None
        self._thread = threading.Thread(target=self._tell, name="stzoo-pace", daemon=True)

    _error: OSError | None

    def __enter__(self) -> Pace:
        self.start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def line(self) -> str:
        seconds = time.monotonic() - self.start
        counts = (counted(self._feed.arrived, "frame"), counted(self._feed.dropped, "frame"))
        made = counted(self.forecasts, "forecast")
        return f"{seconds:6.1f} s: {counts[0]} in, {made}, {counts[1]} dropped because the model is slower"

    def summary(self, steps: int) -> str:
        """Why the run ended, and what was made."""
        return f"{self._feed.reason}: {counted(self.forecasts, 'forecast')} of {counted(steps, 'frame')}"

    def _tell(self) -> None:
        while not self._over.wait(_SAY - (time.monotonic() - self.start) % _SAY):
            try:
                self._say(self.line())
            except OSError as error:
                self._error = error
                self._stop.set()
                return


def warm_up(live: Live, spec: ModelSpec) -> None:
    """Forecast noise of the model's size, and forget it: a first forecast takes longer than those that follow.

    Raises:
        FramesError: the model does not take pictures.
    """
    values = np.random.default_rng(0).integers(0, 256, (spec.height, spec.width, 3), np.uint8)
    noise = Image.fromarray(values)
    with warnings.catch_warnings(action="ignore"):  # that noise is in colour is nobody's concern
        for _ in range(spec.frames_in):
            live.read(noise)
        live.forecast(1)
    live.reset()


def moments(
    feed: Feed, live: Live, *, steps: int, pace: Pace, stop: threading.Event, longest: int | None = None
) -> Iterator[Moment]:
    """A forecast after another, each from the newest pictures, until the source ends or somebody stops it.

    Pictures that came while a forecast was made are read before the next one. If there were more than the model reads,
    the older ones are dropped, and a recurrent model begins anew. However the source ends, the last forecast is from
    its newest pictures; why it ended is then in `feed`, and so is its error, so that what was written can be finished.

    Args:
        feed: the source.
        live: reads its pictures.
        steps: how many frames are forecast each time.
        pace: counts the forecasts.
        stop: ends the source when it is set.
        longest: pictures with a longer side are made smaller first; None leaves them as they are.
    """
    expected = 0
    while True:
        if stop.is_set():
            feed.finish("stopped")
        try:
            taken = feed.take(_LOOK)
        except EOFError:
            return
        if taken and taken[0][0] != expected:
            live.reset()
        ready = False
        for number, given in taken:
            picture = given if longest is None else _within(given, longest)
            ready, expected = live.read(picture), number + 1
        if ready:
            forecast = live.forecast(steps)
            pace.forecasts += 1
            yield Moment(number, picture, forecast, time.monotonic() - pace.start)


def longest_side(out: Path | None, spec: ModelSpec, resize: bool | None) -> int | None:
    """How large pictures need to be, as `longest` of `moments`: no larger than a recording shows them, if forecasts
    come back at the size of the pictures and go nowhere else. None if their whole size is needed."""
    if resize is not None or (out is not None and out.suffix.lower() not in WRITTEN):
        return None
    return max(PANEL, spec.height, spec.width)


def _within(picture: Image.Image, longest: int) -> Image.Image:
    """The picture; or if its longer side is too long, a smaller one with even sides, which videos need."""
    scale = longest / max(picture.size)
    if scale >= 1:
        return picture
    width, height = (max(2, round(side * scale / 2) * 2) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BILINEAR)


def check_out(out: Path, origin: Origin) -> None:
    """Raises `FramesError` if forecasts of a source cannot be written to `out`: see `write_moments`."""
    if out.suffix and out.suffix.lower() not in (*ANIMATED, *WRITTEN):
        raise FramesError(f"cannot write {out.name}; use {', '.join((*ANIMATED, *WRITTEN))}, or a folder")
    if not out.parent.is_dir():
        raise FramesError(f"the folder {out.parent} does not exist; create it first")
    if not out.suffix:
        check_folder(out)
    elif out.is_dir():
        raise FramesError(f"{out} is a folder; name a file")
    elif origin.kind == "file" and out.exists() and out.samefile(origin.place):
        raise FramesError(f"{out} is the source itself; name another file for the forecasts")


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
                _record(out, first, coming, min(rate() or RECORDED_RATE, RECORDED_RATE))
            return
        if not out.suffix:
            out.mkdir(exist_ok=True)
        for moment in coming:
            seconds = 1 / (rate() or 10)
            write_images(out if out.suffix else out / f"{moment.number:08d}.png", moment.forecast, seconds)


def _record(out: Path, first: Moment, coming: Iterator[Moment], pace: float) -> None:
    """Encode in a thread, so that forecasts do not wait. If it falls behind, forecasts are left out of the recording.

    An error of `coming` is raised when the recording of what was there before is whole.
    """
    waiting: Queue[Moment | None] = Queue(2)
    with ThreadPoolExecutor(1, "stzoo-recording") as encoder:
        written = encoder.submit(
            write_video, out, _recorded(first, iter(waiting.get, None), pace), 1 / pace, at_once=True
        )
        try:
            for moment in coming:
                if written.done():  # it has failed
                    break
                _put_newest(waiting, moment)
        finally:
            _put_newest(waiting, None)
        written.result()


def _put_newest(waiting: Queue[Moment | None], moment: Moment | None) -> None:
    """Put something into the queue, in the place of the oldest thing there if it is full."""
    try:
        waiting.put_nowait(moment)
    except Full:
        with suppress(Empty):
            waiting.get_nowait()
        waiting.put_nowait(moment)


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
    """The newest picture, and the last one of its forecast, of the same size: at most `PANEL` pixels, each."""
    last = _within(moment.forecast[-1], PANEL)
    sheet = Image.new(last.mode, (2 * last.width, last.height))
    sheet.paste(moment.newest.convert(last.mode).resize(last.size), (0, 0))
    sheet.paste(last, (last.width, 0))
    return sheet


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def say_below(line: str) -> None:
    """Print a line below what `show` draws, in the place of the one before it."""
    print(f"\r{line}\x1b[K", end="", flush=True)


def show(coming: Iterator[Moment]) -> Iterator[Moment]:
    """Draw the forecasts in the terminal as they pass, two pixels a letter, beside their newest picture."""
    sys.stdout.write("\x1b[2J")
    for moment in coming:
        sys.stdout.write("\x1b[H" + drawn(side_by_side(moment), *shutil.get_terminal_size()) + "\n")
        sys.stdout.flush()
        yield moment
    print()


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
