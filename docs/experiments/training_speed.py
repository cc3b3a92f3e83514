"""How fast a training step is, and what it holds: two ways of taking it, in turns (tables of docs/training-speed.md).

  python docs/experiments/training_speed.py cpu  the recipe against the plain loop
  python docs/experiments/training_speed.py cpu --against no-allocator  freed memory goes back to the system
  python docs/experiments/training_speed.py gpu --of tunables  glibc's allocator set by the environment, in huge pages
  python docs/experiments/training_speed.py cpu --of spin-10000 --against spin-300000 --busy 1  how threads wait
  python docs/experiments/training_speed.py simvp-mmnist --precision float32 --batch 4  on a CPU without bfloat16
  python docs/experiments/training_speed.py cpu --of overlapped --against recipe  the next batch made meanwhile
  python docs/experiments/training_speed.py predrnn-mmnist --of checkpoint --against whole
  python docs/experiments/training_speed.py predrnn-mmnist --against all-products --precision float32 --batch 8
  python docs/experiments/training_speed.py predrnn-mmnist --denormals --batch 4 --pairs 1  a backward pass of denormals

The model is an entry of the catalogue, "cpu" (tau-mmnist at hid_t 256) or "gpu" (TAU at hid_s 32, hid_t 256, n_s 4,
n_t 8), and is trained on digits drawn with a font, these two by the recipe tau-mmnist-cpu. Each way has a process of
its own. The two take steps in turns, so that whatever else the machine does slows down both. Printed is the median of
the ratios of pairs. Both start alike and see the same clips, so that their losses compare. Memory is what a process
grew by while it stepped. CPU seconds count the time of all threads, also of those that wait for others.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

import stzoo
from stzoo.data import ClipSource
from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.machine import PRECISIONS, Precision
from stzoo.spec import ModelSpec
from stzoo.train import Recipe, default_device, read_recipe
from stzoo.train.allocator import memory_kept
from stzoo.train.assignment import Assignment
from stzoo.train.clips import ENDLESS, Ahead, endless
from stzoo.train.denormals import denormals_flushed
from stzoo.train.objectives import objective
from stzoo.train.processes import Processes
from stzoo.train.run import Run
from stzoo.train.winograd import WinogradConv

WARM_UP = 2  # steps of each way that do not count
TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"
PLAIN: dict[str, Any] = {"precision": "float32", "channels_last": False, "fused": False, "compile": False}


@dataclass(frozen=True)
class Way:
    """How steps are taken: what is changed in the recipe, and what is done around them."""

    changes: dict[str, Any]
    environment: dict[str, str]
    flushed: bool = True
    kept: bool = True
    overlapped: bool = False
    fewer: bool = True  # products in convolutions, where the recipe has that


WAYS = {
    "plain": Way(PLAIN, {}, flushed=False, kept=False, fewer=False),
    "recipe": Way({}, {}),
    "no-allocator": Way({}, {}, kept=False),
    "tunables": Way({}, {"GLIBC_TUNABLES": TUNABLES}),
    "passive": Way({}, {"OMP_WAIT_POLICY": "passive"}),
    "spin-10000": Way({}, {"GOMP_SPINCOUNT": "10000"}),
    "spin-300000": Way({}, {"GOMP_SPINCOUNT": "300000"}),
    "overlapped": Way({}, {}, overlapped=True),
    "all-products": Way({}, {}, fewer=False),
    "whole": Way({"fused": False}, {}),
    "checkpoint": Way({"fused": False, "checkpoint": True}, {}),
}

SIZES: dict[str, Callable[[], ModelSpec]] = {
    "cpu": lambda: stzoo.info("tau-mmnist").spec.replace(hid_t=256),
    "gpu": lambda: stzoo.info("tau-mmnist-paper").spec.replace(hid_s=32, hid_t=256),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--of", choices=WAYS, default="recipe")
    parser.add_argument("--against", choices=WAYS, default="plain")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--precision", choices=PRECISIONS, help="instead of the recipe's")
    parser.add_argument("--busy", type=int, default=0, help="how many processes count meanwhile, each on a core")
    parser.add_argument("--denormals", action="store_true")
    parser.add_argument(
        "--alone", choices=WAYS, help="take a step for each line of stdin; the script calls itself with it"
    )
    arguments = parser.parse_args()
    spec, recipe = model(arguments.model, arguments.batch, arguments.precision)
    if arguments.alone is not None:
        alone(spec, recipe, WAYS[arguments.alone])
    elif arguments.denormals:
        denormals(spec, recipe, arguments.pairs)
    else:
        in_turns(arguments)


def model(name: str, batch: int, precision: Precision | None) -> tuple[ModelSpec, Recipe]:
    recipe = read_recipe("tau-mmnist-cpu" if name in SIZES else name)
    spec = SIZES[name]() if name in SIZES else stzoo.info(name).spec
    return spec, dataclasses.replace(recipe, batch=batch, precision=precision or recipe.precision)


def digits(spec: ModelSpec, device: str) -> ClipSource:
    return endless(MovingDigits(drawn_digits(), 0, ENDLESS, spec.frames_in, spec.frames_out), spec, "none", 0, device)


def in_turns(arguments: argparse.Namespace) -> None:
    names = (arguments.of, arguments.against)
    command = [sys.executable, __file__, arguments.model, "--batch", str(arguments.batch)]
    command += ["--precision", arguments.precision] if arguments.precision else []
    processes = [
        subprocess.Popen(
            [*command, "--alone", name], env=os.environ | WAYS[name].environment, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in names
    ]  # fmt: skip
    counting = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(arguments.busy)]
    taken: list[list[dict[str, float]]] = []
    for i in range(WARM_UP + arguments.pairs):
        order = (0, 1) if i % 2 else (1, 0)
        pair = dict(zip(order, (step(processes[k]) for k in order), strict=True))
        if i >= WARM_UP:
            taken.append([pair[0], pair[1]])
    for process in processes:
        process.communicate()
    for counter in counting:
        counter.kill()
    for k, name in enumerate(names):
        seconds, cpu = (statistics.median(pair[k][key] for pair in taken) for key in ("seconds", "cpu"))
        print(
            f"{name:12} {seconds:8.3f} s a step, {arguments.batch / seconds:8.1f} sequences/s, {cpu:8.3f} CPU seconds, "
            f"{taken[-1][k]['memory']:7,.0f} MiB"
        )
    ratios, by_cpu = ([against[key] / of[key] for of, against in taken] for key in ("seconds", "cpu"))
    print(
        f"{names[0]} takes steps {statistics.median(ratios):.2f} times as fast as {names[1]} "
        f"({min(ratios):.2f} to {max(ratios):.2f} in pairs; {statistics.median(by_cpu):.2f} by CPU seconds)"
    )
    apart = max(abs(of["loss"] / against["loss"] - 1) for of, against in taken)
    print(f"their losses differ by at most {apart:.1e} of their value in {arguments.pairs} steps")


def step(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    found: dict[str, float] = json.loads(process.stdout.readline())
    return found


def alone(spec: ModelSpec, recipe: Recipe, way: Way) -> None:
    device = default_device()
    source, end = digits(spec, device), ENDLESS
    with Ahead(source, end, recipe.batch, device == "cuda") if way.overlapped else nullcontext(source) as clips:
        assignment = Assignment(spec, dataclasses.replace(recipe, **way.changes), clips)
        run = Run(assignment, Processes(torch.device(device)))
        if not way.fewer and any(isinstance(m, WinogradConv) for m in _modules(run.fast)):
            run.fast = run.part
        before = held(run.device)
        with denormals_flushed() if way.flushed else nullcontext(), memory_kept() if way.kept else nullcontext():
            for _ in sys.stdin:
                start, cpu = time.perf_counter(), time.process_time()
                loss = run.advance(1_000_000).item()
                seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
                memory = held(run.device) - before
                print(json.dumps({"seconds": seconds, "cpu": cpu, "memory": memory, "loss": loss}), flush=True)


def _modules(form: Any) -> list[torch.nn.Module]:
    """The modules of a form in which a step computes; other forms than modules hold none that are asked for here."""
    return list(form.modules()) if isinstance(form, torch.nn.Module) else []


def held(device: torch.device) -> float:
    """The most this process has held, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def denormals(spec: ModelSpec, recipe: Recipe, turns: int) -> None:
    """Backward passes of a recurrent model through two steps, in float32, by threads that were there before.

    Their gradients are ordinary, or so small that they become denormal on their way.
    """
    recipe = dataclasses.replace(recipe, **PLAIN)
    run = Run(Assignment(spec, recipe, digits(spec, "cpu")), Processes(torch.device("cpu")))
    run.fast = run.part
    clip = run.batches.batch(0, recipe.batch)
    past, future = clip.past[:, :2], clip.future[:, :1]

    def backward(scale: float, around: Callable[[], AbstractContextManager[None]]) -> float:
        loss = objective(run.fast, run.part, run.part_spec, recipe, past, future, 0.1) * scale
        with around():
            start = time.perf_counter()
            loss.backward()
            seconds = time.perf_counter() - start
        run.module.zero_grad()
        return seconds

    ways: dict[str, tuple[float, Callable[[], AbstractContextManager[None]]]] = {
        "ordinary gradients": (1.0, nullcontext),
        "denormal gradients": (1e-29, nullcontext),
        "flushed by the calling thread": (1e-29, Calling),
        "flushed by every thread": (1e-29, denormals_flushed),
    }
    backward(1.0, nullcontext)  # warms up, and starts the threads
    taken = [{name: backward(*way) for name, way in ways.items()} for _ in range(turns)]
    for name in ways:
        ratio = statistics.median(turn[name] / turn["ordinary gradients"] for turn in taken)
        print(f"{name:30} {statistics.median(turn[name] for turn in taken):8.3f} s, {ratio:6.2f} times")


class Calling(AbstractContextManager[None]):
    """What torch offers by itself."""

    def __enter__(self) -> None:
        torch.set_flush_denormal(True)

    def __exit__(self, *error: object) -> None:
        torch.set_flush_denormal(False)


if __name__ == "__main__":
    main()
