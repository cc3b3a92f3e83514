"""PredFormer against its equations, written out in float64 on the tensors of a checkpoint laid out as published.

Nothing is shared with stzoo: patches are cut one by one, every head is a loop, and each form is written out by its
authors' names.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from models.published_shapes import published_shapes
from numpy.typing import NDArray

import stzoo
from stzoo.convert import convert
from stzoo.models import build
from stzoo.spec import ModelSpec

Array = NDArray[np.float64]
T, C, H, W, PATCH, DIM, HEADS, HEAD_DIM = 3, 2, 8, 12, 4, 6, 2, 5
ORDER = {  # the authors' names, and over what each attends
    "full": [("space_temporal_transformer", "both")],
    "fac-st": [("space_transformer", "space"), ("temporal_transformer", "time")],
    "fac-ts": [("temporal_transformer", "time"), ("space_transformer", "space")],
    "st": [("st_space_transformer", "space"), ("st_temporal_transformer", "time")],
    "ts": [("ts_temporal_transformer", "time"), ("ts_space_transformer", "space")],
    "sts": [
        ("space_transformer_first", "space"), ("temporal_transformer", "time"), ("space_transformer_second", "space"),
    ],
    "tst": [
        ("temporal_transformer_first", "time"), ("space_transformer", "space"), ("temporal_transformer_second", "time"),
    ],
    "stts": [
        ("st_space_transformer", "space"), ("st_temporal_transformer", "time"), ("ts_temporal_transformer", "time"),
        ("ts_space_transformer", "space"),
    ],
    "tsst": [
        ("ts_temporal_transformer", "time"), ("ts_space_transformer", "space"), ("st_space_transformer", "space"),
        ("st_temporal_transformer", "time"),
    ],
}  # fmt: skip


def spec_of(form: str, **changes: object) -> ModelSpec:
    params = {"form": form, "dim": DIM, "heads": HEADS, "head_dim": HEAD_DIM, "blocks": 2, "mlp_ratio": 2}
    return ModelSpec(
        arch="predformer", frames_in=T, frames_out=T, channels=C, height=H, width=W, value_range=None,
        params=params | {"patch": PATCH} | changes,
    )  # fmt: skip


def published(spec: ModelSpec) -> dict[str, torch.Tensor]:
    """Random weights under the published names, and the table of positions that published files carry."""
    generator = torch.Generator().manual_seed(1)
    state = {
        name: torch.randn(shape, generator=generator) * (0.5 if len(shape) < 2 else 1.2 / shape[-1] ** 0.5)
        for name, shape in published_shapes(spec).items()
    }
    return state | {"pos_embedding": torch.zeros(1, T, H * W // PATCH**2, DIM)}


class Reference:
    def __init__(self, state: dict[str, torch.Tensor], form: str):
        self.tensors = {name: tensor.double().numpy() for name, tensor in state.items()}
        self.form = form

    def linear(self, name: str, x: Array) -> Array:
        y = x @ self.tensors[f"{name}.weight"].T
        return y + self.tensors[f"{name}.bias"] if f"{name}.bias" in self.tensors else y

    def normed(self, name: str, x: Array) -> Array:
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return y * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    def attention(self, name: str, x: Array) -> Array:
        """(N, dim) tokens that see each other."""
        q, k, v = np.split(self.linear(f"{name}.to_qkv", x), 3, axis=-1)
        seen = []
        for head in range(HEADS):
            part = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
            scores = np.exp(q[:, part] @ k[:, part].T / math.sqrt(HEAD_DIM))
            seen.append(scores / scores.sum(1, keepdims=True) @ v[:, part])
        return self.linear(f"{name}.to_out.0", np.concatenate(seen, 1))

    def transformer(self, name: str, x: Array) -> Array:
        for i in range(sum(f"{name}.layers.{i}.0.norm.weight" in self.tensors for i in range(9))):
            layer = f"{name}.layers.{i}"
            x = x + self.attention(f"{layer}.0.fn", self.normed(f"{layer}.0.norm", x))
            y = self.normed(f"{layer}.1.norm", x)
            gate = self.linear(f"{layer}.1.fn.fc1_g", y)
            x = x + self.linear(f"{layer}.1.fn.fc2", gate / (1 + np.exp(-gate)) * self.linear(f"{layer}.1.fn.fc1_x", y))
        return self.normed(f"{name}.norm", x)

    def forecast(self, past: Array) -> Array:
        """(T, C, H, W) -> the same shape."""
        rows, columns = H // PATCH, W // PATCH
        tokens = np.empty((T, rows * columns, DIM))
        for t in range(T):
            for n in range(rows * columns):
                y, x = n // columns * PATCH, n % columns * PATCH
                values = past[t, :, y : y + PATCH, x : x + PATCH].transpose(1, 2, 0).ravel()  # the colour comes last
                place = t * rows * columns + n
                angle = [place / 10000 ** (2 * (i // 2) / DIM) for i in range(DIM)]
                code = [math.cos(a) if i % 2 else math.sin(a) for i, a in enumerate(angle)]
                tokens[t, n] = self.linear("to_patch_embedding.1", values) + code
        blocks = (
            [f"blocks.{i}." for i in range(2)]
            if f"blocks.0.{ORDER[self.form][0][0]}.norm.bias" in self.tensors
            else [""]
        )
        for block in blocks:
            for name, over in ORDER[self.form]:
                if over == "both":
                    tokens = self.transformer(block + name, tokens.reshape(-1, DIM)).reshape(tokens.shape)
                elif over == "space":
                    tokens = np.stack([self.transformer(block + name, tokens[t]) for t in range(T)])
                else:
                    places = [self.transformer(block + name, tokens[:, n]) for n in range(rows * columns)]
                    tokens = np.stack(places, 1)
        future = np.empty((T, C, H, W))
        for t in range(T):
            for n in range(rows * columns):
                y, x = n // columns * PATCH, n % columns * PATCH
                values = self.linear("mlp_head.1", self.normed("mlp_head.0", tokens[t, n]))
                future[t, :, y : y + PATCH, x : x + PATCH] = values.reshape(C, PATCH, PATCH)  # here it comes first
        return future


@pytest.mark.parametrize("form", ORDER)
def test_a_converted_checkpoint_forecasts_as_published(form: str, tmp_path: Path) -> None:
    spec = spec_of(form)
    state = published(spec)
    torch.save(state, tmp_path / "ckpt.pth")
    assert convert("official", tmp_path / "ckpt.pth", spec, tmp_path / "out").unused == ("pos_embedding",)
    model = stzoo.load(tmp_path / "out")
    past = torch.rand(2, T, C, H, W, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        found = model.module.double()(past).numpy()
    expected = np.stack([Reference(state, form).forecast(clip) for clip in past.numpy()])
    assert expected.std() > 0.3  # or there would be little to compare
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_forms_of_the_same_tensors_differ_in_their_forecast() -> None:
    for one, other in (("tsst", "stts"), ("fac-st", "fac-ts")):
        torch.manual_seed(0)
        a, b = (build(spec_of(form)).eval() for form in (one, other))
        b.load_state_dict(a.state_dict())
        past = torch.rand(1, T, C, H, W)
        with torch.no_grad():
            assert (a(past) - b(past)).abs().max() > 1e-4


def test_frames_of_another_size_are_refused() -> None:
    model = stzoo.create(spec_of("tsst"))
    assert model.predict(torch.rand(1, T, C, H, W)).shape == (1, T, C, H, W)
    with pytest.raises(stzoo.errors.FramesError, match="8x12"):
        model.predict(torch.rand(1, T, C, 2 * H, W))


def test_dropout_and_drop_path_act_in_training_alone() -> None:
    past = torch.rand(4, T, C, H, W)
    for changes in ({"dropout": 0.5}, {"drop_path": 0.5}):
        torch.manual_seed(0)
        module = build(spec_of("tsst", **changes))
        with torch.no_grad():
            assert not torch.equal(module.train()(past), module(past))
            assert torch.equal(module.eval()(past), module(past))


@pytest.mark.parametrize(
    ("form", "blocks", "millions"), [("tsst", 6, 25.3), ("stts", 6, 25.3), ("sts", 8, 25.3), ("fac-st", 12, 25.3)]
)
def test_parameters_are_the_published_ones(form: str, blocks: int, millions: float) -> None:
    spec = ModelSpec(
        arch="predformer", frames_in=10, frames_out=10, channels=1, height=64, width=64,
        params={"form": form, "blocks": blocks},
    )  # fmt: skip
    assert round(sum(p.numel() for p in build(spec, "meta").parameters()) / 1e6, 1) == millions
