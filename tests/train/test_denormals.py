"""Denormals count as zero while it trains, in every thread that computes, and nowhere afterwards."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import clips, run
from torch import Tensor

from stzoo.errors import TrainingError
from stzoo.train import run as training_run
from stzoo.train.denormals import denormals_flushed

SMALLEST = torch.frombuffer(bytearray(b"\x01\x00\x00\x00" * (1 << 18)), dtype=torch.float32)  # 1.4e-45 each


def survivors() -> float:
    """The share of denormals that torch computes with: half of them lie with each of two threads."""
    return ((SMALLEST + SMALLEST) != 0).float().mean().item()


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="OpenMP's workers are reached on Linux")
def test_every_thread_flushes_and_stops_flushing(threads: int) -> None:
    assert survivors() == 1.0  # which starts the workers, before anything is set
    with denormals_flushed():
        assert survivors() == 0.0
    assert survivors() == 1.0


def test_it_stops_flushing_after_an_error(threads: int) -> None:
    with pytest.raises(KeyboardInterrupt), denormals_flushed():
        raise KeyboardInterrupt
    assert survivors() == 1.0


class Probe(torch.autograd.Function):
    """The identity, which notes what becomes of denormals in a backward pass."""

    seen: list[float]

    @staticmethod
    def forward(ctx: Any, x: Tensor, seen: list[float]) -> Tensor:
        ctx.seen = seen
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        ctx.seen.append(survivors())
        return grads[0], None


@pytest.mark.skipif(sys.platform != "linux", reason="OpenMP's workers are reached on Linux")
def test_a_backward_pass_of_training_is_without_them(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    objective = training_run.objective
    monkeypatch.setattr(training_run, "objective", lambda *arguments: Probe.apply(objective(*arguments), seen))
    assert survivors() == 1.0
    run(tmp_path, 3)
    assert seen == [0.0] * 3
    assert survivors() == 1.0


def test_a_run_that_fails_leaves_them_as_they_were(tmp_path: Path) -> None:
    class Poisoned(type(clips(0))):  # type: ignore[misc]
        def clips(self, start: int, stop: int) -> Any:
            raise TrainingError("poisoned")

    data = clips(1)
    with pytest.raises(TrainingError, match="poisoned"):
        run(tmp_path, 3, training=Poisoned(data.digits, 1, 1 << 30, 3, 3))
    assert survivors() == 1.0
