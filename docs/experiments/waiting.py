"""What threads do while they wait, on a quiet and on a busy machine: forecasts of one clip, in float32.

    python docs/experiments/waiting.py tau-mmnist tau-ut simvp-mmnist

Each setting has processes of its own, which take turns with those of all others; a row has the medians over the turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SETTINGS: dict[str, dict[str, str]] = {
    "as stzoo sets it": {},
    "300 spins": {"GOMP_SPINCOUNT": "300"},
    "10,000 spins": {"GOMP_SPINCOUNT": "10000"},
    "300,000 spins, as torch has it": {"GOMP_SPINCOUNT": "300000"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
FORECASTS = """
import json, sys, time
import numpy as np
import stzoo
model = stzoo.load(sys.argv[1])
spec = model.spec
past = np.random.default_rng(0).random((spec.frames_in, spec.height, spec.width), np.float32)
times = []
for _ in range(int(sys.argv[2]) + 5):
    start = time.perf_counter()
    model.predict(past)
    times.append(time.perf_counter() - start)
print(json.dumps(times[5:]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare how threads wait, on a quiet and on a busy machine.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--forecasts", type=int, default=40, help="in each process")
    parser.add_argument("--busy", type=int, default=1, help="how many cores another program keeps busy")
    options = parser.parse_args()
    for model in options.models:
        found: dict[tuple[str, int], list[list[float]]] = {}
        for _ in range(options.turns):
            for cores in (0, options.busy):
                with busy(cores):
                    for name, environment in SETTINGS.items():
                        found.setdefault((name, cores), []).append(times(model, options.forecasts, environment))
        print_table(model, found, options.busy)


def times(model: str, count: int, environment: dict[str, str]) -> list[float]:
    """Seconds of each forecast, in a process with this setting."""
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")}
    command = [sys.executable, "-c", FORECASTS, model, str(count)]
    done = subprocess.run(command, env=clean | environment, check=True, text=True, stdout=subprocess.PIPE)
    return list(json.loads(done.stdout))


@contextmanager
def busy(cores: int) -> Iterator[None]:
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def print_table(model: str, found: dict[tuple[str, int], list[list[float]]], cores: int) -> None:
    medians = {key: statistics.median(map(statistics.median, each)) for key, each in found.items()}
    late = {key: statistics.median(sorted(each)[int(0.95 * len(each))] for each in one) for key, one in found.items()}
    best = {state: min(m for (_, s), m in medians.items() if s == state) for state in (0, cores)}
    head = "ms | 95 of 100 below | over the best"
    print(f"\n| {model} | quiet: {head} | {cores} busy: {head} |")
    print("|---|---|---|---|---|---|---|")
    for name in SETTINGS:
        both = [(name, state) for state in (0, cores)]
        cells = [f"{1e3 * medians[k]:.1f} | {1e3 * late[k]:.1f} | {medians[k] / best[k[1]]:.2f}" for k in both]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
