"""What smaller pieces change: of a batch in training, and of a frame in a forecast.

    python docs/experiments/pieces.py micro-batch
    python docs/experiments/pieces.py windows

micro-batch trains a small TAU from the same random weights on the same clips, each time with another --micro-batch, and
prints the validation error (squared error, summed over a frame) after the last step.

windows forecasts frames of 128x128 with tau-mmnist, in which four clips of moving digits lie side by side, as a whole
and in four windows of 64x64. No digit crosses the edge of a window, so what differs is what a window does not see.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

import stzoo
from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.spec import ModelSpec
from stzoo.train import Recipe, train

BATCH, STEPS, CLIPS = 16, 120, 16


def digits(seed: int, count: int, frames: int) -> MovingDigits:
    """Moving digits, drawn with lines, not those of MNIST."""
    return MovingDigits(drawn_digits(), seed, count, frames, frames)


def micro_batch() -> None:
    """A line for each size of the pieces."""
    params = {"hid_s": 8, "hid_t": 32, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "patch": 4, "drop_path": 0.0}
    spec = ModelSpec(arch="tau", frames_in=4, frames_out=4, channels=1, height=64, width=64, params=params)
    recipe = Recipe(dataset="mmnist", minutes=1, batch=BATCH, lr=5e-3, precision="float32", validate_every=STEPS)
    for seed in (0, 1):
        for size in (BATCH, 4):
            with tempfile.TemporaryDirectory() as out:
                train(
                    spec, dataclasses.replace(recipe, seed=seed),
                    digits(1, 1 << 30, 4), digits(2, 200, 4), Path(out),
                    steps=STEPS, device="cpu", progress=False, micro_batch=size,
                )  # fmt: skip
                last = json.loads((Path(out) / "log.jsonl").read_text().splitlines()[-1])
            print(f"seed {seed}, pieces of {size:2}: validation MSE {last['validation_mse']:.1f}", flush=True)


def windows() -> None:
    """The errors of both ways, and how far they are apart."""
    model = stzoo.load("tau-mmnist")
    clips = digits(3, 4 * CLIPS, 10).clips(0, 4 * CLIPS)
    past, future = (side_by_side(x.float() / 255) for x in (clips.past, clips.future))
    whole = model.predict(past)
    apart = side_by_side(model.predict(clips.past.float() / 255))
    for name, a, b in (("whole", whole, future), ("windows", apart, future), ("windows from whole", apart, whole)):
        print(f"{name:20} squared error a frame: {(a - b).square().sum((2, 3, 4)).mean():.1f}")


def side_by_side(x: Tensor) -> Tensor:
    """(4 * n, T, C, 64, 64) -> (n, T, C, 128, 128)."""
    a, b, c, d = x.unflatten(0, (-1, 4)).unbind(1)
    return torch.cat([torch.cat([a, b], -1), torch.cat([c, d], -1)], -2)


if __name__ == "__main__":
    {"micro-batch": micro_batch, "windows": windows}[sys.argv[1]]()
