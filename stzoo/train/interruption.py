"""When a run saves between its validations, and how Ctrl-C and SIGTERM end it: saved, and with the usual exit code."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

EARLY = 5.0  # seconds to the first checkpoint; the time to the next one doubles until it is that of the recipe
LARGEST_SHARE = 50  # early checkpoints take at most one part in so many of the time


class SavingClock:
    """Tells when the next checkpoint is due: the first one soon, so that a short run that is killed keeps something.

    Args:
        longest: seconds between two checkpoints, at most; with 0 one is due at every look at the loss.
    """

    def __init__(self, longest: float):
        self.longest, self.wait = longest, min(EARLY, longest)
        self.saved_at = time.monotonic()

    def due(self, at_a_look: bool) -> bool:
        """Whether it is time to save.

        Args:
            at_a_look: the loss is looked at in this step anyway. In other steps, a checkpoint that the recipe wants
                very often waits until `EARLY` seconds have passed.
        """
        return time.monotonic() - self.saved_at >= (self.wait if at_a_look else max(self.wait, EARLY))

    def saved(self, seconds: float) -> None:
        """Note that a checkpoint has been written, which took `seconds`."""
        self.wait = min(self.longest, max(2 * self.wait, LARGEST_SHARE * seconds))
        self.saved_at = time.monotonic()


class StopRequest:
    """Whether somebody asked this process to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __call__(self, number: int, _: FrameType | None) -> None:
        """The handler of the first signal; the second one acts as if there were no handler."""
        self.signal = signal.Signals(number)
        for each in _SIGNALS:
            if signal.getsignal(each) is self:
                signal.signal(each, _SIGNALS[each])
        again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
        # not by print, which fails if the signal came in the middle of another print
        os.write(2, f"\nstzoo: stopping when this step is done{again}\n".encode())

    @property
    def signal_name(self) -> str:
        """What the user calls it."""
        return "Ctrl-C" if self.signal == signal.SIGINT else "SIGTERM"

    def stop(self) -> NoReturn:
        """End as after this signal: by `KeyboardInterrupt`, or with the exit code 143 of SIGTERM."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)


_SIGNALS: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@contextmanager
def stop_requests(heard: bool) -> Iterator[StopRequest]:
    """Inside the block, SIGINT (Ctrl-C) and SIGTERM only note that the run is to stop after its step.

    Nothing changes for a signal for which the program has a handler of its own, nor outside of the main thread, where
    Python allows no handlers.

    Args:
        heard: False changes nothing at all.
    """
    request, replaced = StopRequest(), []
    if heard and threading.current_thread() is threading.main_thread():
        for number, default in _SIGNALS.items():
            if signal.getsignal(number) == default:
                signal.signal(number, request)
                replaced.append(number)
    try:
        yield request
    finally:
        for number in replaced:
            signal.signal(number, _SIGNALS[number])
