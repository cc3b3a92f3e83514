"""Between safetensors files and modules. A file carries its spec, and a module is filled strictly, with a report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from stzoo.catalog import CONFIG_FILE, WEIGHTS_FILE
from stzoo.errors import MismatchError, SpecError, WeightsError
from stzoo.files import write_atomically
from stzoo.models import build
from stzoo.spec import ModelSpec, shown

SPEC_KEY = "stzoo_spec"
CODEC_PREFIX = "codec."  # names of those tensors of a modular model that belong to its codec begin with it
MAX_HEADER = 4 << 20  # bytes; the largest header of a packaged checkpoint has a hundredth of it
DTYPES = ("F16", "BF16", "F32", "F64", "BOOL", "I8", "U8", "I16", "I32", "I64")  # not float8, complex or sub-byte types
MAX_DIMENSIONS, MAX_SIDE = 8, 2**40  # of a tensor: torch fails, or is slow, if an empty tensor has an absurd shape


@dataclass(frozen=True)
class LoadReport:
    """What was loaded, and from where.

    Attributes:
        source: the file, or "random weights".
        sha256: of that file; None for random weights.
        tensors, parameters: how many there are, those of the codec included.
        stored_as: the dtypes of the floating-point tensors in the file.
        codec: the file of a modular model's codec, if that is another one; otherwise None.
        adapted: one line for each tensor that is not that of the file, saying what it is instead.
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
    """The spec inside a safetensors file; None if it carries none.

    Raises:
        WeightsError: the file cannot be read. SpecError: the spec in it is damaged.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
    if SPEC_KEY not in metadata:
        return None
    try:
        return ModelSpec.from_dict(json.loads(metadata[SPEC_KEY]))
    except SpecError:
        raise
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path}: {SPEC_KEY!r} is not JSON: {error}") from error


def read_spec(path: Path) -> ModelSpec:
    """Like `embedded_spec`, for a file that stands alone. Raises `WeightsError` if it carries no spec."""
    spec = embedded_spec(path)
    if spec is None:
        raise WeightsError(
            f"{path} names no model: its metadata has no {SPEC_KEY!r}; load the folder that holds its config.json"
        )
    return spec


def load_module(spec: ModelSpec, path: Path, sha256: str, codec: Path | None = None) -> tuple[nn.Module, LoadReport]:
    """The module of `spec`, filled with the tensors of the file `path`, on the CPU and in eval mode.

    The module is built without allocating memory. Floating-point tensors get the dtype that the module declares
    (float32), whatever they were stored as.

    Args:
        sha256: of `path`, for the report.
        codec: the file with the codec's tensors of a modular model, if `path` does not hold them.

    Raises:
        MismatchError: tensors are missing, unexpected or misshapen.
        WeightsError: a file cannot be read. SpecError: the spec builds no module.
    """
    module = build(spec, "meta")
    wanted = module.state_dict()
    found = read_tensors(path)
    if codec is not None:
        if any(name.startswith(CODEC_PREFIX) for name in found):
            raise MismatchError(
                f"{path} holds a codec already; remove {codec} beside it, which would replace that codec"
            )
        found |= {CODEC_PREFIX + name: tensor for name, tensor in read_tensors(codec).items()}
    _check(path, wanted, found)
    stored = sorted({str(t.dtype).removeprefix("torch.") for t in found.values() if t.is_floating_point()})
    # Copied, because tensors are mapped from the file: if a program shortened it later, this process would be killed.
    own = {name: t.to(wanted[name].dtype, copy=True) for name, t in found.items()}
    module.load_state_dict(own, strict=True, assign=True)
    parameters = sum(p.numel() for p in module.parameters())
    report = LoadReport(
        str(path), sha256, len(found), parameters, " and ".join(stored), None if codec is None else str(codec)
    )
    return module.eval(), report


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, by name.

    Raises:
        WeightsError: the file cannot be read, or holds a tensor of a dtype or shape that no model has.
    """
    with _opened(path) as file:
        names = file.keys()
        for name in names:
            header = file.get_slice(name)
            dtype, shape = header.get_dtype(), header.get_shape()
            if dtype not in DTYPES:
                raise WeightsError(f"{path}: {shown(name)} is stored as {dtype}; it may be {', '.join(DTYPES)}")
            if len(shape) > MAX_DIMENSIONS or any(side > MAX_SIDE for side in shape):
                raise WeightsError(f"{path}: {shown(name)} has the shape {shown(shape)}, which no model has")
        return {name: file.get_tensor(name) for name in names}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file, opened. The size of its header is checked here; the rest is checked by the library.

    Raises:
        WeightsError: it is no regular file, its header is absent or too long, or the library refuses it.
    """
    try:
        _check_header(path)
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {error}") from error


def _check_header(path: Path) -> None:
    """Raises `ValueError` if the length of the header, in the file's first eight bytes, is impossible or absurd."""
    if not path.is_file():  # reading a FIFO would block, and reading a device would never end
        raise ValueError("it is no file")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError(f"its header is said to have {length} bytes, the file has {size}")
    if length > MAX_HEADER:
        raise ValueError(f"its header has {length} bytes; at most {MAX_HEADER} are read")


def _check(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raises `MismatchError` if the tensors of a file are not those of the module, with the names of some of them."""
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
    text = text if text.isprintable() else repr(text)
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
                raise WeightsError(f"{name} does not fit into float16")
        out[name] = tensor
    return out


def save_weights(path: Path, spec: ModelSpec, state: Mapping[str, Tensor]) -> None:
    """Write tensors and their spec to one safetensors file; `path` appears whole or not at all.

    The same model always gives the same bytes. (The library writes several keys of metadata in any order; here is one.)
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in state.items()}
    write_atomically(path, save(tensors, {SPEC_KEY: json.dumps(spec.to_dict())}))


def save_folder(folder: Path, spec: ModelSpec, state: Mapping[str, Tensor]) -> None:
    """Write ``config.json`` and ``model.safetensors``, which `stzoo.load(folder)` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / WEIGHTS_FILE, spec, state)
    write_atomically(folder / CONFIG_FILE, (json.dumps(spec.to_dict(), indent=2) + "\n").encode())


def random_module(spec: ModelSpec) -> tuple[nn.Module, LoadReport]:
    """A freshly initialised module, in eval mode, and a report that says its weights are random."""
    module = build(spec).eval()
    parameters = sum(p.numel() for p in module.parameters())
    report = LoadReport("random weights", None, len(module.state_dict()), parameters, "nothing")
    return module, report
