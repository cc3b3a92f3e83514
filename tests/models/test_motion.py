"""Motion is found in pictures that are moved by hand, and frames go where a plain loop over cells says."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stzoo.models import build
from stzoo.models.motion import along_motion, estimate_motion, inside, moved, trajectories
from stzoo.spec import ModelSpec


def waves(x: Tensor, y: Tensor) -> Tensor:
    """A smooth texture that is known at every place, not only at whole pixels."""
    return torch.sin(x / 5) * torch.cos(y / 7) + 0.5 * torch.sin((x + 2 * y) / 11)


def clip(vx: float, vy: float, frames: int = 6, height: int = 80, width: int = 96) -> Tensor:
    """(1, T, 1, H, W): the texture, which moves by (vx, vy) pixels a frame; the last frame is that of time 0."""
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return torch.stack([waves(x - vx * k, y - vy * k) for k in range(1 - frames, 1)])[None, :, None]


@pytest.mark.parametrize("velocity", [(1.5, 0.0), (0.0, -2.0), (-0.7, 1.2), (0.0, 0.0)])
def test_the_motion_of_a_picture_that_is_moved_is_found(velocity: tuple[float, float]) -> None:
    found = estimate_motion(clip(*velocity))[0, :, 16:-16, 16:-16]
    assert (found.mean((1, 2)) - torch.tensor(velocity)).abs().max() < 0.05
    assert (found - torch.tensor(velocity)[:, None, None]).abs().mean() < 0.1


def test_more_frames_take_larger_operations_and_no_more_of_them() -> None:
    """A graph of the estimate has a node for each, and takes torch long to trace."""

    class Counting(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += 1
            return func(*args, **(kwargs or {}))

    counts = []
    for frames in (3, 9):
        past = clip(1.0, 0.0, frames=frames)
        with Counting() as counting:
            estimate_motion(past)
        counts.append(counting.count)
    assert 0 < counts[0] == counts[1]


def test_two_halves_that_move_apart_have_two_motions() -> None:
    left, right = clip(-1.0, 0.0, width=128), clip(1.0, 0.0, width=128)
    motion = estimate_motion(torch.cat([left[..., :64], right[..., 64:]], -1))[0, 0]
    assert motion[:, 8:32].mean() < -0.7
    assert motion[:, -32:-8].mean() > 0.7


@pytest.mark.parametrize("shape", [(1, 1, 1, 16, 16), (2, 4, 3, 5, 9), (1, 2, 1, 1, 1)])
def test_what_is_blank_single_or_tiny_stays(shape: tuple[int, ...]) -> None:
    motion = estimate_motion(torch.full(shape, 3.0))
    assert motion.shape == (shape[0], 2, *shape[3:])
    assert not motion.any()


def test_a_frame_is_sampled_as_by_a_loop_in_float64() -> None:
    rng = np.random.default_rng(0)
    frame, way = rng.normal(size=(6, 7)), rng.uniform(-3, 3, (2, 6, 7))
    wanted = np.empty_like(frame)
    for i in range(6):
        for j in range(7):
            x, y = np.clip(j + way[0, i, j], 0, 6), np.clip(i + way[1, i, j], 0, 5)
            a, b = min(int(x), 5), min(int(y), 4)
            upper = frame[b, a] * (a + 1 - x) + frame[b, a + 1] * (x - a)
            lower = frame[b + 1, a] * (a + 1 - x) + frame[b + 1, a + 1] * (x - a)
            wanted[i, j] = upper * (b + 1 - y) + lower * (y - b)
    found = moved(torch.from_numpy(frame)[None, None], torch.from_numpy(way)[None])[0, 0]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_trajectories_of_a_rotation_are_circles() -> None:
    """Twelve frames of a solid rotation by 2 degrees a frame, against the angle itself."""
    y, x = torch.meshgrid(torch.arange(65.0) - 32, torch.arange(65.0) - 32, indexing="ij")
    angle = np.deg2rad(2.0)
    motion = torch.stack([-angle * y, angle * x])[None]
    ways = trajectories(motion, [0, 1, 12])[0]
    assert not ways[0].any()
    for way, turned in ((ways[1], angle), (ways[2], 12 * angle)):
        c, s = np.cos(turned), np.sin(turned)
        wanted = torch.stack([c * x + s * y - x, c * y - s * x - y])
        inner = (x**2 + y**2).sqrt() < 28  # further out, some trajectories leave the frame
        assert (way - wanted)[:, inner].abs().max() < 0.05


def test_what_comes_from_beyond_the_edge_is_told() -> None:
    way = torch.zeros(1, 2, 4, 5)
    way[:, 0] = -2.0
    assert inside(way)[0, 0].tolist() == [[False, False, True, True, True]] * 4


def test_gradients_reach_the_frame_and_the_motion() -> None:
    frame = torch.rand(1, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    motion = 0.3 + 0.2 * torch.rand(1, 2, 6, 6, dtype=torch.float64)
    motion.requires_grad_()
    assert torch.autograd.gradcheck(lambda f, m: moved(f, trajectories(m, [2])[:, 0]), (frame, motion))


def test_a_block_sees_a_moving_picture_stand_still_and_its_forecast_moves_on() -> None:
    velocity = (1.5, -1.0)
    past = clip(*velocity)
    seen = []

    def block(frames: Tensor) -> Tensor:
        seen.append(frames)
        return frames[:, -1:].expand_as(frames)

    future = along_motion(block, past)
    middle = (..., slice(24, -24), slice(24, -24))
    assert (seen[0] - past[:, -1:])[middle].abs().max() < 0.1
    shifted = [torch.roll(past[:, -1], (round(-1.0 * k), round(1.5 * k)), (-2, -1)) for k in (2, 4, 6)]
    for k, wanted in zip((2, 4, 6), shifted, strict=True):
        assert (future[:, k - 1] - wanted)[middle].abs().max() < 0.15


@pytest.mark.parametrize("arch", ["tau", "simvp"])
def test_a_lagrangian_model_whose_decoder_says_nothing_extrapolates(arch: str) -> None:
    params = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "from_last": True, "lagrangian": True}
    spec = ModelSpec(arch=arch, frames_in=4, frames_out=4, channels=1, height=32, width=32, params=params)
    model = build(spec).eval()
    torch.nn.init.zeros_(model.decoder.readout.weight)  # type: ignore[union-attr, arg-type]
    torch.nn.init.zeros_(model.decoder.readout.bias)  # type: ignore[union-attr, arg-type]
    past = clip(1.0, 0.5, frames=4, height=32, width=32)
    ways = trajectories(estimate_motion(past), range(5))
    with torch.no_grad():
        found = model(past)
    for k in range(4):
        torch.testing.assert_close(found[:, k], moved(past[:, -1], ways[:, k + 1]))
