"""MSE, MAE, SSIM and PSNR of frames, in several definitions; and how sharp a forecast is."""

from __future__ import annotations

import numpy as np
from skimage.metrics import structural_similarity

from stzoo.errors import DataError
from stzoo.metrics.kinds import Valid

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


def check_windows(channels: int, height: int, width: int) -> None:
    """Raises `DataError` if the windows of SSIM do not fit into frames of this shape."""
    if min(height, width) < _WINDOW:
        raise DataError(
            f"SSIM needs frames of at least {_WINDOW}x{_WINDOW} pixels, not {height}x{width}; use the metrics "
            "stzoo-units, which are without it (in commands --definition stzoo-units)"
        )


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
