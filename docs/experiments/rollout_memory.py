"""What a long rollout takes in memory beyond a short one, for each kind of frames, and from the command line.

    python docs/experiments/rollout_memory.py [--model tau-mmnist] [--short 20] [--long 1000] [KIND ...]

Every figure is the peak of the resident memory of a process of its own. "beyond" is by how much the long rollout's peak
is higher than that of the short one, and "answer" the difference of what both hand out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import stzoo

CALLER = """
import sys, numpy as np, stzoo
kind, model, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
frames = np.load(sys.argv[4])
if kind == "torch":
    import torch
    frames = torch.from_numpy(frames)
if kind == "xarray":
    import xarray as xr
    frames = xr.DataArray(frames, dims=("time", "y", "x"), coords={"time": np.arange(len(frames))})
future = stzoo.load(model).rollout(frames, steps)
assert len(future) == steps
"""
KINDS = ("numpy", "torch", "xarray", ".npy", ".gif")  # the last two are files that the command line writes


def peak(command: list[str]) -> float:
    """The most resident memory of a process that runs the command, in MB."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command[:3])} ... failed")
    return used.ru_maxrss / 1000  # of KiB, on Linux


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", default=KINDS, help=f"of {', '.join(KINDS)}; default: all")
    parser.add_argument("--model", default="tau-mmnist")
    parser.add_argument("--short", type=int, default=20)
    parser.add_argument("--long", type=int, default=1000)
    asked = parser.parse_args()
    spec = stzoo.info(asked.model).spec
    shape = (spec.frames_in, spec.height, spec.width)
    answer = (asked.long - asked.short) * spec.height * spec.width / 1e6
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder, "past.npy")
        np.save(given, np.random.default_rng(0).integers(0, 256, shape, np.uint8))
        for kind in asked.kinds:
            peaks = []
            for steps in (asked.short, asked.long):
                out = ["--steps", str(steps), "-o", str(Path(folder, f"{steps}{kind}"))]
                called = [sys.executable, "-c", CALLER, kind, asked.model, str(steps), str(given)]
                typed = [sys.executable, "-m", "stzoo", "rollout", str(given), "--model", asked.model, *out]
                peaks.append(peak(typed if kind.startswith(".") else called))
            print(
                f"{kind:<7} {asked.short} frames {peaks[0]:.0f} MB, {asked.long} frames {peaks[1]:.0f} MB: "
                f"{peaks[1] - peaks[0]:.1f} MB beyond; answer {answer:.1f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
