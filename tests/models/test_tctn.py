"""TCTN against a slow float64 transcription; causality, the window, and what is kept between steps."""

import math
from typing import Any

import pytest
import torch
from recurrent_modules import clip, module_of, outputs
from torch import Tensor
from torch.nn import functional as F

import stzoo
from stzoo.errors import SpecError
from stzoo.models import build
from stzoo.models.tctn import positions

LONG = 11  # frames, more than the window of recurrent_modules.SMALL


def parameters(layers: int, hidden: int, channels: int, expansion: int) -> int:
    """From the papers' layers: 3x3x3 to q, k, v, 1x1, 3x3x3 `expansion` times wider and back, two norms; embedding."""
    wide = expansion * hidden
    attention = (27 * hidden * 3 * hidden + 3 * hidden) + (hidden * hidden + hidden)
    feed_forward = (27 * hidden * wide + wide) + (27 * wide * hidden + hidden)
    embedding = (49 * channels * hidden + hidden) + (25 * hidden * hidden + hidden)
    return layers * (attention + feed_forward + 4 * hidden) + embedding + 2 * hidden + hidden * channels


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("tctn-mmnist", (4, 64, 16, 1)), ("tctn-large-mmnist", (6, 128, 16, 3)), ("tctn-modular-kth", (6, 64, 64, 3)),
        ("tctn-modular-mmnist", (4, 64, 64, 1)),
    ],
)  # fmt: skip
def test_parameters(name: str, sizes: tuple[int, int, int, int]) -> None:
    module: Any = build(stzoo.info(name).spec, "meta")
    module = getattr(module, "predictor", module)
    assert sum(p.numel() for p in module.parameters()) == parameters(*sizes)


def test_positions_are_those_of_equation_8() -> None:
    found = positions(torch.tensor([0, 1, 7, 300]), 8)
    for row, pos in zip(found, (0, 1, 7, 300), strict=True):
        for i in range(4):
            angle = pos / 10000 ** (2 * i / 8)
            assert row[2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert row[2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def causal(x: Tensor, conv: Any) -> Tensor:
    """Equation 9's convolution as one 3-D convolution of (B, C, T, h, w), two empty frames before the first."""
    weight = conv.conv.weight
    kernel = weight.view(len(weight), 3, -1, 3, 3).transpose(1, 2)
    return F.conv3d(F.pad(x, (1, 1, 1, 1, 2, 0)), kernel, conv.conv.bias)


def each_frame(norm: Any, x: Tensor) -> Tensor:
    """(x - mean) / std over the channels and pixels of one time step."""
    mean, var = x.mean((1, 3, 4), keepdim=True), x.var((1, 3, 4), keepdim=True, correction=0)
    return (x - mean) / (var + norm.eps).sqrt() * norm.weight[:, None, None, None] + norm.bias[:, None, None, None]


def transcription(module: Any, frames: Tensor, window: int) -> Tensor:
    """The whole module, pixel by pixel and step by step where attention is concerned."""
    b, t, c, height, width = frames.shape
    p, heads = module.patch, module.config.heads
    patches = frames.view(b, t, c, height // p, p, width // p, p).permute(0, 4, 6, 2, 1, 3, 5)
    x = patches.reshape(b, p * p * c, t, height // p, width // p)
    plane = [F.leaky_relu(module.embed(f), 0.2) for f in x.unbind(2)]
    x = torch.stack([f + F.leaky_relu(module.refine(f), 0.2) for f in plane], 2)
    for s in range(t):
        for i in range(x.shape[1]):
            angle = s / 10000 ** ((i - i % 2) / x.shape[1])
            x[:, i, s] += math.cos(angle) if i % 2 else math.sin(angle)
    for layer in module.layers:
        q, k, v = causal(each_frame(layer.norm1, x), layer.attention.qkv).chunk(3, 1)
        d, out = q.shape[1] // heads, torch.zeros_like(q)
        for n, head, s, i, j in torch.cartesian_prod(*map(torch.arange, (b, heads, t, *q.shape[3:]))).tolist():
            mine, seen = slice(head * d, head * d + d), range(max(0, s - window + 1), s + 1)
            scores = torch.stack([q[n, mine, s, i, j] @ k[n, mine, u, i, j] / math.sqrt(d) for u in seen])
            shares = scores.exp() / scores.exp().sum()
            out[n, mine, s, i, j] = sum(a * v[n, mine, u, i, j] for a, u in zip(shares, seen, strict=True))  # type: ignore[misc]
        x = x + torch.stack([layer.attention.out(f) for f in out.unbind(2)], 2)
        y = F.leaky_relu(causal(each_frame(layer.norm2, x), layer.spread), 0.2)
        x = x + causal(y, layer.merge)
    y = torch.stack([module.readout(f) for f in each_frame(module.norm, x).unbind(2)], 2)
    y = y.view(b, p, p, c, t, height // p, width // p).permute(0, 4, 3, 5, 1, 6, 2)
    return y.reshape(frames.shape)


@torch.no_grad()
def test_it_is_what_the_equations_say() -> None:
    module = module_of("tctn", window=3).double()
    frames = clip(2, 5, size=8).double()
    torch.testing.assert_close(module(frames), transcription(module, frames, 3), rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("training", [False, True])
def test_all_steps_at_once_see_no_later_frame(training: bool) -> None:
    """Bit for bit, in training too: no statistic of a norm spans time."""
    module, frames = module_of("tctn").train(training), clip(frames=LONG)
    before = module(frames)
    for t in range(LONG):
        changed = frames.clone()
        changed[:, t] = 1 - changed[:, t]
        after = module(changed)
        assert torch.equal(before[:, :t], after[:, :t])
        assert not torch.equal(before[:, t], after[:, t])


@torch.no_grad()
def test_steps_are_all_steps_at_once() -> None:
    """What was kept stands for what would be computed again, beyond the window too, and in pieces of any length."""
    module, frames = module_of("tctn"), clip(frames=LONG)
    whole = module(frames)
    assert whole.std() > 0.01
    torch.testing.assert_close(torch.stack(outputs(module, frames), 1), whole, rtol=0, atol=1e-5)
    state, pieces = module.initial_state(2, (16, 16), frames.device, frames.dtype), []
    for length in (4, 1, 6):
        start = sum(p.shape[1] for p in pieces)
        forecasts, state = module.read(frames[:, start : start + length], state)
        pieces.append(forecasts)
    assert state.position == LONG
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_window_ends() -> None:
    """One layer with a window of 3 sees 2 frames back by attention, and 2 more by each of three convolutions."""
    module, frames = module_of("tctn", layers=1, window=3), clip(frames=LONG)
    last = module(frames)[:, -1]
    for back in range(LONG):
        changed = frames.clone()
        changed[:, LONG - 1 - back] = 1 - changed[:, LONG - 1 - back]
        assert torch.equal(module(changed)[:, -1], last) == (back > 2 + 3 * 2)


def test_what_a_step_keeps_is_bounded_by_the_window() -> None:
    module, frames = module_of("tctn"), clip(frames=LONG)
    state = module.initial_state(2, (16, 16), frames.device, frames.dtype)
    for t, frame in enumerate(frames.unbind(1)):
        _, state = module.step(frame, state)
        assert {layer.keys.shape[2] for layer in state.layers} == {min(t + 1, 4)}


def test_heads_must_fit() -> None:
    with pytest.raises(SpecError, match=r"hidden is 10; it must be a multiple of 2 \* heads, 8"):
        build(stzoo.info("tctn-mmnist").spec.replace(hidden=10), "meta")
