"""Processes that are forked from one that has computed: torch uses one thread there.

A forked process has no thread but the one that forked. OpenMP does not notice: as soon as torch computes with several
threads there, it waits for ever for those of the parent. Even to read weights starts threads, so whoever has imported
this room may have some. A single thread waits for nobody; PyTorch's own data loaders treat the processes that they fork
in the same way.
"""

import os

import torch

from stzoo.errors import SpecError

_FIRST = os.getpid()  # the process that imported this, whose threads a process forked from it would wait for


def _use_one_thread() -> None:
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # which Windows lacks, as it lacks forks
    os.register_at_fork(after_in_child=_use_one_thread)


def use_one_thread_if_forked() -> None:
    """In a process that was forked, go back to one thread if somebody has asked torch for more, which would hang.

    Whatever computes calls this first. It takes less than a microsecond.
    """
    if os.getpid() != _FIRST and torch.get_num_threads() > 1:
        _use_one_thread()


def set_threads(count: int) -> None:
    """Let torch compute with so many threads from now on, in the thread that calls.

    Raises:
        SpecError: there shall be several, and this process was forked from one that may have computed: it would hang.
    """
    if count > 1 and os.getpid() != _FIRST:
        raise SpecError(
            f"{count} threads are asked for in a process that was forked, where only one can compute; ask for 1, or "
            'start the process with multiprocessing.get_context("spawn")'
        )
    torch.set_num_threads(count)
