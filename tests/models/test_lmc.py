"""LMC-Memory: float64 transcriptions of its memory and of a whole forecast, its two phases, its published layout."""

import math
from typing import Any

import pytest
import torch
from published_shapes import published_shapes
from torch import Tensor
from torch.nn import functional as F

import stzoo
from stzoo.errors import SpecError
from stzoo.models import build
from stzoo.models.contract import Architecture
from stzoo.models.inferring import infer, readers_of
from stzoo.models.reading import Frame
from stzoo.spec import ModelSpec
from stzoo.train import Recipe
from stzoo.train.objectives import check, objective

PARAMS = {"width": 4, "layers": 2, "slots": 5, "pools": 3}
SPEC = ModelSpec(arch="lmc", frames_in=5, frames_out=5, channels=2, height=16, width=24, params=PARAMS)
RECIPE = Recipe(dataset="mmnist", minutes=1, precision="float32", ddr_weight=0.0, l1_weight=1.0, memory_weight=0.5)


def small(**changes: Any) -> Any:
    torch.manual_seed(0)
    return build(SPEC.replace(**changes)).eval()


def clip(frames: int = 5, height: int = 16, width: int = 24) -> Tensor:
    return torch.rand(2, frames, 2, height, width, generator=torch.Generator().manual_seed(1))


def addressed(queries: Tensor, slots: Tensor) -> Tensor:
    """One place after another, in Python: cosines, their softmax, the weighted mean of the slots."""
    slots, out = slots.double(), queries.double().clone()
    for b in range(queries.shape[0]):
        for y in range(queries.shape[2]):
            for x in range(queries.shape[3]):
                q = queries[b, :, y, x].double()
                scores = [math.exp(float(q @ m) / math.sqrt(float(q @ q) * float(m @ m))) for m in slots]
                out[b, :, y, x] = sum(s / sum(scores) * m for s, m in zip(scores, slots, strict=True))
    return out


def motion(frames: Tensor, encoder: Any, pools: int) -> Tensor:
    """The published stack, its poolings written out for clips of 5 or 10 frames."""
    x = torch.stack([frames[:, t + 1] - frames[:, t] for t in range(frames.shape[1] - 1)], 2)
    for i, layer in enumerate(encoder.convolutions):
        x = F.conv3d(x, layer.weight, layer.bias, padding=1).clamp(min=0)
        if i in (0, 1, 3, 5):
            if i and x.shape[2] > 1:
                even = x[:, :, : x.shape[2] // 2 * 2]
                x = torch.maximum(even[:, :, 0::2], even[:, :, 1::2])
            if i < 5 or pools == 4:
                x = torch.maximum(x[..., 0::2, :], x[..., 1::2, :])
                x = torch.maximum(x[..., 0::2], x[..., 1::2])
    return x.sum(2) / x.shape[2]


def elu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.exp(x) - 1)


def recalled(double: Any, frames: Tensor, encoder: Any) -> Tensor:
    x = addressed(motion(frames, encoder, 2 + len(double.memory.embedder)), double.memory.slots)
    for layer in double.memory.embedder:
        x = F.conv_transpose2d(x, layer.weight, layer.bias, stride=2, padding=1, output_padding=1).clamp(min=0)
    return x


def forecast(double: Any, past: Tensor, seen: Tensor) -> Tensor:
    """The recurrence, step after step, as section 3 describes it; `seen` is what was recalled."""
    n, steps = len(double.cells), past.shape[1]
    h, c, made = [torch.zeros_like(seen)] * n, [torch.zeros_like(seen)] * n, []
    for t in range(2 * steps - 1):
        x = past[:, t] if t < steps else made[-1]
        for i, stride in zip((0, 2, 4, 6), (2, 1, 2, 1), strict=True):
            layer = double.encoder[i]
            x = elu(F.conv2d(x, layer.weight, layer.bias, stride, 1))
        for i, cell in enumerate(double.cells):
            gates = F.conv2d(x, cell.conv2d_x.weight, cell.conv2d_x.bias, padding=1)
            gates = gates + F.conv2d(h[i], cell.conv2d_h.weight, cell.conv2d_h.bias, padding=1)
            w = gates.shape[1] // 4
            entry, candidate, forget, exit = (gates[:, k * w : (k + 1) * w] for k in range(4))
            c[i] = c[i] / (1 + torch.exp(-forget)) + torch.tanh(candidate) / (1 + torch.exp(-entry))
            h[i] = torch.tanh(c[i]) / (1 + torch.exp(-exit))
            x = h[i]
        if t >= steps - 1:
            squeezed = torch.cat([c[-1], seen], 1).flatten(2).mean(2)
            first, last = double.attention[0], double.attention[2]
            weights = torch.sigmoid(last.weight @ (first.weight @ squeezed.T + first.bias[:, None]).clamp(min=0)
                                    + last.bias[:, None]).T  # fmt: skip
            y = torch.cat([x, seen * weights[:, :, None, None]], 1)
            for i, stride in zip((0, 2, 4, 6), (1, 2, 1, 2), strict=True):
                layer = double.decoder[i]
                y = F.conv_transpose2d(y, layer.weight, layer.bias, stride, 1, stride - 1)
                y = elu(y) if i < 6 else y
            made.append(y)
    return torch.stack(made, 1)


@torch.no_grad()
def test_the_memory_is_addressed_as_in_float64() -> None:
    memory = small().memory
    queries = torch.randn(2, 32, 2, 3)
    found = memory.address(queries, memory.slots)
    torch.testing.assert_close(found.double(), addressed(queries, memory.slots), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(memory.address(7 * queries, memory.slots), found)  # only the direction of a query counts
    assert memory.address(torch.zeros(1, 32, 1, 1), memory.slots).isfinite().all()


@pytest.mark.parametrize(("pools", "frames"), [(3, 5), (4, 10)])
@torch.no_grad()
def test_both_phases_in_float64(pools: int, frames: int) -> None:
    module, double = (small(width=32, params=PARAMS | {"pools": pools}) for _ in range(2))
    for each in (module, double):  # the context encoder begins as the matching one: apart they must be told
        for p in each.memory.context.parameters():
            p.mul_(0.5)
    double = double.double()
    past, future = (x.double() for x in clip(2 * frames, 16, 32).split(frames, 1))
    found = module(past.float())
    wanted = forecast(double, past, recalled(double, past, double.memory.matching))
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)
    stored = module.storing(past.float(), future.float())
    seen = recalled(double, torch.cat([past, future], 1), double.memory.context)
    torch.testing.assert_close(stored.double(), forecast(double, past, seen), rtol=1e-4, atol=1e-5)
    assert (stored - found).abs().max() > 1e-5


def test_the_phases_teach_what_they_should() -> None:
    """The memory and the encoder of long clips learn in the storing phase alone; together both phases teach all."""
    module, (past, future) = small(), clip(10).split(5, 1)
    module(past).square().mean().backward()
    silent = {name for name, p in module.named_parameters() if p.grad is None}
    assert silent == {name for name, _ in module.named_parameters() if "context" in name or name == "memory.slots"}
    module.zero_grad()
    module.storing(past, future).square().mean().backward()
    assert {n for n, p in module.named_parameters() if p.grad is None} == {
        n for n in dict(module.named_parameters()) if "matching" in n
    }
    module.zero_grad()
    loss = objective(module, module, SPEC, RECIPE, past, future, 0.0)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())
    errors = [f - future for f in (module(past), module.storing(past, future))]
    parts = [(e.double() ** 2).mean() + e.double().abs().mean() for e in errors]
    assert loss.item() == pytest.approx((parts[0] + 0.5 * parts[1]).item(), rel=1e-5)


def test_unknown_cells_of_the_future_do_not_count_in_either_phase() -> None:
    module, (past, future) = small(), clip(10).split(5, 1)
    valid = torch.rand(2, 5, 1, 16, 24, generator=torch.Generator().manual_seed(2)) < 0.5
    found = objective(module, module, SPEC, RECIPE, past, future, 0.0, valid)
    wanted = 0.0
    for share, made in ((1.0, module(past)), (0.5, module.storing(past, future))):
        errors = torch.where(valid, made - future, 0.0).double()
        wanted += share * ((errors**2).mean() + errors.abs().mean()).item()
    assert found.item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("future", [3, 8])
def test_futures_shorter_and_longer_than_a_block(future: int) -> None:
    module, frames = small(), clip(5 + future)
    assert objective(module, module, SPEC, RECIPE, frames[:, :5], frames[:, 5:], 0.0).isfinite()


@torch.no_grad()
def test_the_clips_of_a_batch_do_not_see_each_other() -> None:
    module, past = small(), clip()
    torch.testing.assert_close(module(past)[:1], module(past[:1]), rtol=1e-4, atol=1e-5)
    assert torch.equal(module(past), module(past))  # nothing is kept from one call to the next


def test_recipes_that_do_not_fit() -> None:
    plain = Recipe(dataset="mmnist", minutes=1, ddr_weight=0.0)
    with pytest.raises(SpecError, match="without recipe.memory_weight the memory of lmc would never learn"):
        check(small(), SPEC, plain)
    tau = ModelSpec(arch="tau", frames_in=2, frames_out=2, channels=1, height=16, width=16)
    with pytest.raises(SpecError, match="memory_weight is for lmc"):
        check(build(tau, "meta"), tau, RECIPE)
    with pytest.raises(SpecError, match="stores is stated by x, which is sequential"):
        Architecture(name="x", kind="sequential", config=object, module=lambda s, c: small(), stores=lambda m, p, f: p)
    with pytest.raises(SpecError, match="frames_in is 1; lmc sees motion"):
        small(frames_in=1)
    with pytest.raises(SpecError, match="this lmc needs multiples of 16"):
        small(height=24, params=PARAMS | {"pools": 4})


def counted(w: int, layers: int, slots: int, channels: int = 1) -> int:
    """The published layers, with biases: kernels times the channels on both sides."""

    def convolution(i: int, o: int, kernel: int) -> int:
        return i * o * kernel + o

    frames = [(channels, w), (w, w), (w, 2 * w), (2 * w, 2 * w)]
    back = [(4 * w, 2 * w), (2 * w, w), (w, w), (w, channels)]
    seen = [(channels, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 4 * w), (4 * w, 8 * w), (8 * w, 8 * w)]
    total = sum(convolution(i, o, 9) for i, o in [*frames, *back, (8 * w, 4 * w), (4 * w, 2 * w)])
    total += 2 * sum(convolution(i, o, 27) for i, o in seen) + layers * 2 * convolution(2 * w, 8 * w, 9)
    return total + slots * 8 * w + convolution(4 * w, 16, 1) + convolution(16, 2 * w, 1)


def test_parameters_of_the_authors_code() -> None:
    for name, arguments, wanted in (
        ("lmc-mmnist-paper", (64, 4, 100), 33_911_825),
        ("lmc-mmnist", (24, 2, 100), 4_452_881),
    ):
        module = build(stzoo.info(name).spec, "meta")
        assert sum(p.numel() for p in module.parameters()) == wanted == counted(*arguments)


@pytest.mark.parametrize("params", [{"pools": 4}, {"pools": 3}, {"pools": 4, "width": 8, "layers": 3, "slots": 9}])
def test_its_authors_tensors_tell_the_configuration(params: dict[str, Any]) -> None:
    """Numbers and shapes of the published layers: 3D convolutions lie at 0, 3, 6, 8, 11 and 13 of their stack."""
    spec = stzoo.info("lmc-mmnist-paper").spec
    spec = spec.replace(params={**spec.params, **params})
    shapes, wide = published_shapes(spec, "official"), spec.params["width"]
    assert shapes["memory.motion_context_encoder.13.weight"] == (8 * wide, 8 * wide, 3, 3, 3)
    assert shapes["memory.memory_w"] == (spec.params["slots"], 8 * wide)
    assert shapes["attention_func.4.weight"] == (2 * wide, 16)
    assert ("memory.embedder.2.weight" in shapes) == (params["pools"] == 4)
    assert len(shapes) == len(build(spec, "meta").state_dict())
    assert len(readers_of(shapes)) == 1
    found = infer(shapes, Frame())
    assert (found.arch, found.origin, found.told.frame.channels) == ("lmc", "official", 1)
    assert found.told.params == spec.params
    with pytest.raises(SpecError, match="reads frames of 1 channels, not of 3"):
        infer(shapes, Frame(channels=3))


def test_values_must_fit_the_sigmoid() -> None:
    size = {"frames_in": 4, "frames_out": 4, "channels": 1, "height": 32, "width": 32}
    spec = ModelSpec(arch="lmc", **size, value_range=None, params={"width": 4, "slots": 3, "sigmoid": True})
    with pytest.raises(SpecError, match="lmc ends in a sigmoid, so they must bring values to"):
        build(spec, "meta")
    build(spec.replace(value_range=(0.0, 1.0)), "meta")
    build(spec.replace(sigmoid=False), "meta")
