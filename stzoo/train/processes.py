"""The processes that train one model together: what each of them does, and what passes between them.

`accelerate launch` or `torchrun` starts them, and Accelerate carries what they say to each other (extra `train`). A
process that was started alone needs neither.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stzoo.errors import MissingExtraError, TrainingError
from stzoo.machine import default_device

PATIENCE = timedelta(hours=1)  # with a process that is there and silent: the first one validates while the others wait
_COUNTS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")  # that launchers set


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        device: that this one computes on.
        rank: its number, from 0. The first one alone validates, averages, saves and speaks.
        count: how many there are.
        state: Accelerate's, through which they speak; None where there is nobody to speak to.
    """

    device: torch.device
    rank: int = 0
    count: int = 1
    state: Any = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def silent(self) -> Processes:
        """The same share of the work, without a word to the others: to measure how long it takes."""
        return replace(self, state=None)

    def share(self, batch: int) -> range:
        """Which of the `batch` clips of a step are this process's. All get as many, in their order.

        Raises:
            TrainingError: they do not divide.
        """
        if batch % self.count:
            fitting = [n for n in range(1, self.count + 1) if batch % n == 0]
            raise TrainingError(
                f"a batch of {batch} cannot be shared equally among {self.count} processes; "
                f"start {fitting[-1]}, or change recipe.batch"
            )
        each = batch // self.count
        return range(self.rank * each, (self.rank + 1) * each)

    def seeded(self, seed: int, step: int) -> None:
        """Have torch's generators draw at `step` what no other step and no other process draws.

        Nothing else determines them, so a run goes on with the same draws however often it was interrupted.
        """
        torch.manual_seed(int(np.random.SeedSequence((seed, step, self.rank)).generate_state(1, np.uint64)[0]))

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each float tensor by its mean over all processes, in one message."""
        if self.state is None:
            return
        flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors])
        mean = self._together(lambda utils: utils.reduce(flat, "mean"))
        for tensor, part in zip(tensors, mean.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        return tensor if self.state is None else self._together(lambda utils: utils.reduce(tensor, "sum"))

    def from_first(self, thing: Any) -> Any:
        """What the first process gave, to all of them. Tensors in it must lie on the CPU."""
        return self._together(lambda utils: utils.broadcast_object_list([thing])[0]) if self.state else thing

    def agree(self, things: Mapping[str, Any]) -> None:
        """Raises `TrainingError`, in all processes, where not all of them were given the same `things`."""
        if self.state is None:
            return
        for rank, others in enumerate(self._together(lambda utils: utils.gather_object([dict(things)]))):
            different = [name for name in {**things, **others} if others.get(name) != things.get(name)]
            if different:
                raise TrainingError(f"processes {self.rank} and {rank} were given different {' and '.join(different)}")

    def one_first(self) -> AbstractContextManager[None]:
        """On each machine one process goes through the block first, then the others find what it downloaded."""
        return nullcontext() if self.state is None else self._speaking(self.state.local_main_process_first())

    def wait(self) -> None:
        """Until all processes are here."""
        if self.state is not None:
            self._together(lambda _: self.state.wait_for_everyone())

    def _together(self, what: Callable[[Any], Any]) -> Any:
        from accelerate import utils

        with _heard(self.count):
            return what(utils)

    @contextmanager
    def _speaking(self, inner: AbstractContextManager[None]) -> Iterator[None]:
        with _heard(self.count):
            inner.__enter__()
        yield
        with _heard(self.count):
            inner.__exit__(None, None, None)


@contextmanager
def _heard(count: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:  # of torch.distributed, which has several kinds of them
        raise TrainingError(
            f"one of the {count} processes has ended, or cannot be reached: {str(error).split('. ')[0]}. Where it did "
            "not say itself what to do, start the same command again: training goes on from the last checkpoint"
        ) from error


def joined(device: str | None = None) -> Processes:
    """Meet the processes that a launcher started beside this one; or none, where it was started alone.

    Args:
        device: "cpu" or "cuda", the GPU where there is one by default; each process of a machine gets another GPU.

    Raises:
        MissingExtraError: there are others, and the extra `train` is not installed.
        TrainingError: they cannot be reached.
    """
    device = device or default_device()
    count = max(int(os.environ.get(name) or 1) for name in _COUNTS)
    if count == 1:
        return Processes(torch.device(device))
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise MissingExtraError(f'{count} processes need an extra: pip install "stzoo[train]"') from error
    with _heard(count):
        state = PartialState(cpu=torch.device(device).type == "cpu", timeout=PATIENCE)
    if state.num_processes != count:
        raise TrainingError(
            f"{count} processes were started, and this one meets {state.num_processes}; set LOCAL_RANK for each, or "
            "start them with torchrun or accelerate launch"
        )
    return Processes(state.device, state.process_index, state.num_processes, state)
