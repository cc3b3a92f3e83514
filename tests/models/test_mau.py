"""MAU against its equations, written out in float64 on the tensors of a published checkpoint, one step after the other.

Nothing is shared with stzoo: states are lists that grow, attention is a loop over the last steps, a convolution is a
sum over its taps, and a transposed one spreads every pixel.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from recurrent_modules import clip, module_of, outputs

import stzoo
from stzoo.convert import convert
from stzoo.errors import MismatchError
from stzoo.models import build
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

Array = NDArray[np.float64]
LAYERS, HIDDEN, KERNEL, TAU, SIDE = 2, 6, 3, 3, 8


def spec_of(recall: bool = False, shrink: int = 4, residual: bool = False) -> ModelSpec:
    return ModelSpec(
        arch="mau", frames_in=4, frames_out=3, channels=2, height=SIDE, width=2 * SIDE, value_range=None,
        params={"layers": LAYERS, "hidden": HIDDEN, "kernel": KERNEL, "shrink": shrink, "tau": TAU, "recall": recall,
                "residual": residual},
    )  # fmt: skip


def published(shrink: int = 4) -> dict[str, torch.Tensor]:
    """Random weights under the names and with the shapes of a published checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {}
    grid = SIDE // shrink, 2 * SIDE // shrink

    def conv(name: str, *shape: int) -> None:
        shapes.update({f"{name}.weight": shape, f"{name}.bias": (shape[1 if "decoder" in name else 0],)})

    for i in range(LAYERS):
        for name, gates in (("t", 3), ("t_next", 1), ("s", 3), ("s_next", 1)):
            conv(f"cell_list.{i}.conv_{name}.0", gates * HIDDEN, HIDDEN, KERNEL, KERNEL)
            for leaf in ("weight", "bias"):
                shapes[f"cell_list.{i}.conv_{name}.1.{leaf}"] = (gates * HIDDEN, *grid)
    conv("encoders.0.encoder_t_conv-1", HIDDEN, 2, 1, 1)
    for i in range(int(math.log2(shrink))):
        conv(f"encoders.{i + 1}.encoder_t{i}", HIDDEN, HIDDEN, 3, 3)
        conv(f"decoders.{i}.c_decoder{i}", HIDDEN, HIDDEN, 3, 3)
    conv("srcnn.0", 2, HIDDEN, 1, 1)
    conv("merge", HIDDEN, 2 * HIDDEN, 1, 1)
    conv("conv_last_sr", 2, 4, 1, 1)
    generator = torch.Generator().manual_seed(3)
    state = {}
    for name, shape in shapes.items():
        fan_in = max(1, math.prod(shape[1:])) if name.endswith("0.weight") or "coder" in name else 4
        state[name] = 1.5 / fan_in**0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return state


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


class Reference:
    """One clip, frame by frame; every state that ever was is kept."""

    def __init__(self, state: dict[str, torch.Tensor], recall: bool, shrink: int = 4, residual: bool = False):
        self.tensors = {name: tensor.numpy() for name, tensor in state.items()}
        self.recall, self.halvings, self.residual = recall, int(math.log2(shrink)), residual
        zeros = np.zeros((HIDDEN, SIDE // shrink, 2 * SIDE // shrink))
        self.temporal, self.spatial = ([[zeros] * TAU for _ in range(LAYERS)] for _ in range(2))

    def conv(self, name: str, x: Array, stride: int = 1) -> Array:
        weight = self.tensors[f"{name}.weight"]
        k, (_, h, w) = weight.shape[-1], x.shape
        padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
        out = np.tile(self.tensors[f"{name}.bias"][:, None, None], (1, h // stride, w // stride))
        for dy in range(k):
            for dx in range(k):
                seen = padded[:, dy : dy + h : stride, dx : dx + w : stride]
                out += np.einsum("oc,chw->ohw", weight[:, :, dy, dx], seen)
        return out

    def normed(self, name: str, x: Array) -> Array:
        y = self.conv(f"{name}.0", x)
        y = (y - y.mean()) / np.sqrt(y.var() + 1e-5)
        return y * self.tensors[f"{name}.1.weight"] + self.tensors[f"{name}.1.bias"]

    def doubled(self, name: str, x: Array) -> Array:
        """Every pixel spreads its value over 3x3 places of a canvas twice as large."""
        weight, (_, h, w) = self.tensors[f"{name}.weight"], x.shape
        canvas = np.zeros((weight.shape[1], 2 * h + 2, 2 * w + 2))
        for y in range(h):
            for z in range(w):
                canvas[:, 2 * y : 2 * y + 3, 2 * z : 2 * z + 3] += np.einsum("c,coij->oij", x[:, y, z], weight)
        return canvas[:, 1:-1, 1:-1] + self.tensors[f"{name}.bias"][:, None, None]

    def cell(self, i: int, s: Array) -> Array:
        name = f"cell_list.{i}.conv_"
        query, t = self.normed(name + "s_next", s), self.temporal[i][-1]
        scores = np.array([(old * query).sum() / math.sqrt(s.size) for old in self.spatial[i][-TAU:]])
        shares = np.exp(scores) / np.exp(scores).sum()
        trend = sum(share * old for share, old in zip(shares, self.temporal[i][-TAU:], strict=True))
        gate = sigmoid(self.normed(name + "t_next", t))
        t_g, t_t, t_s = np.split(self.normed(name + "t", gate * t + (1 - gate) * trend), 3)
        s_g, s_t, s_s = np.split(self.normed(name + "s", s), 3)
        self.spatial[i].append(s)
        self.temporal[i].append(sigmoid(t_g) * t_t + (1 - sigmoid(t_g)) * s_t)
        up = sigmoid(s_g) * s_s + (1 - sigmoid(s_g)) * t_s
        return up + s if self.residual else up

    def step(self, frame: Array) -> Array:
        def leaky(x: Array) -> Array:
            return np.where(x > 0, x, 0.2 * x)

        x = leaky(self.conv("encoders.0.encoder_t_conv-1", frame))
        encoded = [x]
        for i in range(self.halvings):
            x = leaky(self.conv(f"encoders.{i + 1}.encoder_t{i}", x, stride=2))
            encoded.append(x)
        for i in range(LAYERS):
            x = self.cell(i, x)
        for i in range(self.halvings):
            x = self.doubled(f"decoders.{i}.c_decoder{i}", x)
            x = leaky(x) if i < self.halvings - 1 else x
            x = x + encoded[-2 - i] if self.recall else x
        return self.conv("srcnn.0", x)

    def forecast(self, past: Array, steps: int) -> Array:
        forecasts: list[Array] = []
        for t in range(len(past) + steps - 1):
            forecasts.append(self.step(past[t] if t < len(past) else forecasts[-1]))
        return np.stack(forecasts[len(past) - 1 :])


@pytest.mark.parametrize(
    ("recall", "shrink", "residual", "origin"),
    [
        (False, 4, False, "openstl"),
        (True, 2, False, "official"),
        (False, 1, False, "openstl"),
        (True, 4, True, "openstl"),
    ],
)
def test_a_converted_checkpoint_forecasts_as_published(
    recall: bool, shrink: int, residual: bool, origin: str, tmp_path: Path
) -> None:
    state, spec = published(shrink), spec_of(recall, shrink, residual)
    torch.save(state, tmp_path / "ckpt.pth")
    report = convert(origin, tmp_path / "ckpt.pth", spec, tmp_path / "out")
    assert report.unused == ("conv_last_sr.bias", "conv_last_sr.weight", "merge.bias", "merge.weight")
    past = torch.rand(1, 4, 2, SIDE, 2 * SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    theirs = {n: t.float().double() for n, t in state.items()}
    expected = Reference(theirs, recall, shrink, residual).forecast(past[0].numpy(), 7)
    assert expected.std() > 0.05  # or there would be little to compare
    model = stzoo.load(tmp_path / "out")
    assert torch.equal(model.predict(past.float()), model.rollout(past.float(), 7)[:, :3])
    with torch.no_grad():
        found = torch.stack(list(unroll(model.module.double(), model.spec, past, 7)), 1)  # more steps than tau
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=0, atol=1e-10)


def test_a_missing_or_misshapen_tensor_is_named_as_published(tmp_path: Path) -> None:
    state = published()
    for name in (n for n in state if not n.startswith(("merge", "conv_last_sr"))):
        for change in ({k: v for k, v in state.items() if k != name}, state | {name: state[name][:-1]}):
            torch.save(change, tmp_path / "ckpt.pth")
            with pytest.raises(MismatchError, match=name.replace(".", r"\.")):
                convert("openstl", tmp_path / "ckpt.pth", spec_of(), tmp_path / "out")


def test_what_lies_further_back_than_tau_acts_through_the_states_alone() -> None:
    """Both cells hold a first frame in all that came after it, but only the longer one attends to it."""
    short, long = (module_of("mau", tau=tau) for tau in (1, 8))
    with torch.no_grad():
        for a, b in zip(short.parameters(), long.parameters(), strict=True):
            assert torch.equal(a, b)  # tau has no weights
    a, b = outputs(short, clip(frames=3)), outputs(long, clip(frames=3))
    torch.testing.assert_close(a[0], b[0], rtol=0, atol=1e-6)  # nothing but zeros was held before the first frame
    assert (a[1] - b[1]).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("size", "shrink", "channels", "published"),
    [
        ((64, 64), 4, 1, 4.484),
        ((64, 64), 4, 3, 4.484),
        ((128, 160), 2, 3, 24.333),
        ((128, 128), 2, 1, 20.138),
        ((256, 256), 4, 3, 20.213),
        ((32, 32), 2, 2, 4.410),
        ((32, 64), 2, 1, 5.458),
        ((32, 64), 4, 1, 3.959),
    ],
)
def test_parameters_are_those_of_the_published_configurations(
    size: tuple[int, int], shrink: int, channels: int, published: float
) -> None:
    """Millions, with the two 1x1 convolutions that published code makes and never uses."""
    spec = ModelSpec(
        arch="mau", frames_in=10, frames_out=10, channels=channels, height=size[0], width=size[1],
        value_range=None, params={"shrink": shrink},
    )  # fmt: skip
    unused = 64 * 128 + 64 + channels * (2 * channels + 1)
    count = sum(p.numel() for p in build(spec, "meta").parameters()) + unused
    assert round(count / 1e6, 3) == published
