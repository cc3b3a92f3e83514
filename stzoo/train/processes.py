"""The processes that train one model together: what each of them does, and what they send each other.

They are started by `accelerate launch` or `torchrun`, and send through Accelerate (the extra `train`). A process that
was started alone needs neither.
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
from stzoo.machine import check_device, default_device

PATIENCE = timedelta(hours=1)  # how long to wait for another process, such as the first one while it validates
_COUNTS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")  # set by launchers


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        device: where this process computes.
        rank: its number, from 0. Only the first one validates, averages weights, saves, and prints.
        count: the number of processes.
        state: Accelerate's `PartialState`, through which they send; None if nothing is sent.
    """

    device: torch.device
    rank: int = 0
    count: int = 1
    state: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the process that validates, saves and prints."""
        return self.rank == 0

    def silent(self) -> Processes:
        """The same share of the work, but nothing is sent to the others: to measure how long it takes."""
        return replace(self, state=None)

    def share(self, batch: int) -> range:
        """Which of the `batch` clips of a step this process takes: equally many in each, in the order of their ranks.

        Raises:
            TrainingError: `batch` is not a multiple of the number of processes.
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
        """Seed torch's generators, so that every step of every process draws numbers of its own.

        They depend on `seed`, `step` and the rank alone, so an interrupted run goes on with the same numbers.
        """
        torch.manual_seed(int(np.random.SeedSequence((seed, step, self.rank)).generate_state(1, np.uint64)[0]))

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, of any shape and float dtype, by its mean over all processes. All go in one message."""
        if self.state is None:
            return
        flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors])
        mean = self._together(lambda utils: utils.reduce(flat, "mean"))
        for tensor, part in zip(tensors, mean.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all processes, of the same shape."""
        return tensor if self.state is None else self._together(lambda utils: utils.reduce(tensor, "sum"))

    def from_first(self, thing: Any) -> Any:
        """Returns in every process the `thing` of the first one. Tensors in it must be on the CPU."""
        return self._together(lambda utils: utils.broadcast_object_list([thing])[0]) if self.state else thing

    def agree(self, things: Mapping[str, Any]) -> None:
        """Raises `TrainingError`, in every process, if not all of them were given the same `things`, by their names."""
        if self.state is None:
            return
        for rank, others in enumerate(self._together(lambda utils: utils.gather_object([dict(things)]))):
            different = [name for name in {**things, **others} if others.get(name) != things.get(name)]
            if different:
                raise TrainingError(f"processes {self.rank} and {rank} were given different {' and '.join(different)}")

    def one_first(self) -> AbstractContextManager[None]:
        """A block that one process of each machine runs first, and the others then, who find what it downloaded."""
        return nullcontext() if self.state is None else self._speaking(self.state.local_main_process_first())

    def wait(self) -> None:
        """Wait until all processes have come this far."""
        if self.state is not None:
            self._together(lambda _: self.state.wait_for_everyone())

    def _together(self, what: Callable[[Any], Any]) -> Any:
        """What all processes do at the same time, given `accelerate.utils`."""
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
    """Inside, an error of torch.distributed becomes a `TrainingError` that says what to do."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:  # torch.distributed raises both
        raise TrainingError(
            f"one of the {count} processes has ended, or cannot be reached: {str(error).split('. ')[0]}. If that "
            "process printed no error, start the same command again: training goes on from the last checkpoint"
        ) from error


def joined(device: str | None = None) -> Processes:
    """Join the processes that a launcher started beside this one, if it did.

    Args:
        device: "cpu" or "cuda"; by default the GPU if there is one. Each process of a machine gets a GPU of its own.

    Raises:
        SpecError: torch does not know the device, or does not find it on this machine.
        MissingExtraError: there are other processes, and the extra `train` is not installed.
        TrainingError: the other processes cannot be reached.
    """
    place = check_device(device or default_device())
    count = max(int(os.environ.get(name) or 1) for name in _COUNTS)
    if count == 1:
        return Processes(place)
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise MissingExtraError(f'{count} processes need an extra: pip install "stzoo[train]"') from error
    with _heard(count):
        state = PartialState(cpu=place.type == "cpu", timeout=PATIENCE)
    if state.num_processes != count:
        raise TrainingError(
            f"{count} processes were started, and this one meets {state.num_processes}; set LOCAL_RANK for each, or "
            "start them with torchrun or accelerate launch"
        )
    return Processes(state.device, state.process_index, state.num_processes, state)
