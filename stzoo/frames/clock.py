"""Which frames of a moving picture are seen at equal intervals: a model takes its frames to be evenly spaced in time.

A player shows a frame until the next one is due. Where frames are missing, or come at a varying rate, equal intervals
see some frames several times and others not at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np

from stzoo.errors import FramesError

DEFAULT_RATE = Fraction(25)  # frames a second, where a file says nothing at all
_TOGETHER = 10  # so many steps together may be off by half a step if frames count as evenly spaced
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


def even_clock(rate: Fraction | None, count: int = 0) -> Clock:
    """The clock of frames of which only their rate is known, or not even that."""
    step = 1 / rate if rate and rate > 0 else 1 / DEFAULT_RATE
    return Clock(step, count, count * float(step), True)


def clock_of(times: np.ndarray, rates: Iterable[Fraction | None]) -> Clock:
    """The clock of frames that are shown at `times`.

    The usual step is the mean of all steps that are between half and one and a half of the median step, so neither
    pauses nor the rounding of times change it.

    Args:
        times: (n,) seconds in any order; with what is stored beside a frame and never shown, such as second fields.
        rates: frames a second that the file claims, the most trusted first. One that fits the times is taken as it is.
    """
    claimed = [rate for rate in rates if rate is not None and rate > 0]
    times = np.unique(times)
    steps = np.diff(times)
    if not len(steps):
        return even_clock(claimed[0] if claimed else None, len(times))
    times = times[np.concatenate([[True], steps >= _median(steps) / 4])]
    steps = np.diff(times)
    usual = _median(steps)
    near = steps[(steps > usual / 2) & (steps < usual * 1.5)]
    mean = float(near.mean())
    fits = (1 / rate for rate in claimed if abs(mean * float(rate) - 1) < _SAME_MEAN)
    step = next(fits, None) or Fraction(mean).limit_denominator(10**6) or Fraction(mean)
    ends = times[_TOGETHER:] - times[:-_TOGETHER] if len(times) > _TOGETHER else times[-1:] - times[:1]
    expected = mean * min(_TOGETHER, len(times) - 1)
    even = len(near) == len(steps) and bool((np.abs(ends - expected) <= mean / 2).all())
    return Clock(step, len(times), float(times[-1] - times[0]) + float(step), even)


def _median(steps: np.ndarray) -> float:
    """The middle one of the steps (n,), and of an even number the smaller of the two: always one that occurs."""
    return float(np.sort(steps)[(len(steps) - 1) // 2])
