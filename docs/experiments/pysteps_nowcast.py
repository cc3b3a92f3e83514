"""A nowcast of stzoo where pysteps expects one of its own, tried on an event of radar beside pysteps' extrapolation.

    pip install pysteps opencv-python-headless
    python docs/experiments/pysteps_nowcast.py --data DIR

`forecast` has the signature of pysteps' nowcast methods. pysteps 1.21.5 finds plug-ins that are importers or
postprocessors, and none that are nowcasts; so call it in place of what ``pysteps.nowcasts.get_method`` returns.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import stzoo
from stzoo.models.motion import inside, moved, trajectories

MODEL = stzoo.load("tau-radar")


def forecast(
    precip: np.ndarray,
    velocity: np.ndarray,
    timesteps: int | Sequence[int],
    *,
    units: str = "mm/h",
    threshold: float | None = None,
    zerovalue: float | None = None,
    matched: bool = False,
) -> np.ndarray:
    """The precipitation of the next time steps, with NaN where nothing was observed along the path of the rain.

    Args:
        precip: (t, m, n), the last fields, the newest one last, or (m, n), that one alone; NaN where it is unknown. A
            model that reads more fields than there are gets the oldest one, moved back along `velocity`, before them.
        velocity: (2, m, n), columns and rows a time step, as pysteps' motion methods return it. It is used for that
            alone: the model finds the motion of the fields by itself.
        timesteps: how many time steps, or which of them, in whole steps.
        units: "mm/h", "dBZ", or "dBR", which pysteps calls mm/h after dB_transform.
        threshold, zerovalue: as in pysteps' metadata: what is below the threshold becomes the zerovalue.
        matched: give each field the values of the newest one, see `Forecaster.rollout`.

    Returns:
        (number of time steps, m, n), in the same units.
    """
    fields = torch.from_numpy(np.array(precip, np.float32)).reshape(1, -1, *precip.shape[-2:])
    lacking = max(0, MODEL.spec.frames_in - fields.shape[1])
    if lacking:
        motion = torch.from_numpy(np.array(velocity, np.float32))[None]
        back = trajectories(-motion, range(lacking, 0, -1))[0]  # along the reversed motion
        before = moved(fields[:, :1].expand(lacking, -1, -1, -1), back).masked_fill(~inside(back), torch.nan)
        fields = torch.cat([before[:, 0][None], fields], 1)
    steps = range(1, timesteps + 1) if isinstance(timesteps, int) else timesteps
    future = MODEL.rollout(fields[0].numpy(), max(steps), units=units, matched=matched)[np.array(steps) - 1]
    if threshold is not None:
        future[future < threshold] = zerovalue
    return future


def main() -> None:
    from pysteps import motion, nowcasts
    from pysteps.utils.transformation import dB_transform

    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the radar events")
    parser.add_argument("--event", default="mch_20160711", help="name of the event's file, without .npz")
    parser.add_argument("--start", type=int, default=20, help="number of the first field of the past")
    arguments = parser.parse_args()

    codes = np.load(arguments.data / f"{arguments.event}.npz")["frames"][arguments.start :][:18]
    rate = np.where(codes < 2, np.where(codes == 0, np.nan, 0), 10 ** ((0.2 * codes - 10.4) / 10)).astype(np.float32)
    past, truth = rate[:6], rate[6:]
    decibels, about = dB_transform(past, {"transform": None, "zerovalue": 0, "threshold": 0.1}, 0.1, -15.0)
    velocity = motion.get_method("LK")(np.nan_to_num(decibels, nan=-15.0), verbose=False)

    made = forecast(past, velocity, 12)
    in_decibels = forecast(
        decibels, velocity, 12, units="dBR", threshold=about["threshold"], zerovalue=about["zerovalue"]
    )
    assert made.shape == truth.shape
    assert in_decibels[np.isfinite(in_decibels)].min() == -15.0
    np.testing.assert_allclose(10 ** (in_decibels[made > 0] / 10), made[made > 0], rtol=1e-3)
    np.testing.assert_array_equal(forecast(past, velocity, [2, 5]), made[[1, 4]])
    rows = {
        "stzoo, mean": made,
        "stzoo, matched": forecast(past, velocity, 12, matched=True),
        "stzoo, of the newest field alone": forecast(past[-1], velocity, 12),
        "pysteps, extrapolation": nowcasts.get_method("extrapolation")(past[-1], velocity, 12),
    }
    known = np.isfinite(truth) & np.all([np.isfinite(field) for field in rows.values()], axis=0)
    print(f"{arguments.event}: {known.mean():.0%} of the cells of 12 steps are known to all")
    print(f"{'':34}MSE (mm/h)^2   CSI 1 mm/h   wet area / true")
    for name, field in rows.items():
        error = np.mean((field - truth)[known] ** 2)
        hits, either = (op((field >= 1)[known], (truth >= 1)[known]).sum() for op in (np.logical_and, np.logical_or))
        wet, really = ((each >= 0.1)[known].sum() for each in (field, truth))
        print(f"{name:34}{error:12.3f}{hits / either:13.3f}{wet / really:18.2f}")


if __name__ == "__main__":
    main()
