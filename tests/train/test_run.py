"""A step, whole or in smaller passes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_several_processes import CONVLSTM, RECIPE, VQVAE, losses, run
from torch import nn

from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.models.encoder_decoder import DropPath
from stzoo.spec import ModelSpec
from stzoo.train.assignment import Assignment
from stzoo.train.processes import Processes
from stzoo.train.run import Run


@pytest.mark.parametrize("spec", [CONVLSTM, VQVAE], ids=["convlstm", "vqvae"])
@pytest.mark.parametrize("micro_batch", [1, 3])
def test_smaller_passes_add_up_to_the_same_step(spec: ModelSpec, micro_batch: int, tmp_path: Path) -> None:
    for out, size in ((tmp_path / "whole", None), (tmp_path / "parts", micro_batch)):
        run(out, spec, RECIPE, 3, size)
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)


def test_smaller_passes_give_the_gradient_of_the_whole_batch() -> None:
    clips = MovingDigits(drawn_digits(), 1, 1 << 20, 3, 3)
    found = []
    for size in (None, 1, 3):
        one = Run(Assignment(CONVLSTM, RECIPE, clips, micro_batch=size), Processes(torch.device("cpu")))
        for optimizer in one.optimizers:  # leave the gradients
            optimizer.zero_grad = lambda **_: None  # type: ignore[method-assign]
        one.advance(10)
        found.append([p.grad for p in one.module.parameters()])
    for parts in found[1:]:
        torch.testing.assert_close(parts, found[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("frozen", [(), ("translator",)], ids=["learning", "frozen"])
def test_branches_are_dropped_and_statistics_move_only_in_what_learns(frozen: tuple[str, ...]) -> None:
    params = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "drop_path": 0.5}
    spec = ModelSpec(arch="tau", frames_in=3, frames_out=3, channels=1, height=64, width=64, params=params)
    one = Run(
        Assignment(spec, replace(RECIPE, freeze=frozen), MovingDigits(drawn_digits(), 1, 1 << 20, 3, 3)),
        Processes(torch.device("cpu")),
    )
    one.advance(10)
    parts = list(one.module.translator.modules())
    trains = {part.training for part in parts if isinstance(part, DropPath)}
    moved = {int(part.num_batches_tracked or 0) for part in parts if isinstance(part, nn.BatchNorm2d)}
    assert (trains, moved) == (({False}, {0}) if frozen else ({True}, {1}))


def test_a_step_tells_that_the_weights_changed() -> None:
    """What is made of weights once, such as the sums of `stzoo.train.winograd`, is made anew when they say so."""
    clips = MovingDigits(drawn_digits(), 1, 1 << 20, 3, 3)
    one = Run(Assignment(CONVLSTM, RECIPE, clips), Processes(torch.device("cpu")))
    before = [p._version for p in one.module.parameters()]
    one.advance(10)
    assert all(p._version > version for p, version in zip(one.module.parameters(), before, strict=True))
