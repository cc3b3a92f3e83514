"""Flows of taxis in New York, hour by hour: models beside persistence, the same hour yesterday and a week before.

    python docs/experiments/traffic.py --data DIR --models tau-taxinyc
    python docs/experiments/traffic.py --data DIR --models runs/a/best runs/b/best --part validation
    python docs/experiments/traffic.py --data DIR --train RUNS --steps-of-training 600 --part validation

DIR holds the files of the dataset `taxinyc`. Every forecast is of the same hours: those of the part that have without a
gap before them a week, or the longest past of a model. The root mean square error is over all cells, of in- and outflow
together, in taxis in an hour. The last command trains `tau-taxinyc` anew, and variants that each differ in one thing.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import stzoo
from stzoo.data import Reading, open_dataset
from stzoo.data.taxinyc import FRAME
from stzoo.forecaster import Forecaster
from stzoo.train import read_recipe, train
from stzoo.train.clips import endless

DAY, WEEK = 24, 7 * 24
BATCH = 64
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # changes of the spec, and of the recipe
    "as it is": ({}, {}),
    "one week in": ({"frames_in": WEEK}, {}),
    "normalised frames": ({"frame_norm": True}, {}),
    "begins from the last hour": ({"period": 0, "from_last": True}, {}),
    "mirrored too": ({}, {"flips": "all"}),
}


def simple(past: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """Forecasts (N, steps, C, H, W) that need no model, from at least a week of the past (N, T, C, H, W)."""
    yesterday = np.tile(past[:, -DAY:], (1, -(-steps // DAY), 1, 1, 1))
    return {
        "persistence": np.repeat(past[:, -1:], steps, 1),
        "the same hour yesterday": yesterday[:, :steps],
        "the same hour a week before": past[:, -WEEK:][:, :steps],
    }


def trained(folder: Path, runs: Path, steps: int) -> dict[str, Forecaster]:
    """Each variant, trained for so many steps; where a run was trained already, its weights."""
    models = {}
    for name, (spec_changes, recipe_changes) in VARIANTS.items():
        spec = stzoo.info("tau-taxinyc").spec.replace(**spec_changes)
        recipe = replace(read_recipe("tau-taxinyc"), **recipe_changes)
        dataset = open_dataset("taxinyc", folder, Reading.of(spec))
        parts = [dataset.split(part, spec.frames_in, spec.frames_out) for part in ("train", "validation")]
        clips = endless(parts[0], spec, recipe.flips, recipe.seed, "cpu")
        out = runs / name.replace(" ", "-")
        models[name] = stzoo.load(train(spec, recipe, clips, parts[1], out, steps=steps))
    return models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs="*", default=[], metavar="MODEL", help="entries of the catalogue, or folders")
    parser.add_argument("--part", choices=["validation", "test"], default="test")
    parser.add_argument("--train", type=Path, metavar="RUNS", help="folder for runs of the variants, which are trained")
    parser.add_argument(
        "--steps-of-training", type=int, default=600, metavar="N", help="of each of them (default: 600)"
    )
    parser.add_argument("--steps", type=int, default=DAY, help="hours to forecast, at most a week (default: a day)")
    arguments = parser.parse_args()
    if not 1 <= arguments.steps <= WEEK:
        parser.error(f"--steps is {arguments.steps}; it may be 1 to {WEEK}")
    channels, height, width = FRAME
    dataset = open_dataset("taxinyc", arguments.data, Reading(channels=channels, height=height, width=width))
    models = {name: stzoo.load(name) for name in arguments.models}
    if arguments.train:
        models |= trained(arguments.data, arguments.train, arguments.steps_of_training)
    longest = max([WEEK, *(model.spec.frames_in for model in models.values())])
    source = dataset.split(arguments.part, longest, arguments.steps)
    clip = source.clips(0, len(source))
    past, future = clip.past.numpy(), clip.future.numpy()
    baselines = simple(past, arguments.steps)
    forecasts = dict(baselines)
    for name, model in models.items():
        forecasts[name] = np.concatenate(
            [model.rollout(past[i : i + BATCH], arguments.steps) for i in range(0, len(past), BATCH)]
        )
    hours = [hour for hour in (1, 2, 3, 6, 12, 24, 48, 168) if hour <= arguments.steps]
    print(f"| RMSE of {len(past)} windows of the {arguments.part} part | {' | '.join(f'{h} h' for h in hours)} | all |")
    print("|---" * (len(hours) + 2) + "|")
    errors = {name: np.sqrt(((made - future) ** 2).mean((0, 2, 3, 4))) for name, made in forecasts.items()}
    for name, error in errors.items():
        overall = np.sqrt((error**2).mean())
        print(f"| {name} | {' | '.join(f'{error[h - 1]:.1f}' for h in hours)} | {overall:.1f} |")
    best = np.min([errors[name] for name in baselines], 0)
    for name in models:
        print(f"{name} is better than all three at {(errors[name] < best).sum()} of {arguments.steps} hours")


if __name__ == "__main__":
    main()
