"""Memory that a step frees is kept for the next one, which would otherwise get it back from the system page by page."""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # as <malloc.h> numbers the settings
_KEEPING = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 << 20}
# Once a setting was made, glibc no longer moves its thresholds by itself. These are where it moves them to in a process
# that has freed large blocks, as every one that computed with torch has.
_AS_BEFORE = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20, _TOP_PAD: 128 << 10}
_NAMES = ("mmap_max", "mmap_threshold", "trim_threshold", "top_pad")


@contextmanager
def memory_kept() -> Iterator[None]:
    """Inside the block, the C library keeps the memory that tensors on the CPU free, for tensors that come after them.

    By default glibc takes each large tensor from the system, and gives it back at once. The pages that come in its
    place are cleared, one fault for each 4 KiB. In a training step, which takes and frees the same gigabytes again and
    again, that is a good part of the time. After the block all free memory goes back to the system.

    Blocks may lie in one another, and in several threads: the memory of the process is kept until the last one ends.

    Nothing is changed where the C library is another one, or where the environment sets what would be set here: by
    `GLIBC_TUNABLES`, or by variables such as `MALLOC_MMAP_MAX_`.
    """
    library = None if chosen_by_user(os.environ) else _glibc()
    if library is None:
        yield
        return
    _BLOCKS.enter(library)
    try:
        yield
    finally:
        _BLOCKS.leave(library)


class _Blocks:
    """How many blocks keep memory. The settings are those of the process, and so is this count."""

    def __init__(self) -> None:
        self._open, self._lock = 0, threading.Lock()

    def enter(self, library: ctypes.CDLL) -> None:
        with self._lock:
            if self._open == 0:
                _set(library, _KEEPING)
            self._open += 1

    def leave(self, library: ctypes.CDLL) -> None:
        with self._lock:
            self._open -= 1
            if self._open == 0:
                _set(library, _AS_BEFORE)
                library.malloc_trim(ctypes.c_size_t(0))


_BLOCKS = _Blocks()


def chosen_by_user(environment: Mapping[str, str]) -> bool:
    """Whether these environment variables set how glibc takes memory from the system. An empty value is a 0 to it."""
    tunables = environment.get("GLIBC_TUNABLES", "")
    return any(f"glibc.malloc.{name}=" in tunables or f"MALLOC_{name.upper()}_" in environment for name in _NAMES)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _set(library: ctypes.CDLL, settings: Mapping[int, int]) -> None:
    for setting, value in settings.items():
        library.mallopt(setting, value)
