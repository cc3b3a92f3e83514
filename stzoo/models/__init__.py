"""The architectures, by name, and how a spec becomes a module.

Those of stzoo are in the files of this room. Another package adds its own by an entry point of the group
``stzoo.architectures`` that names an `Architecture`; docs/extending.md shows how.
"""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Literal, cast

import torch
from torch import nn

from stzoo.errors import SpecError
from stzoo.models.contract import Architecture
from stzoo.spec import ModelSpec, from_mapping, shown

MAX_PARAMETERS = 500_000_000  # tensor elements, 2 GB in float32: ten times the largest configuration of the papers
MAX_PARAMETERS_VARIABLE = "STZOO_MAX_PARAMETERS"
ENTRY_POINTS = "stzoo.architectures"

_OWN = (  # each is also the name of its file, which is imported when it is asked for: all together take long
    "conv", "convlstm", "convttlstm", "crevnet", "e3dlstm", "lmc", "mau", "mim", "modular", "pfgnet", "phydnet",
    "predformer", "prednet", "predrnn", "predrnnpp", "simvp", "swinlstm", "tau", "tctn", "vae", "vqvae",
)  # fmt: skip


@cache
def architectures() -> Mapping[str, Architecture]:
    """Every architecture by its name: those of stzoo, and those of packages that are installed beside it.

    Entry points are read once, at the first call. One that cannot be used is left out, with a warning that says why.
    """
    found = {name: _own(name) for name in _OWN}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: (point.name, point.value)):
        try:
            added = _loaded(point)
            if added.name in found:
                raise SpecError(f"the name {added.name!r} is taken")
        except Exception as error:  # another package's code, which may raise anything
            warnings.warn(f"the architecture {point.name} ({point.value}) is left out: {error}", stacklevel=2)
            continue
        found[added.name] = added
    return MappingProxyType(dict(sorted(found.items())))


def _own(name: str) -> Architecture:
    """The architecture of stzoo with this name."""
    file: Any = import_module(f"stzoo.models.{name}")
    return cast(Architecture, file.ARCHITECTURE)


def _loaded(point: EntryPoint) -> Architecture:
    added = point.load()
    if not isinstance(added, Architecture):
        raise SpecError(f"it is a {type(added).__name__}; it must be a stzoo.models.contract.Architecture")
    return added


def architecture_of(spec: ModelSpec) -> Architecture:
    """What `spec.arch` names. Raises `SpecError` if there is no such architecture."""
    if spec.arch in _OWN:
        return _own(spec.arch)
    known = architectures()
    if spec.arch not in known:
        close = get_close_matches(spec.arch, known, n=3)
        raise SpecError(f"spec.arch is {shown(spec.arch)}; it may be {', '.join(close or known)}")
    return known[spec.arch]


def config_of(spec: ModelSpec) -> Any:
    """The architecture's own configuration: a frozen dataclass, made from `spec.params`.

    Raises:
        SpecError: the architecture is unknown, or a key of `params` is unknown, of the wrong type or out of bounds.
    """
    return from_mapping(architecture_of(spec).config, spec.params, "spec.params")


def check_kind(spec: ModelSpec, kind: Literal["forecaster", "codec"], name: str | None) -> None:
    """Raises `SpecError` if the model is of the other kind. Messages call it `name`, or what its arch is."""
    config_of(spec)
    if architecture_of(spec).is_codec == (kind == "codec"):
        return
    if kind == "forecaster":
        model = f"arch {spec.arch!r}" if name is None else name
        way = "stzoo.models.build makes its module" if name is None else f"open it with stzoo.load_codec({name!r})"
        raise SpecError(f"{model} is a codec, which forecasts nothing; {way}")
    raise SpecError(f"{name} is a forecaster, not a codec; open it with stzoo.load({name!r})")


def build(spec: ModelSpec, device: str | torch.device = "cpu") -> nn.Module:
    """The module that a spec describes, with random weights, on `device` ("meta" allocates no memory).

    It is built on "meta" first, which takes milliseconds whatever the spec asks for, and is checked there.

    Raises:
        SpecError: `params` are wrong, or ask for more tensor elements than `max_parameters` allows; the architecture
            cannot take frames of this size; or its module is not of the kind that it states.
    """
    config = config_of(spec)
    architecture = architecture_of(spec)
    module_class = architecture.module
    with _new_in_float32(), torch.device("meta"):
        module = module_class(spec, config)
    architecture.check_module(module)
    _check_size(spec, module)
    stride = stride_of(module)
    if stride is not None and (spec.height % stride or spec.width % stride):
        raise SpecError(
            f"spec.height x spec.width is {spec.height}x{spec.width}; this {spec.arch} needs multiples of {stride}"
        )
    if torch.device(device).type == "meta":
        return module
    with _new_in_float32(), torch.device(device):
        return module_class(spec, config)


@contextmanager
def _new_in_float32() -> Iterator[None]:
    """Inside, tensors are made in float32, as every module's are, even where the caller's program makes others."""
    callers = torch.get_default_dtype()
    if callers == torch.float32:
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(callers)


def max_parameters() -> int:
    """How many tensor elements a spec may ask for: 500 million, or the value of STZOO_MAX_PARAMETERS.

    Raises `SpecError` if that value is not a whole number of at least 1.
    """
    given = os.environ.get(MAX_PARAMETERS_VARIABLE, "")
    if not given:
        return MAX_PARAMETERS
    if not (given.isascii() and given.isdecimal() and len(given) < 20 and int(given) > 0):
        raise SpecError(f"{MAX_PARAMETERS_VARIABLE} is {shown(given)}; it must be a whole number, at least 1")
    return int(given)


def _check_size(spec: ModelSpec, module: nn.Module) -> None:
    """Raises `SpecError` if the module's parameters and buffers have too many elements."""
    asked, limit = sum(tensor.numel() for tensor in module.state_dict().values()), max_parameters()
    if asked > limit:
        raise SpecError(
            f"this {spec.arch} would have {asked:,} parameters, more than the {limit:,} that are allowed; if you "
            f"want a model of this size, set the environment variable {MAX_PARAMETERS_VARIABLE} to a larger number"
        )


def stride_of(module: nn.Module) -> int | None:
    """The number that H and W of the frames must be multiples of; None if they must be those of the spec."""
    return cast("int | None", module.stride)
