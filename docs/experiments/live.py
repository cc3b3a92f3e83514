"""The measurements of docs/live.md.

    python docs/experiments/live.py carry MODEL ... --mnist DIR [--clips N]
    python docs/experiments/live.py missing MODEL ... --mnist DIR [--clips N]
    OMP_NUM_THREADS=1 python docs/experiments/live.py pace MODEL ...
    python docs/experiments/live.py memory simvp convlstm [--pushes N]

carry lets recurrent models read long clips of moving MNIST digits, and forecasts ten frames after some of them in two
ways: from the state that was carried over all frames, and from the last ten frames alone, as `predict` does.

missing leaves out the newest frames of clips, and puts in their place the model's own forecast, or the frame before.

pace prints how long a push takes, and how long `predict` takes for the same forecast.

memory pushes 100,000 frames into a small model of an architecture, and prints the memory of the process on the way.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

import stzoo
from stzoo.data.mmnist import MovingDigits, protocol_set
from stzoo.forecaster import Forecaster
from stzoo.spec import ModelSpec

SEED = 7  # of the clips, which no model was trained on: their digits are those of the test set
TIMES = 5  # each thing is timed so often
AFTER = (10, 12, 15, 20, 30, 50, 100, 200, 300, 500, 700, 1000)


def clips(mnist: Path, count: int, frames: int) -> Tensor:
    """(count, frames, 1, 64, 64) in [0, 1]."""
    digits = MovingDigits(protocol_set(mnist).digits, SEED, count, frames, 0)
    return digits.sequences(0, count)[:, :, None].float() / 255


def carry(model: Forecaster, name: str, mnist: Path, count: int) -> None:
    """A row for each number of frames read: squared error, summed over a frame, of both ways."""
    frames = clips(mnist, count, AFTER[-1] + 10)
    state = None
    for t in range(1, AFTER[-1] + 1):
        state = model.engine.read_on(frames[:, t - 1 : t], state)
        if t in AFTER:
            truth = frames[:, t : t + 10]
            fresh = model.engine.read_on(frames[:, t - 10 : t])
            errors = [error(torch.stack(list(model.engine.unroll_from(s, 10)), 1), truth) for s in (state, fresh)]
            print(f"| `{name}` | {t} | {errors[0]:.1f} | {errors[1]:.1f} |", flush=True)


def missing(model: Forecaster, name: str, mnist: Path, count: int) -> None:
    """A row for each number of missing frames: the error of the ten frames after them, filled in both ways."""
    frames = clips(mnist, count, 30)
    for absent in (1, 2, 3, 5):
        errors = [0.0, 0.0]
        for clip in frames:
            known, truth = clip[: 20 - absent], clip[20:]
            live = model.live()
            for frame in known[-model.spec.frames_in :]:
                live.read(frame)
            for _ in range(absent):
                live.read(None)
            repeated = torch.cat([known, known[-1:].expand(absent, -1, -1, -1)])
            for way, forecast in enumerate((live.forecast(10), model.rollout(repeated, 10))):
                errors[way] += error(forecast[None], truth[None]) / count
        print(f"| `{name}` | {absent} | {errors[0]:.1f} | {errors[1]:.1f} |", flush=True)


def error(forecast: Tensor, truth: Tensor) -> float:
    """(B, T, C, H, W) each -> squared error, summed over a frame, mean over all frames."""
    return (forecast.clamp(0, 1) - truth).square().sum((2, 3, 4)).mean().item()


def pace(model: Forecaster, name: str) -> None:
    """A row: milliseconds of a push with a forecast, of a push that is only read, and of `predict`. Medians.

    It is the time of the processor that counts, so that other work on the machine does not.
    """
    spec = model.spec
    frames = torch.rand(spec.frames_in + 1 + TIMES, spec.channels, spec.height, spec.width)
    live = model.live()
    for frame in frames[: spec.frames_in + 1]:
        live.push(frame)
    pushes, reads, predicts = [], [], []
    for number in range(spec.frames_in + 1, len(frames)):
        start = time.process_time()
        live.read(frames[number])
        reads.append(time.process_time() - start)
        live.forecast()
        pushes.append(time.process_time() - start)
        start = time.process_time()
        model.predict(frames[number + 1 - spec.frames_in : number + 1])
        predicts.append(time.process_time() - start)
    found = [1000 * sorted(times)[len(times) // 2] for times in (pushes, reads, predicts)]
    print(f"| `{name}` | {found[0]:.1f} | {found[1]:.2f} | {found[2]:.1f} |", flush=True)


SMALL = {
    "simvp": {"hid_s": 2, "hid_t": 4, "n_s": 1, "n_t": 2},
    "convlstm": {"layers": 1, "hidden": 2, "kernel": 3, "patch": 4},
}


def memory(arch: str, pushes: int) -> None:
    """A line for each tenth of the pushes: the memory of the process in MB (10^6 bytes)."""
    size = {"frames_in": 2, "frames_out": 2, "channels": 1, "height": 8, "width": 8}
    live = stzoo.create(ModelSpec(arch=arch, params=SMALL[arch], **size)).live()  # type: ignore[arg-type]
    frames = torch.rand(10, 8, 8)
    start = time.perf_counter()
    for number in range(1, pushes + 1):
        live.push(frames[number % 10])
        if number % (pushes // 10) == 0 or number == pushes // 100:
            each = (time.perf_counter() - start) / number
            print(f"{arch}: {number:7,} pushes, {resident():.1f} MB, {1000 * each:.2f} ms each", flush=True)


def resident() -> float:
    """The memory of this process, in MB (10^6 bytes). Only Linux tells it here."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("carry", "missing", "pace", "memory"))
    parser.add_argument("models", nargs="*")
    parser.add_argument("--mnist", type=Path, help="folder of the MNIST files")
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--pushes", type=int, default=100_000)
    arguments = parser.parse_args()
    for name in arguments.models:
        if arguments.what == "memory":
            memory(name, arguments.pushes)
            continue
        model = stzoo.load(name)
        if arguments.what == "pace":
            pace(model, name)
        else:
            {"carry": carry, "missing": missing}[arguments.what](model, name, arguments.mnist, arguments.clips)


if __name__ == "__main__":
    main()
