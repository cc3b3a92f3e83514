"""LPIPS, a distance between frames that was learned from what people see (Zhang et al., CVPR 2018), with AlexNet.

Its weights are AlexNet's convolutions, which come from PyTorch's own address (`stzoo.published.alexnet`), and five
heads, which lie beside this file with their licence. $STZOO_LPIPS may name a file that holds both.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile, is_zipfile

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo import environment, tensorfile
from stzoo.errors import DataError
from stzoo.metrics.kinds import Valid
from stzoo.published import alexnet

SMALLEST = 31  # the fewest rows and columns of a frame that leave something for AlexNet's last convolution
HEADS = Path(__file__).with_name("lpips_heads.safetensors")
_WITHOUT = "use metrics without it, such as stzoo (in commands --definition stzoo)"
_MEAN, _STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of ImageNet's colours in [-1, 1]


def lpips(forecast: np.ndarray, truth: np.ndarray, valid: Valid = None) -> np.ndarray:
    """Learned perceptual distance of each frame; 0 for equal frames. Gray frames are repeated to three channels.

    The first call may download AlexNet's weights, see `fetch_lpips`.

    Args:
        forecast, truth: (N, T, C, H, W), values in [0, 1], 1 or 3 channels, H and W at least 31.
        valid: (N, T, 1, H, W), true where the truth is known; elsewhere the forecast counts as right. NaN stands for a
            frame without known cells.

    Returns:
        (N, T) in float32.

    Raises:
        DataError: the frames have neither 1 nor 3 channels, or the file in STZOO_LPIPS cannot be read.
        OfflineError, DownloadError, IntegrityError, WeightsError: as `fetch_lpips`.
    """
    n, t, c, h, w = truth.shape
    _check_frames(c, h, w)
    network = _shared_network(environment.lpips(), environment.home())
    if valid is not None:
        forecast, truth = (np.where(valid, x, 0.0) for x in (forecast, truth))
    a, b = (
        torch.from_numpy(x.clip(0, 1).astype(np.float32).reshape(n * t, c, h, w)).expand(-1, 3, -1, -1) * 2 - 1
        for x in (forecast, truth)
    )
    with torch.no_grad():
        pieces = [network(x, y).flatten() for x, y in zip(a.split(64), b.split(64), strict=True)]
    distance = torch.cat(pieces).view(n, t).numpy()
    return distance if valid is None else np.where(valid.any((2, 3, 4)), distance, np.nan)


def prepare(channels: int, height: int, width: int) -> None:
    """Get the weights, so that `lpips` can measure frames of this shape. Raises what `lpips` raises."""
    _check_frames(channels, height, width)
    _shared_network(environment.lpips(), environment.home())


@lru_cache(1)
def _shared_network(own_file: Path | None, home: Path) -> LpipsNetwork:
    """The network of this process for all frames, so that its weights are read once and stay as they are.

    The arguments, from which `read_network` takes the weights, tell one network from another.
    """
    return read_network()


def _check_frames(channels: int, height: int, width: int) -> None:
    if channels not in (1, 3):
        raise DataError(f"LPIPS looks at gray or colour frames, not at {channels} channels; {_WITHOUT}")
    if min(height, width) < SMALLEST:
        raise DataError(
            f"LPIPS needs frames of at least {SMALLEST}x{SMALLEST} pixels, not {height}x{width}; {_WITHOUT}"
        )


def fetch_lpips(*, sha256: str | None = None, progress: bool = True) -> None:
    """Download the weights of LPIPS now, 244 MB of which 10 MB are kept, for instance before the network is off.

    Args:
        sha256: that of torchvision's file of AlexNet, if you know it. Otherwise the eight digits in its name are
            checked, and the sha256 of the first download is pinned.
        progress: show a bar.

    Raises:
        OfflineError: they are not on this machine, and the network is off. DownloadError: no address has the file.
        IntegrityError: what came is not the file that is known. WeightsError: it is no AlexNet.
        SpecError: `sha256` is no sha256.
    """
    alexnet.convolutions(sha256=sha256, progress=progress)


class LpipsNetwork(nn.Module):
    """Version 0.1 of LPIPS, differentiable: five convolutions of AlexNet, and a weight for each of their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict(
            {
                str(n): nn.Conv2d(i, o, k, stride=4 if n == 0 else 1, padding=2 if n == 0 else k // 2)
                for n, (i, o, k) in alexnet.CONVOLUTIONS.items()
            }
        )
        self.heads = nn.ParameterList([torch.zeros(o) for _, o, _ in alexnet.CONVOLUTIONS.values()])

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(N, 3, H, W) and (N, 3, H, W), values in [-1, 1] -> (N,) distances in float32. H and W are at least 31."""
        x = torch.cat([a, b])
        x = (x - x.new_tensor(_MEAN).view(3, 1, 1)) / x.new_tensor(_STD).view(3, 1, 1)
        total = 0.0
        for (number, convolution), head in zip(self.features.items(), self.heads, strict=True):
            if number in ("3", "6"):
                x = F.max_pool2d(x, 3, 2)
            x = convolution(x).relu()
            left, right = _unit(x.float()).chunk(2)
            total = total + ((left - right).square() * head.view(-1, 1, 1)).sum(1).mean((1, 2))
        return torch.as_tensor(total)


def _unit(x: Tensor) -> Tensor:
    """(N, C, h, w), divided by the length over C. Where all channels are 0 the result is 0, and so is its gradient."""
    return x / ((x.square().sum(1, keepdim=True) + 1e-20).sqrt() + 1e-10)


def read_network() -> LpipsNetwork:
    """The network with its weights, without gradient, on the CPU.

    Raises:
        DataError: STZOO_LPIPS names no file, or one that cannot be read or holds other tensors.
        What `fetch_lpips` raises, if STZOO_LPIPS is not set.
    """
    with torch.device("meta"):  # so that no random weights are drawn, which would move the caller's random state
        network = LpipsNetwork().eval().requires_grad_(False)
    if environment.lpips() is not None:
        return _filled_from_own_file(network)
    heads = tensorfile.read(HEADS).tensors
    state = {**alexnet.convolutions().tensors, **{f"heads.{i}": heads[f"lin{i}.weight"] for i in range(len(heads))}}
    network.load_state_dict(state, assign=True)
    return network


def _own_file() -> Path:
    """The file that STZOO_LPIPS names. Raises `DataError` if there is none."""
    file = environment.lpips()
    if file is None or not file.is_file():
        raise DataError(
            f"STZOO_LPIPS is {file}, which is no file; leave it out, and the weights of LPIPS are downloaded, or set "
            "it to a file with them, which docs/training.md shows how to make"
        )
    return file


def _filled_from_own_file(network: LpipsNetwork) -> LpipsNetwork:
    file = _own_file()
    if not is_zipfile(file):  # NumPy would take it for a pickle, and say how to load one
        raise DataError(f"STZOO_LPIPS: {file} is no .npz file; docs/training.md shows how to make one")
    numbers = range(len(alexnet.CONVOLUTIONS))
    names = {
        f"features.{n}.{part}": f"features.{n}.{part}" for n in alexnet.CONVOLUTIONS for part in ("weight", "bias")
    }
    names |= {f"heads.{i}": f"lin{i}.weight" for i in numbers}
    own = network.state_dict()
    try:
        with np.load(file, allow_pickle=False) as held:
            found = {ours: _weights(theirs, held[theirs]) for ours, theirs in names.items()}
        network.load_state_dict({name: t.view(own[name].shape) for name, t in found.items()}, assign=True)
    except (
        OSError, ValueError, KeyError, RuntimeError, EOFError, AttributeError, TypeError, BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise DataError(
            f"STZOO_LPIPS: {file} does not hold the weights of LPIPS with AlexNet; docs/training.md shows how to make "
            f"such a file: {error}"
        ) from error
    return network


def _weights(name: str, values: np.ndarray) -> Tensor:
    """An array of the file as a tensor. Raises ValueError if it does not hold finite real numbers."""
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        raise ValueError(f"{name} does not hold finite real numbers")
    return torch.from_numpy(values).float()
