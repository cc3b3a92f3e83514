"""LPIPS, a distance between frames that was learned from what people see (Zhang et al., CVPR 2018), with AlexNet.

The network is here; its weights are not. They are read from a file of the user's, which $STZOO_LPIPS names, or come
with the package lpips. docs/training.md shows how the file is made.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo import environment
from stzoo.errors import DataError, MissingExtraError

SMALLEST = 31  # the fewest rows and columns of a frame that leave something for AlexNet's last convolution
_KERNELS = {0: (3, 64, 11), 3: (64, 192, 5), 6: (192, 384, 3), 8: (384, 256, 3), 10: (256, 256, 3)}  # in, out, width
_MEAN, _STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of ImageNet's colours in [-1, 1]


def lpips(forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Learned perceptual distance. Gray frames are repeated to three channels.

    Raises:
        MissingExtraError: STZOO_LPIPS names no file, and the package lpips is not installed.
        DataError: the weights cannot be read or fetched, or the frames have neither 1 nor 3 channels.
    """
    network = _lpips_network() if environment.lpips() is None else read_network()
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


class LpipsNetwork(nn.Module):
    """Version 0.1 of LPIPS, differentiable: five convolutions of AlexNet, and a weight for each of their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict(
            {
                str(n): nn.Conv2d(i, o, k, stride=4 if n == 0 else 1, padding=2 if n == 0 else k // 2)
                for n, (i, o, k) in _KERNELS.items()
            }
        )
        self.heads = nn.ParameterList([torch.zeros(o) for _, o, _ in _KERNELS.values()])

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


def weights_file() -> Path:
    """The file that STZOO_LPIPS names. Raises `DataError` if it names none, or what it names is no file."""
    file = environment.lpips()
    if file is None or not file.is_file():
        said = "is not set" if file is None else f"is {file}, which is no file"
        raise DataError(
            "a perceptual loss needs the weights of LPIPS, which stzoo neither holds nor fetches: STZOO_LPIPS "
            f"{said}; set it to a file with them, which docs/training.md shows how to make"
        )
    return file


def read_network() -> LpipsNetwork:
    """The network with the weights in the file that STZOO_LPIPS names, without gradient, on the CPU.

    Raises:
        DataError: as `weights_file`, or the file cannot be read or holds other tensors.
    """
    file = weights_file()
    if not is_zipfile(file):  # NumPy would take it for a pickle, and say how to load one
        raise DataError(f"STZOO_LPIPS: {file} is no .npz file; docs/training.md shows how to make one")
    network = LpipsNetwork().eval().requires_grad_(False)
    names = {f"features.{n}.{part}": f"features.{n}.{part}" for n in _KERNELS for part in ("weight", "bias")}
    names |= {f"heads.{i}": f"lin{i}.weight" for i in range(len(_KERNELS))}
    own = network.state_dict()
    try:
        with np.load(file, allow_pickle=False) as held:
            found = {ours: torch.from_numpy(held[theirs]).float() for ours, theirs in names.items()}
        network.load_state_dict({name: tensor.view(own[name].shape) for name, tensor in found.items()})
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, AttributeError, BadZipFile) as error:
        raise DataError(
            f"STZOO_LPIPS: {file} does not hold the weights of LPIPS with AlexNet; docs/training.md shows how to make "
            f"such a file: {error}"
        ) from error
    return network


@cache
def _lpips_network() -> Any:
    """The network of the package lpips, built once."""
    try:
        import lpips as package
    except ImportError as error:
        raise MissingExtraError(
            'LPIPS needs an extra: pip install "stzoo[metrics]", or set STZOO_LPIPS to a file with its weights'
        ) from error
    backbone = Path(torch.hub.get_dir()) / "checkpoints"
    if environment.offline() and not any(backbone.glob("alexnet-*.pth")):
        raise DataError(f"the backbone of LPIPS is not in {backbone}, and the network is off: allow it once")
    try:
        return package.LPIPS(net="alex", verbose=False).eval()
    except (OSError, RuntimeError) as error:
        raise DataError(f"the backbone of LPIPS cannot be fetched: {error}") from error
