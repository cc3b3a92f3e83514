"""SwinLSTM against its equations, written out in float64 on the tensors of a checkpoint laid out as published.

Nothing is shared with stzoo: attention is over all tokens at once, with the pairs left out that no window holds, and
which pairs those are follows from where tokens lie; merging is four slices, and every token spreads what it paints.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from recurrent_modules import clip, module_of, outputs

import stzoo
from stzoo.convert import convert
from stzoo.errors import MismatchError, SpecError
from stzoo.models import build
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

Array = NDArray[np.float64]
DIM, WINDOW, PATCH, RATIO, CHANNELS, SIZE = 4, 2, 2, 3, 2, (16, 32)
DEEP: dict[str, Any] = {"down": [3, 2], "up": [2, 4], "heads": [2, 1]}
BASE: dict[str, Any] = {"down": [4, 1], "up": [], "heads": [2, 1]}


def spec_of(form: dict[str, Any], **more: Any) -> ModelSpec:
    params = {"dim": DIM, "window": WINDOW, "patch": PATCH, "mlp_ratio": RATIO} | form | more
    return ModelSpec(
        arch="swinlstm", frames_in=4, frames_out=3, channels=CHANNELS, height=SIZE[0], width=SIZE[1], params=params
    )


def cells(form: dict[str, Any]) -> list[tuple[str, int, int, int]]:
    """Name, width, blocks and heads of every cell, in the order in which they run, as the authors' code makes them."""
    n = len(form["down"])
    if not form["up"]:
        return [(f"ST.layers.{i}", DIM, form["down"][i], form["heads"][i]) for i in range(n)]
    down = [(f"Downsample.layers.{i}", DIM * 2**i, form["down"][i], form["heads"][i]) for i in range(n)]
    up = [(f"Upsample.layers.{i}", DIM * 2 ** (n - i), form["up"][i], form["heads"][n - 1 - i]) for i in range(n)]
    return down + up


def published(form: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Random weights under the names and with the shapes of the authors' code."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int, bias: int | None = None) -> None:
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = (shape[0] if bias is None else bias,)

    for name, width, blocks, heads in cells(form):
        for i in range(blocks):
            at = f"{name}.Swin.layers.{i}"
            for norm in ("norm1", "norm2"):
                layer(f"{at}.{norm}", width)
            layer(f"{at}.attn.qkv", 3 * width, width)
            layer(f"{at}.attn.proj", width, width)
            layer(f"{at}.mlp.fc1", RATIO * width, width)
            layer(f"{at}.mlp.fc2", width, RATIO * width)
            layer(f"{at}.red", width, 2 * width)
            shapes[f"{at}.attn.relative_position_bias_table"] = ((2 * WINDOW - 1) ** 2, heads)
            shapes[f"{at}.attn.relative_position_index"] = (WINDOW**2, WINDOW**2)
            shapes |= {f"{at}.attn_mask": (8, WINDOW**2, WINDOW**2)} if i % 2 else {}
    deep = bool(form["up"])
    for way in ("Downsample", "Upsample") if deep else ("ST",):
        layer(f"{way}.patch_embed.proj", DIM, CHANNELS, PATCH, PATCH)
        layer(f"{way}.patch_embed.norm", DIM)
    for i in range(len(form["up"])):
        below, above = DIM * 2**i, DIM * 2 ** (len(form["up"]) - i)
        layer(f"Downsample.downsample.{i}.norm", 4 * below)
        layer(f"Upsample.upsample.{i}.norm", above // 2)
        shapes[f"Downsample.downsample.{i}.reduction.weight"] = (2 * below, 4 * below)
        shapes[f"Upsample.upsample.{i}.expand.weight"] = (2 * above, above)
    layer("Upsample.Unembed.Conv" if deep else "ST.PatchInflated.ConvT", DIM, CHANNELS, 3, 3, bias=CHANNELS)
    generator = torch.Generator().manual_seed(5)
    state = {}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        fan_in = math.prod(shape[1:]) if len(shape) > 1 and "table" not in name else 2
        state[name] = drawn * 1.5 / fan_in**0.5 + (1.0 if len(shape) == 1 and name.endswith("weight") else 0.0)
    return state


def as_openstl_calls_them(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """OpenSTL calls the blocks by another name; its base form has one cell, without a number."""
    renamed = {}
    for name, tensor in state.items():
        name = name.replace("ST.layers.0.", "ST.layer.").replace("PatchInflated.ConvT", "patch_inflated.Conv")
        renamed[name.replace(".Swin.layers.", ".STBs.")] = tensor
    return renamed


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


class Reference:
    """One clip, frame by frame, on grids (h, w, width)."""

    def __init__(self, state: dict[str, torch.Tensor], form: dict[str, Any]):
        self.tensors, self.form, self.cells = {n: t.numpy() for n, t in state.items()}, form, cells(form)
        self.deep = bool(form["up"])
        self.memory: dict[str, tuple[Array, Array]] = {}

    def linear(self, name: str, x: Array) -> Array:
        return x @ self.tensors[f"{name}.weight"].T + self.tensors.get(f"{name}.bias", np.zeros(1))

    def norm(self, name: str, x: Array) -> Array:
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return y * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    def attention(self, name: str, x: Array, heads: int, shift: int) -> Array:
        h, w, width = x.shape
        row, column = (axis.reshape(-1) for axis in np.meshgrid(np.arange(h), np.arange(w), indexing="ij"))
        # Windows begin at `shift`, and the rows before it belong to the last ones, but see only each other there.
        row_of, column_of = ((p - shift) // WINDOW for p in (row, column))  # -1 for those that lie before
        together = (row_of[:, None] == row_of) & (column_of[:, None] == column_of)
        offsets = (row[:, None] - row + WINDOW - 1, column[:, None] - column + WINDOW - 1)
        entry = np.where(together, offsets[0] * (2 * WINDOW - 1) + offsets[1], 0)
        bias = self.tensors[f"{name}.relative_position_bias_table"][entry]
        qkv = self.linear(f"{name}.qkv", x.reshape(h * w, width))
        out = []
        for head in range(heads):
            size = width // heads
            q, k, v = (qkv[:, part * width + head * size :][:, :size] for part in range(3))
            scores = np.where(together, q @ k.T / math.sqrt(size) + bias[:, :, head], -np.inf)
            shares = np.exp(scores - scores.max(1, keepdims=True))
            out.append(shares / shares.sum(1, keepdims=True) @ v)
        return self.linear(f"{name}.proj", np.concatenate(out, 1)).reshape(h, w, width)

    def block(self, name: str, x: Array, other: Array | None, heads: int, shift: int) -> Array:
        y = self.norm(f"{name}.norm1", x)
        if other is not None:
            y = self.linear(f"{name}.red", np.concatenate([y, self.norm(f"{name}.norm1", other)], -1))
        x = x + self.attention(f"{name}.attn", y, heads, shift)
        y = self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.norm2", x))
        y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
        return x + self.linear(f"{name}.mlp.fc2", y)

    def cell(self, name: str, x: Array, blocks: int, heads: int) -> Array:
        h, c = self.memory.get(name, (np.zeros_like(x), np.zeros_like(x)))
        z = x
        for i in range(blocks):
            other = h if i == 0 else x if i % 2 == 0 else None
            shift = WINDOW // 2 if i % 2 and min(x.shape[:2]) > WINDOW else 0
            z = self.block(f"{name}.Swin.layers.{i}", z, other, heads, shift)
        f = sigmoid(z)
        c = f * (c + np.tanh(z))
        self.memory[name] = f * np.tanh(c), c
        return self.memory[name][0]

    def embed(self, frame: Array) -> Array:
        name = "Downsample.patch_embed" if self.deep else "ST.patch_embed"
        weight, (_, h, w) = self.tensors[f"{name}.proj.weight"], frame.shape
        tiles = frame.reshape(CHANNELS, h // PATCH, PATCH, w // PATCH, PATCH)
        tokens = np.einsum("dcij,cyixj->yxd", weight, tiles) + self.tensors[f"{name}.proj.bias"]
        return self.norm(f"{name}.norm", tokens)

    def paint(self, x: Array) -> Array:
        name = "Upsample.Unembed.Conv" if self.deep else "ST.PatchInflated.ConvT"
        weight, (h, w, _) = self.tensors[f"{name}.weight"], x.shape
        canvas = np.zeros((CHANNELS, 2 * h + 2, 2 * w + 2))
        for y in range(h):
            for z in range(w):
                canvas[:, 2 * y : 2 * y + 3, 2 * z : 2 * z + 3] += np.einsum("d,dcij->cij", x[y, z], weight)
        return sigmoid(canvas[:, 1:-1, 1:-1] + self.tensors[f"{name}.bias"][:, None, None])

    def step(self, frame: Array) -> Array:
        x = self.embed(frame)
        for name, _, blocks, heads in self.cells:
            x = self.cell(name, x, blocks, heads)
            number = name.rsplit(".", 1)[1]
            if name.startswith("Downsample"):
                at = f"Downsample.downsample.{number}"
                four = np.concatenate([x[i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
                x = self.linear(f"{at}.reduction", self.norm(f"{at}.norm", four))
            elif name.startswith("Upsample"):
                at = f"Upsample.upsample.{number}"
                wide = self.linear(f"{at}.expand", x)
                finer = np.zeros((2 * x.shape[0], 2 * x.shape[1], wide.shape[2] // 4))
                for i in (0, 1):
                    for j in (0, 1):
                        finer[i::2, j::2] = np.split(wide, 4, -1)[2 * i + j]
                x = self.norm(f"{at}.norm", finer)
        return self.paint(x)

    def forecast(self, past: Array, steps: int) -> Array:
        """As the authors run it: all past frames but the last, then the last one, then forecasts."""
        for frame in past[:-1]:
            self.step(frame)
        forecasts, last = [], past[-1]
        for _ in range(steps):
            last = self.step(last)
            forecasts.append(last)
        return np.stack(forecasts)


@pytest.mark.parametrize(
    ("form", "origin"),
    [(DEEP, "official"), (BASE, "official"), (DEEP, "openstl"), (BASE | {"down": [4], "heads": [2]}, "openstl")],
    ids=["deep", "base", "deep, OpenSTL", "base, OpenSTL"],
)
def test_a_converted_checkpoint_forecasts_as_published(form: dict[str, Any], origin: str, tmp_path: Path) -> None:
    state = published(form)
    torch.save(state if origin == "official" else as_openstl_calls_them(state), tmp_path / "ckpt.pth")
    sizes = {"frames_in": 4, "frames_out": 3, "channels": CHANNELS, "height": SIZE[0], "width": SIZE[1]}
    report = convert(origin, tmp_path / "ckpt.pth", None, tmp_path / "out", known=sizes)  # told by its tensors alone
    assert not report.locked
    assert all("red" in n or "mask" in n or "index" in n or "Upsample.patch_embed" in n for n in report.unused)
    past = torch.rand(1, 4, CHANNELS, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    expected = Reference({n: t.float().double() for n, t in state.items()}, form).forecast(past[0].numpy(), 5)
    assert expected.std() > 0.05  # or there would be little to compare
    model = stzoo.load(tmp_path / "out")
    assert torch.equal(model.predict(past.float()), model.rollout(past.float(), 5)[:, :3])
    with torch.no_grad():
        found = torch.stack(list(unroll(model.module.double(), model.spec, past, 5)), 1)
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("form", [DEEP, BASE])
def test_a_missing_tensor_is_an_error(form: dict[str, Any], tmp_path: Path) -> None:
    state = published(form)
    for gone in (next(n for n in state if part in n) for part in ("layers.0.red.weight", "bias_table", "proj.weight")):
        torch.save({n: t for n, t in state.items() if n != gone}, tmp_path / "ckpt.pth")
        with pytest.raises(MismatchError, match=gone.partition(".")[2].replace(".", r"\.")):
            convert("official", tmp_path / "ckpt.pth", spec_of(form), tmp_path / "out")


def test_parameters_are_those_of_the_published_model() -> None:
    """20.2 M, with what the authors' code makes and never uses: a second embedding, and W of every other block."""
    spec = ModelSpec(arch="swinlstm", frames_in=10, frames_out=10, channels=1, height=64, width=64)
    unused = 128 * 4 + 3 * 128 + sum(n // 2 * (2 * d * d + d) for n, d in ((2, 128), (6, 256), (2, 512), (6, 256)))
    count = sum(p.numel() for p in build(spec, "meta").parameters())
    assert (count, round((count + unused) / 1e6, 1)) == (18_845_409, 20.2)


def test_a_frame_acts_within_its_windows_first_and_then_everywhere() -> None:
    """One step of one block sees a window; the second block's windows are shifted, so it sees beyond it."""
    for blocks, reaches in ((1, False), (2, True)):
        module = module_of("swinlstm", down=[blocks], up=[])
        frames = clip(batch=1, frames=1)
        changed = frames.clone()
        changed[..., 0, 0] += 0.5
        moved = (outputs(module, frames)[0] - outputs(module, changed)[0]).abs().amax((0, 1))
        assert moved[:4, :4].max() > 0
        assert bool(moved[:, 5:].max() > 0) == reaches  # a window has four pixels; the painting reaches one further


def test_no_window_joins_opposite_edges() -> None:
    module = module_of("swinlstm", down=[2], up=[])
    frames = clip(batch=1, frames=1)
    changed = frames.clone()
    changed[..., :4, :] += 0.5
    moved = (outputs(module, frames)[0] - outputs(module, changed)[0]).abs().amax((0, 1, 3))
    assert moved[:4].min() > 0
    assert moved[-4:].max() == 0


def test_branches_are_dropped_most_often_in_the_middle() -> None:
    module = module_of("swinlstm", down=[1, 2], up=[2, 1], heads=[2, 2], drop_path=0.4, window=2, patch=2)
    rates = [block.drop_path.rate for cell in (*module.down, *module.up) for block in cell.blocks]
    assert rates == pytest.approx([0.0, 0.2, 0.4, 0.4, 0.2, 0.0])


def test_values_must_fit_the_sigmoid() -> None:
    spec = spec_of(DEEP).replace(value_range=None)
    with pytest.raises(SpecError, match="swinlstm ends in a sigmoid, so they must bring values to"):
        build(spec, "meta")
    build(spec.replace(sigmoid=False), "meta")
    with pytest.raises(SpecError, match="any_range to true for weights that were trained on such values"):
        build(spec, "meta")
    future = stzoo.create(spec.replace(any_range=True)).predict(
        3 * torch.randn(1, spec.frames_in, spec.channels, spec.height, spec.width)
    )
    assert 0 < future.min() < future.max() < 1
