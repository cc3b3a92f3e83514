"""PredNet against its equations, written out in float64 on the tensors of a published checkpoint, step by step.

Nothing is shared with stzoo: units live in lists of arrays, a convolution is a sum over its taps, and a rollout goes
through past and future in one loop, as published code does.
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
from stzoo.models.feedback import is_own
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

Array = NDArray[np.float64]
WIDTHS = (2, 5, 4)  # the first is that of the frame
SIDE = 8


def spec_of(value_range: tuple[float, float] | None = (0.0, 1.0), kernel: int = 3, **changes: Any) -> ModelSpec:
    return ModelSpec(
        arch="prednet", frames_in=4, frames_out=3, channels=2, height=SIDE, width=2 * SIDE, value_range=value_range,
        params={"widths": WIDTHS[1:], "kernel": kernel}, **changes,
    )  # fmt: skip


def published(kernel: int = 3) -> dict[str, torch.Tensor]:
    """Random weights under the names and with the shapes of a published checkpoint."""
    generator, state = torch.Generator().manual_seed(3), {}
    for level, width in enumerate(WIDTHS):
        above = WIDTHS[level + 1] if level + 1 < len(WIDTHS) else 0
        convs = {f"{gate}.{level}": (3 * width + above, width) for gate in "cfio"}
        convs[f"Ahat.{2 * level}"] = width, width
        if above:
            convs[f"A.{2 * level}"] = 2 * width, above
        for name, (c_in, c_out) in convs.items():
            spread = 2 / math.sqrt(c_in * kernel**2)
            shape = (c_out, c_in, kernel, kernel)
            state[f"{name}.weight"] = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
            state[f"{name}.bias"] = 0.3 * torch.rand(c_out, generator=generator, dtype=torch.float64)
    return state


class Reference:
    """One clip. `errors` are those of the last step, the lowest layer first."""

    def __init__(self, state: dict[str, torch.Tensor], limit: float):
        self.tensors = {name: tensor.numpy() for name, tensor in state.items()}
        self.limit, self.top = limit, len(WIDTHS) - 1
        planes = [(SIDE >> level, 2 * SIDE >> level) for level in range(len(WIDTHS))]
        self.r = [np.zeros((c, *plane)) for c, plane in zip(WIDTHS, planes, strict=True)]
        self.c = [np.zeros_like(r) for r in self.r]
        self.errors = [np.zeros((2 * c, *plane)) for c, plane in zip(WIDTHS, planes, strict=True)]

    def conv(self, name: str, x: Array) -> Array:
        weight = self.tensors[f"{name}.weight"]
        k, (_, h, w) = weight.shape[-1], x.shape
        padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
        out = np.tile(self.tensors[f"{name}.bias"][:, None, None], (1, h, w))
        for dy in range(k):
            for dx in range(k):
                out += np.einsum("oc,chw->ohw", weight[:, :, dy, dx], padded[:, dy : dy + h, dx : dx + w])
        return out

    def predict(self) -> Array:
        """The pass downwards, and the frame that is expected."""
        for level in range(self.top, -1, -1):
            parts = [self.r[level], self.errors[level]]
            if level < self.top:
                parts.append(self.r[level + 1].repeat(2, 1).repeat(2, 2))
            x = np.concatenate(parts)
            i, f, o = (np.clip(0.2 * self.conv(f"{gate}.{level}", x) + 0.5, 0, 1) for gate in "ifo")
            self.c[level] = f * self.c[level] + i * np.tanh(self.conv(f"c.{level}", x))
            self.r[level] = o * np.tanh(self.c[level])
        return np.minimum(np.maximum(self.conv("Ahat.0", self.r[0]), 0), self.limit)

    def compare(self, expected: Array, target: Array) -> None:
        """The pass upwards."""
        for level in range(self.top + 1):
            if level:
                expected = np.maximum(self.conv(f"Ahat.{2 * level}", self.r[level]), 0)
            self.errors[level] = np.concatenate([np.maximum(expected - target, 0), np.maximum(target - expected, 0)])
            if level < self.top:
                raised = np.maximum(self.conv(f"A.{2 * level}", self.errors[level]), 0)
                c, h, w = raised.shape
                target = raised.reshape(c, h // 2, 2, w // 2, 2).max((2, 4))

    def forecast(self, past: Array, steps: int) -> Array:
        """As published: where the past has ended, what was expected one step before is taken for the true frame."""
        expected: list[Array] = []
        for t in range(len(past) + steps):
            expected.append(self.predict())
            self.compare(expected[t], past[t] if t < len(past) else expected[t - 1])
        return np.stack(expected[len(past) :])


@pytest.mark.parametrize(("kernel", "limit"), [(3, 1.0), (3, 0.5), (5, None)])
def test_a_converted_checkpoint_forecasts_as_published(kernel: int, limit: float | None, tmp_path: Path) -> None:
    """Values without a range are clipped at 1 as well, as in published code, whatever the past is."""
    state, spec = published(kernel), spec_of(None if limit is None else (0.0, limit), kernel)
    torch.save(state, tmp_path / "ckpt.pth")
    assert convert("openstl", tmp_path / "ckpt.pth", spec, tmp_path / "out").unused == ()
    past = torch.rand(1, 4, 2, SIDE, 2 * SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    past, most = past * limit if limit else 4 * past - 2, limit or 1.0
    expected = Reference({n: t.float().double() for n, t in state.items()}, most).forecast(past[0].numpy(), 6)
    assert expected.std() > 0.05  # or there would be little to compare
    assert (expected == 0).any()
    assert (expected == most).any()
    model = stzoo.load(tmp_path / "out")
    assert torch.equal(model.predict(past.float()), model.rollout(past.float(), 6)[:, :3])
    with torch.no_grad():
        found = torch.stack(list(unroll(model.module.double(), model.spec, past, 6)), 1)
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=0, atol=1e-10)


def test_the_file_tells_its_model_and_a_wrong_tensor_is_named(tmp_path: Path) -> None:
    state, frames = published(), {"frames_in": 4, "frames_out": 3, "height": SIDE, "width": 2 * SIDE}
    torch.save({"state_dict": {f"module.{n}": t for n, t in state.items()}}, tmp_path / "ckpt.pth")
    report = convert("openstl", tmp_path / "ckpt.pth", None, tmp_path / "told", known=frames)
    assert (report.spec.params, report.locked) == ({"widths": WIDTHS[1:], "kernel": 3}, False)
    for name in state:
        for change in ({k: v for k, v in state.items() if k != name}, state | {name: state[name][:-1]}):
            torch.save(change, tmp_path / "ckpt.pth")
            with pytest.raises(MismatchError, match=name.replace(".", r"\.")):
                convert("openstl", tmp_path / "ckpt.pth", spec_of(), tmp_path / "out")


@pytest.mark.parametrize(
    ("channels", "size", "frames", "parameters", "published"),
    [
        (3, (64, 64), 10, 12_515_244, 8.6),  # published for moving digits, which are gray: see docs/architectures.md
        (3, (128, 160), 10, 12_515_244, 42.8),
        (3, (128, 128), 4, 12_515_244, 13.7),  # published for people, whose frames are 256x256
        (2, (32, 32), 4, 12_512_926, 0.85),
        (1, (64, 64), 10, 12_510_842, None),
    ],
)
def test_counts_are_the_published_ones(
    channels: int, size: tuple[int, int], frames: int, parameters: int, published: float | None
) -> None:
    """12.5 M parameters on every dataset; multiply-accumulates are published for as many steps as a past has frames."""
    spec = ModelSpec(
        arch="prednet", frames_in=frames, frames_out=frames, channels=channels, height=size[0], width=size[1]
    )
    assert sum(p.numel() for p in build(spec, "meta").parameters()) == parameters
    if published is not None:
        assert (macs(spec, 1 + frames) - macs(spec, 1)) / 1e9 == pytest.approx(published, rel=0.01)


def test_only_a_forecast_that_comes_back_is_taken_for_one() -> None:
    forecast = torch.rand(3, 2, 4, 4)
    frame = forecast.clone()
    frame[1, 1, 3, 2] += 1e-6
    assert is_own(frame, forecast).flatten().tolist() == [True, False, True]
    torch.manual_seed(0)
    module: Any = build(spec_of())
    frames = torch.rand(4, 2, 2, SIDE, 2 * SIDE)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
        state = module.initial_state(2, (SIDE, 2 * SIDE), frames.device, frames.dtype)
        for frame in frames:
            forecast, state = module.step(frame, state)
        back, _ = module.step(forecast, state)
        before, _ = module.step(state.earlier, state)
        other, _ = module.step(forecast + 1e-6, state)
    assert torch.equal(back, before)
    assert (back - other).abs().max() > 1e-4


def test_forecasts_stay_in_the_range_of_values_as_the_module_sees_it() -> None:
    torch.manual_seed(0)
    spec = spec_of((-1.0, 3.0), mean=(1.0, 0.0), std=(2.0, 4.0))
    module: Any = build(spec)
    with torch.no_grad():
        module.layers[0].prediction.bias.copy_(torch.tensor([9.0, -9.0]))
        forecast = next(unroll(module, spec, torch.rand(1, 4, 2, SIDE, 2 * SIDE)))
    assert [forecast[0, c].unique().tolist() for c in range(2)] == [[1.0], [-0.25]]


def test_forecasts_of_values_without_a_range_have_none_unless_they_were_trained_so() -> None:
    for any_range in (False, True):
        torch.manual_seed(0)
        spec = spec_of(None).replace(any_range=any_range)
        module: Any = build(spec)
        with torch.no_grad():
            module.layers[0].prediction.bias.copy_(torch.tensor([9.0, -9.0]))
            forecast = next(unroll(module, spec, torch.rand(1, 4, 2, SIDE, 2 * SIDE)))
        assert (forecast.max() > 1, forecast.min() < 0) == (not any_range, not any_range)


@pytest.mark.parametrize(
    ("params", "size", "message"),
    [
        ({"kernel": 4}, 16, r"spec\.params\.kernel is 4; it must be odd"),
        ({"widths": [4] * 16}, 16, r"spec\.params\.widths has 16 values; it may have at most 15"),
        ({"widths": [4, 0]}, 16, r"spec\.params\.widths\[1\] is 0"),
        ({"widths": [4, 4, 4]}, 20, r"spec\.height x spec\.width is 20x16; this prednet needs multiples of 8"),
    ],
)
def test_what_it_cannot_be_is_refused(params: dict[str, Any], size: int, message: str) -> None:
    spec = ModelSpec(arch="prednet", frames_in=4, frames_out=4, channels=1, height=size, width=16, params=params)
    with pytest.raises(SpecError, match=message):
        build(spec, "meta")


def test_a_true_frame_that_is_flat_is_not_taken_for_a_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scene goes dark; once the forecast is as dark, clipped to the range, the two are the same to the last bit."""
    torch.manual_seed(1)
    spec = ModelSpec(
        arch="prednet", frames_in=4, frames_out=4, channels=1, height=16, width=16, params={"widths": [8, 12]}
    )
    module = build(spec).eval()
    clip, met = torch.rand(1, 12, 1, 16, 16), 0
    clip[:, 4:] = 0.0
    with torch.no_grad():
        module.layers[0].prediction.bias.fill_(-0.02)  # so that forecasts reach the end of the range
        states = []
        for knows in (False, True):
            if knows:
                monkeypatch.setattr("stzoo.models.prednet.is_own", lambda f, _: torch.zeros(len(f), 1, 1, 1).bool())
            state = module.initial_state(1, (16, 16), clip.device, clip.dtype)
            for frame in clip.unbind(1):
                met += state.forecast is not None and torch.equal(state.forecast, frame)
                state = module.step(frame, state)[1]
            states.append(state)
    assert met
    assert all(torch.equal(a, b) for a, b in zip(states[0].cell, states[1].cell, strict=True))
