"""Compare the memory that stzoo estimates with the memory that a process really takes.

    python docs/experiments/memory.py train [NAME ...]
    python docs/experiments/memory.py forecast [NAME ...]

Every line is a process of its own. "measured" is by how much its resident memory grew at the most after everything was
imported: in two training steps (gradients, optimiser and averaged weights included), or in a forecast. The batch is the
recipe's or less, so that a step needs at most --at-most GB, and the plain module is trained, without fused kernels. A
forecast is of one clip with frames of --size pixels.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import torch

import stzoo
from stzoo import catalog
from stzoo.catalog import Entry
from stzoo.data import Clip
from stzoo.engine.memory import GB, forecast_bytes
from stzoo.machine import PRECISIONS, Precision
from stzoo.train.assignment import Assignment
from stzoo.train.memory import TrainingMemory, training_memory
from stzoo.train.processes import Processes
from stzoo.train.recipe import Recipe, read_recipe
from stzoo.train.run import Run


@dataclasses.dataclass(frozen=True)
class Noise:
    """Clips of noise, of the shape that a spec and a recipe ask for."""

    shape: tuple[int, ...]
    past: int

    def __len__(self) -> int:
        return 1 << 20

    def clips(self, start: int, stop: int) -> Clip:
        frames = torch.rand(stop - start, *self.shape, generator=torch.Generator().manual_seed(start))
        return Clip(frames[:, : self.past], frames[:, self.past :])


def estimate(entry: Entry, at_most: float, precision: Precision | None) -> tuple[Recipe, TrainingMemory]:
    """The recipe with the largest batch whose step needs at most `at_most` GB, and the estimate."""
    recipe = dataclasses.replace(read_recipe(entry.name), cached_clips=0, fused=False)
    recipe = dataclasses.replace(recipe, precision=precision or recipe.precision)
    one = training_memory(entry.spec, recipe, 1)
    batch = max(1, min(recipe.batch, int((at_most * GB - one.fixed) // one.clip)))
    recipe = dataclasses.replace(recipe, batch=batch)
    return recipe, training_memory(entry.spec, recipe, batch)


def train(entry: Entry, recipe: Recipe) -> None:
    """Take two steps."""
    spec = entry.spec
    frames = spec.frames_in + (recipe.horizon or spec.frames_out)
    clips = Noise((frames, spec.channels, spec.height, spec.width), spec.frames_in)
    codec = None
    if entry.codec is not None:
        codec = stzoo.load_codec(entry.codec.entry, pretrained=False)
    run = Run(Assignment(spec, recipe, clips, codec=codec), Processes(torch.device("cpu")))
    for _ in range(2):
        run.advance(100)


def forecast(entry: Entry, size: int) -> None:
    """Forecast one clip with frames of size x size pixels."""
    spec = entry.spec
    low, high = spec.value_range or (0.0, 1.0)
    past = low + (high - low) * torch.rand(1, spec.frames_in, spec.channels, size, size)
    stzoo.create(entry.name).predict(past)


def resident(what: str) -> int:
    """VmRSS, the resident memory of this process, or VmHWM, the most that it was, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def one(kind: str, entry: Entry, at_most: float, size: int, precision: Precision | None) -> None:
    """One line of the table, in this process."""
    if kind == "train":
        recipe, estimated = estimate(entry, at_most, precision)
        need, what = estimated.total, f"batch {recipe.batch} {recipe.precision}"
    else:
        need, what = forecast_bytes(entry.spec, 1, (size, size)), f"{size}x{size} float32"
    torch.rand(8, 8) @ torch.rand(8, 8)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    before = resident("VmRSS")
    if kind == "train":
        train(entry, recipe)
    else:
        forecast(entry, size)
    took = resident("VmHWM") - before
    print(f"{entry.name:26} {what:18} {need / GB:9.2f} {took / GB:9.2f} {need / took - 1:+8.0%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("train", "forecast"))
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--at-most", type=float, default=3.0, metavar="GB")
    parser.add_argument("--size", type=int, default=256, metavar="PIXELS")
    parser.add_argument("--precision", choices=PRECISIONS, help="of training (default: that of the recipe)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_intermixed_args()
    entries = [catalog.info(name) for name in arguments.names] or list(catalog.entries().values())
    if arguments.here:
        one(arguments.kind, entries[0], arguments.at_most, arguments.size, arguments.precision)
        return
    print(f"{'model':26} {'':18} {'estimate':>9} {'measured':>9} {'error':>8}   GB", flush=True)
    for entry in entries:
        if arguments.kind == "forecast" and entry.kind == "codec":
            continue
        options = ["--at-most", str(arguments.at_most), "--size", str(arguments.size), "--here"]
        options += [] if arguments.precision is None else ["--precision", arguments.precision]
        command = [sys.executable, "-P", __file__, arguments.kind, entry.name, *options]
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True)
        print(done.stdout.strip() or f"{entry.name}: {done.stderr.strip().splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    main()
