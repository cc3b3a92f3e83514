"""What model a checkpoint holds: its tensors decide, and what no tensor tells must be known from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from stzoo.errors import MismatchError, SpecError
from stzoo.models import architectures
from stzoo.models.inferring import Frame, Shapes, infer
from stzoo.spec import ModelSpec, from_mapping, shown

_NEEDED = {  # fields that every spec needs, and the options of `stzoo convert` that say them
    "frames_in": "--frames-in", "frames_out": "--frames-out", "channels": "--channels", "height": "--size",
    "width": "--size",
}  # fmt: skip


def decided(
    path: Path, origin: str, shapes: Shapes, known: Mapping[str, Any], presumed: Mapping[str, Any]
) -> ModelSpec:
    """The spec of the model that tensors of these names and shapes belong to.

    Args:
        path: the checkpoint, for messages.
        origin: who published it.
        shapes: of its tensors, by their published names without prefixes.
        known: fields of the spec, or of its `params`, that the tensors must not contradict.
        presumed: the same, but of these, what tensors tell has precedence.

    Raises:
        MismatchError: no architecture is known that has such tensors, or they contradict what is known.
        SpecError: something is missing that no tensor tells, or a known value is wrong in itself.
    """
    given = {**presumed, **known}
    frame = from_mapping(Frame, {f.name: given[f.name] for f in fields(Frame) if f.name in given}, "spec")
    try:
        found = infer(shapes, frame)
    except SpecError as error:
        raise MismatchError(f"{path} does not tell its model: {error}") from None
    layouts = architectures()[found.arch].layouts
    if found.origin != origin and origin in layouts and layouts[origin] is not layouts[found.origin]:
        raise MismatchError(f"{path} has tensors that are named as {found.origin} names them, not as {origin} does")
    told = {"arch": found.arch, "frames_in": found.frames_in, **found.params}
    told |= {f.name: getattr(found.frame, f.name) for f in fields(Frame)}
    told = {name: value for name, value in told.items() if value is not None}
    for name, value in told.items():
        if name in known and _plain(known[name]) != _plain(value):
            raise MismatchError(f"{path} holds a model with {name} {value}, not {shown(known[name])}")
    values = given | {name: value for name, value in told.items() if value is not False or name in given}
    missing = [name for name in _NEEDED if name not in values]
    if missing:
        options = dict.fromkeys(_NEEDED[name] for name in missing)
        raise SpecError(
            f"no tensor of {path}, which holds a {found.arch}, tells {_listed(missing)}; give the data set that it was "
            f"trained for (--dataset), or these values ({_listed(list(options))})"
        )
    own = {f.name for f in fields(ModelSpec)}
    params = {name: value for name, value in values.items() if name not in own}
    return ModelSpec.from_dict({name: value for name, value in values.items() if name in own} | {"params": params})


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
