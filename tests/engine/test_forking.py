"""Processes that are forked from one that has computed: they forecast, with one thread, and do not hang."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from stzoo.engine.forking import set_threads
from stzoo.errors import SpecError
from stzoo.forecaster import Forecaster

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def test_a_process_forked_after_a_forecast_forecasts() -> None:
    """OpenMP would wait there for the threads of the parent: with one thread it waits for nobody."""
    code = """
import os, signal, warnings
warnings.simplefilter("ignore")
import numpy as np, torch, stzoo
torch.set_num_threads(2)
frames = np.zeros((2, 10, 64, 64), np.uint8)
frames[0, :, 8:24, 8:24] = 255
frames = frames[:, :, None]
model = stzoo.load("tau-ut")
here = model.predict(frames)
child = os.fork()
if not child:
    signal.alarm(60)  # one that hangs is ended, and the parent sees it
    there = model.predict(frames)
    close = np.abs(here.astype(int) - there).max() <= 1
    os._exit(0 if close and torch.get_num_threads() == 1 else 3)
assert os.waitpid(child, 0)[1] == 0
assert torch.get_num_threads() == 2  # the parent keeps its own
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment)


def test_a_process_forked_by_a_thread_computes_with_one_thread(forecaster: Forecaster, frames: np.ndarray) -> None:
    forecaster.predict(frames)
    statuses: list[int] = []

    def fork() -> None:
        child = os.fork()
        if not child:
            signal.alarm(60)
            os._exit(torch.get_num_threads() - 1)
        statuses.append(os.waitpid(child, 0)[1])

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    assert statuses == [0]


def test_a_forked_process_is_refused_the_threads_that_it_would_wait_for() -> None:
    child = os.fork()
    if not child:
        signal.alarm(60)
        set_threads(1)
        try:
            set_threads(2)
        except SpecError as error:
            os._exit(0 if "2 threads are asked for in a process that was forked" in str(error) else 3)
        os._exit(4)
    assert os.waitpid(child, 0)[1] == 0
    before = torch.get_num_threads()
    set_threads(2)
    assert torch.get_num_threads() == 2
    set_threads(before)
