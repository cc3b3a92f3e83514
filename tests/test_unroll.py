"""The loop, on modules whose answer is known by arithmetic."""

from itertools import islice

import pytest
import torch
from torch import Tensor, nn

from stzoo.spec import ModelSpec
from stzoo.unroll import unroll


class AddLength(nn.Module):
    """Frame i of the block is frame i of the window plus the window's length: a counter goes on counting."""

    def forward(self, past: Tensor) -> Tensor:
        return past + past.shape[1]


class Linear(nn.Module):
    """Sequential: extrapolates a straight line; remembers how often it was stepped."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(()))
        self.steps = 0

    def initial_state(self, batch: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Tensor:
        return torch.zeros(batch, 1, *size, device=device, dtype=dtype)

    def step(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        self.steps += 1
        return frame + self.slope * (frame - state), frame


def spec(frames_in: int, frames_out: int, arch: str = "tau") -> ModelSpec:
    """The loop asks the architecture of `arch` which kind the module is."""
    return ModelSpec(arch=arch, frames_in=frames_in, frames_out=frames_out, channels=1, height=1, width=1)


def counting(length: int) -> Tensor:
    return torch.arange(1.0, length + 1).view(1, length, 1, 1, 1)


@pytest.mark.parametrize(("frames_in", "frames_out"), [(4, 4), (4, 1), (3, 6), (5, 3)])
def test_a_block_slides_by_what_it_keeps(frames_in: int, frames_out: int) -> None:
    past = counting(frames_in + 2)
    frames = [f.item() for f in unroll(AddLength(), spec(frames_in, frames_out), past, 13)]
    assert frames == [frames_in + 2 + i for i in range(1, 14)]


def test_sequential_reads_the_past_once() -> None:
    module = Linear()
    frames = [f.item() for f in unroll(module, spec(4, 4, "convlstm"), counting(6), 5)]
    assert frames == [7, 8, 9, 10, 11]
    assert module.steps == 4 + 5 - 1


def test_without_steps_it_never_ends() -> None:
    frames = list(islice(unroll(AddLength(), spec(2, 2), counting(2)), 999))
    assert frames[-1].item() == 1001


def test_gradients_flow_through_the_rollout() -> None:
    module = Linear()
    torch.stack(list(unroll(module, spec(2, 2, "convlstm"), counting(2), 4))).sum().backward()
    assert module.slope.grad is not None
    assert module.slope.grad.item() > 4  # later frames depend on the slope through earlier ones
