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
        known: a part of the spec as JSON has it, `params` in it too, that the tensors must not contradict.
        presumed: the same, but where tensors tell something else, they have precedence.

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
    sizes = {f.name: getattr(found.frame, f.name) for f in fields(Frame)} | {"frames_in": found.frames_in}
    told = {"arch": found.arch} | {name: value for name, value in sizes.items() if value is not None}
    _check(path, told, known, "")
    _check(path, found.params, known.get("params", {}), "params.")
    values = given | told
    missing = [name for name in _NEEDED if name not in values]
    if missing:
        options = list(dict.fromkeys(_NEEDED[name] for name in missing))
        raise SpecError(
            f"no tensor of {path}, which holds a {found.arch}, tells {_listed(missing)}; give the data set that it was "
            f"trained for (--dataset), or these values ({_listed(options)})"
        )
    params = {**presumed.get("params", {}), **known.get("params", {})}
    params |= {name: value for name, value in found.params.items() if value is not False or name in params}
    return ModelSpec.from_dict(values | {"params": params})


def _check(path: Path, told: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    """Raises `MismatchError` if tensors tell something else than what is known."""
    for name, value in told.items():
        if name in known and _plain(known[name]) != _plain(value):
            raise MismatchError(f"{path} holds a model with {where}{name} {value}, not {shown(known[name])}")


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
