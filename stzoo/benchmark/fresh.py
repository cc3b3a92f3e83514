"""What only a fresh process can tell: how long the first forecast takes, and how much memory a forecast needs.

Imports no torch: the functions that run in such a process stand here, too, and there the import of torch is timed.
"""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stzoo import environment
from stzoo.benchmark.setting import Setting, load_for
from stzoo.errors import StzooError, printable

_STARTS = 3  # fresh processes; their median counts
_START = """
import json, time
times = [time.perf_counter()]
import stzoo
times.append(time.perf_counter())
import torch
times.append(time.perf_counter())
from stzoo.benchmark import fresh
fresh.first_forecast({setting})
times.append(time.perf_counter())
print(json.dumps([b - a for a, b in zip(times, times[1:])]))
"""
_CALL = "import json; from stzoo.benchmark import fresh; print(json.dumps(fresh.{function}({setting}, {steps})))"


@dataclass(frozen=True)
class StartTimes:
    """How long a fresh process takes, in seconds.

    Attributes:
        import_stzoo: for `import stzoo`.
        import_torch: for `import torch`.
        first_forecast: from then to the first answer of `predict` for one clip, including the loading of the model.
    """

    import_stzoo: float
    import_torch: float
    first_forecast: float


@dataclass(frozen=True)
class PeakMemory:
    """Peak memory of a process that makes one forecast, in MiB.

    Attributes:
        above: resident memory beyond what the process had once torch and stzoo were imported.
        whole: resident memory in all.
        cuda: memory that torch allocated on the GPU; None on the CPU.
    """

    above: float
    whole: float
    cuda: float | None


def measure_start(setting: Setting) -> StartTimes:
    """Medians over several fresh processes. Raises `StzooError` if one of them fails."""
    found = [_run(_START.format(setting=_plain(setting))) for _ in range(_STARTS)]
    return StartTimes(*(statistics.median(column) for column in zip(*found, strict=True)))


def measure_memory(setting: Setting, steps: int) -> PeakMemory:
    """Peak memory of a fresh process that makes one pass of `steps` frames. Raises `StzooError` if it fails."""
    return PeakMemory(**_run(_CALL.format(function="one_pass", setting=_plain(setting), steps=steps)))


def measure_streaming(setting: Setting, steps: int) -> float:
    """Peak MiB of a fresh process that streams `steps` frames of one clip. Raises `StzooError` if it fails."""
    return float(_run(_CALL.format(function="streaming", setting=_plain(setting), steps=steps)))


def _plain(setting: Setting) -> str:
    return repr(dataclasses.asdict(setting))


def _run(code: str) -> Any:
    safe = [] if environment.lies_here() else ["-P"]  # without it, `-c` takes code from the current folder
    done = subprocess.run([sys.executable, *safe, "-c", code], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it was ended from outside, perhaps for lack of memory"])[-1]
        raise StzooError(
            f"a fresh process that makes one forecast failed with code {done.returncode}: {printable(last)}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def first_forecast(values: dict[str, Any]) -> None:
    """In the fresh process: load the model, and forecast one clip of NumPy frames."""
    setting = _here(values)
    from stzoo.frames.values import noise

    model = load_for(setting)
    model.predict(noise(model.spec, 1).numpy())


def one_pass(values: dict[str, Any], steps: int) -> dict[str, float | None]:
    """In the fresh process: make one pass. Returns the fields of `PeakMemory`."""
    import torch

    import stzoo.forecaster  # noqa: F401  (imported first, so that it does not count as memory of the forecast)
    from stzoo.frames.values import noise, normalise

    before, setting = _resident("VmRSS"), _here(values)
    model = load_for(setting)
    past = normalise(noise(model.spec, setting.batch).to(setting.device), model.spec)
    for _ in model.engine.unroll(past, steps):
        pass
    cuda = torch.cuda.max_memory_allocated() / (1 << 20) if setting.device == "cuda" else None
    whole = _resident("VmHWM")
    return {"above": whole - before, "whole": whole, "cuda": cuda}


def streaming(values: dict[str, Any], steps: int) -> float:
    """In the fresh process: stream `steps` frames of one clip. Returns the peak memory in MiB."""
    from stzoo.frames.values import noise

    model = load_for(_here(values))
    for _ in model.stream(noise(model.spec, 1), steps):
        pass
    return _resident("VmHWM")


def _here(values: dict[str, Any]) -> Setting:
    import torch

    setting = Setting(**values)
    torch.set_num_threads(setting.threads or torch.get_num_threads())
    return setting


def _resident(line: str) -> float:
    """Resident memory of this process in MiB: now ("VmRSS"), or its peak until now ("VmHWM").

    Where there is no /proc, both are the peak. /proc comes first because on Linux a child's ru_maxrss begins at that of
    its parent.
    """
    try:
        status = Path("/proc/self/status").read_text("utf-8")
        return int(re.findall(rf"^{line}:\s+(\d+) kB$", status, re.MULTILINE)[0]) / 1024
    except (OSError, IndexError):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (1 << (20 if sys.platform == "darwin" else 10))
