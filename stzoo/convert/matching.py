"""Published tensors, matched with ours by name and shape.

What published tensors are called stands beside each architecture (`Architecture.layouts`). Here every tensor is
accounted for, in both directions: each of ours must be found under its published name and shape, and each of theirs
must be used or be known to have no use.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from stzoo.catalog import WEIGHTS_FILE, settings
from stzoo.convert.checkpoint import COUNTED, as_laid_out, below, first_parts, inner, named_tensors, short
from stzoo.convert.deciding import Decision, decided
from stzoo.convert.pickled import StoredTensor
from stzoo.convert.stated import KEY, stated_by
from stzoo.convert.torch_file import TorchFile, memory_told, open_torch_file
from stzoo.errors import MismatchError, SpecError, WeightsError
from stzoo.models import architecture_of, architectures, build, config_of, stride_of
from stzoo.models.inferring import is_recognised
from stzoo.models.published import Layout, Shape
from stzoo.spec import ModelSpec, shown
from stzoo.weights import Origin, save_folder

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_FEW = 8  # first parts of names, such as "student" and "teacher", that are looked at one by one
_MARGIN = 2**26  # bytes that a checkpoint may claim beyond what its file and the model explain


@dataclass(frozen=True)
class ConvertReport:
    """What was written.

    Attributes:
        folder: holds config.json and model.safetensors.
        spec: of the model that was written.
        locked: the model takes frames of the spec's height and width alone, because some weights belong to places.
        tensors: how many tensors were written.
        parameters: how many values the trainable ones have.
        unused: names of published tensors without a use, in the code that published them or in the spec asked for, as
            the file has them.
        decision: what told what, if no spec was given; otherwise None.
    """

    folder: Path
    spec: ModelSpec
    locked: bool
    tensors: int
    parameters: int
    unused: tuple[str, ...]
    decision: Decision | None = None

    def __str__(self) -> str:
        s, line = self.spec, f"{self.folder}: {self.tensors} tensors, {self.parameters:,} parameters"
        line += f"; unused: {', '.join(map(short, self.unused))}" if self.unused else "; every tensor was used"
        values = "values without a range" if s.value_range is None else f"values in [{s.value_range[0]:g}, "
        values += "" if s.value_range is None else f"{s.value_range[1]:g}]"
        model = f"{s.arch} ({settings(s.params)}): {s.frames_in} frames in, {s.frames_out} out, "
        model += f"{s.channels}x{s.height}x{s.width} (channels x height x width), {values}"
        only = f"\nit takes frames of {s.height}x{s.width} alone: some of its weights belong to places" * self.locked
        return "\n".join([line, model + only, *self._sources()])

    def _sources(self) -> Iterator[str]:
        """Where that came from which no tensor tells, in lines."""
        if self.decision is None:
            return
        if self.decision.stated:
            yield f"from the file's {KEY}: {_values(self.decision.stated)}"
        if self.decision.assumed:
            example = next(iter(self.decision.assumed))
            yield (
                f"assumed, because no tensor tells: {_values(self.decision.assumed)}; change with --set {example}=VALUE"
            )


@dataclass(frozen=True)
class Converted:
    """A published checkpoint as one of ours, in memory.

    Attributes:
        spec: of the model that it is.
        module: of that spec, without values.
        state: every tensor of the module, in memory of its own.
        unused: names of published tensors without a use, as the file has them.
        decision: what told what, if no spec was given; otherwise None.
    """

    spec: ModelSpec
    module: nn.Module
    state: dict[str, Tensor]
    unused: tuple[str, ...]
    decision: Decision | None = None


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in values.items())


def origins() -> tuple[str, ...]:
    """Where published checkpoints come from whose layout some architecture states, such as "openstl"."""
    return tuple(sorted({origin for architecture in architectures().values() for origin in architecture.layouts}))


def convert(
    origin: str,
    checkpoint: str | os.PathLike[str],
    spec: ModelSpec | None,
    out: str | os.PathLike[str],
    *,
    known: Mapping[str, Any] = _NOTHING,
    presumed: Mapping[str, Any] = _NOTHING,
    made_of: Origin | None = None,
) -> ConvertReport:
    """Write the published weights in `checkpoint` as a folder of config.json and model.safetensors.

    The file may hold the tensors themselves, or hold them under "state_dict", "model_state_dict", "net_param", "model",
    "ema" or the only other key that has tensors. Other entries, of whatever class, are not read, unless they are more
    tensors, which are an error; names may begin with "module.", "model.", "_orig_mod." or any prefix that all of them
    share. No code in it can run. Names and shapes are compared with the spec before memory is taken for a tensor.

    Without a spec the tensors decide what model it is, as far as they tell; see `stzoo.models.inferring`. What they do
    not tell, and is not known, is taken from the file's hyper-parameters, if it has some.

    Args:
        origin: who published it, one of `origins()`, in capital or small letters.
        checkpoint: the file.
        spec: the model that the weights are for; None if the file is to decide. The layout may change it: an E3D-LSTM
            of "openstl" becomes `variant` "public" with a `history` that covers one forecast, because those were
            trained so.
        out: the folder to write; made if it is absent.
        known: without a spec, the part of it that is known, such as ``{"frames_out": 10, "height": 64, "width": 64,
            "params": {"heads": 8}}``. The tensors must not contradict it.
        presumed: without a spec, such a part of it for what tensors do not tell; where they tell it, they decide.
        made_of: what to note in model.safetensors of the publisher's file.

    Raises:
        SpecError: the origin is unknown, no layout of it is known for the architecture, something is not known that
            no tensor tells, both a spec and what is known are given, or `out` holds a model.
        WeightsError: the file does not exist, is no regular file, is damaged, has something else than dense tensors
            among its tensors, or claims tensors far larger than itself and the model; or a value is not finite.
        MismatchError: a tensor is missing, has another shape or has no known use; the message has its published name.
            Or the tensors are those of no architecture that is known, or contradict what is known.
        MemoryNeededError: there is not enough memory for the tensors.
    """
    out = Path(out)
    if (out / WEIGHTS_FILE).exists():
        raise SpecError(f"{out} holds a model already; name another folder")
    found = converted(origin, checkpoint, spec, known=known, presumed=presumed)
    save_folder(out, found.spec, found.state, made_of)
    parameters = sum(p.numel() for p in found.module.parameters())
    return ConvertReport(
        out, found.spec, stride_of(found.module) is None, len(found.state), parameters, found.unused, found.decision
    )


def converted(
    origin: str,
    checkpoint: str | os.PathLike[str],
    spec: ModelSpec | None,
    *,
    known: Mapping[str, Any] = _NOTHING,
    presumed: Mapping[str, Any] = _NOTHING,
) -> Converted:
    """The published weights in `checkpoint`, as `convert` writes them. Arguments and errors are those of `convert`."""
    checkpoint = Path(checkpoint)
    origin = origin.lower() if origin.lower() in origins() else origin
    if spec is not None:
        target = _target(origin, spec)  # a wrong spec is said before the file is opened
        if known or presumed:
            raise SpecError("a spec says everything; leave out what is known, or the spec")
    elif origin not in origins():
        raise SpecError(f"the origin is {shown(origin)}; it may be {', '.join(origins())}")
    decision = None
    with open_torch_file(checkpoint) as file:
        bare = named_tensors(file, is_recognised if spec is None else target.has_any)
        if spec is None:
            _check_memory(file, bare, {})  # only the file itself can explain what it claims
            decision = _decided(file, origin, bare, known, presumed)
            target = _target(origin, decision.spec)
        wanted = target.module.state_dict()
        found = as_laid_out(bare, target.layout, file)
        names, unused = _matched(checkpoint, found, wanted, target.layout, None if spec else target.spec.arch)
        _check_memory(file, found, wanted)
        with memory_told(f"the tensors of {checkpoint}"):
            state = _state(_read(file, found), names, wanted)
    return Converted(target.spec, target.module, state, unused, decision)


@dataclass(frozen=True)
class _Target:
    """What a checkpoint becomes: the layout of its tensors, the spec of the weights, and the module, without values."""

    layout: Layout
    spec: ModelSpec
    module: nn.Module

    def has_any(self, published: Collection[str]) -> bool:
        """Whether any of some published names is that of a tensor of the module."""
        tensors = self.module.state_dict().items()
        wanted = {_published(name, tuple(like.shape), self.layout)[0] for name, like in tensors}
        return any(inner(name, self.layout) in wanted for name in published)


def _target(origin: str, spec: ModelSpec) -> _Target:
    layout = _layout(origin, spec)
    spec = layout.spec(spec, config_of(spec))
    return _Target(layout, spec, build(spec, "meta"))


def _decided(
    file: TorchFile,
    origin: str,
    tensors: Mapping[str, StoredTensor],
    known: Mapping[str, Any],
    presumed: Mapping[str, Any],
) -> Decision:
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if not is_recognised(shapes):
        parts = first_parts(shapes)
        models = [part for part in parts if len(parts) <= _FEW and is_recognised(below(part, shapes))]
        if models:
            raise MismatchError(
                f"{file.path} has more than one set of tensors, and a model under {' and '.join(map(short, models))}; "
                "save the tensors of that model alone"
            )
    return decided(file.path, origin, shapes, known, presumed, stated_by(file.content))


def _layout(origin: str, spec: ModelSpec) -> Layout:
    known = {name: a.layouts[origin] for name, a in architectures().items() if origin in a.layouts}
    if not known:
        raise SpecError(f"the origin is {shown(origin)}; it may be {', '.join(origins())}")
    if architecture_of(spec).name not in known:
        raise SpecError(f"spec.arch is {spec.arch!r}; layouts of {origin} are known for {', '.join(known)}")
    return known[spec.arch]


def _check_memory(file: TorchFile, found: Mapping[str, StoredTensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises `WeightsError` if the tensors would take far more memory than both the file and the model can explain."""
    spec = sum(tensor.numel() * 8 for tensor in wanted.values())
    claimed = max(file.unpacked, sum(each.nbytes for each in found.values()))
    if claimed > 2 * (file.size + spec) + _MARGIN:
        raise WeightsError(
            f"{file.path} has {file.size:,} bytes, but its tensors claim {claimed:,}, "
            + (f"and the model has {spec // 8:,} values" if wanted else "and no model is named that has so many values")
        )


def _matched(
    path: Path, found: Mapping[str, StoredTensor], wanted: Mapping[str, Tensor], layout: Layout, arch: str | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The published name of each of our tensors, and the names without a use, these as the file has them.

    Counts of batches, which no forecast reads, may be absent; they have no name then. `arch` is the architecture that
    the tensors told; None if a spec did.

    Raises:
        MismatchError: a tensor is missing, misshapen, of another kind, or unknown.
    """
    names, problems = {}, []
    for ours, like in wanted.items():
        theirs, shape = _published(ours, tuple(like.shape), layout)
        if theirs not in found and ours.endswith("num_batches_tracked"):
            continue
        names[ours] = theirs
        if theirs not in found:
            problems.append(f"{theirs} is missing")
        elif found[theirs].shape != shape:
            problems.append(f"{short(found[theirs].key)} is {shown(found[theirs].shape)}, not {shape}")
        elif found[theirs].dtype.is_floating_point != like.is_floating_point():
            problems.append(f"{short(found[theirs].key)} is {found[theirs].dtype}, not {like.dtype}")
    rest = found.keys() - set(names.values())
    unused = tuple(sorted(found[name].key for name in rest))
    dead = {found[name].key for name in rest if re.fullmatch(layout.dead, name) or COUNTED.fullmatch(name)}
    unknown = [short(key) for key in unused if key not in dead]
    if unknown and not problems and arch is not None:
        one = len(unknown) == 1
        also, they = ("a tensor", "it is") if one else (f"{len(unknown)} tensors", "they are")
        raise MismatchError(
            f"{path} holds a {arch}, but also {also} that no {arch} has: {_first(unknown, ', ')}; if {they} no part of "
            "the model, save the file without"
        )
    problems += [f"{name} is unknown" for name in unknown]
    if problems:
        says = "does not fit the spec:" if arch is None else f"holds a {arch} whose tensors do not fit together:"
        raise MismatchError(f"{path} {says} {_first(problems, '; ')}")
    return names, unused


def _first(texts: list[str], between: str) -> str:
    return between.join(texts[:8]) + (f" and {len(texts) - 8} more" if len(texts) > 8 else "")


def _read(file: TorchFile, found: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """The tensors themselves. Raises `WeightsError` if one is damaged or holds a value that is not finite."""
    tensors = {}
    for name, stored in found.items():
        tensors[name] = file.tensor(stored)
        if stored.dtype.is_floating_point and not tensors[name].float().isfinite().all():
            raise WeightsError(f"{file.path}: {short(stored.key)} holds values that are not finite")
    return tensors


def _state(tensors: Mapping[str, Tensor], names: Mapping[str, str], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors, copied because two published ones may share their memory. What is absent is zero."""
    return {
        ours: tensors[names[ours]].reshape(like.shape).to(like.dtype, copy=True, memory_format=torch.contiguous_format)
        if ours in names
        else torch.zeros_like(like, device="cpu")
        for ours, like in wanted.items()
    }


def _published(name: str, shape: Shape, layout: Layout) -> tuple[str, Shape]:
    """The published name and shape of our tensor `name`, by the first rule that matches it."""
    stem, leaf = name, ""
    if re.search(r"\.(weight|bias|running_mean|running_var|num_batches_tracked)$", name):
        stem, leaf = name.rsplit(".", 1)
    for rule in layout.rules:
        published = rule.name(stem)
        if published is not None:
            return (f"{published}.{leaf}" if leaf else published), rule.shape(shape)
    return f"(nothing published for {name})", shape
