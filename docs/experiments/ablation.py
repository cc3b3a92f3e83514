"""Models that learn from the same clips for as many steps, or for as long: which forecasts best?

    python docs/experiments/ablation.py --mnist DIR --steps 500 --out runs/ablation
    python docs/experiments/ablation.py --mnist DIR --minutes 60 --of tau-mmnist pfgnet-mmnist --out runs/race

By default these are the variants of TAU's Table 6, redone on Moving MNIST by `tau-mmnist` at hid_t 256: what each part
of the unit is worth. With --of they are entries of the catalogue, each trained by its recipe for two CPU cores.

With --minutes each has as many steps as fit into that time. How long a step of each takes is measured before, by steps
in turns, so that whatever else the machine does slows down all of them alike; OUT/steps.json keeps the numbers. What
validation and measuring take does not count.

Each is trained from two seeds of the initial weights; the last averaged weights forecast the first test sequences. Run
again, the script goes on where it was interrupted. It prints a Markdown table, and keeps every figure in
OUT/table.json.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

import stzoo
from stzoo.benchmark.counting import macs
from stzoo.data import mmnist
from stzoo.evaluate import evaluate
from stzoo.hub.card import count_parameters
from stzoo.spec import ModelSpec
from stzoo.train import Recipe, default_device, read_recipe, train
from stzoo.train.assignment import Assignment
from stzoo.train.processes import Processes
from stzoo.train.run import Run

ENTRY, PROTOCOL = "tau-mmnist", "mmnist-10-10"
RECIPES = {ENTRY: "tau-mmnist-cpu"}  # for two CPU cores, where that is not the recipe called like the entry
WARM_UP, TURNS = 1, 5
Racers = dict[str, tuple[ModelSpec, Recipe]]  # name -> what is trained, and how


def entries(names: list[str]) -> Racers:
    return {name: (stzoo.info(name).spec, read_recipe(RECIPES.get(name, name))) for name in names}


def variants() -> Racers:
    spec, recipe = stzoo.info(ENTRY).spec.replace(hid_t=256), read_recipe(RECIPES[ENTRY])
    no_divergence = dataclasses.replace(recipe, ddr_weight=0.0)
    kept = {name: spec.params[name] for name in ("hid_s", "hid_t", "n_s", "n_t", "patch")}
    return {
        "full": (spec, recipe),
        "without statical attention": (spec.replace(statical=False), recipe),
        "without dynamical attention": (spec.replace(dynamical=False), recipe),
        "without the divergence term": (spec, no_divergence),
        "plain convolutions": (
            dataclasses.replace(spec, arch="conv", params=kept),
            dataclasses.replace(recipe, fused=False),
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--of", nargs="+", metavar="ENTRY", help="entries of the catalogue, in place of the variants")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--steps", type=int, default=500)
    budget.add_argument("--minutes", type=float, help="of training for each, from each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--clips",
        type=int,
        default=1000,
        help="how many of the test sequences are forecast, from the first on (default: 1000)",
    )
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    racers = variants() if arguments.of is None else entries(arguments.of)
    steps = dict.fromkeys(racers, arguments.steps) if arguments.minutes is None else steps_within(racers, arguments)
    rows: dict[str, dict[str, Any]] = {}
    for seed in arguments.seeds:
        for name, (spec, recipe) in racers.items():
            run = arguments.out / f"{name.replace(' ', '-')}-{seed}"
            recipe = dataclasses.replace(recipe, seed=seed, validate_every=steps[name])  # once, at the end
            figures = measure(spec, recipe, steps[name], run, arguments)
            sizes = {"parameters": count_parameters(spec), "macs": macs(spec, 10), "steps": steps[name]}
            rows.setdefault(name, {**sizes, "seeds": []})["seeds"].append(figures)
            print(name, seed, figures, file=sys.stderr)
            (arguments.out / "table.json").write_text(json.dumps(rows, indent=2) + "\n")
    print(table(rows, arguments.seeds))


def steps_within(racers: Racers, arguments: argparse.Namespace) -> dict[str, int]:
    """How many steps of each fit into the minutes, as it was measured when the race began."""
    kept = arguments.out / "steps.json"
    if kept.is_file():
        return {name: json.loads(kept.read_text())[name] for name in racers}
    training, device = mmnist.training_set(arguments.mnist, 10, 10), torch.device(default_device())
    runs = {name: Run(Assignment(*racer, training), Processes(device)) for name, racer in racers.items()}
    torch.set_flush_denormal(True)  # as in training
    seconds: dict[str, list[float]] = {name: [] for name in racers}
    for _ in range(WARM_UP + TURNS):
        for name, run in runs.items():
            start = time.perf_counter()
            run.advance(100).item()  # a schedule of 100 steps, of which it takes one
            seconds[name].append(time.perf_counter() - start)
    paces = {name: statistics.median(taken[WARM_UP:]) for name, taken in seconds.items()}
    print({name: f"{pace:.2f} s a step" for name, pace in paces.items()}, file=sys.stderr)
    steps = {name: max(1, int(arguments.minutes * 60 / pace)) for name, pace in paces.items()}
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(steps, indent=2) + "\n")
    return steps


def measure(spec: ModelSpec, recipe: Recipe, steps: int, run: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Train one model from one seed; return its errors on the test sequences, and those of persistence."""
    training, validation = (of(arguments.mnist, 10, 10) for of in (mmnist.training_set, mmnist.validation_set))
    best = train(spec, recipe, training, validation, run, steps=steps, progress=False)
    clips = dataclasses.replace(mmnist.protocol_set(arguments.mnist), count=arguments.clips)
    report = evaluate(stzoo.load(best), clips, name=run.name, protocol=PROTOCOL, progress=False)
    return {name: report.total[name] for name in ("mse", "mae", "ssim")} | {
        "first_mse": report.steps["mse"][0],
        "last_mse": report.steps["mse"][-1],
        "persistence_mse": report.persistence_total["mse"],
    }


def table(rows: dict[str, dict[str, Any]], seeds: list[int]) -> str:
    """The table as Markdown: means over the seeds, and the MSE of each seed."""
    each = " | ".join(f"MSE, seed {seed}" for seed in seeds)
    columns = f"model | parameters | GMAC | steps | {each} | mean | first frame | tenth frame | MAE | SSIM"
    lines = [f"| {columns} |", "|---" * (columns.count("|") + 1) + "|"]
    for name, row in rows.items():
        each = " | ".join(f"{figures['mse']:.1f}" for figures in row["seeds"])

        def mean(figure: str, row: dict[str, Any] = row) -> float:
            return statistics.fmean(figures[figure] for figures in row["seeds"])

        lines.append(
            f"| {name} | {row['parameters'] / 1e6:.2f} M | {row['macs'] / 1e9:.2f} | {row['steps']:,} | {each} | "
            f"{mean('mse'):.1f} | {mean('first_mse'):.1f} | {mean('last_mse'):.1f} | {mean('mae'):.1f} | "
            f"{mean('ssim'):.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
