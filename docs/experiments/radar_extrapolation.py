"""The extrapolation row of docs/real-video.md: pysteps moves the last radar field along the motion in the past.

    pip install pysteps opencv-python-headless
    python docs/experiments/radar_extrapolation.py --data DIR

The clips, the mask and the metrics are those of `stzoo evaluate tau-radar --data DIR`.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from pysteps import motion, nowcasts

import stzoo
from stzoo.data import Reading, radar
from stzoo.data.radar import DBR
from stzoo.frames.values import to_units
from stzoo.metrics import DEFINITIONS

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, required=True)
spec = stzoo.info("tau-radar").spec
clips = radar.open_folder(parser.parse_args().data, Reading.of(spec)).split("test", spec.frames_in, spec.frames_out)
find_motion, extrapolate = motion.get_method("LK"), nowcasts.get_method("extrapolation")
low, high = DBR
defined = DEFINITIONS["stzoo-rain"]
sums: dict[str, Any] = {}
for i in range(len(clips)):
    clip = clips.clips(i, i + 1)
    past, future = (to_units(x, spec)[0, :, 0].numpy().astype(np.float64) for x in (clip.past, clip.future))
    velocity = find_motion(past, verbose=False)
    moved = extrapolate(past[-1], velocity, spec.frames_out)
    moved = np.where(np.isfinite(moved), moved, low + 0.2)  # what comes from beyond the crop is taken to be dry
    forecast, truth = ((x - low) / (high - low) for x in (moved, future))
    assert clip.valid is not None  # of rain it always is known where it was seen
    pair = (forecast[None, :, None], truth[None, :, None], clip.valid.numpy())
    for name, metric in (*defined.metrics.items(), *defined.counts.items()):
        sums[name] = sums.get(name, 0) + metric(*pair)[0]
for name in defined.metrics:
    print(name, round(float(sums[name].mean() / len(clips)), 4))
for name in defined.counts:
    print(name, round(float((sums[name][:, 0] / sums[name][:, 1]).mean()), 4))
