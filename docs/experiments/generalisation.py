"""The tables of docs/real-video.md: what models know about clips unlike those they were trained on.

    python docs/experiments/generalisation.py --data DIR --runs RUNS [--steps N]

DIR holds `ut_interaction`, `kth`, `mnist` and `omniglot` in their published layouts. The models that are needed are
trained into RUNS. Run again, the script goes on where it was.
"""

import argparse
import dataclasses
import io
import itertools
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

import stzoo
from stzoo.data import ClipSource, Reading, kth, mmnist, ut_interaction
from stzoo.data.mmnist import MovingDigits
from stzoo.data.recordings import RecordedDataset
from stzoo.evaluate import evaluate
from stzoo.forecaster import Forecaster
from stzoo.opening import load
from stzoo.train import fine_tune, read_recipe, train
from stzoo.train.clips import endless

READING = Reading(channels=1, height=64, width=64)
HORIZONS = (10, 20, 40)
KTH_TEST = (3, 15)  # of the persons at hand; what trains is person 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument(
        "--steps", type=int, default=1500, help="training steps of the model on set 1 alone (default: 1500)"
    )
    parser.add_argument(
        "--tuning-steps",
        type=int,
        default=400,
        help="steps of fine-tuning, and of the model trained from scratch (default: 400)",
    )
    arguments = parser.parse_args()
    data, runs = arguments.data, arguments.runs
    ut = load("tau-ut")
    print("| trained on | tested on | steps | clips | MSE | persistence | PSNR | persistence | SSIM | persistence |")
    print("|---|---|---|---|---|---|---|---|---|---|")

    on_ut = ut_interaction.open_folder(data / "ut_interaction", READING)
    people = few_people(data / "kth")
    rows("UT, both sets (`tau-ut`)", "UT, both sets", ut, on_ut)
    calm = load("tau-ut", adapt={"still": 0.01})
    rows("the same, with `still` 0.01", "UT, both sets", calm, on_ut)
    one = trained_on_one_set(data, runs / "ut-set1", arguments.steps)
    for name in ("set1", "set2"):
        tested = ut_interaction.open_folder(data / "ut_interaction", READING, (name,))
        rows("UT set 1 alone", f"UT {name[:3]} {name[3:]}", one, tested)

    rows("UT, both sets (`tau-ut`)", "KTH, persons 3 and 15", ut, people)
    rows("the same, with `still` 0.01", "KTH, persons 3 and 15", calm, people)
    for ahead, blend in itertools.product((None, HORIZONS[-1]), (None, 0.5)):
        out = runs / f"kth-tuned-{ahead}-{blend}"
        tuned = fine_tune(ut, people, steps=arguments.tuning_steps, horizon=ahead, blend=blend, out=out)
        told = ("" if ahead is None else f", horizon {ahead}") + ("" if blend is None else f", blend {blend}")
        rows(f"`tau-ut`, fine-tuned on KTH person 1{told}", "KTH, persons 3 and 15", tuned, people)
    scratch = from_scratch(people, runs / "kth-scratch", arguments.tuning_steps)
    rows("KTH person 1 from scratch, as many steps", "KTH, persons 3 and 15", scratch, people)

    digits = load("tau-mmnist")
    drawings = MovingDigits(omniglot(data / "omniglot"), mmnist.TEST_SEED, 1000)
    for name, clips in (("test digits", mmnist.protocol_set(data / "mnist")), ("Omniglot drawings", drawings)):
        row("MNIST digits (`tau-mmnist`)", f"Moving MNIST of {name}", digits, dataclasses.replace(clips, count=1000))


def rows(trained: str, tested: str, model: Forecaster, dataset: RecordedDataset) -> None:
    for steps in HORIZONS:
        row(trained, tested, model, dataset.split("test", 10, steps))


def row(trained: str, tested: str, model: Forecaster, clips: ClipSource) -> None:
    report = evaluate(model, clips, name=trained, protocol=tested, progress=False)
    ours, theirs = report.total, report.persistence_total
    figures = " | ".join(f"{ours[m]:.{d}f} | {theirs[m]:.{d}f}" for m, d in (("mse", 2), ("psnr", 2), ("ssim", 3)))
    print(f"| {trained} | {tested} | {len(report.steps['mse'])} | {report.clips} | {figures} |", flush=True)


def trained_on_one_set(data: Path, out: Path, steps: int) -> Forecaster:
    recipe, spec = read_recipe("tau-ut"), stzoo.info("tau-ut").spec
    dataset = ut_interaction.open_folder(data / "ut_interaction", Reading.of(spec, zoom=recipe.zoom), ("set1",))
    return fitted(dataset, out, steps)


def from_scratch(dataset: RecordedDataset, out: Path, steps: int) -> Forecaster:
    return fitted(dataset, out, steps)


def fitted(dataset: RecordedDataset, out: Path, steps: int) -> Forecaster:
    """`tau-ut`'s architecture and recipe on other clips, ten frames ahead."""
    recipe, spec = dataclasses.replace(read_recipe("tau-ut"), horizon=10, validate_every=100), stzoo.info("tau-ut").spec
    training = endless(dataset.split("train", 10, 10), spec, recipe.flips, recipe.seed, "cpu")
    return load(train(spec, recipe, training, dataset.split("validation", 10, 10), out, steps=steps))


def few_people(folder: Path) -> RecordedDataset:
    """The recordings of persons 1, 3 and 15: person 1 trains, and the last part of each of its recordings validates."""
    dataset = kth.open_folder(folder, READING, test=KTH_TEST, validation=())
    train = dataset.segments["train"]
    last = tuple(s for s, after in zip(train, (*train[1:], None), strict=True) if after is None or after.path != s.path)
    segments = {**dataset.segments, "train": tuple(s for s in train if s not in last), "validation": last}
    return dataclasses.replace(dataset, segments=segments)


def omniglot(folder: Path) -> torch.Tensor:
    """(N, 28, 28) uint8: one drawing of each character, white on black, in a 20-pixel box as MNIST's digits are."""
    drawings = []
    for file in sorted(folder.glob("*.zip")):
        with zipfile.ZipFile(file) as archive:
            names = sorted(n for n in archive.namelist() if n.endswith("_01.png") and "__MACOSX" not in n)
            for name in names:
                image = ImageOps.invert(Image.open(io.BytesIO(archive.read(name))).convert("L"))
                ink = image.crop(image.getbbox())
                scale = 20 / max(ink.size)
                ink = ink.resize([max(1, round(side * scale)) for side in ink.size], Image.Resampling.LANCZOS)
                tile = Image.new("L", (28, 28))
                tile.paste(ink, ((28 - ink.width) // 2, (28 - ink.height) // 2))
                drawings.append(np.asarray(tile))
    return torch.from_numpy(np.stack(drawings))


if __name__ == "__main__":
    main()
