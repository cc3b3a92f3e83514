"""From a `Setting` to its `BenchmarkReport`: first fresh processes, then passes that are timed in turns."""

from __future__ import annotations

import math
import platform
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stzoo import __version__
from stzoo.benchmark import fresh
from stzoo.benchmark.counting import bytes_moved, macs
from stzoo.benchmark.report import BenchmarkReport, Machine, PlainFigures
from stzoo.benchmark.setting import Setting, load_for
from stzoo.benchmark.timing import WARM_UP, Limits, Pass, captured, take_turns
from stzoo.engine.forking import set_threads
from stzoo.engine.memory import check_kept
from stzoo.forecaster import Forecaster
from stzoo.frames.values import noise, normalise
from stzoo.machine import Precision
from stzoo.threads import WAITING
from stzoo.unroll import unroll


def benchmark(setting: Setting, *, progress: bool = False) -> BenchmarkReport:
    """Measure a forecaster on this machine.

    What is timed is ``list(model.engine.unroll(past, steps))``: normalised noise in, frames out, after a warm-up.

    Args:
        setting: what is measured.
        progress: show a progress bar while passes are timed.

    Raises:
        SpecError: the source is a codec, which forecasts nothing.
        UnknownModelError, WeightsError: the source cannot be opened, as in `stzoo.load`.
        MemoryNeededError: there is no memory for the frames of a pass.
        StzooError: a fresh process failed, for example for lack of memory.
    """
    model = load_for(setting)
    steps = setting.steps or model.spec.frames_out
    place, frame = torch.device(setting.device), (model.spec.channels, model.spec.height, model.spec.width)
    check_kept(setting.batch, model.spec.frames_in + steps, frame, place, size=4)
    with _threads(setting.threads):
        start, memory = fresh.measure_start(setting), fresh.measure_memory(setting, steps)
        streams = [fresh.measure_streaming(setting, n) for n in (20, 1000)] if setting.stream else [None, None]
        past = normalise(noise(model.spec, setting.batch).to(setting.device), model.spec)
        runs, answers = _warm(_runs(model, past, steps, setting))
        limits = Limits(past.device)
        seconds = take_turns(runs, limits, past.device, setting.repeats, progress)
        machine = _machine(setting.device, limits)
    work = macs(model.spec, steps)

    def speed(name: str, precision: Precision) -> dict[str, Any]:
        moved = bytes_moved(model.spec, setting.batch, steps, precision)
        return _speed(seconds[name], setting.batch, 2 * work * setting.batch, moved, limits.peak[precision])

    figures = speed("model", model.engine.precision)
    graph = statistics.median(seconds["graph"]) * 1e3 if "graph" in seconds else math.inf
    return BenchmarkReport(
        model=setting.source,
        trained=model.report.sha256 is not None,
        parameters=sum(p.numel() for p in model.module.parameters()),
        precision=model.engine.precision,
        backend=model.engine.backend,
        batch=setting.batch,
        frames_in=model.spec.frames_in,
        steps=steps,
        passes=len(seconds["model"]),
        graph_latency_median_ms=graph if graph < figures["latency_median_ms"] else None,
        macs_per_clip=work,
        memory_above_import_mib=memory.above,
        memory_mib=memory.whole,
        cuda_memory_mib=memory.cuda,
        import_stzoo_ms=start.import_stzoo * 1e3,
        import_torch_ms=start.import_torch * 1e3,
        first_forecast_ms=start.first_forecast * 1e3,
        stream_20_mib=streams[0],
        stream_1000_mib=streams[1],
        plain=_beside(seconds, answers, speed("plain", "float32")) if setting.against_plain else None,
        machine=machine,
        command=replace(
            setting, precision=model.engine.precision, backend=model.engine.backend, threads=machine.threads
        ).command,
        **figures,
    )


def _speed(seconds: Sequence[float], batch: int, flops: int, moved: int, peak: float) -> dict[str, Any]:
    """The fields that `BenchmarkReport` and `PlainFigures` share.

    Args:
        seconds: of each pass.
        batch: clips in a pass.
        flops: floating-point operations of a pass.
        moved: bytes that a pass moves at least.
        peak: the machine's peak in TFLOP/s.
    """
    median = statistics.median(seconds)
    return {
        "latency_median_ms": median * 1e3,
        "latency_p90_ms": _quantile(seconds, 0.9) * 1e3,
        "clips_per_second": batch / median,
        "achieved_tflops": flops / median / 1e12,
        "peak_share": flops / median / 1e12 / peak,
        "bytes_per_pass": moved,
        "intensity": flops / moved,
    }


def _beside(
    seconds: Mapping[str, Sequence[float]], answers: Mapping[str, Tensor], figures: Mapping[str, Any]
) -> PlainFigures:
    """The plain module beside the model. Ratios are taken pass by pass, so that a drift of the machine cancels.

    Args:
        seconds: of the passes of "model" and of "plain".
        answers: of both, (steps, B, C, H, W).
        figures: what `_speed` says of the plain module.
    """
    ratios = [b / a for a, b in zip(seconds["model"], seconds["plain"], strict=True)]
    off, plain = answers["model"] - answers["plain"], answers["plain"]
    return PlainFigures(
        ratio_median=statistics.median(ratios),
        ratio_p10=_quantile(ratios, 0.1),
        ratio_p90=_quantile(ratios, 0.9),
        difference=_finite(off.abs().max() / plain.abs().max()),
        difference_rms=_finite(off.square().mean().sqrt() / plain.square().mean().sqrt()),
        **figures,
    )


def _finite(value: Tensor) -> float | None:
    return value.item() if value.isfinite() else None


def _runs(model: Forecaster, past: Tensor, steps: int, setting: Setting) -> dict[str, Pass]:
    """What takes turns: the model as users run it and, if that is asked for, its plain module."""

    def plain() -> list[Tensor]:
        with torch.no_grad():
            return list(unroll(model.module, model.spec, past, steps))

    runs: dict[str, Pass] = {"model": lambda: list(model.engine.unroll(past, steps))}
    return runs | ({"plain": plain} if setting.against_plain else {})


def _warm(runs: dict[str, Pass]) -> tuple[dict[str, Pass], dict[str, Tensor]]:
    """The runs after a few passes, on a GPU with a CUDA graph of the model; and their answers (steps, B, C, H, W)."""
    answers: dict[str, Tensor] = {}
    for name, run in runs.items():
        for _ in range(WARM_UP):
            answers[name] = torch.stack(run())
    graph = captured(runs["model"]) if answers["model"].device.type == "cuda" else None
    return runs | ({} if graph is None else {"graph": graph}), answers


@contextmanager
def _threads(wanted: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    set_threads(wanted or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _quantile(values: Sequence[float], share: float) -> float:
    """The quantile at a share from 0 to 1, which is one of the values: the nearest by rank."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _machine(device: str, limits: Limits) -> Machine:
    return Machine(
        processor=torch.cuda.get_device_name() if device == "cuda" else _processor(),
        device=device,
        threads=torch.get_num_threads(),
        waiting=WAITING,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        stzoo=__version__,
        peak_tflops=dict(limits.peak),
        peak_size=dict(limits.size),
        copy_gb_per_second=limits.bandwidth,
    )


def _processor() -> str:
    """The name of the processor: from /proc/cpuinfo on Linux, elsewhere what Python knows of it."""
    try:
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except OSError:
        named = None
    return " ".join(named[1].split()) if named else platform.processor() or platform.machine()
