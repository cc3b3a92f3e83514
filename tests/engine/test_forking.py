"""Processes that are forked from one that has computed: they forecast, with one thread, and do not hang."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stzoo.codec import load_codec
from stzoo.engine.forking import set_threads
from stzoo.errors import SpecError
from stzoo.evaluate import evaluate, evaluate_codec
from stzoo.forecaster import Forecaster
from stzoo.opening import create, load
from stzoo.train import train

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


def test_a_forked_process_that_asks_torch_for_threads_computes_with_one(
    forecaster: Forecaster, frames: np.ndarray, tmp_path: Path
) -> None:
    """With more it would hang; so whatever computes goes back to one thread first, even if it then fails."""
    codec = load_codec("vqvae-mmnist", pretrained=False)
    stream, live = forecaster.stream(frames), forecaster.live()
    next(stream)
    latents = codec.encode(np.zeros((1, 1, 64, 64), np.uint8))
    nothing: Any = None
    jobs: dict[str, Callable[[], object]] = {
        "predict": lambda: forecaster.predict(frames),
        "stream": lambda: next(stream),
        "live": lambda: live.push(np.zeros((16, 16), np.uint8)),
        "engine": lambda: next(forecaster.engine.unroll(torch.zeros(1, 4, 1, 16, 16), 1)),
        "export": lambda: forecaster.export("onyx", tmp_path / "a.onnx"),
        "encode": lambda: codec.encode(nothing),
        "quantise": lambda: codec.quantise(latents),
        "decode": lambda: codec.decode(latents),
        "create": lambda: create("simvp-mmnist"),
        "load": lambda: load("there is no such model"),
        "load_codec": lambda: load_codec("there is no such codec"),
        "evaluate": lambda: evaluate(nothing, nothing, name="", protocol="", definition="none"),
        "evaluate_codec": lambda: evaluate_codec(nothing, nothing, name="", protocol="", definition="none"),
        "train": lambda: train(nothing, nothing, nothing, nothing, tmp_path),
    }
    child = os.fork()
    if not child:
        signal.alarm(60)
        for number, job in enumerate(jobs.values(), 1):
            torch.set_num_threads(2)
            with suppress(Exception):
                job()
            if torch.get_num_threads() != 1:
                os._exit(number)
        os._exit(0)
    failed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert not failed, [*jobs][failed - 1]


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
