"""What `stzoo.unroll` drives, through `torch.compile`: slow at the first forecast, sometimes faster afterwards."""

from typing import Any

import torch
from torch import nn

from stzoo.models import architecture_of
from stzoo.models.contract import ModularForm, SequentialForm
from stzoo.spec import ModelSpec


def compiled(module: nn.Module, spec: ModelSpec) -> Any:
    """The module in a form of which `torch.compile` compiles each method that `unroll` calls.

    A block becomes a callable, a sequential module a `SequentialForm`, a modular one a `ModularForm`.
    """
    plain: Any = module  # of the kind that its architecture states
    architecture = architecture_of(spec)
    if architecture.kind == "modular":
        predictor = compiled(plain.predictor, plain.predictor_spec)
        return ModularForm(predictor, plain.predictor_spec, torch.compile(plain.read), torch.compile(plain.paint))
    if architecture.kind == "sequential":
        read = torch.compile(plain.read) if architecture.reads_clips else None
        return SequentialForm(plain.initial_state, torch.compile(plain.step), read)
    return torch.compile(plain)
