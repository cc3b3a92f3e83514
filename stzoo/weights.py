"""safetensors <-> module. A file carries its spec, a module is filled strictly, and what happened is reported."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from stzoo.errors import MismatchError, SpecError, WeightsError
from stzoo.models import build
from stzoo.spec import ModelSpec

SPEC_KEY = "stzoo_spec"
CODEC_PREFIX = "codec."  # of a modular architecture's tensors that are its codec's
WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"


@dataclass(frozen=True)
class LoadReport:
    """What was loaded from where. `sha256`, of the file `source`, is None for random weights.

    `codec` is the other file, which a modular entry's codec came from; tensors and parameters count both.
    `adapted` says which tensors are not those of the file, and what they are instead.
    """

    source: str
    sha256: str | None
    tensors: int
    parameters: int
    stored_as: str
    codec: str | None = None
    adapted: tuple[str, ...] = ()

    def __str__(self) -> str:
        source = self.source if self.codec is None else f"{self.source} and {self.codec}"
        adapted = "".join(f"\n  {what}" for what in self.adapted)
        return f"{source}: {self.tensors} tensors, {self.parameters:,} parameters, stored as {self.stored_as}{adapted}"


def embedded_spec(path: Path) -> ModelSpec | None:
    """The spec inside a safetensors file, None where it carries none.

    Raises:
        WeightsError: the file cannot be read. SpecError: what it carries is no spec.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {error}") from error
    if SPEC_KEY not in metadata:
        return None
    try:
        return ModelSpec.from_dict(json.loads(metadata[SPEC_KEY]))
    except SpecError:
        raise
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path}: {SPEC_KEY!r} is not JSON: {error}") from error


def read_spec(path: Path) -> ModelSpec:
    """Like `embedded_spec`, for a file that has nothing beside it; without a spec it is a `WeightsError`."""
    spec = embedded_spec(path)
    if spec is None:
        raise WeightsError(
            f"{path} names no model: its metadata has no {SPEC_KEY!r}; load the folder with its config.json"
        )
    return spec


def load_module(spec: ModelSpec, path: Path, sha256: str, codec: Path | None = None) -> tuple[nn.Module, LoadReport]:
    """The module of `spec`, built without allocating and filled from `path`, on the CPU and in eval mode.

    A modular one takes its codec's tensors from the file `codec`, where one is given. Floating-point tensors become
    what the module declares (float32), whatever they were stored as.

    Raises:
        MismatchError: tensors are missing, unexpected or misshapen.
        WeightsError: the file cannot be read.
    """
    module = build(spec, "meta")
    wanted = module.state_dict()
    found = read_tensors(path)
    if codec is not None:
        found |= {CODEC_PREFIX + name: tensor for name, tensor in read_tensors(codec).items()}
    _check(path, wanted, found)
    stored = sorted({str(t.dtype).removeprefix("torch.") for t in found.values() if t.is_floating_point()})
    module.load_state_dict({name: t.to(wanted[name].dtype) for name, t in found.items()}, strict=True, assign=True)
    parameters = sum(p.numel() for p in module.parameters())
    report = LoadReport(
        str(path), sha256, len(found), parameters, " and ".join(stored), None if codec is None else str(codec)
    )
    return module.eval(), report


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, by name. Raises `WeightsError` where it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {error}") from error


def _check(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    missing, unexpected = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    misshapen = [
        f"{name} {tuple(found[name].shape)} for {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & found.keys())
        if found[name].shape != wanted[name].shape
    ]
    unlike = [
        f"{name} {found[name].dtype} for {wanted[name].dtype}"
        for name in sorted(wanted.keys() & found.keys())
        if found[name].is_floating_point() != wanted[name].is_floating_point()
    ]
    problems = [
        f"{len(names)} {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
            ("of another kind", unlike),
        )
        if names
    ]
    if missing and all(name.startswith(CODEC_PREFIX) for name in missing):
        problems.append("the file holds a predictor alone, whose codec is a catalogue entry's: load it by its name")
    if problems:
        raise MismatchError(f"{path} does not fit its spec; " + "; ".join(problems))


def half_precision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """float16 for publishing; BatchNorm statistics stay float32. Raises `WeightsError` where float16 overflows."""
    out = {}
    for name, tensor in state.items():
        if tensor.is_floating_point() and not name.endswith(("running_mean", "running_var")):
            tensor = tensor.half()
            if not tensor.isfinite().all():
                raise WeightsError(f"{name} does not fit into float16")
        out[name] = tensor
    return out


def save_weights(path: Path, spec: ModelSpec, state: Mapping[str, Tensor]) -> None:
    """Write tensors and spec to one safetensors file; `path` appears whole or not at all."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in state.items()}
    write_atomically(path, save(tensors, {SPEC_KEY: json.dumps(spec.to_dict()), "format": "pt"}))


def save_folder(folder: Path, spec: ModelSpec, state: Mapping[str, Tensor]) -> None:
    """``config.json`` and ``model.safetensors``: what `stzoo.load(folder)` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / WEIGHTS_FILE, spec, state)
    write_atomically(folder / CONFIG_FILE, (json.dumps(spec.to_dict(), indent=2) + "\n").encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside `path`, flush to disk, then rename over it."""
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def random_module(spec: ModelSpec) -> tuple[nn.Module, LoadReport]:
    """A freshly initialised module, in eval mode, whose report says that its weights are random."""
    module = build(spec).eval()
    parameters = sum(p.numel() for p in module.parameters())
    report = LoadReport("random weights", None, len(module.state_dict()), parameters, "nothing")
    return module, report
