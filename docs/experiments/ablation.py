"""TAU's Table 6, redone on Moving MNIST by `tau-mmnist` at hid_t 256: what each part of the unit is worth.

    python docs/experiments/ablation.py --mnist DIR --steps 500 --out runs/ablation

Each variant is trained by the recipe `tau-mmnist-cpu` with the same number of steps, from two seeds of the initial
weights, on the same clips; the last averaged weights forecast the first test sequences. Run again, the
script goes on where it was interrupted. It prints a Markdown table, and keeps every figure in OUT/table.json.
"""

import argparse
import dataclasses
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import stzoo
from stzoo.benchmark.counting import macs
from stzoo.data import mmnist
from stzoo.evaluate import evaluate
from stzoo.hub.card import count_parameters
from stzoo.spec import ModelSpec
from stzoo.train import Recipe, read_recipe, train

ENTRY, RECIPE, PROTOCOL = "tau-mmnist", "tau-mmnist-cpu", "mmnist-10-10"
SEEDS = (0, 1)


def variants() -> dict[str, tuple[ModelSpec, Recipe]]:
    """Name -> what is trained, and how."""
    spec, recipe = stzoo.info(ENTRY).spec.replace(hid_t=256), read_recipe(RECIPE)
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
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument(
        "--clips",
        type=int,
        default=1000,
        help="how many of the test sequences are forecast, from the first on (default: 1000)",
    )
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    for seed in SEEDS:
        for name, (spec, recipe) in variants().items():
            run = arguments.out / f"{name.replace(' ', '-')}-{seed}"
            recipe = dataclasses.replace(recipe, seed=seed, validate_every=arguments.steps)  # once, at the end
            figures = measure(spec, recipe, run, arguments)
            rows.setdefault(name, {"parameters": count_parameters(spec), "macs": macs(spec, 10), "seeds": []})
            rows[name]["seeds"].append(figures)
            print(name, seed, figures, file=sys.stderr)
            (arguments.out / "table.json").write_text(json.dumps(rows, indent=2) + "\n")
    print(table(rows))


def measure(spec: ModelSpec, recipe: Recipe, run: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Train one variant from one seed; return its errors on the test sequences, and those of persistence."""
    training, validation = (of(arguments.mnist, 10, 10) for of in (mmnist.training_set, mmnist.validation_set))
    best = train(spec, recipe, training, validation, run, steps=arguments.steps, progress=False)
    clips = dataclasses.replace(mmnist.protocol_set(arguments.mnist), count=arguments.clips)
    report = evaluate(stzoo.load(best), clips, name=run.name, protocol=PROTOCOL, progress=False)
    return {name: report.total[name] for name in ("mse", "mae", "ssim")} | {
        "first_mse": report.steps["mse"][0],
        "last_mse": report.steps["mse"][-1],
        "persistence_mse": report.persistence_total["mse"],
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The table as Markdown: means over the seeds, and the MSE of each seed."""
    seeds = " | ".join(f"MSE, seed {seed}" for seed in SEEDS)
    columns = f"variant | parameters | GMAC | {seeds} | mean | first frame | tenth frame | MAE | SSIM"
    lines = [f"| {columns} |", "|---" * (columns.count("|") + 1) + "|"]
    for name, row in rows.items():
        each = " | ".join(f"{figures['mse']:.1f}" for figures in row["seeds"])

        def mean(figure: str, row: dict[str, Any] = row) -> float:
            return statistics.fmean(figures[figure] for figures in row["seeds"])

        lines.append(
            f"| {name} | {row['parameters'] / 1e6:.2f} M | {row['macs'] / 1e9:.2f} | {each} | {mean('mse'):.1f} | "
            f"{mean('first_mse'):.1f} | {mean('last_mse'):.1f} | {mean('mae'):.1f} | {mean('ssim'):.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
