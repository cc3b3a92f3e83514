"""Activation checkpointing: some parts of a module keep only their inputs, and compute the rest again for gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from stzoo.errors import SpecError
from stzoo.models import architecture_of
from stzoo.models.contract import SequentialForm
from stzoo.spec import ModelSpec

Parts = tuple[type[nn.Module], ...]


def check_recompute(module: nn.Module, spec: ModelSpec, whole_clips: bool) -> None:
    """Raises `SpecError` if it is not known which parts of the module to recompute, or if the module has none of them.

    Args as in `recomputing`; the module may lie on the device "meta".
    """
    parts = architecture_of(spec).recompute
    if _by_step(spec, whole_clips) or any(isinstance(m, parts) for m in module.modules()):
        return
    lacks = f"has no {' or '.join(part.__name__ for part in parts)}" if parts else "does not state what to recompute"
    raise SpecError(
        f"recipe.checkpoint is true, but this {spec.arch} {lacks}; "
        "set it to false, or name parts of the module in `recompute` of its Architecture"
    )


def recomputing(module: nn.Module, spec: ModelSpec, *, whole_clips: bool = False) -> Any:
    """A form of `module` that computes the same, with its parameters, in less memory and about a third more time.

    In a sequential module each step is recomputed as a whole; in any other module, the parts that its architecture
    states are.

    Args:
        whole_clips: a sequential module reads whole clips in training, so that its parts are recomputed, not its steps.

    Raises:
        SpecError: the architecture does not state which parts can be recomputed, or the module has none of them.
    """
    check_recompute(module, spec, whole_clips)
    architecture = architecture_of(spec)
    if not _by_step(spec, whole_clips):
        return _with_parts(module, architecture.recompute)
    plain: Any = module
    read = _kept_small(plain.read, module) if architecture.reads_clips else None
    advance = _kept_small(plain.advance, module) if architecture.advances else None
    return SequentialForm(plain.initial_state, _kept_small(plain.step, module), read, advance)


def _by_step(spec: ModelSpec, whole_clips: bool) -> bool:
    return architecture_of(spec).kind == "sequential" and not whole_clips


def _with_parts(module: nn.Module, parts: Parts) -> nn.Module:
    """The module with its parts wrapped: modules that hold some are copied, everything else is shared."""
    if isinstance(module, parts):
        return _Part(module)
    if not any(isinstance(m, parts) for m in module.modules()):
        return module
    other = copy.copy(module)
    other._modules = {name: child and _with_parts(child, parts) for name, child in module._modules.items()}
    return other


class _Part(nn.Module):
    """A part that is recomputed; its inputs and outputs are those of the plain one."""

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
    """Keeps BatchNorm from counting a batch twice, when the batch is computed again."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    as_they_were = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, as_they_were, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
