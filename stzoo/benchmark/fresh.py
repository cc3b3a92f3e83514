"""What only a fresh process tells: how long the first forecast takes, and how much memory it all needs.

Imports no torch: the functions that run in such a process are found here before that is timed.
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

from stzoo.benchmark.setting import Setting, opened
from stzoo.errors import StzooError

_STARTS = 3  # processes whose median counts
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
class Start:
    """Seconds: of `import stzoo`, of `import torch`, and from there to the first answer of `predict`, one clip."""

    import_stzoo: float
    import_torch: float
    first_forecast: float


@dataclass(frozen=True)
class Memory:
    """MiB of a process that makes one forecast, at most.

    Attributes:
        above: resident, beyond what the process had once torch and stzoo were imported.
        whole: resident, in all.
        cuda: allocated by torch on the GPU; None on the CPU.
    """

    above: float
    whole: float
    cuda: float | None


def start(setting: Setting) -> Start:
    """Medians of several fresh processes."""
    found = [_run(_START.format(setting=_plain(setting))) for _ in range(_STARTS)]
    return Start(*(statistics.median(column) for column in zip(*found, strict=True)))


def memory(setting: Setting, steps: int) -> Memory:
    """Of a fresh process in which one pass of `steps` frames is all that is forecast."""
    return Memory(**_run(_CALL.format(function="one_pass", setting=_plain(setting), steps=steps)))


def stream_memory(setting: Setting, steps: int) -> float:
    """MiB, the peak in all, of a fresh process that streams `steps` frames of one clip."""
    return float(_run(_CALL.format(function="streaming", setting=_plain(setting), steps=steps)))


def _plain(setting: Setting) -> str:
    return repr(dataclasses.asdict(setting))


def _run(code: str) -> Any:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it was ended, perhaps for lack of memory"])[-1]
        raise StzooError(f"a fresh process that makes one forecast failed with code {done.returncode}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def first_forecast(values: dict[str, Any]) -> None:
    """In the fresh process: load, and forecast one clip of NumPy frames."""
    setting = _here(values)
    from stzoo.frames.values import noise

    model = opened(setting)
    model.predict(noise(model.spec, 1).numpy())


def one_pass(values: dict[str, Any], steps: int) -> dict[str, float | None]:
    """In the fresh process: the fields of `Memory`."""
    import torch

    import stzoo.forecaster  # noqa: F401  (what `opened` will need is no part of what the forecast takes)
    from stzoo.frames.values import noise, normalise

    before, setting = _resident("VmRSS"), _here(values)
    model = opened(setting)
    past = normalise(noise(model.spec, setting.batch).to(setting.device), model.spec)
    for _ in model.engine.unroll(past, steps):
        pass
    cuda = torch.cuda.max_memory_allocated() / (1 << 20) if setting.device == "cuda" else None
    whole = _resident("VmHWM")
    return {"above": whole - before, "whole": whole, "cuda": cuda}


def streaming(values: dict[str, Any], steps: int) -> float:
    """In the fresh process: peak MiB."""
    from stzoo.frames.values import noise

    model = opened(_here(values))
    for _ in model.stream(noise(model.spec, 1), steps):
        pass
    return _resident("VmHWM")


def _here(values: dict[str, Any]) -> Setting:
    import torch

    setting = Setting(**values)
    torch.set_num_threads(setting.threads or torch.get_num_threads())
    return setting


def _resident(line: str) -> float:
    """MiB of this process: now (VmRSS), or at most until now (VmHWM). Without /proc, the latter for both.

    /proc comes first because Linux lets a child's ru_maxrss begin at its parent's.
    """
    try:
        status = Path("/proc/self/status").read_text("utf-8")
        return int(re.findall(rf"^{line}:\s+(\d+) kB$", status, re.MULTILINE)[0]) / 1024
    except (OSError, IndexError):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (1 << (20 if sys.platform == "darwin" else 10))
