"""The closed table of architectures: name -> (Config, Module). A module is built as ``Module(spec, config)``."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import nn

from stzoo.errors import SpecError
from stzoo.models.conv import Conv, ConvConfig
from stzoo.models.tau import Tau, TauConfig
from stzoo.spec import ModelSpec, from_mapping


@dataclass(frozen=True)
class Architecture:
    config: type
    module: type[nn.Module]


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "conv": Architecture(ConvConfig, Conv),
        "tau": Architecture(TauConfig, Tau),
    }
)


def config_of(spec: ModelSpec) -> Any:
    """The architecture's own configuration, from `spec.params`.

    Raises:
        SpecError: unknown architecture, or a key of `params` that is unknown, of the wrong type or out of bounds.
    """
    if spec.arch not in ARCHITECTURES:
        close = get_close_matches(spec.arch, ARCHITECTURES, n=3)
        raise SpecError(f"spec.arch is {spec.arch!r}; it may be {', '.join(close or ARCHITECTURES)}")
    return from_mapping(ARCHITECTURES[spec.arch].config, spec.params, "spec.params")


def build(spec: ModelSpec, device: str | torch.device = "cpu") -> nn.Module:
    """The module a spec describes, freshly initialised, on `device` ("meta" allocates nothing). Raises `SpecError`."""
    config = config_of(spec)
    with torch.device(device):
        module = ARCHITECTURES[spec.arch].module(spec, config)
    stride = stride_of(module)
    if spec.height % stride or spec.width % stride:
        raise SpecError(
            f"spec.height x spec.width is {spec.height}x{spec.width}; this {spec.arch} needs multiples of {stride}"
        )
    return module


def stride_of(module: nn.Module) -> int:
    """What the height and width of its frames must be multiples of."""
    return cast(int, module.stride)
