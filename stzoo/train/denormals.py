"""Denormal floats count as zero: processors are many times slower at them, and vanishing gradients are full of them."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Inside the block, denormals count as zero in every thread that torch computes with, the calling one included.

    `torch.set_flush_denormal` changes only the calling thread. The worker threads of OpenMP copy its setting when they
    are started, and never again. So workers from before the block would go on computing with denormals, with all other
    threads waiting for them, and workers started inside the block would never stop counting them as zero.
    """
    _set(True)
    try:
        yield
    finally:
        _set(False)


def _set(on: bool) -> None:
    torch.set_flush_denormal(on)
    if sys.platform != "linux":  # elsewhere torch comes without OpenMP, or the processor is fast at denormals
        return
    try:
        parallel = ctypes.CDLL(torch._C.__file__).GOMP_parallel  # from the OpenMP library that torch is linked to
    except (AttributeError, OSError):
        return
    each = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: torch.set_flush_denormal(on) and None)
    parallel(each, None, ctypes.c_uint(torch.get_num_threads()), ctypes.c_uint(0))
