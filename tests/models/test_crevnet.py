"""CrevNet against its equations, written out in float64 on the tensors of a published checkpoint, step by step.

Nothing is shared with stzoo: a convolution is a sum over its 27 taps, folding copies every second row and column, and a
rollout is the loop of published code over groups of three frames, which it fills up from the true ones.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import stzoo
from stzoo.benchmark.counting import macs
from stzoo.convert import convert
from stzoo.errors import MismatchError, SpecError
from stzoo.models import build
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

Array = NDArray[np.float64]
CHANNELS, BLOCKS, LAYERS, SIDE = 2, (2, 1), 3, 8
WIDTH = 2 * CHANNELS * 4  # of one group of features, after two stages
GATES = ("in_gate", "remember_gate", "cell_gate", "in_gate1", "remember_gate1", "cell_gate1", "out_gate")


def spec_of(**changes: Any) -> ModelSpec:
    return ModelSpec(
        arch="crevnet", frames_in=4, frames_out=3, channels=CHANNELS, height=SIDE, width=2 * SIDE, value_range=None,
        params={"blocks": BLOCKS, "layers": LAYERS},
    ).replace(**changes)  # fmt: skip


def published() -> dict[str, torch.Tensor]:
    """Random weights under the names and with the shapes of a published checkpoint."""
    generator, state = torch.Generator().manual_seed(5), {}

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def conv(name: str, c_in: int, c_out: int, k: int, bias: bool) -> None:
        state[f"{name}.weight"] = random(c_out, c_in, k, k, k) / math.sqrt(c_in * k**3)
        if bias:
            state[f"{name}.bias"] = 0.3 * random(c_out)

    def norm(name: str, channels: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = 1 + 0.3 * random(channels), 0.3 * random(channels)
        state[f"{name}.running_mean"] = 0.2 * random(channels)
        state[f"{name}.running_var"] = 0.5 + torch.rand(channels, generator=generator, dtype=torch.float64)
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    width = 2 * CHANNELS
    for number, halve in enumerate((False, False, True)):
        c_out = 4 * width if halve else width
        body, at = f"encoder.stack.{number}.bottleneck_block.", 2 if number else 0
        if number:
            norm(f"{body}0", width)
        conv(f"{body}{at}", width, c_out // 2, 3, bias=False)
        norm(f"{body}{at + 1}", c_out // 2)
        conv(f"{body}{at + 3}", c_out // 2, c_out // 2, 3, bias=False)
        norm(f"{body}{at + 5}", c_out // 2)
        conv(f"{body}{at + 7}", c_out // 2, c_out, 3, bias=False)
        width = c_out
    for layer in range(LAYERS):
        for gate in GATES:
            conv(f"frame_predictor.convlstm.{layer}.{gate}", (4 if gate == "out_gate" else 3) * width, width, 3, True)
        conv(f"frame_predictor.convlstm.{layer}.w1", 2 * width, width, 1, True)
        conv(f"frame_predictor.att.{layer}.0", width, width, 1, True)
    return state


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def folded(x: Array) -> Array:
    return np.concatenate([x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)])


def unfolded(x: Array) -> Array:
    c, t, h, w = x.shape
    out = np.empty((c // 4, t, 2 * h, 2 * w))
    for number, part in enumerate(np.split(x, 4)):
        out[:, :, number // 2 :: 2, number % 2 :: 2] = part
    return out


class Reference:
    """One clip; frames are (C, H, W), and three of them (C, 3, H, W)."""

    def __init__(self, state: dict[str, torch.Tensor]):
        self.tensors = {name: tensor.double().numpy() for name, tensor in state.items()}
        zeros = np.zeros((WIDTH, 3, SIDE // 4, 2 * SIDE // 4))
        self.h, self.c, self.memory = [zeros] * LAYERS, [zeros] * LAYERS, zeros

    def conv(self, name: str, x: Array, stride: int = 1) -> Array:
        weight = self.tensors[f"{name}.weight"]
        k, (_, t, h, w) = weight.shape[-1], x.shape
        padded = np.pad(x, ((0, 0), *((k // 2, k // 2),) * 3))
        out = np.zeros((len(weight), t, h // stride, w // stride))
        for dt, dy, dx in np.ndindex(k, k, k):
            seen = padded[:, dt : dt + t, dy : dy + h : stride, dx : dx + w : stride]
            out += np.einsum("oc,cthw->othw", weight[:, :, dt, dy, dx], seen)
        bias = self.tensors.get(f"{name}.bias")
        return out if bias is None else out + bias[:, None, None, None]

    def bottleneck(self, number: int, x: Array) -> Array:
        body, at = f"encoder.stack.{number}.bottleneck_block.", 2 if number else 0

        def normed(index: int, y: Array) -> Array:
            weight, bias, mean, var = (
                self.tensors[f"{body}{index}.{leaf}"][:, None, None, None]
                for leaf in ("weight", "bias", "running_mean", "running_var")
            )
            return np.maximum((y - mean) / np.sqrt(var + 1e-5) * weight + bias, 0)

        x = normed(0, x) if number else x
        x = normed(at + 1, self.conv(f"{body}{at}", x, stride=2 if number == 2 else 1))
        x = normed(at + 5, self.conv(f"{body}{at + 3}", x))
        return self.conv(f"{body}{at + 7}", x)

    def encode(self, frames: Array) -> tuple[Array, Array]:
        x, y = np.split(folded(frames), 2)
        for number in range(3):
            change = self.bottleneck(number, y)
            x, y = (folded(x), folded(y)) if number == 2 else (x, y)
            x, y = y, x + change
        return x, y

    def decode(self, x: Array, y: Array) -> Array:
        for number in (2, 1, 0):
            y_before = unfolded(x) if number == 2 else x
            x_before = y - self.bottleneck(number, y_before)
            x, y = (unfolded(x_before) if number == 2 else x_before), y_before
        return unfolded(np.concatenate([x, y]))

    def predict(self, frames: Array) -> Array:
        x, y = self.encode(frames)
        for i in range(LAYERS):
            name = f"frame_predictor.convlstm.{i}."
            seen = np.concatenate([x, self.h[i], self.c[i]])
            gates = [self.conv(name + gate, seen) for gate in GATES[:3]]
            cell = sigmoid(gates[1]) * self.c[i] + sigmoid(gates[0]) * np.tanh(gates[2])
            seen = np.concatenate([x, self.memory, cell])
            gates = [self.conv(name + gate, seen) for gate in GATES[3:6]]
            self.memory = sigmoid(gates[1]) * self.memory + sigmoid(gates[0]) * np.tanh(gates[2])
            opened = sigmoid(self.conv(name + "out_gate", np.concatenate([x, self.h[i], cell, self.memory])))
            hidden = opened * np.tanh(self.conv(name + "w1", np.concatenate([cell, self.memory])))
            share = sigmoid(self.conv(f"frame_predictor.att.{i}.0", hidden))
            self.h = [*self.h[:i], hidden, *self.h[i + 1 :]]
            self.c = [*self.c[:i], cell, *self.c[i + 1 :]]
            x, y = (1 - share) * y + share * hidden, x
        return self.decode(x, y)

    def forecast(self, past: Array, steps: int) -> Array:
        """As published: groups of true frames, then each forecast group, with true frames where there are some."""
        groups = [np.swapaxes(past[t : t + 3], 0, 1) for t in range(len(past) - 2)]
        for group in groups[:-1]:
            self.predict(group)
        forecasts, group = [], groups[-1]
        for number in range(steps):
            group = self.predict(group)
            forecasts.append(group[:, 2])
            for place in (0, 1):
                if number + place < 2:
                    group[:, place] = past[len(past) - 2 + number + place]
        return np.stack(forecasts)


@pytest.mark.parametrize("frames", [3, 5])  # with three, there is one group, and OpenSTL's test does the same
def test_a_converted_checkpoint_forecasts_as_published(frames: int, tmp_path: Path) -> None:
    state, spec = published(), spec_of(frames_in=frames)
    torch.save(state, tmp_path / "ckpt.pth")
    assert convert("openstl", tmp_path / "ckpt.pth", spec, tmp_path / "out").unused == ()
    generator = torch.Generator().manual_seed(4)
    past = torch.rand(1, frames, CHANNELS, SIDE, 2 * SIDE, generator=generator, dtype=torch.float64)
    expected = Reference({n: t.float() for n, t in state.items()}).forecast(past[0].numpy(), 5)
    assert expected.std(0).mean() > 0.01  # or there would be little to compare
    model = stzoo.load(tmp_path / "out")
    assert torch.equal(model.predict(past.float()), model.rollout(past.float(), 5)[:, :3])
    with torch.no_grad():
        found = torch.stack(list(unroll(model.module.double(), model.spec, past, 5)), 1)
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=0, atol=1e-9)


def test_the_file_tells_its_model_and_a_wrong_tensor_is_named(tmp_path: Path) -> None:
    state, frames = published(), {"frames_in": 4, "frames_out": 3, "height": SIDE, "width": 2 * SIDE}
    torch.save({"state_dict": {f"module.{n}": t for n, t in state.items()}}, tmp_path / "ckpt.pth")
    report = convert("openstl", tmp_path / "ckpt.pth", None, tmp_path / "told", known=frames)
    assert (report.spec.params, report.spec.channels) == ({"blocks": BLOCKS, "layers": LAYERS}, CHANNELS)
    for name in [n for n in state if not n.endswith("tracked")][::3]:
        for change in ({k: v for k, v in state.items() if k != name}, state | {name: state[name][:-1]}):
            torch.save(change, tmp_path / "ckpt.pth")
            with pytest.raises(MismatchError, match=name.replace(".", r"\.")):
                convert("openstl", tmp_path / "ckpt.pth", spec_of(), tmp_path / "out")


@pytest.mark.parametrize("training", [False, True])  # where features are normed, rounding grows: in float64
@pytest.mark.parametrize("blocks", [(1,), (2, 1), (4, 5, 3)])
def test_decoding_undoes_encoding(blocks: tuple[int, ...], training: bool) -> None:
    torch.manual_seed(0)
    module: Any = build(spec_of(blocks=blocks, layers=1)).train(training)
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(1.2)
        module = module.double() if training else module
        frames = torch.rand(2, CHANNELS, 3, SIDE, 2 * SIDE, dtype=torch.float64 if training else torch.float32)
        x, y = module.autoencoder.encode(frames)
        stages = len(blocks)
        assert x.shape == y.shape == (2, 2 * CHANNELS * 4 ** (stages - 1), 3, SIDE >> stages, 2 * SIDE >> stages)
        torch.testing.assert_close(module.autoencoder.decode((x, y)), frames, rtol=0, atol=1e-5)
        changed = module.autoencoder.decode((x, y + 0.1))
    assert (changed - frames).abs().mean() > 1e-3


def test_counts_are_the_published_ones() -> None:
    """5.0 M; and 270.7 G, which are the 17 groups of three among 20 frames but the last, in a batch of 16."""
    spec = ModelSpec(arch="crevnet", frames_in=10, frames_out=10, channels=1, height=64, width=64)
    assert sum(p.numel() for p in build(spec, "meta").parameters()) == 4_997_444
    assert 16 * macs(spec, 10) / 1e9 == pytest.approx(270.7, rel=0.01)


def test_the_memories_begin_with_the_third_frame() -> None:
    """Before it there are no three frames; the last frame is repeated, as nothing better is known."""
    torch.manual_seed(0)
    module: Any = build(spec_of()).eval()
    frames = torch.rand(3, 2, CHANNELS, SIDE, 2 * SIDE)
    with torch.no_grad():
        state = module.initial_state(2, (SIDE, 2 * SIDE), frames.device, frames.dtype)
        for frame in frames[:2]:
            forecast, state = module.step(frame, state)
            assert torch.equal(forecast, frame)
            assert not state.memory.any()
            assert not any(part.any() for part in state.hidden + state.cell)
        forecast, state = module.step(frames[2], state)
    assert not torch.equal(forecast, frames[2])
    assert state.memory.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": []}, r"spec\.params\.blocks has 0 values; it must have 1 to 8"),
        ({"blocks": [0]}, r"spec\.params\.blocks\[0\] is 0"),
        ({"height": 10}, r"spec\.height x spec\.width is 10x16; this crevnet needs multiples of 4"),
    ],
)
def test_what_it_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(spec_of(**changes), "meta")
