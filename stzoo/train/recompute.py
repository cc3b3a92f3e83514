"""Activation checkpointing: parts of a module keep their inputs alone, and compute again what their gradients need."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from stzoo.models.conv import ConvBlock
from stzoo.models.encoder_decoder import ConvNorm
from stzoo.models.gated_block import GatedBlock
from stzoo.models.simvp import Inception
from stzoo.models.tctn import Layer

PARTS = (ConvBlock, ConvNorm, GatedBlock, Inception, Layer)


def recomputing(module: nn.Module, by_step: bool) -> Any:
    """What computes as `module` does, with its parameters, in less memory and about a third more time.

    Args:
        by_step: of a sequential module, each time step is a part; else each of its `PARTS`.
    """
    if not by_step:
        return _with_parts(module)
    own = {name: _kept_small(getattr(module, name), module) for name in ("step", "read") if hasattr(module, name)}
    return SimpleNamespace(initial_state=module.initial_state, **own)


def _with_parts(module: nn.Module) -> nn.Module:
    """The module, in which its `PARTS` are recomputed: modules that hold some are copied, all else is shared."""
    if isinstance(module, PARTS):
        return _Part(module)
    if not any(isinstance(m, PARTS) for m in module.modules()):
        return module
    other = copy.copy(module)
    other._modules = {name: child and _with_parts(child) for name, child in module._modules.items()}
    return other


class _Part(nn.Module):
    def __init__(self, part: nn.Module):
        super().__init__()
        self.part = part

    def forward(self, *inputs: Any) -> Any:
        return _kept_small(self.part, self.part)(*inputs)


def _kept_small(function: Callable[..., Any], module: nn.Module) -> Callable[..., Any]:
    def run(*inputs: Any) -> Any:
        return checkpoint(
            function, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_kept(module))
        )

    return run


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """BatchNorm has counted the batch already when it sees it a second time."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    as_they_were = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, as_they_were, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
