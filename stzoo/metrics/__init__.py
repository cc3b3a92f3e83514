"""Named definitions of the metrics. A figure means something only beside the name of its definition.

Unless they say otherwise, all functions take a forecast and the truth, (N, T, C, H, W) arrays of values that should lie
in [0, 1], and return (N, T): one value for each frame. `valid` (N, T, 1, H, W) is true where the truth is known, and
None if all of it is. A figure is then that of the known cells, and NaN for a frame without known cells.
"""

from stzoo.metrics.definitions import DEFINITIONS
from stzoo.metrics.images import PSNR_CAP, mae, mse, psnr, psnr_wrapped, sharpness, ssim, ssim_range_2
from stzoo.metrics.kinds import Among, Count, Definition, Metric
from stzoo.metrics.perceptual import fetch_lpips, lpips
from stzoo.metrics.rain import event_counts
from stzoo.metrics.totals import Totals

__all__ = [
    "DEFINITIONS",
    "PSNR_CAP",
    "Among",
    "Count",
    "Definition",
    "Metric",
    "Totals",
    "event_counts",
    "fetch_lpips",
    "lpips",
    "mae",
    "mse",
    "psnr",
    "psnr_wrapped",
    "sharpness",
    "ssim",
    "ssim_range_2",
]
