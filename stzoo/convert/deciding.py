"""What model a checkpoint holds: its tensors decide, and what no tensor tells must be known from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import prod
from pathlib import Path
from typing import Any

from stzoo.convert.stated import frames_of, settings_of
from stzoo.errors import MismatchError, SpecError
from stzoo.models import architectures, config_of
from stzoo.models.inferring import Inferred, infer
from stzoo.models.reading import ChannelsUntold, Frame, Shapes, Told
from stzoo.spec import ModelSpec, from_mapping, shown

_NEEDED = {  # fields that every spec needs, and the options of `stzoo convert` that say them
    "channels": "--channels", "frames_in": "--frames-in", "frames_out": "--frames-out", "height": "--size",
    "width": "--size",
}  # fmt: skip


@dataclass(frozen=True)
class Decision:
    """The model, and where what no tensor tells came from.

    Attributes:
        spec: of the model.
        told: the fields of the spec that tensors tell.
        stated: what was taken from the file's hyper-parameters: fields of the spec and of its `params`.
        assumed: what was taken by default, because nothing tells it: fields of the spec and of its `params`.
    """

    spec: ModelSpec
    told: frozenset[str]
    stated: Mapping[str, Any]
    assumed: Mapping[str, Any]


def decided(
    path: Path,
    origin: str,
    shapes: Shapes,
    known: Mapping[str, Any],
    presumed: Mapping[str, Any],
    stated: Mapping[str, Any],
) -> Decision:
    """The model that tensors of these names and shapes belong to.

    Args:
        path: the checkpoint, for messages.
        origin: who published it.
        shapes: of its tensors, by their published names without prefixes.
        known: a part of the spec as JSON has it, `params` in it too, that the tensors must not contradict.
        presumed: the same, but where tensors tell something else, they have precedence.
        stated: the file's hyper-parameters, to which everything else has precedence; see `stzoo.convert.stated`.

    Raises:
        MismatchError: no architecture is known that has such tensors, or they contradict what is known.
        SpecError: something is missing that no tensor tells, or a known value is wrong in itself.
    """
    given, frames = {**presumed, **known}, frames_of(stated)
    found = _inferred(path, shapes, given, frames)
    tensors = found.told
    layouts = architectures()[found.arch].layouts
    if found.origin != origin and origin in layouts and layouts[origin] is not layouts[found.origin]:
        raise MismatchError(f"{path} has tensors that are named as {found.origin} names them, not as {origin} does")
    sizes = {f.name: getattr(tensors.frame, f.name) for f in fields(Frame)} | {"frames_in": tensors.frames_in}
    told = {"arch": found.arch} | {name: value for name, value in sizes.items() if value is not None}
    if any(frames.get(name, value) != value for name, value in told.items()):  # the file states frames of other data
        frames = {name: value for name, value in frames.items() if name not in sizes}
    _check(path, told, known, "")
    _check(path, tensors.params, known.get("params", {}), "params.")
    values = frames | given | told
    _check_complete(path, f", which holds a {found.arch},", values)
    settings = settings_of(stated, found.arch)
    chosen = {**presumed.get("params", {}), **known.get("params", {})}
    params = {**settings, **chosen}
    params |= {name: value for name, value in tensors.params.items() if value is not False or name in params}
    spec = _with_product(path, tensors, ModelSpec.from_dict(values | {"params": params}))
    fields_told = frozenset(told.keys() - {tensors.hint})
    used = {name: value for name, value in frames.items() if name not in given.keys() | fields_told}
    used |= {name: value for name, value in settings.items() if name not in chosen.keys() | tensors.params.keys()}
    config = config_of(spec)
    said = chosen.keys() | settings.keys()
    if tensors.product is not None and said & set(tensors.product[:2]):  # the other one follows
        said |= set(tensors.product[:2])
    assumed = {name: getattr(config, name) for name in tensors.untold if name not in said}
    if "value_range" not in values:
        assumed["value_range"] = spec.value_range
    return Decision(spec, fields_told, used, assumed)


def _with_product(path: Path, tensors: Told, spec: ModelSpec) -> ModelSpec:
    """The spec, in which the two settings whose product the tensors tell have it; if one is said, the other follows.

    Raises:
        MismatchError: what is said of them cannot make the product.
        SpecError: neither is said, and the architecture's defaults do not make it.
    """
    if tensors.product is None:
        return spec
    one, other, product = tensors.product
    values = {name: getattr(config_of(spec), name) for name in (one, other)}
    said = [name for name in values if name in spec.params]
    if len(said) == 1:
        values[other if said == [one] else one] = product // values[said[0]]
    if prod(values.values()) == product:
        return spec.replace(**values) if said else spec
    told = f"{one} times {other} is {product} in the tensors of {path}"
    if said:
        raise MismatchError(f"{told}, which {' and '.join(f'{n} {spec.params[n]}' for n in said)} cannot make")
    raise SpecError(f"{told}, and no tensor tells either of them; give one: --set {one}=VALUE")


def _inferred(path: Path, shapes: Shapes, given: Mapping[str, Any], frames: Mapping[str, Any]) -> Inferred:
    """What the tensors tell. If they contradict the frames that the file itself states, these do not count."""
    known = from_mapping(Frame, {f.name: given[f.name] for f in fields(Frame) if f.name in given}, "spec")
    more = {f.name: frames[f.name] for f in fields(Frame) if f.name in frames and f.name not in given}
    try:
        return infer(shapes, replace(known, **more))
    except SpecError as error:
        problem = error
    if more:
        try:
            return infer(shapes, known)
        except SpecError as error:
            problem = error
    if isinstance(problem, ChannelsUntold):
        rest = {name: value for name, value in frames.items() if name not in more} | dict.fromkeys(problem.told)
        holder = f", whose first layer reads patches of {problem.features} channels,"
        _check_complete(path, holder, rest | dict(given))
    raise MismatchError(f"{path} does not tell its model: {problem}") from None


def _check_complete(path: Path, holder: str, values: Mapping[str, Any]) -> None:
    """Raises `SpecError`, which names all of them at once, if fields that every spec needs have no value."""
    missing = [name for name in _NEEDED if name not in values]
    if missing:
        options = list(dict.fromkeys(_NEEDED[name] for name in missing))
        raise SpecError(
            f"no tensor of {path}{holder} tells {_listed(missing)}; give the data set that it was trained for "
            f"(--dataset), or these values ({_listed(options)})"
        )


def _check(path: Path, told: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    """Raises `MismatchError` if tensors tell something else than what is known."""
    for name, value in told.items():
        if name in known and _plain(known[name]) != _plain(value):
            raise MismatchError(f"{path} holds a model with {where}{name} {value}, not {shown(known[name])}")


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
