"""Checkpoints that others published -> a folder that `stzoo.load` reads.

What published tensors are called stands beside each architecture (`Architecture.layouts`). Here every tensor is
accounted for, in both directions: each of ours must be found under its published name and shape, and each of theirs
must be used or be known to have no use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stzoo.catalog import WEIGHTS_FILE
from stzoo.errors import MismatchError, SpecError, WeightsError
from stzoo.models import architecture_of, architectures, build, config_of
from stzoo.models.published import Layout, Shape
from stzoo.spec import ModelSpec, shown
from stzoo.weights import save_folder

_WRAPPERS = ("state_dict", "model_state_dict", "net_param")  # the first one that a file has holds its tensors
_PREFIXES = r"^((module|model|_orig_mod)\.)+"  # of parallel training, of trainers, and of compiled modules


@dataclass(frozen=True)
class ConvertReport:
    """What was written.

    Attributes:
        folder: holds config.json and model.safetensors.
        tensors: how many tensors were written.
        parameters: how many values the trainable ones have.
        unused: names of published tensors without a use, in the code that published them or in the spec asked for.
    """

    folder: Path
    tensors: int
    parameters: int
    unused: tuple[str, ...]

    def __str__(self) -> str:
        line = f"{self.folder}: {self.tensors} tensors, {self.parameters:,} parameters"
        return line + (f"; unused: {', '.join(self.unused)}" if self.unused else "; every tensor was used")


def origins() -> tuple[str, ...]:
    """Where published checkpoints come from whose layout some architecture states, such as "openstl"."""
    return tuple(sorted({origin for architecture in architectures().values() for origin in architecture.layouts}))


def convert(origin: str, checkpoint: Path, spec: ModelSpec, out: Path) -> ConvertReport:
    """Write the published weights in `checkpoint` as a folder of config.json and model.safetensors.

    The file may hold the tensors themselves, or hold them under one of `_WRAPPERS`; their names may begin with
    "model.", "module." and "_orig_mod.", in any order. It is read with ``weights_only=True``, so no code in it can run.

    Args:
        origin: who published it, one of `origins()`.
        spec: the model that the weights are for. The layout may change it: an E3D-LSTM of "openstl" becomes `variant`
            "public" with a `history` that covers one forecast, because those were trained so.
        out: the folder to write; made if it is absent.

    Raises:
        SpecError: the origin is unknown, no layout of it is known for the spec's architecture, or `out` holds a model.
        WeightsError: the file is not a pickle of tensors alone, or a value is not finite.
        MismatchError: a tensor is missing, has another shape or has no known use; the message has its published name.
    """
    layout = _layout(origin, spec)
    if (out / WEIGHTS_FILE).exists():
        raise SpecError(f"{out} holds a model already; name another folder")
    spec = layout.spec(spec, config_of(spec))
    module = build(spec, "meta")
    state, unused = _renamed(checkpoint, tensors_of_checkpoint(checkpoint, layout), module.state_dict(), layout)
    save_folder(out, spec, state)
    return ConvertReport(out, len(state), sum(p.numel() for p in module.parameters()), unused)


def _layout(origin: str, spec: ModelSpec) -> Layout:
    known = {name: a.layouts[origin] for name, a in architectures().items() if origin in a.layouts}
    if not known:
        raise SpecError(f"the origin is {shown(origin)}; it may be {', '.join(origins())}")
    if architecture_of(spec).name not in known:
        raise SpecError(f"spec.arch is {spec.arch!r}; layouts of {origin} are known for {', '.join(known)}")
    return known[spec.arch]


def tensors_of_checkpoint(path: Path, layout: Layout) -> dict[str, Tensor]:
    """The tensors of a published checkpoint, by their names without prefixes, `layout.inner` applied.

    Raises:
        WeightsError: the file is no checkpoint, holds anything but dense, finite tensors, or holds one of them twice.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # what a file that is no checkpoint raises depends on its first bytes
        reason = str(error).split("\n", 1)[0]
        raise WeightsError(f"{path} is not a checkpoint of pure tensors, and nothing else is read: {reason}") from error
    if isinstance(content, Mapping):
        content = next((content[key] for key in _WRAPPERS if key in content), content)
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds {type(content).__name__}, not named tensors")
    tensors = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{path}: {key!r} is {type(value).__name__}, not a tensor")
        if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_nested:
            raise WeightsError(f"{path}: {key} is not a dense tensor that holds its values")
        if value.is_floating_point() and not value.float().isfinite().all():
            raise WeightsError(f"{path}: {key} holds values that are not finite")
        bare = re.sub(_PREFIXES, "", key)
        for wrapped, plain in layout.inner:
            bare = re.sub(wrapped, plain, bare)
        if bare in tensors:
            raise WeightsError(f"{path} holds {bare} twice, with and without a prefix")
        tensors[bare] = value
    return tensors


def _renamed(
    path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], layout: Layout
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Our tensors by our names, made of theirs, and the names of those without a use. Raises `MismatchError`."""
    state, used, problems = {}, set(), []
    for ours, like in wanted.items():
        theirs, shape = _published(ours, tuple(like.shape), layout)
        if theirs not in found:
            problems.append(f"{theirs} is missing")
        elif tuple(found[theirs].shape) != shape:
            problems.append(f"{theirs} is {tuple(found[theirs].shape)}, not {shape}")
        elif found[theirs].is_floating_point() != like.is_floating_point():
            problems.append(f"{theirs} is {found[theirs].dtype}, not {like.dtype}")
        else:
            state[ours] = (
                found[theirs].reshape(like.shape).to(like.dtype, copy=True)
            )  # a copy: two published tensors may share their memory
        used.add(theirs)
    unused = tuple(sorted(found.keys() - used))
    problems += [f"{name} is unknown" for name in unused if not re.fullmatch(layout.dead, name)]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise MismatchError(f"{path} does not fit the spec: {'; '.join(problems[:8])}{more}")
    return state, unused


def _published(name: str, shape: Shape, layout: Layout) -> tuple[str, Shape]:
    """The published name and shape of our tensor `name`, by the first rule that matches it."""
    stem, leaf = name, ""
    if re.search(r"\.(weight|bias|running_mean|running_var|num_batches_tracked)$", name):
        stem, leaf = name.rsplit(".", 1)
    for rule in layout.rules:
        match = re.fullmatch(rule.ours, stem)
        if match:
            published = re.sub(r"<(\d+)\+1>", lambda m: str(int(m[1]) + 1), match.expand(rule.theirs))
            return (f"{published}.{leaf}" if leaf else published), rule.shape(shape)
    return f"(nothing published for {name})", shape
