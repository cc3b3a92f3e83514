"""Published tensors, matched with ours by name and shape.

What published tensors are called stands beside each architecture (`Architecture.layouts`). Here every tensor is
accounted for, in both directions: each of ours must be found under its published name and shape, and each of theirs
must be used or be known to have no use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from stzoo.catalog import WEIGHTS_FILE
from stzoo.convert.torch_file import Other, StoredTensor, TorchFile, open_torch_file
from stzoo.errors import MismatchError, SpecError, WeightsError, printable
from stzoo.models import architecture_of, architectures, build, config_of
from stzoo.models.published import Layout, Shape
from stzoo.spec import ModelSpec, shown
from stzoo.weights import save_folder

_MARGIN = 2**26  # bytes that a checkpoint may claim beyond what its file and the model explain


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

    The file may hold the tensors themselves, or hold them under "state_dict"; their names may begin with "model." or
    "module.". No code in it can run. Names and shapes are compared with the spec before memory is taken for a tensor.

    Args:
        origin: who published it, one of `origins()`.
        spec: the model that the weights are for. The layout may change it: an E3D-LSTM of "openstl" becomes `variant`
            "public" with a `history` that covers one forecast, because those were trained so.
        out: the folder to write; made if it is absent.

    Raises:
        SpecError: the origin is unknown, no layout of it is known for the spec's architecture, or `out` holds a model.
        WeightsError: the file is no regular file, is damaged, holds something else than dense tensors, or claims
            tensors far larger than itself and the model; or a value is not finite.
        MismatchError: a tensor is missing, has another shape or has no known use; the message has its published name.
    """
    layout = _layout(origin, spec)
    if (out / WEIGHTS_FILE).exists():
        raise SpecError(f"{out} holds a model already; name another folder")
    spec = layout.spec(spec, config_of(spec))
    module = build(spec, "meta")
    wanted = module.state_dict()
    with open_torch_file(checkpoint) as file:
        found = _claims(file, layout)
        names, unused = _matched(checkpoint, found, wanted, layout)
        _check_memory(file, found, wanted)
        tensors = _read(file, found)
    # copies, because two published tensors may share their memory
    state = {ours: tensors[names[ours]].reshape(like.shape).to(like.dtype, copy=True) for ours, like in wanted.items()}
    save_folder(out, spec, state)
    return ConvertReport(out, len(state), sum(p.numel() for p in module.parameters()), unused)


def _layout(origin: str, spec: ModelSpec) -> Layout:
    known = {name: a.layouts[origin] for name, a in architectures().items() if origin in a.layouts}
    if not known:
        raise SpecError(f"the origin is {shown(origin)}; it may be {', '.join(origins())}")
    if architecture_of(spec).name not in known:
        raise SpecError(f"spec.arch is {spec.arch!r}; layouts of {origin} are known for {', '.join(known)}")
    return known[spec.arch]


def _claims(file: TorchFile, layout: Layout) -> dict[str, StoredTensor]:
    """The tensors that a published checkpoint claims to hold, by their names without prefixes, `layout.inner` applied.

    Raises:
        WeightsError: something else than dense tensors stands among them, or one of them stands there twice.
    """
    path, content = file.path, file.content
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds {type(content).__name__}, not named tensors")
    tensors: dict[str, StoredTensor] = {}
    for key, value in content.items():
        if isinstance(value, Other) and value.maker.startswith("_rebuild"):
            raise WeightsError(f"{path}: {_short(key)} is not a dense tensor that holds its values")
        if not isinstance(key, str) or not isinstance(value, StoredTensor):
            raise WeightsError(f"{path}: {shown(key)} is {type(value).__name__}, not a tensor")
        bare = key.removeprefix("module.").removeprefix("model.")
        for wrapped, plain in layout.inner:
            bare = re.sub(wrapped, plain, bare)
        if bare in tensors:
            raise WeightsError(f"{path} holds {_short(bare)} twice, with and without a prefix")
        tensors[bare] = value
    return tensors


def _check_memory(file: TorchFile, found: Mapping[str, StoredTensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises `WeightsError` if the tensors would take far more memory than both the file and the model can explain."""
    spec = sum(tensor.numel() * 8 for tensor in wanted.values())
    claimed = max(file.unpacked, sum(each.nbytes for each in found.values()))
    if claimed > 2 * (file.size + spec) + _MARGIN:
        raise WeightsError(
            f"{file.path} has {file.size:,} bytes, but its tensors claim {claimed:,}, and the model has {spec // 8:,} "
            "values"
        )


def _matched(
    path: Path, found: Mapping[str, StoredTensor], wanted: Mapping[str, Tensor], layout: Layout
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The published name of each of our tensors, and the published names without a use. Raises `MismatchError`."""
    names, problems = {}, []
    for ours, like in wanted.items():
        theirs, shape = _published(ours, tuple(like.shape), layout)
        names[ours] = theirs
        if theirs not in found:
            problems.append(f"{theirs} is missing")
        elif found[theirs].shape != shape:
            problems.append(f"{theirs} is {shown(found[theirs].shape)}, not {shape}")
        elif found[theirs].dtype.is_floating_point != like.is_floating_point():
            problems.append(f"{theirs} is {found[theirs].dtype}, not {like.dtype}")
    unused = tuple(sorted(found.keys() - set(names.values())))
    problems += [f"{_short(name)} is unknown" for name in unused if not re.fullmatch(layout.dead, name)]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise MismatchError(f"{path} does not fit the spec: {'; '.join(problems[:8])}{more}")
    return names, unused


def _read(file: TorchFile, found: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """The tensors themselves. Raises `WeightsError` if one is damaged or holds a value that is not finite."""
    tensors = {}
    for name, stored in found.items():
        tensors[name] = file.tensor(stored)
        if stored.dtype.is_floating_point and not tensors[name].float().isfinite().all():
            raise WeightsError(f"{file.path}: {_short(name)} holds values that are not finite")
    return tensors


def _short(name: object) -> str:
    """A name from a checkpoint, for a message: printable, on one line, and cut if it is long."""
    return printable(name) if isinstance(name, str) and len(name) <= 200 else shown(name)


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
