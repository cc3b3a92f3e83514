"""Which backend is faster, by a short race on the user's own frames, whose result is kept for the next process."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from statistics import median

import torch
from torch import Tensor, nn

from stzoo.engine.graphs import Part, kept_choice, key_of
from stzoo.files import write_atomically
from stzoo.machine import BACKENDS, cpu_flags
from stzoo.spec import ModelSpec

PAIRS, SECONDS = 5, 2.0  # the race ends after so many pairs, or with the pair in which so much time has passed
Block = Callable[[Tensor], Tensor]


def remembered(block: nn.Module, spec: ModelSpec, past: Tensor, precision: str) -> str | None:
    """The backend that a race found here before, of such a block and such frames; None if there was none."""
    with suppress(OSError, UnicodeDecodeError, ImportError):
        found = kept_choice(_key(block, spec, past, precision)).read_text("utf-8")
        return found if found in BACKENDS else None
    return None


def remember(backend: str, block: nn.Module, spec: ModelSpec, past: Tensor, precision: str) -> None:
    with suppress(OSError, ImportError):  # then the next process finds it out again
        write_atomically(kept_choice(_key(block, spec, past, precision)), backend.encode())


@torch.no_grad()
def faster(first: Block, second: Block, past: Tensor) -> bool:
    """Whether the first is faster than the second: both run once, and then in turns; the median of ratios decides."""
    first(past), second(past)
    ratios: list[float] = []
    begun = time.perf_counter()
    while len(ratios) < PAIRS and (not ratios or time.perf_counter() - begun < SECONDS):
        times = [time.perf_counter()]
        for run in (first, second):
            run(past)
            times.append(time.perf_counter())
        ratios.append((times[1] - times[0]) / (times[2] - times[1]))
    return median(ratios) < 1


def _key(block: nn.Module, spec: ModelSpec, past: Tensor, precision: str) -> str:
    import onnxruntime

    machine = [sorted(cpu_flags()), torch.get_num_threads(), onnxruntime.__version__]
    facts = [key_of(Part(block), spec), list(past.shape), precision, machine]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
