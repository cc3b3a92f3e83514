"""What another size than the trained one costs, and how frames are padded best.

    python docs/experiments/sizes.py clips UT_FOLDER [CLIPS]
    python docs/experiments/sizes.py padding

clips takes the middle of CLIPS test videos of UT-Interaction (by default 3), which lie in UT_FOLDER, resizes it to the
size that tau-ut was trained on, to 400x296 and to 1280x720, and forecasts 10 frames from 10. A line stands for each way
to forecast frames of that size: at the model's size and brought back (the default for pictures), and at their own size
(`resize=False`). Errors are means over pixels and frames of values in [0, 1]; persistence repeats the last past frame.

padding cuts windows of 61x62 from moving digits, a size that no stride but 1 divides, and forecasts 20 frames from 10:
once with the frame padded at the start of the rollout, which goes on in the padded frame, and once with each forecast
cropped, and padded anew before it is fed back. The squared error is summed over a frame.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import stzoo
from stzoo.data import Reading
from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.data.ut_interaction import open_folder
from stzoo.engine.padding import Padding
from stzoo.frames.images import resized
from stzoo.frames.video import read_video
from stzoo.metrics import DEFINITIONS
from stzoo.models import stride_of
from stzoo.unroll import unroll

SIZES = ((64, 64), (296, 400), (720, 1280))  # height and width
PAST, FUTURE, DIGITS = 10, 10, 4
RECURRENT = ("convlstm-mmnist",)


def clips(folder: Path, count: int) -> None:
    """A line for each size and way."""
    model = stzoo.load("tau-ut")
    dataset = open_folder(folder, Reading.of(model.spec))
    segments = dataset.segments["test"]
    chosen = segments[:: max(1, len(segments) // count)][:count]
    videos = [middle(list(read_video(segment.path))) for segment in chosen]
    for height, width in SIZES:
        own = [[resized(image, 1, height, width) for image in video] for video in videos]
        truth = np.stack([values(video[PAST:]) for video in own])
        report(
            height, width, "persistence", np.stack([values(video[PAST - 1 : PAST] * FUTURE) for video in own]), truth
        )
        for name, resize in (("model's size, brought back", None), ("own size", False)):
            start = monotonic()
            made = np.stack([values(model.predict(video[:PAST], resize=resize)) for video in own])
            report(height, width, name, made, truth, (monotonic() - start) / len(own))


def middle(images: list[Image.Image]) -> list[Image.Image]:
    """The frames in the middle of a video, where people move."""
    start = (len(images) - PAST - FUTURE) // 2
    return images[start : start + PAST + FUTURE]


def values(images: list[Image.Image]) -> np.ndarray:
    """(T, 1, H, W) float32 in [0, 1]."""
    return np.stack([np.asarray(image, np.float32)[None] / 255 for image in images])


def report(height: int, width: int, name: str, made: np.ndarray, truth: np.ndarray, seconds: float = 0) -> None:
    """Print the errors of forecasts (N, T, 1, H, W)."""
    mse = np.square(made - truth).mean() * 1e4
    ssim = DEFINITIONS["stzoo"].metrics["ssim"](made, truth, None).mean()
    print(f"{width:4}x{height:<4} {name:27} MSE {mse:7.2f}e-4  SSIM {ssim:.4f}  {seconds:6.2f} s a clip", flush=True)


class Anew:
    """A module whose frames are padded before each call, and cropped after it."""

    def __init__(self, module: Any, padding: Padding):
        self.module, self.padding = module, padding

    def __call__(self, past: Tensor) -> Tensor:
        """(B, T, C, H, W) -> the T frames that follow, of a block module."""
        return self.padding.remove(self.module(self.padding.add(past)))

    def initial_state(self, batch: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Any:
        """The state of a recurrent module for padded frames of `size`."""
        p = self.padding
        padded = (size[0] + p.top + p.bottom, size[1] + p.left + p.right)
        return self.module.initial_state(batch, padded, device, dtype)

    def step(self, frame: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(B, C, H, W) -> the forecast of the next frame, of a recurrent module, and its new state."""
        made, state = self.module.step(self.padding.add(frame), state)
        return self.padding.remove(made), state


@torch.no_grad()
def padding() -> None:
    """A line for each model and way."""
    found = MovingDigits(drawn_digits(), 3, DIGITS, 10, 20).clips(0, DIGITS)
    past, future = ((x.float() / 255)[..., 1:62, 1:63] for x in (found.past, found.future))
    for name in ("tau-mmnist", "simvp-mmnist", *RECURRENT):
        model = stzoo.load(name)
        spec, module = model.spec, model.module.eval()
        around = Padding.of((61, 62), stride_of(module))
        ways = {
            "padded once": [around.remove(f) for f in unroll(module, spec, around.add(past), 20)],
            "padded anew": list(unroll(Anew(module, around), spec, past, 20)),
        }
        for way, frames in ways.items():
            errors = (torch.stack(frames, 1).clamp(0, 1) - future).square().sum((2, 3, 4)).mean(0)
            first, second = errors[:10].mean(), errors[10:].mean()
            print(f"{name:16} {way}: frames 1-10 {first:6.2f}, 11-20 {second:6.2f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["clips"]:
        clips(Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 3)
    elif sys.argv[1:] == ["padding"]:
        padding()
    else:
        sys.exit(__doc__)
