"""Named definitions of MSE, MAE, SSIM and PSNR. A figure means something only beside the name of its definition.

Unless they say otherwise, all functions take a forecast and the truth, (N, T, C, H, W) arrays of values that should lie
in [0, 1], and return (N, T): one value for each frame. `valid` (N, T, 1, H, W) is true where the truth is known, and
None if all of it is. A figure is then that of the known cells, and NaN for a frame without known cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from skimage.metrics import structural_similarity

from stzoo import environment
from stzoo.errors import DataError, MissingExtraError

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]
Valid = np.ndarray | None

PSNR_CAP = 100.0  # dB; the value of identical frames
_WINDOW = 7  # scikit-image's default uniform window


def mse(forecast: np.ndarray, truth: np.ndarray, valid: Valid = None) -> np.ndarray:
    """Squared error summed over C, H and W, as if all cells were as wrong as the known ones; unclipped."""
    return _mean(np.square(forecast - truth, dtype=np.float64), valid) * np.prod(truth.shape[2:])


def mae(forecast: np.ndarray, truth: np.ndarray, valid: Valid = None) -> np.ndarray:
    """Absolute error summed over C, H and W, as if all cells were as wrong as the known ones; unclipped."""
    return _mean(np.abs(forecast - truth).astype(np.float64), valid) * np.prod(truth.shape[2:])


def psnr(forecast: np.ndarray, truth: np.ndarray, valid: Valid = None) -> np.ndarray:
    """-10 log10 of the mean squared error of a pixel, in dB; the forecast clipped to [0, 1]; at most `PSNR_CAP`."""
    return _decibels(_mean(np.square(forecast.clip(0, 1) - truth, dtype=np.float64), valid))


def psnr_wrapped(forecast: np.ndarray, truth: np.ndarray, valid: Valid = None) -> np.ndarray:
    """PSNR as code of 2022 computed it: differences and squares of uint8 wrap modulo 256. Too high by decibels."""
    a, b = ((x.clip(0, 1) * 255).astype(np.uint8) for x in (forecast, truth))
    difference = a - b
    return _decibels(_mean((difference * difference).astype(np.float64), valid) / 255.0**2)


def _decibels(error: np.ndarray) -> np.ndarray:
    """(N, T) mean squared errors -> (N, T) PSNR in dB."""
    return -10.0 * np.log10(np.maximum(error, 10.0 ** (-PSNR_CAP / 10.0)))


def _mean(values: np.ndarray, valid: Valid) -> np.ndarray:
    """(N, T, C, H, W) -> (N, T): the mean over the known cells of each frame."""
    if valid is None:
        return values.mean((2, 3, 4))
    with np.errstate(invalid="ignore"):
        return (values * valid).mean((2, 3, 4)) / valid.mean((2, 3, 4))


def ssim(forecast: np.ndarray, truth: np.ndarray, valid: Valid = None) -> np.ndarray:
    """Structural similarity: 7x7 uniform window, data range 1, mean over channels; the forecast clipped to [0, 1]."""
    return _ssim(forecast, truth, valid, 1.0)


def ssim_range_2(forecast: np.ndarray, truth: np.ndarray, valid: Valid = None) -> np.ndarray:
    """SSIM as in published tables: old scikit-image took 2 for the range of floats. It is higher than `ssim`."""
    return _ssim(forecast, truth, valid, 2.0)


def _ssim(forecast: np.ndarray, truth: np.ndarray, valid: Valid, data_range: float) -> np.ndarray:
    """One call of scikit-image on all frames stacked into a tall image.

    Only windows that lie wholly inside a frame count, as in scikit-image itself, so that neighbours never mix. Of these
    only windows whose centre is known count; unknown cells elsewhere in a window count as forecast right.
    """
    n, t, c, h, w = truth.shape
    if valid is not None:
        forecast = np.where(valid, forecast, truth)
    tall = [x.astype(np.float64).reshape(n * t * c * h, w) for x in (forecast.clip(0, 1), truth)]
    _, full = structural_similarity(*tall, win_size=_WINDOW, data_range=data_range, full=True)
    edge = _WINDOW // 2
    inner = (..., slice(edge, h - edge), slice(edge, w - edge))
    return _mean(full.reshape(n, t, c, h, w)[inner], None if valid is None else valid[inner])


def event_counts(forecast: np.ndarray, truth: np.ndarray, valid: Valid, threshold: float) -> np.ndarray:
    """Counts of cells that reach `threshold`, for the critical success index: hits / (hits + misses + false alarms).

    Returns:
        (N, T, 2): how many cells reach it in both forecast and truth, and how many in at least one of them. The index
        is the ratio of their sums over all frames of a step, not a mean of the ratios of single frames.
    """
    seen, expected = (x >= threshold if valid is None else (x >= threshold) & valid for x in (truth, forecast))
    return np.stack([(seen & expected).sum((2, 3, 4)), (seen | expected).sum((2, 3, 4))], -1)


def sharpness(forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Gradient energy of the forecast over that of the truth: 1 is as sharp as the truth, 0 is a complete blur.

    The energy of a frame is the sum of the squared differences between neighbours, vertical and horizontal, after
    clipping to [0, 1]. The result is NaN for frames whose truth is flat.
    """
    energy = [
        sum(np.square(np.diff(x.clip(0, 1), axis=axis), dtype=np.float64).sum((2, 3, 4)) for axis in (3, 4))
        for x in (forecast, truth)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(energy[1] > 0, energy[0] / energy[1], np.nan)


def lpips(forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Learned perceptual distance (Zhang et al., CVPR 2018) with AlexNet. Gray frames are repeated to three channels.

    Raises:
        MissingExtraError: the package lpips is not installed.
        DataError: the weights of its backbone cannot be fetched, or the frames have neither 1 nor 3 channels.
    """
    network = _lpips_network()
    n, t, c, h, w = truth.shape
    if c not in (1, 3):
        raise DataError(f"LPIPS looks at gray or colour frames, not at {c} channels; leave it out")
    a, b = (
        torch.from_numpy(x.clip(0, 1).astype(np.float32).reshape(n * t, c, h, w)).expand(-1, 3, -1, -1) * 2 - 1
        for x in (forecast, truth)
    )
    with torch.no_grad():
        pieces = [network(x, y).flatten() for x, y in zip(a.split(64), b.split(64), strict=True)]
    return torch.cat(pieces).view(n, t).numpy()


@cache
def _lpips_network() -> Any:
    """The network of the package lpips, built once."""
    try:
        import lpips as package
    except ImportError as error:
        raise MissingExtraError('LPIPS needs an extra: pip install "stzoo[metrics]"') from error
    backbone = Path(torch.hub.get_dir()) / "checkpoints"
    if environment.offline() and not any(backbone.glob("alexnet-*.pth")):
        raise DataError(f"the backbone of LPIPS is not in {backbone}, and the network is off: allow it once")
    try:
        return package.LPIPS(net="alex", verbose=False).eval()
    except (OSError, RuntimeError) as error:
        raise DataError(f"the backbone of LPIPS cannot be fetched: {error}") from error


@dataclass(frozen=True)
class Definition:
    """The metrics of a report.

    Attributes:
        metrics: name -> function; the report holds the mean of its values over frames.
        counts: name -> function that returns (N, T, 2); the report holds the ratio of the two sums.
    """

    metrics: Mapping[str, Metric]
    counts: Mapping[str, Metric] = field(default_factory=lambda: MappingProxyType({}))


def _rain(rate: float) -> Metric:
    """Counts of cells with at least `rate` mm/h. [0, 1] stands for -10.4 to 40.6 dBR here (`stzoo.data.radar.DBR`)."""
    return partial(event_counts, threshold=(10 * math.log10(rate) + 10.4) / 51.0)


_OURS: Mapping[str, Metric] = MappingProxyType({"mse": mse, "mae": mae, "ssim": ssim, "psnr": psnr})
_OF_OPENSTL: Mapping[str, Metric] = MappingProxyType({"mse": mse, "mae": mae, "ssim": ssim_range_2, "psnr": psnr})
_OF_2022: Mapping[str, Metric] = MappingProxyType({"mse": mse, "mae": mae, "ssim": ssim_range_2, "psnr": psnr_wrapped})
DEFINITIONS: Mapping[str, Definition] = MappingProxyType(
    {
        "stzoo": Definition(_OURS),
        "stzoo-rain": Definition(_OURS, MappingProxyType({"csi_1": _rain(1.0), "csi_5": _rain(5.0)})),
        "openstl": Definition(_OF_OPENSTL),
        "simvp-2022": Definition(_OF_2022),
    }
)
