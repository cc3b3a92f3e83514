"""Activation checkpointing: a step leaves the loss, gradients and statistics it leaves without, and holds less."""

import dataclasses
from typing import Any

import pytest
import torch
from test_objectives import PARAMS, clips, recipe_of, spec_of
from torch import Tensor, nn

from stzoo.errors import SpecError
from stzoo.models import build
from stzoo.spec import ModelSpec
from stzoo.train import Recipe
from stzoo.train.objectives import check, objective
from stzoo.train.speedups import computing_form

BLOCKS: dict[str, tuple[str, dict[str, Any]]] = {
    "tau": ("tau", {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 3, "mlp_ratio": 2, "patch": 4, "drop_path": 0.3}),
    "gsta": ("simvp", {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 3, "mlp_ratio": 2, "patch": 4, "from_last": True}),
    "incepu": ("simvp", {"hid_s": 8, "hid_t": 16, "n_s": 2, "n_t": 2, "patch": 4, "translator": "incepu"}),
    "conv": ("conv", {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 3, "patch": 4}),
}
Found = tuple[dict[str, Tensor], int]


def spec_for(name: str) -> ModelSpec:
    if name in PARAMS:
        return spec_of(name)
    arch, params = BLOCKS[name]
    return ModelSpec(arch=arch, frames_in=3, frames_out=3, channels=1, height=64, width=64, params=params)


def step(name: str, recipe: Recipe, dtype: torch.dtype) -> Found:
    """What a step leaves behind, and the bytes it holds between forward and backward pass outside of its parts."""
    spec = spec_for(name)
    torch.manual_seed(0)
    module = build(spec).to(dtype).train()
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean)  # as they lie in the middle of a run
    past, future = (x.to(dtype) for x in clips())
    held: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        held[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    torch.manual_seed(1)  # of the frames that are shown, and of the branches that are dropped
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        loss = objective(computing_form(module, spec, recipe), module, spec, recipe, past, future, 0.2)
    loss.backward()
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return found | dict(module.named_buffers()) | {"loss": loss.detach(), "next": torch.rand(3)}, sum(held.values())


CASES = [
    *((name, {"sampling": "none"}) for name in BLOCKS),
    *((name, {}) for name in PARAMS),  # scheduled, reverse or teacher
    ("convlstm", {"sampling": "none"}),
    ("tctn", {"sampling": "none"}),
    ("tctn", {"sampling": "parallel"}),
]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "changes"), CASES)
def test_gradients_and_statistics_are_those_of_the_plain_step(
    name: str, changes: dict[str, Any], precision: str
) -> None:
    extras = changes | ({"decouple_weight": 0.0} if changes.get("sampling") == "none" else {})
    recipe = recipe_of(name, precision=precision, **extras)
    dtype = torch.float64 if precision == "float32" else torch.float32
    plain, most = step(name, recipe, dtype)
    found, held = step(name, dataclasses.replace(recipe, checkpoint=True), dtype)
    assert plain.keys() == found.keys()
    for key, value in plain.items():
        torch.testing.assert_close(found[key], value, msg=key, rtol=1e-6, atol=1e-9)
    assert held < 0.9 * most


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("tau", {"fused": True}, r"set recipe\.fused to false"),
        ("tau", {"compile": True}, r"set recipe\.compile to false"),
        ("vqvae", {}, r"recipe\.checkpoint is for forecasters"),
    ],
)
def test_it_is_refused_where_it_means_nothing(name: str, changes: dict[str, Any], message: str) -> None:
    vqvae = ModelSpec(arch="vqvae", frames_in=1, frames_out=1, channels=1, height=64, width=64, params={})
    spec = vqvae if name == "vqvae" else spec_for(name)
    with pytest.raises(SpecError, match=message):
        check(build(spec, "meta"), spec, Recipe(dataset="mmnist", minutes=1, checkpoint=True, **changes))
