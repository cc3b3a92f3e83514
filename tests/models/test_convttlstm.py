"""Conv-TT-LSTM against its equations, written out in float64 on the tensors of a checkpoint laid out as published.

Nothing is shared with stzoo: all hidden states that ever were are kept in a list, and a convolution, in time as well,
is a sum over its taps.
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
from stzoo.models.inferring import infer
from stzoo.models.reading import Frame
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

Array = NDArray[np.float64]
SHAPE = (2, 6, 8)
SMALL: dict[str, Any] = {
    "hidden": [3, 5, 4, 2], "layers": 2, "skip": 2, "order": 3, "steps": 3, "ranks": 2, "kernel": 3, "patch": 1,
}  # fmt: skip


def spec_of(**more: Any) -> ModelSpec:
    return ModelSpec(
        arch="convttlstm", frames_in=4, frames_out=3, channels=SHAPE[0], height=SHAPE[1], width=SHAPE[2],
        value_range=None, params=SMALL | more,
    )  # fmt: skip


def published_shapes(p: dict[str, Any], channels: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the authors' code."""
    shapes: dict[str, tuple[int, ...]] = {}
    k, r, order, lags, hidden = p["kernel"], p["ranks"], p["order"], p["steps"] - p["order"] + 1, p["hidden"]
    reads = channels
    for b, width in enumerate(hidden):
        for cell in range(p["layers"]):
            at = f"layers.b{b}l{cell}"
            for i in range(order):
                last = i == order - 1
                shapes[f"{at}.layers.{i}.weight"] = (4 * width, r + reads, k, k) if last else (r, r, k, k)
                shapes[f"{at}.layers.{i}.bias"] = (4 * width,) if last else (r,)
                shapes[f"{at}.layers_.{i}.weight"] = (r, width, k, k, lags)
                shapes[f"{at}.layers_.{i}.bias"] = (r,)
            reads = width
        reads += hidden[b - p["skip"]] if b >= p["skip"] else 0
    return shapes | {"layers.output.weight": (channels, reads, 1, 1), "layers.output.bias": (channels,)}


def published(p: dict[str, Any]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(6)
    return {
        name: 2 / max(4, math.prod(shape[1:])) ** 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in published_shapes(p, SHAPE[0]).items()
    }


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


class Reference:
    """One clip, frame by frame."""

    def __init__(self, state: dict[str, torch.Tensor], p: dict[str, Any], squeeze: bool):
        self.tensors, self.p, self.squeeze = {n: t.numpy() for n, t in state.items()}, p, squeeze
        self.hidden: dict[str, list[Array]] = {}
        self.memory: dict[str, Array] = {}

    def conv(self, name: str, x: Array) -> Array:
        weight = self.tensors[f"{name}.weight"]
        k, (_, h, w) = weight.shape[2], x.shape
        padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
        out = np.tile(self.tensors[f"{name}.bias"][:, None, None], (1, h, w))
        for dy in range(k):
            for dx in range(k):
                out += np.einsum("oc,chw->ohw", weight[:, :, dy, dx], padded[:, dy : dy + h, dx : dx + w])
        return out

    def conv_over_time(self, name: str, frames: list[Array]) -> Array:
        """The sum of 2-D convolutions, one for each hidden state in the window; the bias counts once."""
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        made = np.zeros((len(bias), *frames[0].shape[1:])) + bias[:, None, None]
        for t, frame in enumerate(frames):
            self.tensors["tap.weight"], self.tensors["tap.bias"] = weight[..., t], np.zeros_like(bias)
            made += self.conv("tap", frame)
        return made

    def cell(self, name: str, width: int, x: Array) -> Array:
        steps, order = self.p["steps"], self.p["order"]
        zeros = np.zeros((width, *SHAPE[1:]))
        past = self.hidden.setdefault(name, [zeros] * steps)
        window = past[-steps:]
        v = np.zeros((self.p["ranks"], *SHAPE[1:]))
        for i in range(order):
            carried = self.conv(f"{name}.layers.{i - 1}", v) if i else 0.0
            v = self.conv_over_time(f"{name}.layers_.{i}", window[i : i + steps - order + 1]) + carried
        i_, f, o, g = np.split(self.conv(f"{name}.layers.{order - 1}", np.concatenate([x, v])), 4)
        self.memory[name] = sigmoid(f) * self.memory.get(name, zeros) + sigmoid(i_) * np.tanh(g)
        past.append(sigmoid(o) * np.tanh(self.memory[name]))
        return past[-1]

    def step(self, frame: Array) -> Array:
        x, queue = frame, []
        for b, width in enumerate(self.p["hidden"]):
            for cell in range(self.p["layers"]):
                x = self.cell(f"layers.b{b}l{cell}", width, x)
            queue.append(x)
            if b >= self.p["skip"]:
                x = np.concatenate([x, queue.pop(0)])
        made = self.conv("layers.output", x)
        return sigmoid(made) if self.squeeze else made

    def forecast(self, past: Array, steps: int) -> Array:
        forecasts: list[Array] = []
        for t in range(len(past) + steps - 1):
            forecasts.append(self.step(past[t] if t < len(past) else forecasts[-1]))
        return np.stack(forecasts[len(past) - 1 :])


@pytest.mark.parametrize(("skip", "squeeze"), [(2, False), (1, True), (3, False)])
def test_a_converted_checkpoint_forecasts_as_published(skip: int, squeeze: bool, tmp_path: Path) -> None:
    p = SMALL | {"skip": skip}
    state = published(p)
    # as the authors saved it, after training on several GPUs
    torch.save({"epoch": 3, "model_state_dict": {f"module.{n}": t for n, t in state.items()}}, tmp_path / "a.pt")
    sizes = {"frames_in": 4, "frames_out": 3, "height": SHAPE[1], "width": SHAPE[2]}
    values = {"value_range": (0.0, 1.0) if squeeze else None, "params": {"sigmoid": squeeze}}
    report = convert("official", tmp_path / "a.pt", None, tmp_path / "out", known=sizes | values)
    assert not report.unused
    assert report.spec.params["skip"] == skip
    past = torch.rand(1, 4, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    expected = Reference({n: t.float().double() for n, t in state.items()}, p, squeeze).forecast(past[0].numpy(), 5)
    assert expected.std() > 0.03  # or there would be little to compare
    model = stzoo.load(tmp_path / "out")
    assert torch.equal(model.predict(past.float()), model.rollout(past.float(), 5)[:, :3])
    with torch.no_grad():
        found = torch.stack(list(unroll(model.module.double(), model.spec, past, 5)), 1)
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("order", "steps"), [(2, 4), (1, 3), (3, 5)])
def test_a_window_may_be_longer_than_the_train(order: int, steps: int) -> None:
    """Then each part of the train reads several hidden states in a row, with one kernel over all of them."""
    p = SMALL | {"order": order, "steps": steps, "hidden": [3, 2], "skip": 1}
    state, module = published(p), build(spec_of(**p)).double()
    with torch.no_grad():
        for b, block in enumerate(module.blocks):
            for i, cell in enumerate(block):
                for kind, convs in (("layers_", cell.read), ("layers", cell.carry)):
                    for j, conv in enumerate(convs):
                        weight = state[f"layers.b{b}l{i}.{kind}.{j}.weight"]
                        weight = weight.permute(0, 4, 1, 2, 3).flatten(1, 2) if kind == "layers_" else weight
                        conv.weight.copy_(weight)
                        conv.bias.copy_(state[f"layers.b{b}l{i}.{kind}.{j}.bias"])
        module.readout.weight.copy_(state["layers.output.weight"])
        module.readout.bias.copy_(state["layers.output.bias"])
        past = torch.rand(1, 4, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
        found = torch.stack(list(unroll(module, spec_of(**p), past, 5)), 1)
    np.testing.assert_allclose(found[0].numpy(), Reference(state, p, False).forecast(past[0].numpy(), 5), atol=1e-10)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="its cells read 2 hidden states with one kernel"):
        infer(published_shapes(SMALL | {"steps": 4}, 2), Frame(channels=2))
    state = published(SMALL)
    for gone in ("layers.b1l0.layers.2.weight", "layers.b0l1.layers_.0.bias", "layers.output.bias"):
        torch.save({n: t for n, t in state.items() if n != gone}, tmp_path / "a.pt")
        with pytest.raises(MismatchError, match=gone.replace(".", r"\.")):
            convert("official", tmp_path / "a.pt", spec_of(), tmp_path / "out")


def test_parameters_and_multiply_accumulates_are_those_of_the_published_model() -> None:
    """As in the authors' code. Each step uses every weight once at each of 64 x 64 places; here there are two steps."""
    spec = stzoo.info("convttlstm-mmnist-paper").spec
    shapes = published_shapes(dict(spec.params), 1).values()
    count = sum(p.numel() for p in build(spec, "meta").parameters())
    assert (count, round(count / 1e6, 2)) == (sum(map(math.prod, shapes)), 2.69)
    products = sum(math.prod(shape) for shape in shapes if len(shape) > 1)
    assert macs(spec.replace(frames_in=2), 1) == 2 * 64 * 64 * products
