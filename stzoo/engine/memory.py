"""How much memory a model will take, estimated before it is taken, and how much of it there is.

A pass of the module over tensors that have shapes but no values adds up what is alive at the same time. It takes a
fraction of a second, and is left out where a rough bound already says that the memory is enough.
docs/experiments/memory.py compares the estimates with what processes really take.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stzoo import environment
from stzoo.engine.parts import parameters, parts
from stzoo.engine.shapes import CountingShapes
from stzoo.errors import MemoryNeededError
from stzoo.models import architecture_of, build
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

GB = 10**9
# what the tensors do not account for, by docs/experiments/memory.py: copies inside operations; threads and the like
COPIES, BESIDE = 1.15, 60_000_000
REPACKED = 1.6  # bytes of the engine's copies of weights, at most, for each of the weights': engine/winograd.py
ENOUGH = 2  # if a rough bound times this fits, nothing is estimated
SMALL = 200_000_000  # bytes; if a rough bound is less, it is not even asked how much memory there is
_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_V1, _V2 = ("memory.limit_in_bytes", "memory.usage_in_bytes"), ("memory.max", "memory.current")


@contextmanager
def without_values(spec: ModelSpec) -> Iterator[tuple[Any, CountingShapes]]:
    """Yields the module of `spec` with tensors that have no values, and what counts the bytes of all others.

    Inside the block no new tensor has values. The parameters are not counted.
    """
    module = build(spec, "meta")
    with CountingShapes() as alive:
        for part in module.modules():
            for name, p in part._parameters.items():
                if p is not None:
                    part._parameters[name] = nn.Parameter(torch.empty(p.shape, dtype=p.dtype), p.requires_grad)
            for name, b in part._buffers.items():
                if b is not None:
                    part._buffers[name] = torch.empty(b.shape, dtype=b.dtype)
        alive.now = alive.peak = 0
        yield module, alive


def weights_bytes(module: nn.Module) -> int:
    """The bytes of all parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in module.state_dict().values())


def forecast_bytes(spec: ModelSpec, clips: int, size: tuple[int, int], at_once: int | None = None) -> int:
    """About how much memory a forecast takes beside the model's own weights, in bytes, on a CPU in float32.

    Args:
        spec: the model.
        clips: how many clips are forecast together.
        size: height and width of the frames.
        at_once: how many of them go through the module together; all of them if None.
    """
    at_once = at_once or clips
    with torch.no_grad(), without_values(spec) as (module, alive):
        module.eval()
        frames = unroll(module, spec, torch.empty(at_once, spec.frames_in, spec.channels, *size, dtype=torch.float32))
        for _ in range(2):
            next(frames)
        waiting = alive.now * (clips - at_once) // at_once  # what all others keep between two frames
        return round(COPIES * alive.peak + REPACKED * weights_bytes(module)) + waiting + BESIDE


def widths(module: nn.Module) -> tuple[int, int]:
    """The largest number of channels that a layer of the module has, and their sum over all layers."""
    found = [max(p.shape[:2]) for p in parameters(parts(module)) if p.dim() > 1]
    return max(found, default=1), sum(found)


def rough_forecast_bytes(module: nn.Module, spec: ModelSpec, clips: int, size: tuple[int, int]) -> int:
    """More than a forecast takes: as if every layer were as wide as the widest, and had a pixel for each of a frame.

    For the models of the catalogue it is 2 to 60 times the estimate, whatever the size of the frames.
    """
    widest, together = widths(module)
    at_once = spec.frames_in * widest + (together // 8 if architecture_of(spec).kind == "sequential" else 0)
    return clips * size[0] * size[1] * at_once * 4


def check_forecast(module: nn.Module, spec: ModelSpec, past: Tensor, at_once: int) -> None:
    """Check before a forecast that there is memory for it.

    Args:
        module: the model, on the device where it runs.
        spec: its spec.
        past: (B, T, C, H, W), the frames that it is to continue.
        at_once: how many of the B clips go through the module together.

    Raises:
        MemoryNeededError: there is less than it needs, by the estimate.
    """
    size, device = (past.shape[-2], past.shape[-1]), past.device
    rough = rough_forecast_bytes(module, spec, len(past), size)
    limit = environment.memory()
    if limit is None and rough < SMALL:
        return
    have = available(device)
    if have is None or ENOUGH * rough < have:
        return
    try:
        need = forecast_bytes(spec, len(past), size, at_once)
    except Exception:  # a module that cannot be tried without values, or frames that it does not take
        return
    if need > have:
        raise MemoryNeededError(
            f"a forecast of {len(past)} x {spec.frames_in} frames of {size[0]}x{size[1]} needs about "
            f"{shown_bytes(need)} of memory, and {shown_bytes(have)} {where(device)}. What needs less: fewer clips at "
            "a time; smaller frames or a window cut from them; for images, videos and arrays resize=True, in commands "
            f"--size model. {TO_GO_ON}"
        )


def check_kept(clips: int, steps: int, frame: Sequence[int], device: torch.device, *, size: int = 1) -> None:
    """Check before a forecast that there is memory for the frames that are kept until its end.

    Args:
        clips: how many clips are forecast together.
        steps: frames of each forecast.
        frame: the sizes of a frame, (C, H, W).
        device: where the frames are kept.
        size: bytes of a value, at least.

    Raises:
        MemoryNeededError: they alone need more than there is.
    """
    need = clips * steps * math.prod(frame) * size
    if environment.memory() is None and need < SMALL:
        return
    have = available(device)
    if have is not None and need > have:
        raise MemoryNeededError(
            f"{clips:,} x {steps:,} frames of {frame[-2]}x{frame[-1]} need at least {shown_bytes(need)} of memory, and "
            f"{shown_bytes(have)} {where(device)}. What needs less: fewer steps, or fewer clips at a time; in Python "
            f"also Forecaster.stream, which keeps no frames. {TO_GO_ON}"
        )


TO_GO_ON = "To try it regardless, set STZOO_MEMORY to the number of GB (10^9 bytes) that may be used"


def shown_bytes(count: int) -> str:
    """A number of bytes as text, such as "1.4 GB"."""
    return f"{count / GB:.1f} GB"


def where(device: torch.device) -> str:
    """What `available` tells, as the end of a sentence."""
    limit = environment.memory()
    if limit is not None:
        return "may be used, as STZOO_MEMORY says"
    return f"are free on {device}" if device.type == "cuda" else "are free here"


def available(device: torch.device) -> int | None:
    """The bytes that may be taken: as STZOO_MEMORY says, or what is free; None if this cannot be told.

    On a GPU it is its free memory, with what torch holds in reserve. On a CPU it is what the system calls available, or
    what the control groups of this process (containers, batch systems) leave of their limits, if that is less.
    """
    limit = environment.memory()
    if limit is not None:
        return int(limit * GB)
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + reserve)
    if device.type != "cpu":
        return None
    try:
        lines = (_PROC / "meminfo").read_text("utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):  # not Linux
        return None
    return min([free, *_left_by_groups()])


def _left_by_groups() -> Iterator[int]:
    """For each control group around this process that limits memory, how much of its limit is left."""
    try:
        lines = (_PROC / "self" / "cgroup").read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        (limit, usage), root = (_V1, _CGROUPS / "memory") if controllers else (_V2, _CGROUPS)
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                try:
                    allowed, used = (int((folder / name).read_text()) for name in (limit, usage))
                    yield max(0, allowed - used + _cached_files(folder))
                except (OSError, ValueError):  # no such group inside a container; "max" for no limit
                    continue


def _cached_files(group: Path) -> int:
    """The bytes that count as used by a group, but that the system gives back at once: cached content of files."""
    numbers = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(numbers.get("total_inactive_file", numbers.get("inactive_file", 0)))


@contextmanager
def memory_errors_told(what: str) -> Iterator[None]:
    """Inside the block, running out of memory becomes a `MemoryNeededError` that says while doing `what`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryNeededError):
            raise
        text = str(error)
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text:
            reason = (text.splitlines() or ["no more can be had"])[0][:200]
            raise MemoryNeededError(f"there is not enough memory for {what}: {reason}") from error
        raise
