"""How long an animation shows each of its images -> when it shows them.

Files round delays: GIF to hundredths of a second, others to thousandths. At 60 frames a second a GIF shows its images
for 20, 10, 20, 20, 10, 20, ... milliseconds; that is rounding, and they are even.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from stzoo.frames.clock import Clock, uneven_clock

_LONGEST = 1000  # how many steps one image may last, if images are even
_PAUSE = 500  # milliseconds: a shorter stop of a loop is no rest that its author meant
_ROUNDED = (
    1.5  # times the unit of the delays: so far apart rounding may bring the earliest and the latest of even images
)


@dataclass(frozen=True)
class Timing:
    """When an animation shows its images.

    Attributes:
        clock: of its frames, as which an image counts as often as it lasts steps; of uneven ones their usual step.
        starts: (n + 1,) seconds from the first image to each, and to the end of the last one; or, if the clock is even,
            how many steps that is.
    """

    clock: Clock
    starts: np.ndarray

    def shown(self) -> Iterator[tuple[float, int]]:
        """(time in seconds, number of the image that is shown from then on), as `Clock.seen` takes them."""
        step = float(self.clock.step)
        seconds = self.starts * step if self.clock.even else self.starts
        yield from ((float(time), number) for number, time in enumerate(seconds[:-1]))
        last = float(seconds[-1]) - step  # a clock takes the last one to last a single step
        if last > seconds[-2]:
            yield last, len(seconds) - 2


def timing(delays: Sequence[float]) -> Timing | None:
    """When images are shown that last so many milliseconds each; None if that says nothing of the time between them.

    A loop that rests on its first or last image pauses there: that image lasts one step.
    """
    if len(delays) < 2 or min(delays) <= 0:
        return None
    first, last = _rests(delays)
    lasting = np.array(delays[first : len(delays) - last], np.float64)
    apart = lasting if last else lasting[:-1]  # how long the last image is shown says nothing of the time between two
    step = _step(lasting, apart)
    if step is not None:
        steps = np.concatenate([[1] * first, np.minimum(_steps(lasting, step), _LONGEST), [1] * last])
        own = Fraction(str(delays[first])) if step == delays[first] else Fraction(step).limit_denominator(10**4)
        clock = Clock(own / 1000, int(steps.sum()), float(steps.sum()) * step / 1000, True)
        return Timing(clock, np.concatenate([[0], np.cumsum(steps)]))
    usual = uneven_clock(np.concatenate([[0], np.cumsum(lasting)]) / 1000).step
    seconds = np.concatenate([[float(usual)] * first, lasting / 1000, [float(usual)] * last])
    starts = np.concatenate([[0], np.cumsum(seconds)])
    return Timing(Clock(usual, len(delays), float(starts[-1]), False), starts)


def _rests(delays: Sequence[float]) -> tuple[bool, bool]:
    """Whether a loop pauses on its first image, and whether on its last one."""
    if len(delays) <= 2:
        return False, False
    rest = max(_PAUSE, 2 * max(delays[1:-1]) + 1)
    return delays[0] >= rest, delays[-1] >= rest


def _step(lasting: np.ndarray, apart: np.ndarray) -> float | None:
    """The step of which all delays are multiples, as exactly as the file can say; None if there is none.

    Args:
        lasting: (n,) milliseconds that each image is shown.
        apart: (n,) or (n - 1,) milliseconds from each to the next one.
    """
    shortest = float(lasting.min())
    unit = 1.0 if (lasting % 10).any() else 10.0  # to which delays are rounded
    near = float(lasting[lasting <= shortest + unit].mean())
    if len(apart) and near >= 1.5 * unit:  # below that a delay that is longer by a unit may as well be two steps
        steps = _steps(apart, near)
        mean = float(apart.sum() / steps.sum())
        off = np.concatenate([[0], np.cumsum(apart - steps * mean)])
        if np.ptp(off) <= _ROUNDED * unit:
            return shortest if np.allclose(apart, steps * shortest, rtol=1e-6) else mean
    return shortest if np.allclose(lasting, _steps(lasting, shortest) * shortest, rtol=1e-6) else None


def _steps(lasting: np.ndarray, step: float) -> np.ndarray:
    return np.maximum(np.rint(lasting / step), 1).astype(np.int64)
