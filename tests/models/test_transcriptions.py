"""The recurrent modules against the plain transcriptions, by way of a published checkpoint that was converted."""

from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transcriptions import FORECASTS, State, e3dlstm, predrnn, published, shapes

import stzoo
from stzoo.convert import convert
from stzoo.errors import MismatchError
from stzoo.models import build
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

SIZES = {"layers": 3, "hidden": 6, "kernel": 3, "patch": 2}
DEAD = {
    "convlstm": [f"cell_list.{i}.{n}.weight" for i in range(3) for n in ("conv_last", "conv_o.0")],
    "predrnnpp": [f"cell_list.{i}.conv_o.0.weight" for i in range(3)],
    "mim": [f"stlstm_layer_diff.{i}.conv_last.weight" for i in range(2)],
}
each = pytest.mark.parametrize("arch", FORECASTS)


def spec_of(arch: str, **params: Any) -> ModelSpec:
    return ModelSpec(
        arch=arch, frames_in=4, frames_out=3, channels=2, height=8, width=8, value_range=None, params=SIZES | params
    )


def state_of(arch: str) -> State:
    return published(arch, 3, 6, 3, 2, 2, 8)


def past() -> Tensor:
    return torch.rand(2, 4, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def converted(state: State, spec: ModelSpec, folder: Path) -> tuple[Any, Any]:
    torch.save(state, folder / "ckpt.pth")
    report = convert("openstl", folder / "ckpt.pth", spec, folder / "out")
    return report, stzoo.load(folder / "out")


@each
def test_a_converted_checkpoint_forecasts_as_published(arch: str, tmp_path: Path) -> None:
    state = state_of(arch)
    expected = FORECASTS[arch](state, past(), 7, 2)
    assert expected.std() > 0.05  # or there would be little to compare
    report, model = converted(state, spec_of(arch), tmp_path)
    assert sorted(report.unused) == DEAD.get(arch, [])
    assert report.tensors == len(state) - len(report.unused)
    torch.testing.assert_close(model.rollout(past().float(), 7).double(), expected, rtol=0, atol=1e-4)
    with torch.no_grad():  # and in float64 it is the same to the last digits
        exact = torch.stack(list(unroll(model.module.double(), model.spec, past(), 7)), 1)
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-10)


def test_e3dlstm_as_the_paper_says(tmp_path: Path) -> None:
    state = state_of("e3dlstm")
    _, model = converted(state, spec_of("e3dlstm"), tmp_path)
    assert model.spec.params["variant"] == "public"
    assert model.spec.params["history"] >= 6
    paper = build(model.spec.replace(variant="paper")).double()
    paper.load_state_dict(model.module.state_dict())
    with torch.no_grad():
        found = torch.stack(list(unroll(paper, model.spec, past(), 7)), 1)
    expected = e3dlstm(state, past(), 7, 2, public=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert (expected - e3dlstm(state, past(), 7, 2)).abs().max() > 1e-3


def test_e3dlstm_with_gates_at_every_second_place(tmp_path: Path) -> None:
    state = state_of("e3dlstm")
    _, model = converted(state, spec_of("e3dlstm", stride=2), tmp_path)
    expected = e3dlstm(state, past(), 5, 2, stride=2)
    torch.testing.assert_close(model.rollout(past().float(), 5).double(), expected, rtol=0, atol=1e-4)
    with torch.no_grad():
        found = torch.stack(list(unroll(model.module.double(), model.spec, past(), 5)), 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert (expected - e3dlstm(state, past(), 5, 2)).abs().max() > 1e-3


def test_predrnn_with_layer_norm(tmp_path: Path) -> None:
    state = state_of("predrnn")
    generator = torch.Generator().manual_seed(5)
    for name in [n for n in state if ".0.weight" in n]:
        for leaf, centre in (("weight", 1.0), ("bias", 0.0)):
            shape = (len(state[name]), 4, 4)
            state[name.replace(".0.weight", f".1.{leaf}")] = centre + 0.3 * torch.randn(shape, generator=generator)
    _, model = converted(state, spec_of("predrnn", layer_norm=True), tmp_path)
    found = model.rollout(past().float(), 5).double()
    torch.testing.assert_close(found, predrnn(state, past(), 5, 2), rtol=0, atol=1e-4)


@pytest.mark.parametrize("decouple", [False, True])
def test_the_second_versions_adapter_is_kept_where_it_is_asked_for(decouple: bool, tmp_path: Path) -> None:
    state = state_of("predrnn") | {"adapter.weight": torch.randn(6, 6, 1, 1)}
    report, model = converted(state, spec_of("predrnn", decouple=decouple), tmp_path)
    assert report.unused == (() if decouple else ("adapter.weight",))
    expected = predrnn(state, past(), 3, 2)
    torch.testing.assert_close(model.predict(past().float()).double(), expected, rtol=0, atol=1e-5)


@each
def test_a_missing_or_misshapen_tensor_is_named_as_published(arch: str, tmp_path: Path) -> None:
    state = state_of(arch)
    for name in sorted(set(state) - set(DEAD.get(arch, []))):
        for change in ({k: v for k, v in state.items() if k != name}, state | {name: state[name][:-1]}):
            torch.save(change, tmp_path / "ckpt.pth")
            with pytest.raises(MismatchError, match=name.replace(".", r"\.")):
                convert("openstl", tmp_path / "ckpt.pth", spec_of(arch), tmp_path / "out")


@pytest.mark.parametrize(
    ("arch", "count"),
    [
        ("convlstm", 15_083_520),
        ("predrnn", 23_838_720),
        ("predrnnpp", 38_584_320),
        ("mim", 38_043_648),
        ("e3dlstm", 51_347_456),
    ],
)
def test_the_layouts_have_the_published_number_of_parameters(arch: str, count: int) -> None:
    """At the benchmarks' size, dead tensors included; ours are fewer by just those."""
    every = shapes(arch, 4, 128, 5, 4, 1, 64)
    assert sum(prod(s) for s in every.values()) == count
    module = build(ModelSpec(arch=arch, frames_in=10, frames_out=10, channels=1, height=64, width=64), "meta")
    dead = {"convlstm": ("conv_o.0", "conv_last"), "predrnnpp": ("conv_o.0",), "mim": ("conv_last",)}.get(arch, ())
    prefix = "stlstm_layer_diff" if arch == "mim" else "cell_list"
    unread = [
        s for n, s in every.items() if n.startswith(prefix) and n.split(".", 2)[2].removesuffix(".weight") in dead
    ]
    assert sum(p.numel() for p in module.parameters()) == count - sum(map(prod, unread))
