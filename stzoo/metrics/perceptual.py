"""LPIPS, a distance between frames that was learned from what people see."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stzoo import environment
from stzoo.errors import DataError, MissingExtraError


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
