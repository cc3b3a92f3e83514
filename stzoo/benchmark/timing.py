"""Times passes in turns, so that a machine whose speed drifts gives fair ratios, and measures its peak in between."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from stzoo.progress import tqdm

Pass = Callable[[], Any]

WARM_UP = 2
LEAST = 5  # passes of each kind if no number is asked for; a median of fewer is not worth showing
_MOST, _SECONDS = 100, 15.0  # how many passes at most, and how long they may take
_LIMITS_EVERY = 2.0  # seconds between two measurements of what the machine can do
_SIZES = MappingProxyType(  # rows of square matrices; which size is fastest depends on the machine
    {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
)
_COPIED = MappingProxyType({"cpu": 1 << 26, "cuda": 1 << 28})  # float32 values: larger than caches are
_TRIES, _ENOUGH = 3, 0.02  # how often a product is tried in one measurement; no more once that took so many seconds
_TOO_LONG = 0.2  # seconds: no larger product is tried if it would take longer


def timed(run: Pass, device: torch.device) -> tuple[float, Any]:
    """How many seconds `run` takes, and what it returns. On a GPU the time counts until its last kernel has ended."""
    if device.type == "cuda":
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        result = run()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3, result
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


class Limits:
    """The best that this machine has done so far.

    Attributes:
        peak: TFLOP/s of the fastest matrix product in "float32" and in "bfloat16".
        size: rows of the square matrices of that product.
        bandwidth: GB/s of the fastest large copy, where bytes read and bytes written both count.
    """

    def __init__(self, device: torch.device):
        self.peak = {"float32": 0.0, "bfloat16": 0.0}
        self.size = dict.fromkeys(self.peak, 0)
        self.bandwidth = 0.0
        self._device = device
        self._products = {name: self._factors(getattr(torch, name)) for name in self.peak}
        self._copied = torch.ones(_COPIED[device.type], device=device)
        self._copy = torch.zeros_like(self._copied)
        self.measure()  # warms up

    def measure(self) -> None:
        """Measure again, and keep what is better than before."""
        for name, products in self._products.items():
            for a, b, out in products:
                seconds, work = self._fastest(partial(torch.mm, a, b, out=out)), 2 * len(a) ** 3
                if work / seconds / 1e12 > self.peak[name]:
                    self.peak[name], self.size[name] = work / seconds / 1e12, len(a)
                if 8 * seconds > _TOO_LONG:  # so long would the next one take, of twice as many rows
                    break
        self.bandwidth = max(
            self.bandwidth, 2 * self._copied.nbytes / self._fastest(partial(self._copy.copy_, self._copied)) / 1e9
        )

    def _fastest(self, run: Pass) -> float:
        """Seconds of the fastest of a few tries."""
        seconds = [timed(run, self._device)[0]]
        while len(seconds) < _TRIES and sum(seconds) < _ENOUGH:
            seconds.append(timed(run, self._device)[0])
        return min(seconds)

    def _factors(self, dtype: torch.dtype) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each size two factors and room for their product, three (size, size) tensors."""
        found = []
        for size in _SIZES[self._device.type]:
            a, b, out = (torch.randn(size, size, device=self._device).to(dtype) for _ in range(3))
            found.append((a, b, out))
        return found


def take_turns(
    runs: Mapping[str, Pass], limits: Limits, device: torch.device, repeats: int | None, progress: bool
) -> dict[str, list[float]]:
    """Seconds of each run's passes. In every round each run passes once; the order is reversed from round to round.

    Args:
        runs: what is timed, already warm.
        limits: what the machine can do, measured in between.
        device: where the runs compute.
        repeats: how many rounds; None for as many as the time allows.
        progress: show a progress bar if it takes longer than a second.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names, done, spent, looked = list(runs), 0, 0.0, -math.inf
    with tqdm(total=repeats, unit="pass", delay=1, leave=False, disable=not progress) as bar:
        while done < repeats if repeats is not None else done < LEAST or (done < _MOST and spent < _SECONDS):
            if time.perf_counter() - looked > _LIMITS_EVERY:
                limits.measure()
                looked = time.perf_counter()
            for name in names:
                seconds[name].append(timed(runs[name], device)[0])
                spent += seconds[name][-1]
            names.reverse()
            done += 1
            bar.update()
    return seconds


def captured(run: Pass) -> Pass | None:
    """A CUDA graph of one warm pass, whose input and output stay in place; None if the pass cannot be captured."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            run()
    except RuntimeError:
        return None
    return graph.replay
