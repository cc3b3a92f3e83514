"""Which frames of a moving picture are seen at equal intervals: a model takes its frames to be evenly spaced in time.

A player shows a frame until the next one is due. Where frames are missing, or come at a varying rate, equal intervals
see some frames several times and others not at all.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import numpy as np

from stzoo.errors import FramesError

DEFAULT_RATE = Fraction(25)  # frames a second, where a file says nothing at all
_JITTER = 0.95  # of a step: less than that is between the earliest and the latest of frames that count as even
_FEW = 3  # steps: of no more than these, one that is much longer than another tells that frames are missing
_SAME_RATE = 0.005  # rates that differ by less than this part are one: 29.97 is called 30
_SAME_MEAN = 0.001  # a rate that a file claims fits its times if it differs from their mean by less than this part
_MOST = 2**18  # frames that pauses may make of a video, if it has not itself a tenth as many
_FINEST = 1000  # moments in the time of one frame

T = TypeVar("T")


@dataclass(frozen=True)
class Clock:
    """When the frames of a moving picture are shown.

    Attributes:
        step: seconds from one frame to the next; of unevenly spaced frames the usual one.
        count: how many frames there are, or 0 if that is not known.
        seconds: from the first frame to the end of the last one, or 0 if that is not known.
        even: the frames are evenly spaced.
    """

    step: Fraction
    count: int
    seconds: float
    even: bool

    @property
    def rate(self) -> Fraction:
        """Frames a second."""
        return 1 / self.step

    def interval(self, every: int = 1, fps: float | None = None) -> Fraction:
        """Seconds from one frame that is read to the next one."""
        own = fps is None or abs(fps * float(self.step) - 1) < _SAME_RATE
        return every * (self.step if own else 1 / Fraction(str(fps)))

    def seen(
        self, frames: Iterable[tuple[float, T]], every: int = 1, start: float | None = None, fps: float | None = None
    ) -> Iterator[T]:
        """The frames that are shown at equal intervals; one that is shown for long comes several times.

        Args:
            frames: pairs of a time in seconds, which never decreases, and of what is shown from then on.
            every: only each `every`-th moment is looked at.
            start: seconds from the first frame to the first moment; None means 0.
            fps: moments in a second; None takes the usual rate of the frames.

        Raises:
            FramesError: `start` lies behind the last frame, or pauses make far more moments than there are frames.
        """
        between = self.interval(1, fps)
        if not (self.even and between >= self.step):
            self._check_pauses(between)
        begin = 0.0 if start is None else self._shown_at(start)
        # a moment lies in the middle of the shorter interval, so that frames which come a little late are still seen
        middle = begin + float(min(between, self.step)) / 2
        moments = (middle + k * every * float(between) for k in itertools.count())
        moment, origin, shown, time = next(moments), None, None, 0.0
        seen = False
        for time, frame in frames:
            origin = time if origin is None else origin
            while shown is not None and moment < time - origin:
                seen = True
                yield shown[0]
                moment = next(moments)
            shown = (frame,)
        end = time - (origin or 0.0) + float(self.step)
        while shown is not None and moment < end:
            seen = True
            yield shown[0]
            moment = next(moments)
        if shown is not None and not seen:
            raise FramesError(f"start={start:g} is after its end; it lasts {end:.6g} seconds")

    def _shown_at(self, start: float) -> float:
        """When the frame begins that is shown at `start`, if frames are even; else `start` itself."""
        if not self.even:
            return start
        return int(start / float(self.step) + 0.05) * float(self.step)  # 0.05 of a step early is rounding

    def _check_pauses(self, between: Fraction) -> None:
        moments = self.seconds / float(between)
        if self.step > _FINEST * between:
            raise FramesError(f"fps={1 / float(between):g} is too many; it has {float(self.rate):g} frames a second")
        if moments > max(_MOST, 10 * self.count):
            raise FramesError(
                f"its {self.count} frames last for {self.seconds:.6g} seconds, {moments:.3g} steps of "
                f"{float(between):.3g} seconds; choose longer steps with fps (--fps), or cut the video"
            )


def warn_of_uneven(path: Path, clock: Clock, fps: float | None) -> None:
    """One warning if the frames of a file are uneven and no rate is chosen at which it is read."""
    if not clock.even and fps is None:
        warnings.warn(
            f"{path}: its frames are unevenly spaced in time; it is read at {float(clock.rate):.6g} frames a second, "
            "as it plays (fps or --fps chooses another rate)",
            stacklevel=3,
        )


def even_clock(rate: Fraction | None, count: int = 0) -> Clock:
    """The clock of frames of which only their rate is known, or not even that."""
    step = 1 / rate if rate and rate > 0 else 1 / DEFAULT_RATE
    return Clock(step, count, count * float(step), True)


def clock_of(times: np.ndarray, rates: Iterable[Fraction | None]) -> Clock:
    """The clock of frames that are shown at `times`.

    Frames are even if there is one step such that the n-th of them comes n steps after the first one, give or take less
    than half a step, unless that is better explained by missing frames.

    Args:
        times: (n,) seconds in any order; with what is stored beside a frame and never shown, such as second fields.
        rates: frames a second that the file claims, the most trusted first. One that fits the times is taken as it is.
    """
    claimed = [rate for rate in rates if rate is not None and rate > 0]
    times = np.unique(times)
    steps = np.diff(times)
    if not len(steps):
        return even_clock(claimed[0] if claimed else None, len(times))
    shown = times[np.concatenate([[True], steps >= _median(steps) / 4])]
    for each in (times, shown):
        step = _even_step(each, claimed)
        if step is not None:
            return Clock(step, len(each), float(each[-1] - each[0]) + float(step), True)
    return uneven_clock(shown, claimed)


def uneven_clock(times: np.ndarray, claimed: Sequence[Fraction] = ()) -> Clock:
    """The clock of frames that are shown at `times` (n,), in order, but not evenly.

    The usual step is the mean of all steps that are between half and one and a half of the median step, so neither
    pauses nor the rounding of times change it. One of the `claimed` rates that fits it is taken as it is.
    """
    mean = _usual(np.diff(times))
    fits = (1 / rate for rate in claimed if abs(mean * float(rate) - 1) < _SAME_MEAN)
    step = next(fits, None) or _fraction(mean)
    return Clock(step, len(times), float(times[-1] - times[0]) + float(step), False)


def joined(pieces: Sequence[np.ndarray]) -> np.ndarray:
    """(n,) times of recordings that were joined, (m,) seconds each: one goes on a step after the end of the one before.

    The step is the usual one of the first recording.
    """
    steps = (np.diff(np.unique(piece)) for piece in pieces)
    step = next((_usual(each) for each in steps if len(each)), float(1 / DEFAULT_RATE))
    moved = [pieces[0]]
    for piece in pieces[1:]:
        moved.append(piece - piece.min() + moved[-1].max() + step)
    return np.concatenate(moved)


def _even_step(times: np.ndarray, claimed: Sequence[Fraction]) -> Fraction | None:
    """The step of frames at `times` (n,), in order, if they are even. See `clock_of`."""
    order = np.arange(len(times))
    mean = float(times[-1] - times[0]) / order[-1]
    best = min((float(np.polyfit(order, times, 1)[0]), mean), key=lambda step: _jitter(times, order, step))
    least = _jitter(times, order, best)
    if least >= _JITTER:
        return None
    usual = _usual(np.diff(times))
    near = np.abs(np.diff(times) / usual - 1) < 0.5
    lasting = np.maximum(np.rint(np.diff(times) / usual), 1)  # steps until the next frame, if frames are missing
    if (near.sum() * 3 >= len(near) * 2 or len(near) <= _FEW) and lasting.max() > 1:
        grid = np.concatenate([[0], np.cumsum(lasting)])
        if 3 * _jitter(times, grid, usual) < least:
            return None
    trusted = (1 / rate for rate in claimed if _jitter(times, order, 1 / float(rate)) < 1.25 * least + 0.02)
    return next(trusted, None) or _fraction(best)


def _jitter(times: np.ndarray, order: np.ndarray, step: float) -> float:
    """How far `times` are from the multiples `order` of a step, from the earliest to the latest, in steps."""
    return float(np.ptp(times - order * step)) / step


def _usual(steps: np.ndarray) -> float:
    median = _median(steps)
    return float(steps[(steps > median / 2) & (steps < median * 1.5)].mean())


def _fraction(step: float) -> Fraction:
    return Fraction(step).limit_denominator(10**6) or Fraction(step)


def _median(steps: np.ndarray) -> float:
    """The middle one of the steps (n,), and of an even number the smaller of the two: always one that occurs."""
    return float(np.sort(steps)[(len(steps) - 1) // 2])
