"""Tensors without values have the shapes that tensors with values have, and are counted while they are alive."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._decomp import meta_table
from torch.utils._python_dispatch import TorchDispatchMode

from stzoo.engine.shape_rules import shape_rule
from stzoo.engine.shapes import CountingShapes
from stzoo.models import architecture_of, build
from stzoo.spec import ModelSpec
from stzoo.train.codecs import codec_loss
from stzoo.train.objectives import objective
from stzoo.train.recipe import Recipe

BLOCK: dict[str, Any] = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2}
LAYERED: dict[str, Any] = {"layers": 2, "hidden": 4, "kernel": 3, "patch": 4}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # architecture, its params, changes of the recipe
    "tau": ("tau", BLOCK | {"drop_path": 0.1}, {"ddr_weight": 0.1}),
    "simvp": ("simvp", BLOCK, {"precision": "bfloat16"}),
    "incepu": ("simvp", BLOCK | {"translator": "incepu"}, {}),
    "convlstm": ("convlstm", LAYERED, {"sampling": "scheduled", "l1_weight": 1.0}),
    "predrnn": ("predrnn", LAYERED | {"layer_norm": True}, {"precision": "bfloat16"}),
    "predrnnv2": ("predrnn", LAYERED | {"decouple": True}, {"decouple_weight": 0.1, "sampling": "reverse"}),
    "predrnnpp": ("predrnnpp", LAYERED, {}),
    "mim": ("mim", LAYERED, {}),
    "e3dlstm": ("e3dlstm", LAYERED | {"history": 1}, {}),
    "phydnet": ("phydnet", {"width": 16, "lstm": [4], "kernel": 3}, {"moment_weight": 1.0}),
    "tctn": ("tctn", {"layers": 1, "hidden": 8, "heads": 2, "expansion": 2, "window": 2, "patch": 4},
             {"sampling": "parallel"}),
    "vqvae": ("vqvae", {"width": 16, "residual_layers": 1, "residual_width": 4, "codes": 32, "dim": 8}, {}),
    "vae": ("vae", {"width": 16, "residual_layers": 1, "residual_width": 4, "dim": 8}, {}),
}  # fmt: skip


# torch tells the shapes of these without the import of its compiler, which alone takes seconds
QUICK = {
    f"aten.{name}"
    for name in ("zeros.default", "ones.default", "rand.default", "scalar_tensor.default", "masked_fill_.Scalar",
                 "pixel_shuffle.default", "pixel_unshuffle.default", "argmin.default", "embedding.default",
                 "_scaled_dot_product_flash_attention_for_cpu.default",
                 "_scaled_dot_product_flash_attention_for_cpu_backward.default")
}  # fmt: skip


def case(name: str) -> tuple[ModelSpec, Recipe]:
    arch, params, changes = CASES[name]
    frames = 1 if arch in ("vae", "vqvae") else 2
    spec = ModelSpec(arch=arch, frames_in=frames, frames_out=frames, channels=2, height=16, width=16, params=params)
    options = {"dataset": "mmnist", "minutes": 1, "ddr_weight": 0.0, "precision": "float32"} | changes
    return spec, Recipe(**options)


def on_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, list | tuple):
        return type(value)(on_meta(x) for x in value)
    return value


class Comparing(TorchDispatchMode):
    """Holds what each rule says against what the operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.compared: set[str] = set()
        self.asked: set[str] = set()  # operations for which torch would be asked

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule, options = shape_rule(function), kwargs or {}
        said = NotImplemented if rule is None else rule(*on_meta(args), **{k: on_meta(v) for k, v in options.items()})
        made = function(*args, **options)
        if said is NotImplemented:
            if function in meta_table:
                self.asked.add(str(function))
        else:
            for a, b in zip(*((x if isinstance(x, tuple) else (x,)) for x in (said, made)), strict=True):
                assert (a is None) == (b is None), function
                if a is not None:
                    assert (a.shape, a.dtype) == (b.shape, b.dtype), (function, args, options)
                    assert a.is_contiguous() == b.is_contiguous(), (function, args, options)
            self.compared.add(str(function))
        return made


@pytest.mark.parametrize("name", CASES)
def test_the_rules_say_what_the_operations_return(name: str) -> None:
    spec, recipe = case(name)
    module: Any = build(spec).train()
    past, future = torch.rand(2, 2, 2, 2, 16, 16).unbind()
    with Comparing() as mode:
        if architecture_of(spec).is_codec:
            loss, *_ = codec_loss(module, spec, recipe, torch.cat([past, future], 1).flatten(0, 1), torch.ones(()))
        else:
            loss = objective(module, module, spec, recipe, past, future, 0.5)
        loss.backward()
    assert len(mode.compared) > 5
    assert mode.asked <= QUICK


def test_the_rules_hold_for_other_dtypes_too() -> None:
    floats, halves, whole = torch.rand(2, 1, 3), torch.rand(4, 1).bfloat16(), torch.arange(3)
    with Comparing() as mode:
        for a, b in ((floats, halves), (halves, whole), (whole, floats), (floats > 0, 0.5), (whole, 2), (whole, 0.5)):
            for operation in (torch.add, torch.mul, torch.div, torch.ge, torch.sub):
                if not (operation is torch.sub and isinstance(a, Tensor) and a.dtype == torch.bool):
                    operation(a, b)
        torch.where(floats > 0, floats, torch.zeros(()))
        torch.cat([halves, halves], -1)
        torch.stack([whole, whole], -1)
        floats.permute(2, 0, 1).sigmoid().sum((0, -1), keepdim=True)
        floats.double().mean()
        torch.arange(2.5), torch.arange(7), torch.eye(3, dtype=torch.float64)
        floats.add_(1).clone(memory_format=torch.contiguous_format)
    assert "aten.div.Tensor" in mode.compared
    assert "aten.where.self" in mode.compared


def test_what_is_alive_at_the_same_time_is_counted() -> None:
    with CountingShapes() as alive:
        first = torch.empty(1000)
        second = first + 1
        view = second[:10]
        del second
        third = torch.cat([first, first])
        assert (alive.now, alive.peak) == (16_000, 16_000)
        del view, third
        assert (alive.now, alive.peak) == (4_000, 16_000)
        first.add_(1)
        first += torch.ones(())
        assert alive.now == 4_000
        assert first.device.type == "cpu"
        with pytest.raises(RuntimeError):
            first.sum().item()


def test_autocast_counts_as_with_values() -> None:
    with CountingShapes() as alive, torch.autocast("cpu", torch.bfloat16):
        x, weight = torch.empty(1, 8, 32, 32), torch.empty(8, 8, 3, 3)
        made = torch.nn.functional.conv2d(x, weight, padding=1)
        assert made.dtype == torch.bfloat16
        assert alive.now == x.nbytes + weight.nbytes + made.nbytes
