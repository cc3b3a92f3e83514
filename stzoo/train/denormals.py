"""Denormal floats taken as zero: a processor is many times slower at them, and vanishing gradients are full of them."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Inside, denormals count as zero in every thread that torch computes with, the calling one included.

    `torch.set_flush_denormal` reaches the calling thread alone. OpenMP's workers take the setting over from the thread
    that starts them, once: those that were there before would go on computing with denormals (and slow down all the
    others, which wait for them), and those that were started inside would never stop flushing.
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
        parallel = ctypes.CDLL(torch._C.__file__).GOMP_parallel  # of the OpenMP library that torch is linked to
    except (AttributeError, OSError):
        return
    each = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: torch.set_flush_denormal(on) and None)
    parallel(each, None, ctypes.c_uint(torch.get_num_threads()), ctypes.c_uint(0))
