"""Tables I and III of the modular design, redone on Moving MNIST: base, large and modular, side by side.

    python docs/experiments/modular_table.py --mnist DIR --iterations 60 --clips 100 --out runs/table

Each model is trained for the same number of iterations at the same batch, in a process of its own, by its recipe; then
it forecasts the same held-out clips, in bfloat16 where the machine has that. Memory is what the process grew by, in the
host's memory. The script prints a Markdown table, and keeps what it measured in OUT/table.json.

    python docs/experiments/modular_table.py --mnist DIR --codecs vqvae-mmnist vae-mmnist --minutes 10 --out runs/codecs

trains each of these codecs by its recipe, and PredRNN and TCTN on the latents of each, instead: every training takes
the same minutes. This table has a row for each combination, and the figures of its codec beside those of the forecasts.
Trainings that are finished are not repeated. LPIPS is measured with the weights in STZOO_LPIPS or, without it, with
those that stzoo downloads (docs/training.md); without a network it is left out.
"""

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import stzoo
from stzoo import catalog, metrics
from stzoo.codec import Codec
from stzoo.data import mmnist
from stzoo.engine import multiplies_in_bfloat16
from stzoo.errors import StzooError
from stzoo.frames.values import to_units
from stzoo.metrics.perceptual import read_network
from stzoo.models import architecture_of
from stzoo.spec import ModelSpec
from stzoo.train import Recipe, default_device, read_recipe, train
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
PAPER = {  # what the papers' models have and our smaller entries do not
    "predrnn-mmnist": {"kernel": 5},
    "tctn-mmnist": {"layers": 6, "expansion": 3},
    "tctn-modular-mmnist": {"layers": 6, "expansion": 3},
}
PREDICTORS = {"PredRNN": "predrnn-modular-mmnist", "TCTN": "tctn-modular-mmnist"}  # on the latents of any codec
WARM_UP = 3  # iterations that are not timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--codecs", nargs="+", metavar="ENTRY", help="measure predictors on the latents of these codecs"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of each training that --codecs asks for")
    parser.add_argument("--only", help="measure one entry in this process; the script calls itself with it")
    arguments = parser.parse_args()
    if arguments.iterations <= WARM_UP:
        parser.error(f"--iterations is {arguments.iterations}; the first {WARM_UP} are not timed, so give more")
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments)))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.codecs:
        print(combinations(arguments))
        return
    rows = {}
    for title, name in MODELS.items():
        command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
        rows[title] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(title, rows[title], file=sys.stderr)
        (arguments.out / "table.json").write_text(json.dumps(rows, indent=2) + "\n")
    print(table(rows))


def at_paper_size(name: str) -> tuple[ModelSpec, Recipe]:
    """An entry's spec and recipe. A smaller one gets the paper's size and settings, and no loss of painted frames."""
    spec, recipe = catalog.info(name).spec, read_recipe(name)
    if name not in PAPER:
        return spec, recipe
    changes = {"lr": 1e-3, "muon_lr": 3e-3} if "predrnn" in name else {"validate_every": 100}
    recipe = dataclasses.replace(recipe, **changes)
    if architecture_of(spec).kind != "modular":
        return spec.replace(**PAPER[name]), recipe
    predictor = spec.params["predictor"]
    predictor = {"arch": predictor["arch"], "params": {**predictor["params"], **PAPER[name]}}
    return spec.replace(predictor=predictor), dataclasses.replace(recipe, decoded_weight=0.0)


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train the entry, and forecast held-out clips with the trained weights (not averaged ones: runs are short)."""
    entry = catalog.info(name)
    codec = None if entry.codec is None else stzoo.load_codec(entry.codec.entry)
    spec, recipe = at_paper_size(name)
    recipe = dataclasses.replace(recipe, batch=arguments.batch)
    torch.set_flush_denormal(True)
    training = mmnist.training_set(arguments.mnist, 10, 10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assignment = Assignment(spec, recipe, training, codec=codec)
    run = Run(assignment, Processes(torch.device(default_device())))
    for i in range(arguments.iterations):
        if i == WARM_UP:
            start = time.perf_counter()
        run.advance(arguments.iterations).item()
    seconds = (time.perf_counter() - start) / (arguments.iterations - WARM_UP) * 100
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

    found = forecast_figures(run.module.eval(), spec, arguments, run.device)
    parts = [sum(p.numel() for p in part.parameters()) for part in (run.part, run.module)]
    return found | {
        "parameters": parts[0], "codec_parameters": parts[1] - parts[0], "memory_mib": memory,
        "seconds_per_100": seconds, "sequences": arguments.iterations * arguments.batch,
    }  # fmt: skip


def combinations(arguments: argparse.Namespace) -> str:
    """Each codec with each predictor, trained for the same minutes and measured, as a Markdown table."""
    lines = [
        "| codec | predictor | sequences | MSE | SSIM | sharpness | LPIPS | the codec's own MSE | its LPIPS |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows = {}
    for name in arguments.codecs:
        folder = trained(name, catalog.info(name).spec, None, None, arguments)
        codec = stzoo.load_codec(folder)
        codec_part = {"arch": codec.spec.arch, "params": codec.spec.params}
        own = painted_figures(codec, arguments)
        for title, entry in PREDICTORS.items():
            spec = at_paper_size(entry)[0].replace(codec=codec_part)
            best = trained(entry, spec, codec, name, arguments)
            found = forecast_figures(stzoo.load(best).module, spec, arguments, torch.device("cpu"))
            sequences = json.loads((best.parent / "log.jsonl").read_text().splitlines()[-1])["sequences"]
            rows[f"{name}, {title}"] = found | {"codec": own, "sequences": sequences}
            print(name, title, rows[f"{name}, {title}"], file=sys.stderr)
            (arguments.out / "codecs.json").write_text(json.dumps(rows, indent=2) + "\n")
            lines.append(
                f"| `{name}` | {title} | {sequences:,} | {found['mse']:.1f} | {found['ssim']:.3f} | "
                f"{found['sharpness']:.2f} | {distance_of(found)} | {own['mse']:.2f} | {distance_of(own)} |"
            )
    return "\n".join(lines)


def trained(name: str, spec: ModelSpec, codec: Codec | None, on: str | None, arguments: argparse.Namespace) -> Path:
    """The best weights of this spec, trained by the recipe `name` on the latents of `codec`, whose entry is `on`."""
    is_codec = architecture_of(spec).is_codec
    frames = (1, 1) if is_codec else (10, 10)
    out = arguments.out / (name if on is None else f"{name}-on-{on}")
    training, validation = (part(arguments.mnist, *frames) for part in (mmnist.training_set, mmnist.validation_set))
    recipe = dataclasses.replace(at_paper_size(name)[1], batch=arguments.batch, validation_clips=arguments.clips)
    return train(spec, recipe, training, validation, out, minutes=arguments.minutes, codec=codec, progress=False)


@torch.no_grad()
def painted_figures(codec: Codec, arguments: argparse.Namespace) -> dict[str, float]:
    """The metrics of held-out frames that went through the codec, and its codebook if it has one."""
    truth = to_units(mmnist.validation_set(arguments.mnist, 1, 1).clips(0, arguments.clips).past, codec.spec)
    return figures(codec.reconstruct(truth).numpy(), truth.numpy())


def forecast_figures(
    module: Any, spec: ModelSpec, arguments: argparse.Namespace, device: torch.device
) -> dict[str, float]:
    """The metrics of a module's forecasts of held-out clips, 10 frames ahead, in bfloat16 if the device has it."""
    clip = mmnist.validation_set(arguments.mnist, 10, 10).clips(0, arguments.clips)
    past, future = (to_units(x, spec) for x in (clip.past, clip.future))
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=multiplies_in_bfloat16(device)):
        pieces = [torch.stack(list(unroll(module, spec, x.to(device), 10)), 1) for x in past.split(8)]
    return figures(torch.cat(pieces).float().cpu().numpy(), future.numpy())


def figures(made: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The metrics of frames (N, T, C, H, W) in [0, 1]; LPIPS is left out where its weights are not at hand."""
    found = {m: float(np.nanmean(getattr(metrics, m)(made, truth))) for m in ("mse", "ssim", "sharpness")}
    return found | ({"lpips": float(metrics.lpips(made, truth).mean())} if has_lpips() else {})


@cache
def has_lpips() -> bool:
    """Whether the weights of LPIPS are here, or could be fetched."""
    try:
        read_network()
    except StzooError as error:
        print(f"no LPIPS: {error}", file=sys.stderr)
        return False
    return True


def distance_of(found: dict[str, float]) -> str:
    """LPIPS as it stands in a table; a dash if it was not measured."""
    return f"{found['lpips']:.3f}" if "lpips" in found else "-"


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The table as Markdown; a dash stands for what a row lacks."""
    lines = [
        "| model | parameters | MSE | SSIM | sharpness | LPIPS | training memory, MiB | seconds per 100 iterations |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for title, row in rows.items():
        codec = f" + {row['codec_parameters'] / 1e6:.2f} M" if row["codec_parameters"] else ""
        lines.append(
            f"| {title} | {row['parameters'] / 1e6:.2f} M{codec} | {row['mse']:.1f} | {row['ssim']:.3f} | "
            f"{row['sharpness']:.2f} | {distance_of(row)} | {row['memory_mib']:,.0f} | {row['seconds_per_100']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
