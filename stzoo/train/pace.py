"""How fast training is on this machine: how many steps fit into a time, and whether reading clips keeps up."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

from stzoo.data import ClipSource
from stzoo.machine import default_device
from stzoo.spec import ModelSpec
from stzoo.train.allocator import memory_kept
from stzoo.train.assignment import Assignment
from stzoo.train.denormals import denormals_flushed
from stzoo.train.processes import Processes
from stzoo.train.recipe import Recipe
from stzoo.train.run import Run

WARM_UP = 3  # steps that do not count: the first ones compile, and fill caches
OF_MANY = 1_000_000  # the number of steps that a measured step counts as one of


def steps_within(minutes: float, run: Run) -> int:
    """How many steps fit into `minutes`, if a tenth of them is left for validation; at least one.

    It takes steps for at most 20 seconds, or a tenth of the time if that is less, and at least two of them.

    Args:
        run: is changed by the steps, so it must be thrown away.
    """

    def step() -> None:
        run.step = 0  # always the same clips: if latents are cached, these are few
        run.advance(OF_MANY).item()  # waits for a GPU

    for _ in range(WARM_UP):
        step()
    start, taken = time.perf_counter(), 0
    while taken < 2 or time.perf_counter() - start < min(20.0, minutes * 6):
        step()
        taken += 1
    return max(1, int(minutes * 60 * 0.9 * taken / (time.perf_counter() - start)))


@dataclass(frozen=True)
class Pace:
    """How fast clips are read beside how fast they are trained on, medians of steps that took turns.

    Attributes:
        loader: clips per second that are read, varied and stacked into a batch.
        step: clips per second that are trained on, without the time for reading.
        ratio: loader / step. Below 1, training waits for clips.
    """

    loader: float
    step: float
    ratio: float

    def __str__(self) -> str:
        return (
            f"loader      {self.loader:10.1f} clips/s\ntrain step  {self.step:10.1f} clips/s, reading left out\n"
            f"ratio       {self.ratio:10.1f}"
        )


def pace(spec: ModelSpec, recipe: Recipe, training: ClipSource, steps: int = 10) -> Pace:
    """Measure `steps` steps from random weights, after some that warm up. For `stzoo benchmark --loader`."""
    with denormals_flushed(), memory_kept():
        assignment = Assignment(spec, recipe, training)
        run = Run(assignment, Processes(torch.device(default_device())))
        reads, trains = [], []
        for i in range(WARM_UP + steps):
            start = time.perf_counter()
            training.clips(run.step * recipe.batch, (run.step + 1) * recipe.batch)
            read = time.perf_counter() - start
            run.advance(OF_MANY).item()  # reads the same clips again
            both = time.perf_counter() - start
            if i >= WARM_UP:
                reads.append(read)
                trains.append(max(1e-9, both - 2 * read))
    read, train = statistics.median(reads), statistics.median(trains)
    return Pace(recipe.batch / read, recipe.batch / train, train / read)
