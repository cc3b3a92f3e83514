"""The compiled kernels for one size of planes and one type of activations, and how they are called."""

from __future__ import annotations

import ctypes
import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from stzoo import environment
from stzoo.machine import cpu_flags
from stzoo.train.fused.library import loaded

_FLAGS = ("-O3", "-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC", "-std=c++17")
_NATIVE = {
    "x86_64": ("-march=native", "-mprefer-vector-width=512"),
    "aarch64": ("-mcpu=native",),
}
LINE = 64  # bytes of a line of the cache: kernels work on as many channels at a time


@dataclass(frozen=True)
class Kernels:
    """The kernels for planes of `height` x `width` pixels in the translator and activations of `dtype`.

    The dtype is float32 or bfloat16. Widths must be multiples of `chunk` channels.
    """

    height: int
    width: int
    dtype: torch.dtype
    library: ctypes.CDLL = field(repr=False)

    @property
    def pixels(self) -> int:
        """Of a plane."""
        return self.height * self.width

    def call(self, name: str, *arguments: Tensor | int | float | None) -> None:
        """Run one kernel: tensors as pointers, then sizes and epsilons."""
        function: Callable[..., object] = getattr(self.library, name)
        function(*(_argument(a) for a in arguments))

    def stored(self, *shape: int) -> Tensor:
        """Room for an activation."""
        return torch.empty(*shape, dtype=self.dtype, device="cpu")

    def full(self, *shape: int) -> Tensor:
        """Room for sums and for what is added up, in float32 always."""
        return torch.empty(*shape, dtype=torch.float32, device="cpu")

    def matrix(self, weight: Tensor) -> Tensor:
        """Weights of a 1x1 convolution (O, C, 1, 1) -> (O, C) in the dtype of activations."""
        return weight.detach().flatten(1).to(self.dtype)


def chunk(dtype: torch.dtype) -> int:
    """Channels that kernels work on at a time."""
    return LINE // dtype.itemsize


@cache
def kernels_for(height: int, width: int, dtype: torch.dtype) -> Kernels:
    """The kernels, compiled if the cache does not hold those of this source for this machine.

    Raises:
        OSError: this is not Linux, there is no g++, or the cache folder cannot be used. RuntimeError: g++ refuses the
            source.
    """
    here = Path(__file__).parent
    source = here / "kernels.cpp"
    code = b"".join(file.read_bytes() for file in (source, *sorted(here.glob("*.h"))))
    flags = (*_FLAGS, *_NATIVE.get(platform.machine(), ()), f"-DHEIGHT={height}", f"-DWIDTH={width}")
    flags += ("-DBFLOAT16",) if dtype == torch.bfloat16 else ()
    key = hashlib.sha256(code + " ".join([*flags, *sorted(cpu_flags())]).encode()).hexdigest()[:16]
    library = loaded("fused", key, source, flags, environment.home() / "kernels")
    return Kernels(height, width, dtype, library)


def _argument(value: Tensor | int | float | None) -> object:
    if isinstance(value, int):
        return ctypes.c_int(value)
    if isinstance(value, float):
        return ctypes.c_float(value)
    return ctypes.c_void_p(None if value is None else value.data_ptr())
