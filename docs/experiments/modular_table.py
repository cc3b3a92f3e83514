"""Tables I and III of the modular design, redone on Moving MNIST: base, large and modular, side by side.

    python docs/experiments/modular_table.py --mnist DIR --iterations 60 --clips 100 --out runs/table

Each model is trained for the same number of iterations at the same batch, in a process of its own, by its recipe; then
it forecasts the same held-out clips, in bfloat16. Memory is what the process grew by, in the host's memory. The
script prints a Markdown table, and keeps what it measured in OUT/table.json.
"""

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import stzoo
from stzoo import catalog, metrics
from stzoo.data import mmnist
from stzoo.errors import StzooError
from stzoo.frames.values import to_units
from stzoo.train import default_device, read_recipe
from stzoo.train.assignment import Assignment
from stzoo.train.processes import Processes
from stzoo.train.run import Run
from stzoo.unroll import unroll

MODELS = {
    "PredRNN base": "predrnn-mmnist",
    "PredRNN large": "predrnn-large-mmnist",
    "PredRNN-modular": "predrnn-modular-mmnist",
    "TCTN base": "tctn-mmnist",
    "TCTN large": "tctn-large-mmnist",
    "TCTN-modular": "tctn-modular-mmnist",
}
WARM_UP = 3  # iterations that are not timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="measure one entry in this process; the script calls itself with it")
    arguments = parser.parse_args()
    if arguments.iterations <= WARM_UP:
        parser.error(f"--iterations is {arguments.iterations}; the first {WARM_UP} are not timed, so give more")
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments)))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = {}
    for title, name in MODELS.items():
        command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
        rows[title] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(title, rows[title], file=sys.stderr)
        (arguments.out / "table.json").write_text(json.dumps(rows, indent=2) + "\n")
    print(table(rows))


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train the entry, and forecast held-out clips with the trained weights (not averaged ones: runs are short)."""
    entry = catalog.info(name)
    codec = None if entry.codec is None else stzoo.load_codec(entry.codec.entry)
    recipe = dataclasses.replace(read_recipe(name), batch=arguments.batch)
    torch.set_flush_denormal(True)
    training = mmnist.training_set(arguments.mnist, 10, 10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assignment = Assignment(entry.spec, recipe, training, codec=codec)
    run = Run(assignment, Processes(torch.device(default_device())))
    for i in range(arguments.iterations):
        if i == WARM_UP:
            start = time.perf_counter()
        run.advance(arguments.iterations).item()
    seconds = (time.perf_counter() - start) / (arguments.iterations - WARM_UP) * 100
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

    clip = mmnist.validation_set(arguments.mnist, 10, 10).clips(0, arguments.clips)
    past, future = (to_units(x, entry.spec) for x in (clip.past, clip.future))
    with torch.no_grad(), torch.autocast(run.device.type, torch.bfloat16):
        module = run.module.eval()
        pieces = [torch.stack(list(unroll(module, entry.spec, x.to(run.device), 10)), 1) for x in past.split(8)]
    forecast, truth = torch.cat(pieces).float().cpu().numpy(), future.numpy()
    found = {m: float(np.nanmean(getattr(metrics, m)(forecast, truth))) for m in ("mse", "ssim", "sharpness")}
    try:
        found["lpips"] = float(metrics.lpips(forecast, truth).mean())
    except StzooError as error:
        print(f"no LPIPS: {error}", file=sys.stderr)
    parts = [sum(p.numel() for p in part.parameters()) for part in (run.part, run.module)]
    return found | {
        "parameters": parts[0], "codec_parameters": parts[1] - parts[0], "memory_mib": memory,
        "seconds_per_100": seconds, "sequences": arguments.iterations * arguments.batch,
    }  # fmt: skip


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The table as Markdown; a dash stands for what a row lacks."""
    lines = [
        "| model | parameters | MSE | SSIM | sharpness | LPIPS | training memory, MiB | seconds per 100 iterations |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for title, row in rows.items():
        codec = f" + {row['codec_parameters'] / 1e6:.2f} M" if row["codec_parameters"] else ""
        distance = f"{row['lpips']:.3f}" if "lpips" in row else "-"
        lines.append(
            f"| {title} | {row['parameters'] / 1e6:.2f} M{codec} | {row['mse']:.1f} | {row['ssim']:.3f} | "
            f"{row['sharpness']:.2f} | {distance} | {row['memory_mib']:,.0f} | {row['seconds_per_100']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
