"""Small recurrent modules and how to run and count them, for the tests of this folder."""

import logging
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from stzoo.models import build
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

SMALL: dict[str, dict[str, Any]] = {
    "convlstm": {"layers": 3, "hidden": 8, "kernel": 3, "patch": 4},
    "convttlstm": {
        "hidden": [8, 8, 8],
        "layers": 1,
        "skip": 1,
        "order": 2,
        "steps": 3,
        "ranks": 4,
        "kernel": 3,
        "patch": 4,
    },
    "predrnn": {"layers": 3, "hidden": 8, "kernel": 3, "patch": 4},
    "predrnnpp": {"layers": 3, "hidden": 8, "kernel": 3, "patch": 4},
    "mim": {"layers": 3, "hidden": 8, "kernel": 3, "patch": 4},
    "e3dlstm": {"layers": 2, "hidden": 8, "kernel": 3, "patch": 4, "history": 4},
    "phydnet": {"width": 16, "lstm": [8, 8], "kernel": 3},
    "mau": {"layers": 2, "hidden": 8, "kernel": 3, "patch": 1, "shrink": 4, "tau": 3},
    "prednet": {"widths": [8, 12], "kernel": 3},
    "crevnet": {"blocks": [1, 1], "layers": 2},
    "swinlstm": {"dim": 8, "down": [2], "up": [2], "heads": [2], "window": 2},
    "tctn": {"layers": 2, "hidden": 8, "heads": 2, "expansion": 2, "window": 5, "patch": 4},
}


def spec_of(arch: str, size: int = 16, channels: int = 2, **params: Any) -> ModelSpec:
    return ModelSpec(
        arch=arch, frames_in=4, frames_out=4, channels=channels, height=size, width=size,
        params=SMALL[arch] | params,
    )  # fmt: skip


def module_of(arch: str, **params: Any) -> Any:
    """Random weights, twice as large as usual, and none left at zero: nothing is hidden by a gate that does nothing."""
    torch.manual_seed(0)
    module = build(spec_of(arch, **params)).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(2 * p if p.std() > 0 else p + 0.3 * torch.randn_like(p))
    return module


def clip(batch: int = 2, frames: int = 6, channels: int = 2, size: int = 16) -> Tensor:
    return torch.rand(batch, frames, channels, size, size, generator=torch.Generator().manual_seed(1))


def outputs(module: Any, frames: Tensor) -> list[Tensor]:
    """What each step forecasts while the true frames are read."""
    state = module.initial_state(len(frames), tuple(frames.shape[-2:]), frames.device, frames.dtype)
    collected = []
    with torch.no_grad():
        for frame in frames.unbind(1):
            forecast, state = module.step(frame, state)
            collected.append(forecast)
    return collected


class Unrolled(nn.Module):
    """Ten frames read, ten forecast, as one call: what fvcore can count."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.module: Any = build(spec).eval()
        self.spec = spec

    def forward(self, past: Tensor) -> Tensor:
        return torch.stack(list(unroll(self.module, self.spec, past, 10)), 1)


def attention_count(inputs: list[Any], _: list[Any]) -> int:
    """Multiply-accumulates of softmax(q k^T) v, which fvcore does not know."""
    query, key = (i.type().sizes() for i in inputs[:2])
    return 2 * prod(query) * key[2]


def gmac(unrolled: Unrolled) -> float:
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    spec = unrolled.spec
    past = torch.rand(1, spec.frames_in, spec.channels, spec.height, spec.width)
    counted = FlopCountAnalysis(unrolled, past).unsupported_ops_warnings(False)
    counted = counted.set_op_handle("aten::scaled_dot_product_attention", attention_count)
    return counted.total() / 1e9
