"""`stzoo benchmark --loader`: does reading keep up with training?"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

from stzoo.data import ClipSource
from stzoo.machine import default_device
from stzoo.spec import ModelSpec
from stzoo.train.denormals import denormals_flushed
from stzoo.train.loop import Run
from stzoo.train.processes import Processes
from stzoo.train.recipe import Recipe


@dataclass(frozen=True)
class Pace:
    """Clips a second, medians of one run in which reading and training took turns.

    Attributes:
        loader: read, varied and stacked into a batch.
        step: trained on, the reading left out.
        ratio: loader / step; reading starves training below 1.
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
    """Measure on random weights, after three steps that warm up."""
    with denormals_flushed():
        run = Run(spec, recipe, training, Processes(torch.device(default_device())))
        reads, trains = [], []
        for i in range(steps + 3):
            start = time.perf_counter()
            training.clips(run.step * recipe.batch, (run.step + 1) * recipe.batch)
            read = time.perf_counter() - start
            run.advance(1_000_000).item()  # reads the same clips again
            reads.append(read)
            trains.append(max(1e-9, time.perf_counter() - start - 2 * read))
            if i < 3:
                reads.clear()
                trains.clear()
    read, train = statistics.median(reads), statistics.median(trains)
    return Pace(recipe.batch / read, recipe.batch / train, train / read)
