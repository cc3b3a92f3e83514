"""Between safetensors files and modules. A file carries its spec, and a module is filled strictly, with a report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from torch import Tensor, nn

from stzoo.catalog import CONFIG_FILE, WEIGHTS_FILE
from stzoo.download import flush_folder
from stzoo.errors import IntegrityError, MismatchError, SpecError, WeightsError, printable
from stzoo.files import write_atomically
from stzoo.hashing import Hashed
from stzoo.models import build
from stzoo.spec import ModelSpec, from_mapping
from stzoo.tensorfile import Stored, TensorFile, metadata_of, packed, read

T = TypeVar("T")

SPEC_KEY = "stzoo_spec"
ORIGIN_KEY = "stzoo_origin"  # in the metadata of a file that was made of another publisher's: see `Origin`
NEXT_CONFIG_FILE = ".config.json.next"  # a config.json that will have its name once the weights have theirs
RANDOM = "random weights"  # the source of a `LoadReport` of weights that were never trained
CODEC_PREFIX = "codec."  # names of those tensors of a modular model that belong to its codec begin with it


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Which file of whom weights were made of. It stands in the metadata of every file that is made of them.

    Attributes:
        name: of the published checkpoint, such as "tau-kth.openstl-ep100".
        publisher: who published it, such as "OpenSTL".
        url: the address that the file came from.
        sha256: of the publisher's file, 64 hexadecimal digits.
        size: of that file, in bytes; 0 if it was not noted.
        license: the licence of the weights, as far as its publisher states it; "" if it was not noted.
        figures: metric -> what its publisher says of it; nobody measured it with stzoo.
        changed: whether the weights were changed since; None if that could not be checked when they were saved.
    """

    name: str
    publisher: str
    url: str
    sha256: str
    size: int = 0
    license: str = ""
    figures: Mapping[str, str] = field(default_factory=dict)
    changed: bool | None = False

    def __post_init__(self) -> None:
        texts = [self.name, self.publisher, self.url, self.sha256, self.license, *self.figures, *self.figures.values()]
        if not all(isinstance(text, str) and len(text) <= 1000 and text.isprintable() for text in texts):
            raise SpecError("origin holds something else than short text")


@dataclass(frozen=True)
class LoadReport:
    """What was loaded, and from where.

    Attributes:
        source: the absolute path of the file, or in words where the weights come from, such as `RANDOM`.
        sha256: of that file; None if there is none.
        tensors, parameters: how many there are, those of the codec included.
        stored_as: the dtypes of the floating-point tensors in the file.
        codec: the file of a modular model's codec, if that is another one; otherwise None.
        adapted: one line for each tensor that is not that of the file, saying what it is instead.
        origin: which file of another publisher the weights were made of; None if no such file is noted.
    """

    source: str
    sha256: str | None
    tensors: int
    parameters: int
    stored_as: str
    codec: str | None = None
    adapted: tuple[str, ...] = ()
    origin: Origin | None = None

    @property
    def is_random(self) -> bool:
        """Whether the weights were never trained."""
        return self.source == RANDOM

    def __str__(self) -> str:
        source = self.source if self.codec is None else f"{self.source} and {self.codec}"
        adapted = "".join(f"\n  {what}" for what in self.adapted)
        source = printable(source)
        return f"{source}: {self.tensors} tensors, {self.parameters:,} parameters, stored as {self.stored_as}{adapted}"


def embedded_spec(file: Hashed) -> ModelSpec | None:
    """The spec inside a safetensors file, in the bytes that were hashed; None if it carries none.

    Raises:
        WeightsError: the file cannot be read. SpecError: the spec in it is damaged.
    """
    metadata = metadata_of(file)
    if SPEC_KEY not in metadata:
        return None
    try:
        return ModelSpec.from_dict(json.loads(metadata[SPEC_KEY]))
    except SpecError:
        raise
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{file.path}: {SPEC_KEY!r} is not JSON: {error}") from error


def load_module(
    spec: ModelSpec,
    path: Path,
    sha256: str | None,
    codec: Path | None = None,
    codec_sha256: str | None = None,
    known: Mapping[Path, Hashed] = MappingProxyType({}),
    held: TensorFile | None = None,
) -> tuple[nn.Module, LoadReport]:
    """The module of `spec`, filled with the tensors of the file `path`, on the CPU and in eval mode.

    The module is built without allocating memory, and memory for tensors is taken only once their names and shapes are
    the module's. Floating-point tensors get the dtype that the module declares (float32), whatever they were stored as.

    Args:
        spec: what the module is.
        path: the safetensors file.
        sha256: the sha256 that the loaded bytes of `path` must have; None or "" takes any.
        codec: the file with the codec's tensors of a modular model, if `path` does not hold them.
        codec_sha256: as `sha256`, of the file `codec`.
        known: files as they were when they were hashed; the bytes that such a file has kept are not read again.
        held: the file `path` as it was read, which is then not read again; its tensors become the module's.

    Raises:
        IntegrityError: the bytes that were read have another sha256: the file was swapped since it was found.
        MismatchError: tensors are missing, unexpected or misshapen.
        WeightsError: a file cannot be read. SpecError: the spec builds no module.
    """
    module = build(spec, "meta")
    wanted = module.state_dict()
    if codec is None:
        files = [_read(path, sha256, lambda header: _check(path, wanted, header), known.get(path), held)]
    else:
        inside = {name: t for name, t in wanted.items() if name.startswith(CODEC_PREFIX)}
        outside = {name: t for name, t in wanted.items() if name not in inside}
        files = [
            _read(path, sha256, lambda header: _check_predictor(path, codec, outside, header), known.get(path)),
            _read(codec, codec_sha256, lambda header: _check(codec, inside, _prefixed(header)), known.get(codec)),
        ]
    found = files[0].tensors | {name: t for part in files[1:] for name, t in _prefixed(part.tensors).items()}
    stored = sorted({str(t.dtype).removeprefix("torch.") for t in found.values() if t.is_floating_point()})
    copy = any(file.borrowed for file in files)
    own = {name: t.to(wanted[name].dtype, copy=copy) for name, t in found.items()}
    module.load_state_dict(own, strict=True, assign=True)
    parameters = sum(p.numel() for p in module.parameters())
    report = LoadReport(
        os.path.abspath(path), files[0].sha256, len(found), parameters, " and ".join(stored),
        None if codec is None else os.path.abspath(codec), origin=origin_in(files[0].metadata),
    )  # fmt: skip
    return module.eval(), report


def origin_in(metadata: Mapping[str, str]) -> Origin | None:
    """Which file of another publisher a file was made of, by its metadata; None if that says nothing readable of it."""
    try:
        return from_mapping(Origin, json.loads(metadata[ORIGIN_KEY]), "origin")
    except (KeyError, ValueError, RecursionError):  # ValueError: SpecError too
        return None


def read_tensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, by name, on the CPU, in the dtypes of the file.

    Args:
        path: the file.
        sha256: the sha256 that the bytes read must have; None takes any.

    Raises:
        IntegrityError: the bytes have another sha256.
        WeightsError: the file cannot be read, or holds a tensor of a dtype or shape that no model has.
    """
    return _read(path, sha256).tensors


def _read(
    path: Path,
    sha256: str | None,
    check: Callable[[Mapping[str, Stored]], None] = lambda header: None,
    known: Hashed | None = None,
    held: TensorFile | None = None,
) -> TensorFile:
    if held is not None:
        check({name: Stored(t.dtype, tuple(t.shape)) for name, t in held.tensors.items()})
    file = held or read(path, check, known)
    if sha256 and file.sha256 != sha256:
        raise IntegrityError(
            f"{path} has sha256 {file.sha256}, expected {sha256}: it was changed after it had been found; load again"
        )
    return file


def _prefixed(of_codec: Mapping[str, T]) -> dict[str, T]:
    """What a codec's own file calls x is called codec.x in a modular model."""
    return {CODEC_PREFIX + name: value for name, value in of_codec.items()}


def _check_predictor(path: Path, codec: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Stored]) -> None:
    """As `_check`, for the file of a modular model that has its codec in another file."""
    if any(name.startswith(CODEC_PREFIX) for name in found):
        raise MismatchError(f"{path} holds a codec already; remove {codec} beside it, which would replace that codec")
    _check(path, wanted, found)


def _check(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Stored]) -> None:
    """Raises `MismatchError` if the tensors of a file are not those of the module, with the names of some of them."""
    missing, unexpected = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    misshapen = [
        f"{name} {found[name].shape} for {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & found.keys())
        if found[name].shape != tuple(wanted[name].shape)
    ]
    unlike = [
        f"{name} {found[name].dtype} for {wanted[name].dtype}"
        for name in sorted(wanted.keys() & found.keys())
        if found[name].dtype.is_floating_point != wanted[name].is_floating_point()
    ]
    problems = [
        f"{len(names)} {what}: {', '.join(map(_short, names[:5]))}{', ...' if len(names) > 5 else ''}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
            ("of another kind", unlike),
        )
        if names
    ]
    if missing and all(name.startswith(CODEC_PREFIX) for name in missing):
        problems.append(
            "the file holds a predictor alone; its codec is an entry of the catalogue, so load it by its name"
        )
    if problems:
        raise MismatchError(f"{path} does not fit its spec; " + "; ".join(problems))


def _short(text: str) -> str:
    """A tensor's name and what is said of it, printable, on one line, and cut if it is long."""
    text = printable(text)
    return text if len(text) <= 200 else f"{text[:100]}...{text[-60:]}"


def half_precision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in float16, for publishing; BatchNorm statistics stay float32.

    Raises:
        WeightsError: a value is too large for float16, or not finite.
    """
    out = {}
    for name, tensor in state.items():
        if tensor.is_floating_point() and not name.endswith(("running_mean", "running_var")):
            tensor = tensor.half()
            if not tensor.isfinite().all():
                raise WeightsError(f"{_short(name)} does not fit into float16")
        out[name] = tensor
    return out


def save_weights(path: Path, spec: ModelSpec, state: Mapping[str, Tensor], origin: Origin | None = None) -> None:
    """Write tensors, their spec and their origin to one safetensors file; `path` appears whole or not at all.

    The same model always gives the same bytes.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in state.items()}
    write_atomically(path, *packed(tensors, metadata_for(spec, origin)))


def metadata_for(spec: ModelSpec, origin: Origin | None) -> dict[str, str]:
    """The metadata of a file of this spec and origin."""
    metadata = {SPEC_KEY: json.dumps(spec.to_dict())}
    return metadata if origin is None else metadata | {ORIGIN_KEY: json.dumps(asdict(origin))}


def save_folder(folder: Path, spec: ModelSpec, state: Mapping[str, Tensor], origin: Origin | None = None) -> None:
    """Write ``config.json`` and ``model.safetensors``, which `stzoo.load(folder)` reads.

    Two files cannot take their names at the same moment. So the new config.json waits under a hidden name until the
    weights, which carry the same spec, have theirs: until then the folder holds the old model, from then on the new
    one, because a config.json that waits and agrees with the weights counts as theirs. A save that is killed at any
    point leaves one of the two. Several processes may save the same model at once, as the ranks of a training do.

    Raises:
        OSError: the folder cannot be written, or the disk is full; the folder then holds the old model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pending = folder / NEXT_CONFIG_FILE
    config = (json.dumps(spec.to_dict(), indent=2) + "\n").encode()
    write_atomically(pending, config)
    save_weights(folder / WEIGHTS_FILE, spec, state, origin)
    flush_folder(folder)  # a power cut must not keep the next step without the last one
    try:
        os.replace(pending, folder / CONFIG_FILE)
    except FileNotFoundError:  # another process has given it its name already, with what that one saved
        write_atomically(folder / CONFIG_FILE, config)


def random_module(spec: ModelSpec) -> tuple[nn.Module, LoadReport]:
    """A freshly initialised module, in eval mode, and a report that says its weights are random."""
    module = build(spec).eval()
    parameters = sum(p.numel() for p in module.parameters())
    report = LoadReport(RANDOM, None, len(module.state_dict()), parameters, "nothing")
    return module, report
