"""The closed table of architectures: name -> (Config, Module). A module is built as ``Module(spec, config)``."""

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
from stzoo.spec import ModelSpec, from_mapping


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
        raise SpecError(f"spec.arch is {spec.arch!r}; it may be {', '.join(close or ARCHITECTURES)}")
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
    """The module a spec describes, freshly initialised, on `device` ("meta" allocates nothing). Raises `SpecError`."""
    config = config_of(spec)
    with torch.device(device):
        module = ARCHITECTURES[spec.arch].module(spec, config)
    stride = stride_of(module)
    if stride is not None and (spec.height % stride or spec.width % stride):
        raise SpecError(
            f"spec.height x spec.width is {spec.height}x{spec.width}; this {spec.arch} needs multiples of {stride}"
        )
    return module


def stride_of(module: nn.Module) -> int | None:
    """What the height and width of its frames must be multiples of; None where only the spec's own size will do."""
    return cast("int | None", module.stride)
