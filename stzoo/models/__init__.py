"""The closed table of architectures: name -> (Config, Module). A module is built as ``Module(spec, config)``."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Literal, cast

import torch
from torch import nn

from stzoo.errors import SpecError
from stzoo.models.conv import Conv, ConvConfig
from stzoo.models.convlstm import ConvLstm
from stzoo.models.e3dlstm import E3dLstm, E3dLstmConfig
from stzoo.models.mim import Mim, MimConfig
from stzoo.models.modular import Modular, ModularConfig
from stzoo.models.phydnet import PhyDNet, PhyDNetConfig
from stzoo.models.predrnn import PredRnn, PredRnnConfig
from stzoo.models.predrnnpp import PredRnnPp, PredRnnPpConfig
from stzoo.models.recurrent import RecurrentConfig
from stzoo.models.simvp import SimVp, SimVpConfig
from stzoo.models.tau import Tau, TauConfig
from stzoo.models.tctn import Tctn, TctnConfig
from stzoo.models.vqvae import VqVae, VqVaeConfig
from stzoo.spec import ModelSpec, from_mapping, shown

MAX_PARAMETERS = 500_000_000  # tensor elements, 2 GB in float32: ten times the largest configuration of the papers
MAX_PARAMETERS_VARIABLE = "STZOO_MAX_PARAMETERS"


@dataclass(frozen=True)
class Architecture:
    config: type
    module: type[nn.Module]
    kind: Literal["forecaster", "codec"] = "forecaster"


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "conv": Architecture(ConvConfig, Conv),
        "convlstm": Architecture(RecurrentConfig, ConvLstm),
        "e3dlstm": Architecture(E3dLstmConfig, E3dLstm),
        "mim": Architecture(MimConfig, Mim),
        "modular": Architecture(ModularConfig, Modular),
        "phydnet": Architecture(PhyDNetConfig, PhyDNet),
        "predrnn": Architecture(PredRnnConfig, PredRnn),
        "predrnnpp": Architecture(PredRnnPpConfig, PredRnnPp),
        "simvp": Architecture(SimVpConfig, SimVp),
        "tau": Architecture(TauConfig, Tau),
        "tctn": Architecture(TctnConfig, Tctn),
        "vqvae": Architecture(VqVaeConfig, VqVae, "codec"),
    }
)


def config_of(spec: ModelSpec) -> Any:
    """The architecture's own configuration, from `spec.params`.

    Raises:
        SpecError: unknown architecture, or a key of `params` that is unknown, of the wrong type or out of bounds.
    """
    if spec.arch not in ARCHITECTURES:
        close = get_close_matches(spec.arch, ARCHITECTURES, n=3)
        raise SpecError(f"spec.arch is {shown(spec.arch)}; it may be {', '.join(close or ARCHITECTURES)}")
    return from_mapping(ARCHITECTURES[spec.arch].config, spec.params, "spec.params")


def check_kind(spec: ModelSpec, kind: Literal["forecaster", "codec"], name: str) -> None:
    """Raises `SpecError` where the model that the user calls `name` is of the other kind."""
    config_of(spec)
    if ARCHITECTURES[spec.arch].kind == kind:
        return
    if kind == "forecaster":
        raise SpecError(f"{name} is a codec, which forecasts nothing; open it with stzoo.load_codec({name!r})")
    raise SpecError(f"{name} is a forecaster, not a codec; open it with stzoo.load({name!r})")


def build(spec: ModelSpec, device: str | torch.device = "cpu") -> nn.Module:
    """The module a spec describes, freshly initialised, on `device` ("meta" allocates nothing).

    It is built on meta first, which takes milliseconds whatever a spec asks for, and is looked at there.

    Raises:
        SpecError: `params` are wrong, or ask for more tensor elements than `max_parameters` allows; or the frames'
            size is one that the architecture cannot take.
    """
    config = config_of(spec)
    module_class = ARCHITECTURES[spec.arch].module
    with torch.device("meta"):
        module = module_class(spec, config)
    _check_size(spec, module)
    stride = stride_of(module)
    if stride is not None and (spec.height % stride or spec.width % stride):
        raise SpecError(
            f"spec.height x spec.width is {spec.height}x{spec.width}; this {spec.arch} needs multiples of {stride}"
        )
    if torch.device(device).type == "meta":
        return module
    with torch.device(device):
        return module_class(spec, config)


def max_parameters() -> int:
    """How many tensor elements a spec may ask for: 500 million, or what STZOO_MAX_PARAMETERS says."""
    given = os.environ.get(MAX_PARAMETERS_VARIABLE, "")
    if not given:
        return MAX_PARAMETERS
    if not (given.isascii() and given.isdecimal() and len(given) < 20 and int(given) > 0):
        raise SpecError(f"{MAX_PARAMETERS_VARIABLE} is {shown(given)}; it must be a whole number, at least 1")
    return int(given)


def _check_size(spec: ModelSpec, module: nn.Module) -> None:
    """Parameters and buffers are counted. Raises `SpecError` where there are too many."""
    asked, limit = sum(tensor.numel() for tensor in module.state_dict().values()), max_parameters()
    if asked > limit:
        raise SpecError(
            f"this {spec.arch} would have {asked:,} parameters, more than the {limit:,} that are allowed; where it is "
            f"meant so, set the environment variable {MAX_PARAMETERS_VARIABLE} to a larger number"
        )


def stride_of(module: nn.Module) -> int | None:
    """What the height and width of its frames must be multiples of; None where only the spec's own size will do."""
    return cast("int | None", module.stride)
