"""SimVP's MetaFormer translators: their equations in float64, what a pixel sees, and whole models."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from metaformer_specs import KINDS, SMALL, small, spec_of
from numpy.typing import NDArray
from test_tau import batch_norm, depthwise, gelu, pointwise, reference_block
from torch import Tensor, nn

import stzoo
from stzoo.engine import Engine
from stzoo.errors import FramesError, SpecError
from stzoo.models import build, stride_of
from stzoo.models.metaformers import BLOCKS
from stzoo.models.metaformers.parts import BlockPlace
from stzoo.models.metaformers.swin import window_of
from stzoo.train.recompute import recomputing

Array = NDArray[np.float64]
KeysOf = Callable[[int, int], list[tuple[int, int]]]


@torch.no_grad()
def shaken(module: nn.Module) -> nn.Module:
    """Nothing is at its initial value, and every residual branch counts."""
    torch.manual_seed(0)
    for p in module.parameters():
        p.copy_(0.4 * torch.randn_like(p) if p.dim() < 2 else p + 0.1 * torch.randn_like(p))
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 2)
    return module


# ---- the equations, for one sample (C, h, w)


def numbers(p: Tensor | None) -> Array:
    assert p is not None
    return p.detach().numpy()


def layer_norm(x: Array, module: Any) -> Array:
    scaled = (x - x.mean(0)) / np.sqrt(x.var(0) + module.eps)
    return scaled * numbers(module.weight)[:, None, None] + numbers(module.bias)[:, None, None]


def matrix(x: Array, layer: Any) -> Array:
    """A linear layer on the first axis."""
    return np.tensordot(numbers(layer.weight), x, 1) + numbers(layer.bias).reshape(-1, *[1] * (x.ndim - 1))


def mlp(x: Array, module: Any) -> Array:
    step = pointwise if isinstance(module.fc1, nn.Conv2d) else matrix
    return step(gelu(step(x, module.fc1)), module.fc2)


def attend(q: Array, k: Array, v: Array, bias: Array) -> Array:
    """One query (d,) over keys and values (N, d)."""
    scores = k @ q / np.sqrt(len(q)) + bias
    weights = np.exp(scores - scores.max())
    return weights @ v / weights.sum()


def attention(x: Array, module: Any, keys_of: KeysOf, bias_of: Any = None) -> Array:
    """Pixel by pixel and head by head: `keys_of` a query's place are the places it looks at."""
    (dim, h, w), heads = x.shape, module.heads
    q, k, v = matrix(x, module.qkv).reshape(3, heads, dim // heads, h, w)
    out = np.zeros((heads, dim // heads, h, w))
    for row in range(h):
        for column in range(w):
            places = keys_of(row, column)
            for head in range(heads):
                keys, values = (np.stack([z[head, :, i, j] for i, j in places]) for z in (k, v))
                bias = np.array([0.0 if bias_of is None else bias_of(row, column, *p)[head] for p in places])
                out[head, :, row, column] = attend(q[head, :, row, column], keys, values, bias)
    return matrix(out.reshape(dim, h, w), module.proj)


def everywhere(h: int, w: int) -> KeysOf:
    return lambda row, column: [(i, j) for i in range(h) for j in range(w)]


def vit(x: Array, block: Any) -> Array:
    x = x + attention(layer_norm(x, block.norm1), block.attn, everywhere(*x.shape[1:]))
    return x + mlp(layer_norm(x, block.norm2), block.mlp)


def swin(x: Array, block: Any) -> Array:
    """Windows are cut of the rolled features; places and offsets are those within a window."""
    (_, h, w), m, s = x.shape, block.windows.window, block.shift
    table = numbers(block.windows.bias_table)

    def rolled(i: int, j: int) -> tuple[int, int]:
        return (i - s) % h, (j - s) % w

    def keys_of(row: int, column: int) -> list[tuple[int, int]]:
        mine = tuple(z // m for z in rolled(row, column))
        return [(i, j) for i in range(h) for j in range(w) if tuple(z // m for z in rolled(i, j)) == mine]

    def bias_of(row: int, column: int, i: int, j: int) -> Array:
        (a, b), (c, d) = rolled(row, column), rolled(i, j)
        return table[(a - c + m - 1) * (2 * m - 1) + b - d + m - 1]

    x = x + attention(layer_norm(x, block.norm1), block.windows.attn, keys_of, bias_of)
    return x + mlp(layer_norm(x, block.norm2), block.mlp)


def uniformer(x: Array, block: Any) -> Array:
    x = x + depthwise(x, block.pos_embed)
    if isinstance(block.attn, nn.Conv2d):
        mixed = depthwise(pointwise(batch_norm(x, block.norm1), block.conv1), block.attn)
        x = x + pointwise(mixed, block.conv2)
        return x + mlp(batch_norm(x, block.norm2), block.mlp)
    one, two = (numbers(g)[:, None, None] for g in (block.gamma_1, block.gamma_2))
    x = x + one * attention(layer_norm(x, block.norm1), block.attn, everywhere(*x.shape[1:]))
    return x + two * mlp(layer_norm(x, block.norm2), block.mlp)


def mlpmixer(x: Array, block: Any) -> Array:
    tokens = layer_norm(x, block.norm1).reshape(len(x), -1).T  # (pixels, channels)
    x = x + mlp(tokens, block.mlp_tokens).T.reshape(x.shape)
    return x + mlp(layer_norm(x, block.norm2), block.mlp_channels)


def convmixer(x: Array, block: Any) -> Array:
    x = x + batch_norm(gelu(depthwise(x, block.conv_dw)), block.norm_1)
    return batch_norm(gelu(pointwise(x, block.conv_pw)), block.norm_2)


def poolformer(x: Array, block: Any) -> Array:
    def group_norm(x: Array, module: nn.GroupNorm) -> Array:
        scaled = (x - x.mean()) / np.sqrt(x.var() + module.eps)
        return scaled * numbers(module.weight)[:, None, None] + numbers(module.bias)[:, None, None]

    y = group_norm(x, block.norm1)
    pooled = np.empty_like(y)
    for i in range(y.shape[1]):
        for j in range(y.shape[2]):
            pooled[:, i, j] = y[:, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].mean((1, 2))
    x = x + numbers(block.layer_scale_1)[:, None, None] * (pooled - y)
    return x + numbers(block.layer_scale_2)[:, None, None] * mlp(group_norm(x, block.norm2), block.mlp)


def convnext(x: Array, block: Any) -> Array:
    return x + numbers(block.gamma)[:, None, None] * mlp(layer_norm(depthwise(x, block.conv_dw), block.norm), block.mlp)


def hornet(x: Array, block: Any) -> Array:
    conv, c = block.gated, len(x)
    both = pointwise(layer_norm(x, block.norm1), conv.enter)
    p, spread = both[: c // 8], depthwise(both[c // 8 :], conv.spread)
    gates = np.split(spread, np.cumsum([c // 8, c // 4, c // 2]))
    p = p * gates[0]
    for widen, gate in zip(conv.widen, gates[1:], strict=True):
        p = pointwise(p, widen) * gate
    x = x + numbers(block.gamma1)[:, None, None] * pointwise(p, conv.leave)
    return x + numbers(block.gamma2)[:, None, None] * mlp(layer_norm(x, block.norm2), block.feed)


def moganet(x: Array, block: Any) -> Array:
    def silu(x: Array) -> Array:
        return x / (1 + np.exp(-x))

    def factor(p: Tensor) -> Array:
        return numbers(p)[0]

    mixing, c = block.attn, len(x)
    y = batch_norm(x, block.norm1)
    u = pointwise(y, mixing.proj_1)
    z = silu(u + factor(mixing.sigma) * (u - u.mean((1, 2), keepdims=True)))
    near = depthwise(z, mixing.value.near)
    low, middle, high = np.split(near, [c // 8, c // 2])
    parts = [low, depthwise(middle, mixing.value.far), depthwise(high, mixing.value.farthest)]
    value = pointwise(np.concatenate(parts), mixing.value.mix)
    x = x + factor(block.layer_scale_1) * (y + pointwise(silu(pointwise(z, mixing.gate)) * silu(value), mixing.proj_2))
    z = gelu(depthwise(pointwise(batch_norm(x, block.norm2), block.mlp.fc1), block.mlp.dwconv))
    z = z + factor(block.mlp.sigma) * (z - gelu(pointwise(z, block.mlp.decompose)))
    return x + factor(block.layer_scale_2) * pointwise(z, block.mlp.fc2)


REFERENCES = {
    "vit": vit, "swin": swin, "uniformer": uniformer, "mlpmixer": mlpmixer, "convmixer": convmixer,
    "poolformer": poolformer, "convnext": convnext, "hornet": hornet, "moganet": moganet,
}  # fmt: skip


def place(number: int = 1, keeps_width: bool = True, window: int | None = None) -> BlockPlace:
    return BlockPlace(
        dim=16, number=number, keeps_width=keeps_width, size=(8, 12), mlp_ratio=2, drop_path=0.0, heads=4, window=window
    )


PLACES = [(kind, 1, True) for kind in BLOCKS] + [("swin", 0, True), ("uniformer", 0, True), ("uniformer", 1, False)]


@pytest.mark.parametrize(("kind", "number", "keeps_width"), PLACES)
def test_a_block_is_the_papers_equation(kind: str, number: int, keeps_width: bool) -> None:
    block = shaken(BLOCKS[kind](place(number, keeps_width)).double()).eval()
    x = torch.randn(1, 16, 8, 12, dtype=torch.float64)
    found = block(x)[0].detach().numpy()
    np.testing.assert_allclose(found, REFERENCES[kind](x[0].numpy(), block), rtol=1e-9, atol=1e-9)


def test_vans_block_is_the_papers_equation() -> None:
    """The attention multiplies its own input (Guo et al., equation 2)."""
    module = shaken(build(small("van")).double()).eval()
    block: Any = module.translator[0]  # type: ignore[index]

    def gated(u: Array, gate: Any) -> Array:
        return pointwise(depthwise(depthwise(u, gate.statical[0]), gate.statical[1]), gate.statical[2]) * u

    x = torch.randn(1, 16, 7, 5, dtype=torch.float64)
    np.testing.assert_allclose(block(x)[0].detach().numpy(), reference_block(block, x[0].numpy(), gated), rtol=1e-9)


# ---- what a pixel sees


def reached(block: nn.Module, row: int, column: int) -> set[tuple[int, int]]:
    """The pixels whose output changes with the input at one pixel."""
    x = torch.randn(1, 16, 8, 12, dtype=torch.float64)
    other = x.clone()
    other[0, :, row, column] = torch.randn(16)  # and not all channels by the same, which LayerNorm would take out
    with torch.no_grad():
        changed = (block(other) - block(x)).abs().amax((0, 1)) > 1e-12
    return {(int(i), int(j)) for i, j in changed.nonzero()}


@pytest.mark.parametrize("number", [0, 1], ids=["in place", "shifted"])
def test_swin_sees_its_window_and_no_further(number: int) -> None:
    block = shaken(BLOCKS["swin"](place(number)).double()).eval()
    rows, columns = ((6, 7, 0, 1), (10, 11, 0, 1)) if number else (range(4), range(4))
    assert reached(block, 0, 1) == {(i, j) for i in rows for j in columns}  # shifted, a window joins all four corners


@pytest.mark.parametrize(("kind", "radius"), [("convmixer", 5), ("convnext", 3), ("hornet", 3)])
def test_convolutions_see_as_far_as_their_kernels(kind: str, radius: int) -> None:
    block = shaken(BLOCKS[kind](place()).double()).eval()
    near = {(i, j) for i in range(8) for j in range(12) if abs(i - 4) <= radius and abs(j - 6) <= radius}
    assert reached(block, 4, 6) == near


def test_vit_does_not_know_where_a_pixel_lies() -> None:
    block = shaken(BLOCKS["vit"](place()).double()).eval()
    x, order = torch.randn(1, 16, 8, 12, dtype=torch.float64), torch.randperm(96)
    moved = x.flatten(2)[..., order].view(1, 16, 8, 12)
    torch.testing.assert_close(block(moved), block(x).flatten(2)[..., order].view(1, 16, 8, 12))


@pytest.mark.parametrize(
    ("size", "asked", "window"),
    [((16, 16), None, 4), ((14, 21), None, 7), ((64, 64), None, 4), ((96, 32), None, 6), ((256, 256), None, 8),
     ((16, 16), 8, 8), ((4, 16), 8, 4), ((2, 3), None, 2)],
)  # fmt: skip
def test_the_window_is_openstls(size: tuple[int, int], asked: int | None, window: int) -> None:
    assert window_of(size, asked) == window


# ---- as a model


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient_and_frames_of_other_sizes_fit(kind: str) -> None:
    module = shaken(build(small(kind, from_last=True))).train()
    stride = stride_of(module)
    assert stride == {"swin": 8, "mlpmixer": None}.get(kind, 2)
    for size in [(16, 32)] if stride is None else [(16, 32), (2 * stride, stride)]:
        assert module(torch.rand(2, 4, 2, *size)).shape == (2, 4, 2, *size)
    module(torch.rand(2, 4, 2, 16, 32)).square().mean().backward()
    assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_from_its_own_start(kind: str) -> None:
    torch.manual_seed(0)
    module = build(small(kind, patch=2, project=True)).train()
    past = torch.rand(2, 4, 2, 32, 32) if kind != "mlpmixer" else torch.rand(2, 4, 2, 16, 32)
    optimizer, losses = torch.optim.Adam(module.parameters(), 3e-3), []
    for _ in range(8):
        loss = (module(past) - past.flip(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_and_recomputing_compute_the_same(kind: str) -> None:
    spec = small(kind)
    module, past = shaken(build(spec)).eval(), torch.rand(3, 4, 2, 16, 32)
    with torch.no_grad():
        exact = copy.deepcopy(module).double()(past.double())
        for precision, low, high in (("float32", 0, 1e-5), ("bfloat16", 1e-5, 0.05)):
            found = torch.stack(list(Engine(module, spec, precision).unroll(past, 4)), 1)
            assert low <= (found - exact).abs().max() / exact.abs().max() < high
    module.train()
    gradients = []
    for form in (copy.deepcopy(module), recomputing(copy.deepcopy(module), spec)):
        form(past).square().mean().backward()
        gradients.append({n.replace(".part", ""): p.grad for n, p in form.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1])


def test_frames_of_another_size_are_refused_where_every_pixel_has_weights() -> None:
    frames = torch.rand(1, 4, 2, 24, 16)
    assert stzoo.create(small("swin")).predict(frames).shape == (1, 4, 2, 24, 16)
    with pytest.raises(FramesError, match="16x32"):
        stzoo.create(small("mlpmixer")).predict(frames)


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        ("convmixer", {"mlp_ratio": 4}, "mlp_ratio is 4; translator convmixer does not use it"),
        ("convmixer", {"drop_path": 0.1}, r"drop_path is 0\.1; translator convmixer does not use it"),
        ("convnext", {"layer_scale": 0.1}, r"layer_scale is 0\.1; translator convnext does not use it"),
        ("van", {"heads": 4}, "heads is 4; translator van does not use it"),
        ("gsta", {"window": 4}, "window is 4; translator gsta does not use it"),
        ("vit", {"window": 4}, "window is 4; translator vit does not use it"),
        ("vit", {"heads": 5}, "16 channels, which do not divide into 5 attention heads"),
        ("hornet", {"hid_t": 20}, "20 channels, which do not divide into 8 equal parts"),
        ("moganet", {"hid_s": 2, "hid_t": 12}, "12 channels, which do not divide into 8 equal parts"),
        ("swin", {"window": 3}, "16x32; this simvp needs multiples of 6"),
        ("mlpmixer", {"patch": 3}, "16x32; this simvp needs multiples of 6"),
        ("swin", {"patch": 16}, "16x32; this simvp needs multiples of 32"),
    ],
)
def test_a_wrong_parameter_is_named(kind: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(spec_of(kind, **(SMALL | params)), "meta")
