"""Which frames are seen at equal intervals."""

from fractions import Fraction
from itertools import islice

import numpy as np
import pytest

from stzoo.errors import FramesError
from stzoo.frames.clock import clock_of, even_clock, joined


def seen(times: np.ndarray, rate: int | Fraction = 25, **how: float) -> list[int]:
    clock = clock_of(times, [Fraction(rate)])
    return list(clock.seen(((t, i) for i, t in enumerate(times)), **how))  # type: ignore[arg-type]


EVEN = np.arange(40) / 25
GAP = np.delete(EVEN, range(25, 35))  # frames 25 to 34 are missing


def test_even_frames_are_seen_once_each() -> None:
    assert seen(EVEN) == list(range(40))
    assert seen(EVEN, every=3) == list(range(0, 40, 3))
    assert seen(EVEN, every=3, start=0.4) == list(range(10, 40, 3))
    jitter = EVEN + np.random.default_rng(0).uniform(-0.008, 0.008, 40)
    assert clock_of(jitter, [Fraction(25)]).even
    milliseconds = np.round(np.arange(9000) * 1001 / 30000, 3)  # as Matroska stores 29.97 frames a second
    clock = clock_of(milliseconds, [Fraction(30000, 1001)])
    assert (clock.even, clock.rate, clock.count) == (True, Fraction(30000, 1001), 9000)
    assert clock_of(milliseconds, []).even
    assert abs(float(clock_of(milliseconds, []).rate) - 29.97) < 1e-3


def test_a_pause_shows_its_frame_again() -> None:
    assert not clock_of(GAP, []).even
    assert seen(GAP) == [*range(25), *[24] * 10, *range(25, 30)]
    assert seen(GAP, every=5) == [0, 5, 10, 15, 20, 24, 24, 25]
    assert seen(GAP, start=1.0) == [*[24] * 10, *range(25, 30)]


def test_a_varying_rate_is_sampled_at_the_usual_one() -> None:
    """Two seconds at 30 frames a second, and two at 20."""
    times = np.concatenate([np.arange(60) / 30, 2 + np.arange(40) / 20])
    clock = clock_of(times, [Fraction(30)])
    assert not clock.even
    assert len(seen(times, 30)) == pytest.approx(float(clock.rate) * 4, abs=1)
    assert seen(times, 30, fps=10) == [*range(0, 60, 3), *range(60, 100, 2)]


def test_a_chosen_rate() -> None:
    assert seen(EVEN, fps=25) == seen(EVEN, fps=25.02) == list(range(40))
    assert seen(EVEN, fps=5) == list(range(0, 40, 5))
    assert seen(EVEN, fps=10)[:5] == [0, 3, 5, 8, 10]
    assert seen(EVEN, fps=50)[:6] == [0, 0, 1, 1, 2, 2]
    assert seen(EVEN, fps=10, every=2, start=0.4)[:3] == [10, 15, 20]
    assert clock_of(EVEN, [Fraction(25)]).interval(2, 10) == Fraction(1, 5)
    assert clock_of(EVEN, [Fraction(25)]).interval(2) == Fraction(2, 25)


def test_times_of_what_is_never_shown_make_no_frame() -> None:
    hidden = np.sort(np.concatenate([EVEN, EVEN[::7] + 0.001]))
    clock = clock_of(hidden, [Fraction(25)])
    assert (clock.even, clock.count, clock.rate) == (True, 40, 25)


def test_absurd_times_are_refused_and_never_waited_for() -> None:
    times = np.array([0, 0.04, 0.08, 1e9])
    with pytest.raises(FramesError, match=r"its 4 frames last for 1e\+09 seconds, .* choose longer steps with fps"):
        seen(times)
    assert len(list(islice(even_clock(None).seen(((0.0, 0),)), 9))) == 1
    with pytest.raises(FramesError, match=r"start=2 is after its end; it lasts 1\.6 seconds"):
        seen(EVEN, start=2)
    assert clock_of(np.zeros(3), [None]).rate == 25
    assert seen(np.array([0, 0.04, 0.16])) == [0, 1, 1, 1, 2]
    for rate in (1e9, 25_100):
        with pytest.raises(FramesError, match=r"fps=\S+ is too many; it has 25 frames a second"):
            seen(EVEN, fps=rate)
    assert list(even_clock(Fraction(10)).seen(())) == []


RNG = np.random.default_rng(3)


@pytest.mark.parametrize(
    ("times", "rate"),
    [
        *((EVEN + RNG.uniform(-q, q, 40) / 25, 25) for q in (0.3, 0.4)),
        (np.cumsum([0] + [0.02, 0.06] * 20), 25),
        (np.round(np.arange(900) / 600, 3), 600),
        (EVEN + (np.arange(40) == 20) * 0.024, 25),  # one frame is late
    ],
)
def test_jitter_below_half_a_frame_drops_and_doubles_none(times: np.ndarray, rate: int) -> None:
    for rates in ([Fraction(rate)], []):
        clock = clock_of(times, rates)
        assert (clock.even, clock.count) == (True, len(times))
        assert float(clock.rate) == pytest.approx(rate, rel=0.01)


@pytest.mark.parametrize(("count", "missing"), [(5, 1), (9, 4), (40, 20), (40, 1), (1000, 500)])
def test_a_single_missing_frame_is_no_jitter(count: int, missing: int) -> None:
    times = np.delete(np.arange(count) / 25, missing)
    clock = clock_of(times, [Fraction(count - 1) / Fraction(count) * 25])  # the mean, as .mp4 files claim
    assert not clock.even
    assert float(clock.rate) == pytest.approx(25, rel=0.001)


def test_a_claimed_rate_that_contradicts_the_times_is_not_believed() -> None:
    assert clock_of(np.arange(10) / 26, [Fraction(25)]).rate == 26
    assert not clock_of(np.concatenate([np.arange(50) / 25, 2 + np.arange(50) / 27]), []).even


def test_joined_recordings_go_on_a_step_later() -> None:
    pieces = [5 + EVEN, EVEN, EVEN[:1]]
    np.testing.assert_allclose(joined(pieces), 5 + np.arange(81) / 25)
