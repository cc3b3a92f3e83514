"""`stzoo demo`: a forecast that needs neither a dataset nor the network, drawn as a GIF and as a strip in a PNG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stzoo import viz
from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.files import writing_errors_named
from stzoo.opening import load

MODEL, STEPS = "tau-mmnist", 40


@dataclass(frozen=True)
class DemoResult:
    """The errors of the forecast, and the files that were written.

    Attributes:
        mse: squared error in units of [0, 1], summed over a frame, mean over the first block of forecast frames.
        persistence_mse: the same for a forecast that repeats the last past frame.
        gif, strip: the animation and the still picture.
    """

    mse: float
    persistence_mse: float
    gif: Path
    strip: Path


def demo(out: Path, seed: int = 0, device: str = "cpu") -> DemoResult:
    """Forecast a sequence of two drawn digits with `tau-mmnist`: 10 frames at once, and 40 frames rolled out.

    Args:
        out: the folder to write to, created if needed. ``stzoo-demo.gif`` shows truth and forecast side by side, in 10
            past and 40 future frames. ``stzoo-demo.png`` shows past, truth, forecast and absolute error of the first
            10 future frames.
        seed: chooses the digits and how they move.
        device: where the model runs, as in `stzoo.load`.

    Raises:
        SpecError: the device is not there.
        WeightsError: the model's weights cannot be found.
        OSError: the disk is full, or does not take a file for another reason; the message names the file.
    """
    model = load(MODEL, device=device)
    clip = MovingDigits(drawn_digits(), seed, 1, model.spec.frames_in, STEPS).clips(0, 1)
    past, truth = (x[0, :, 0].numpy() for x in (clip.past, clip.future))
    block = model.spec.frames_out
    forecast, longer = model.predict(past), model.rollout(past, STEPS)

    out.mkdir(parents=True, exist_ok=True)
    gif, strip = out / "stzoo-demo.gif", out / "stzoo-demo.png"
    p, t, f, r = (x.astype(np.float32) / 255 for x in (past, truth, forecast, longer))
    with writing_errors_named(gif):
        viz.animation(gif, {"truth": np.concatenate([p, t]), "forecast": np.concatenate([p, r])}, given=len(p))
    with writing_errors_named(strip):
        viz.strip({"past": p, "truth": t[:block], "forecast": f, "error": np.abs(f - t[:block])}).save(strip)
    return DemoResult(_mse(f, t[:block]), _mse(p[-1:], t[:block]), gif, strip)


def _mse(forecast: np.ndarray, truth: np.ndarray) -> float:
    return float(np.square(forecast - truth).sum((1, 2)).mean())
