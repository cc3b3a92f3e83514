"""What `stzoo.unroll` drives, through `torch.compile`: slow at the first forecast, sometimes faster afterwards."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn


def compiled(module: nn.Module) -> Any:
    """Compiles each of the methods that `unroll` calls."""
    if hasattr(module, "predictor"):
        return SimpleNamespace(
            predictor=compiled(module.predictor),  # type: ignore[arg-type]
            predictor_spec=module.predictor_spec,
            read=torch.compile(module.read),  # type: ignore[arg-type]
            paint=torch.compile(module.paint),  # type: ignore[arg-type]
        )
    if hasattr(module, "step"):
        own = [name for name in ("step", "read") if hasattr(module, name)]
        run = {name: torch.compile(getattr(module, name)) for name in own}
        return SimpleNamespace(initial_state=module.initial_state, **run)
    return torch.compile(module)
