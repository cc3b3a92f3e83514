"""`stzoo benchmark`: what a user waits for and how much memory it takes, each in a fresh process."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass

_IMPORT = "import time; t = time.perf_counter(); import {0}; print(time.perf_counter() - t)"

_FIRST = """
import time; start = time.perf_counter()
import torch; torched = time.perf_counter()
import numpy, stzoo
model = stzoo.load({name!r}) if {trained} else stzoo.create({name!r})
spec = model.spec
model.predict(numpy.zeros((spec.frames_in, spec.channels, spec.height, spec.width), numpy.float32))
print(time.perf_counter() - torched)
"""

_LATENCY = """
import json, time, numpy, stzoo
model = stzoo.load({name!r}) if {trained} else stzoo.create({name!r})
spec = model.spec
past = numpy.zeros((spec.frames_in, spec.channels, spec.height, spec.width), numpy.float32)
times = []
for i in range(25):
    start = time.perf_counter(); model.predict(past); times.append(time.perf_counter() - start)
print(json.dumps(sorted(times[5:])))
"""

_MEMORY = """
import resource, numpy, stzoo
model = stzoo.load({name!r}) if {trained} else stzoo.create({name!r})
spec = model.spec
past = numpy.zeros((spec.frames_in, spec.channels, spec.height, spec.width), numpy.float32)
for frame in model.stream(past, {steps}): pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@dataclass(frozen=True)
class Benchmark:
    """Seconds and MiB on this machine, medians of several processes where one is not enough.

    Attributes:
        import_stzoo, import_torch: of the bare imports.
        first_forecast: from torch being imported to the first answer.
        latency, latency_p90: of one `predict` on one clip, once warm.
        memory_20, memory_1000: peak resident memory of a process that streams 20 and 1,000 frames.
    """

    model: str
    trained: bool
    import_stzoo: float
    import_torch: float
    first_forecast: float
    latency: float
    latency_p90: float
    memory_20: float
    memory_1000: float

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.model}{'' if self.trained else ' (random weights)'}",
                f"  import stzoo                    {self.import_stzoo * 1000:8.1f} ms",
                f"  import torch                    {self.import_torch * 1000:8.1f} ms",
                f"  first forecast after torch      {self.first_forecast * 1000:8.1f} ms",
                f"  predict, one clip, median (p90) {self.latency * 1000:8.1f} ms ({self.latency_p90 * 1000:.1f})",
                f"  peak memory, 20 frames          {self.memory_20:8.1f} MiB",
                f"  peak memory, 1,000 frames       {self.memory_1000:8.1f} MiB",
            ]
        )


def benchmark(name: str, repeats: int = 5) -> Benchmark:
    """Measure the forecaster `name` of the catalogue, with random weights where it has no trained ones."""
    from stzoo.catalog import info
    from stzoo.models import check_kind

    check_kind(info(name).spec, "forecaster", name)
    trained = info(name).weights is not None
    times = json.loads(_run(_LATENCY.format(name=name, trained=trained)))
    return Benchmark(
        name,
        trained,
        _median(_IMPORT.format("stzoo"), repeats),
        _median(_IMPORT.format("torch"), repeats),
        _median(_FIRST.format(name=name, trained=trained), repeats),
        statistics.median(times),
        times[int(len(times) * 0.9)],
        _median(_MEMORY.format(name=name, trained=trained, steps=20), 3),
        _median(_MEMORY.format(name=name, trained=trained, steps=1000), 3),
    )


def _median(code: str, repeats: int) -> float:
    return statistics.median(float(_run(code)) for _ in range(repeats))


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
