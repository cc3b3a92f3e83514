"""weights_manifest.json -> `Entry`. Imports neither torch nor NumPy, so listing models costs nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from stzoo.errors import ManifestError, SpecError, UnknownModelError
from stzoo.spec import ModelSpec, bounded, differences, from_mapping, has_codec, required

SCHEMA = 1
MAX_FILE = 25_000_000  # bytes a packaged checkpoint may have
WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"  # of a folder or a hub repository
CODEC_FILE = "codec.safetensors"  # beside them, where the weights of a modular model are its predictor's alone
_FILE = r"[A-Za-z0-9_][\w.-]*\.safetensors"
_SOURCE = r"package|hf://[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*@[0-9a-f]{40}|https://[^\s/?#@]+/[^\s?#]*\.safetensors"

_PACKAGE = Path(__file__).parent
CHECKPOINTS = _PACKAGE / "checkpoints"


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A pinned file: its sha256 is what identifies it, wherever it comes from."""

    file: str
    size: int = required(1, 1 << 40)
    sha256: str
    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch(_FILE, self.file, re.ASCII) or ".." in self.file:
            raise SpecError(f"weights.file is {self.file!r}; it must be a plain name ending in .safetensors")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise SpecError(f"weights.sha256 is {self.sha256!r}; it must be 64 hexadecimal digits")
        for source in self.sources:
            if not re.fullmatch(_SOURCE, source, re.ASCII) or ".." in source:
                raise SpecError(
                    f"weights.sources holds {source!r}; it may be package, hf://org/repo@<40 hex> or "
                    "https://host/path.safetensors"
                )


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Figures of the packaged file on a whole test protocol, and the command that printed them.

    A forecaster has `persistence_mse` and may have more of persistence; csi_1 and csi_5, the critical success indices
    of rain of 1 and 5 mm/h, go with the definition "stzoo-rain". `mse_steps` and `persistence_mse_steps` are the two
    errors at each step ahead, both or neither. A codec, whose error is its reconstruction's, has `codes_used` and
    `perplexity`.
    """

    protocol: str
    mse: float
    mae: float
    ssim: float
    psnr: float
    csi_1: float | None = None
    csi_5: float | None = None
    persistence_mse: float | None = None
    persistence_ssim: float | None = None
    persistence_psnr: float | None = None
    persistence_csi_1: float | None = None
    persistence_csi_5: float | None = None
    codes_used: int | None = None
    perplexity: float | None = None
    mse_steps: tuple[float, ...] | None = None
    persistence_mse_steps: tuple[float, ...] | None = None
    command: str

    def __post_init__(self) -> None:
        _check_beside("metrics", mse_steps=self.mse_steps, persistence_mse_steps=self.persistence_mse_steps)

    def __str__(self) -> str:
        usage = "" if self.codes_used is None else f", {self.codes_used} codes in use, perplexity {self.perplexity:.1f}"
        shown = [
            f"{name.upper().replace('_', ' ')} {value:.{digits}f}"
            + (f" (persistence {other:.{digits}f})" if (other := getattr(self, f"persistence_{name}", None)) else "")
            for name, digits in (("mse", 2), ("mae", 2), ("ssim", 4), ("psnr", 2), ("csi_1", 3), ("csi_5", 3))
            if (value := getattr(self, name)) is not None
        ]
        return f"{self.protocol:<13} {', '.join(shown)}{usage}"


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast the architecture of an entry ran where somebody measured it, and the command that printed the figures.

    One pass forecasts `steps` frames of `batch` clips. `against_plain` is how many times as fast that is as the plain
    float32 module on the same machine, None where that was not measured.
    """

    device: Literal["cpu", "cuda"]
    precision: Literal["float32", "bfloat16"]
    batch: int = required(1, 1 << 20)
    steps: int = required(1, 1 << 20)
    threads: int = required(1, 1 << 20)
    hardware: str
    clips_per_second: float = required(1e-9, 1e12)
    latency_median_ms: float = required(1e-9, 1e12)
    against_plain: float | None = bounded(None, 1e-9, 1e12)
    command: str

    def __post_init__(self) -> None:
        for name in ("hardware", "command"):
            if not getattr(self, name).strip():
                raise SpecError(f"speed.{name} is empty; it must be text")

    def __str__(self) -> str:
        ratio = "" if self.against_plain is None else f", {self.against_plain:.2f} times as fast as plain"
        clips = f"{self.batch} clip{'s' if self.batch > 1 else ''} of {self.steps} frames"
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return (
            f"{self.device}, {self.precision}, {clips}: {self.latency_median_ms:.1f} ms, "
            f"{self.clips_per_second:.1f} clips/s{ratio}; {self.hardware}, {threads}"
        )

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What tells the figures of one entry apart."""
        return self.device, self.precision, self.batch, self.steps


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Mean and standard deviation of a forecast from seeded noise: a loader that changes numbers is found out."""

    input_seed: int = bounded(0, 0, 2**31)
    output_mean: float
    output_std: float
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class Training:
    """Where the weights come from.

    `curve_mse` is the validation MSE, on held-out clips and in the data's units, after each of `curve_sequences`; both
    or neither. Of weights that were fine-tuned from a run of their own it is that run's.
    """

    recipe: str
    sequences_seen: int = required(0, 1 << 40)
    hardware: str
    hours: float = required(0, 1e7)
    curve_sequences: tuple[int, ...] | None = None
    curve_mse: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _check_beside("training", curve_sequences=self.curve_sequences, curve_mse=self.curve_mse)
        seen = self.curve_sequences or (0,)
        if seen[0] < 0 or any(later <= earlier for earlier, later in pairwise(seen)):
            raise SpecError(f"training.curve_sequences is {list(seen)}; they must not be negative, and increase")


@dataclass(frozen=True, kw_only=True)
class CodecReference:
    """The codec of a modular entry, which is stored once: another entry, and the sha256 of its file as trained with.

    `sha256` is None as long as the modular entry has no weights.
    """

    entry: str
    sha256: str | None = None

    def __post_init__(self) -> None:
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise SpecError(f"codec.sha256 is {self.sha256!r}; it must be 64 hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the catalogue. `print(entry)` shows a readable card.

    `unsuited` says what the model must not be used for, in a sentence or two; an entry with weights has it.
    """

    name: str
    summary: str
    unsuited: str | None = None
    dataset: str
    spec: ModelSpec
    weights: WeightsFile | None
    metrics: tuple[Metrics, ...] = ()
    speed: tuple[Speed, ...] = ()
    golden: Golden | None = None
    training: Training | None = None
    kind: Literal["forecaster", "codec"] = "forecaster"
    codec: CodecReference | None = None
    license: str
    data_terms: str
    citation: str = field(repr=False)

    def __str__(self) -> str:
        s = self.spec
        lines = [
            f"{self.name}: {self.summary}",
            f"  architecture  {s.arch} ({settings(s.params)})",
            f"  frames        {s.frames_in} in, {s.frames_out} out, {s.channels}x{s.height}x{s.width}, "
            f"values in {s.value_range}",
        ]
        lines += [] if self.unsuited is None else [f"  unsuited      {self.unsuited}"]
        if self.weights is None:
            lines.append(f"  weights       none yet; train them: stzoo train {self.name} --data DIR --out RUN")
        else:
            w = self.weights
            lines.append(f"  weights       {w.file}, {w.size / 1e6:.1f} MB, sha256 {w.sha256[:12]}...")
        if self.codec is not None:
            lines.append(f"  codec         {self.codec.entry}")
        for m in self.metrics:
            lines += [f"  {m}", f"                {m.command}"]
        for speed in self.speed:
            lines += [f"  speed         {speed}", f"                {speed.command}"]
        if self.training is not None:
            t = self.training
            lines.append(f"  training      {t.sequences_seen:,} sequences in {t.hours:g} h on {t.hardware}; {t.recipe}")
        lines += [f"  license       {self.license}; data: {self.data_terms}", f"  citation      {self.citation}"]
        return "\n".join(lines)


def _check_beside(where: str, **curves: Sequence[float] | None) -> None:
    """Raises `SpecError` where two curves have not the same number of values, or none."""
    first, second = (None if curve is None else len(curve) for curve in curves.values())
    if first != second or first == 0:
        names = " and ".join(curves)
        raise SpecError(f"{where}.{names} have {first} and {second} values; give as many of both, or neither")


def settings(params: Mapping[str, Any]) -> str:
    """A spec's `params`, readable; a part that is an architecture of its own by its name and its own settings."""
    shown = []
    for key, value in params.items():
        if isinstance(value, Mapping):
            value = f"{value.get('arch', '')} ({settings(value.get('params', {}))})"
        shown.append(f"{key} {value}")
    return ", ".join(shown) or "defaults"


def list_models(
    pattern: str = "*",
    *,
    arch: str | None = None,
    dataset: str | None = None,
    pretrained: bool | None = None,
    kind: Literal["forecaster", "codec"] | None = None,
) -> list[str]:
    """Names in the catalogue, sorted, that match a shell wildcard and every filter given.

    `stzoo.load` opens those of kind "forecaster", `stzoo.load_codec` those of kind "codec".
    """
    return sorted(
        name
        for name, entry in entries().items()
        if fnmatchcase(name, pattern)
        and arch in (None, entry.spec.arch)
        and dataset in (None, entry.dataset)
        and pretrained in (None, entry.weights is not None)
        and kind in (None, entry.kind)
    )


def info(name: str) -> Entry:
    """The catalogue entry `name`. Raises `UnknownModelError` with the close matches."""
    known = entries()
    if name not in known:
        close = get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(sorted(known))}"
        raise UnknownModelError(f"no model {name!r} in the catalogue; {hint}")
    return known[name]


@cache
def entries() -> Mapping[str, Entry]:
    """Every entry of the manifest that travels with the package."""
    return MappingProxyType(parse_manifest(manifest_path().read_bytes()))


def manifest_path() -> Path:
    """Inside the package when installed, beside it in a checkout. Raises `ManifestError` where it is in neither."""
    candidates = [_PACKAGE / "weights_manifest.json", _PACKAGE.parent / "weights_manifest.json"]
    path = next((p for p in candidates if p.is_file()), None)
    if path is None:
        raise ManifestError(f"weights_manifest.json is missing from {_PACKAGE}; reinstall stzoo")
    return path


def parse_manifest(content: bytes) -> dict[str, Entry]:
    """Every entry of a manifest, checked key by key. Raises `ManifestError` naming the first that is wrong."""
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"the manifest is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise ManifestError(f"the manifest's schema must be {SCHEMA}")
    if set(manifest) != {"schema", "models"} or not isinstance(manifest["models"], dict):
        raise ManifestError("the manifest must hold exactly 'schema' and a mapping 'models'")
    found = {name: _entry(name, values) for name, values in manifest["models"].items()}
    for entry in found.values():
        _check_codec(entry, found)
    return found


def _entry(name: str, values: Any) -> Entry:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ManifestError(f"{name!r} is no name for a model: use lower-case words joined by hyphens")
    try:
        entry = from_mapping(Entry, {**values, "name": name} if isinstance(values, Mapping) else values, name)
    except SpecError as error:
        raise ManifestError(str(error)) from error
    for m in entry.metrics:
        found = (m.persistence_mse is None, m.codes_used is None, m.perplexity is None)
        if found != ((True, False, False) if entry.kind == "codec" else (False, True, True)):
            raise ManifestError(
                f"{name}: metrics of a forecaster hold persistence_mse, those of a codec codes_used and perplexity"
            )
        if entry.kind == "codec" and m.mse_steps is not None:
            raise ManifestError(f"{name} is a codec; mse_steps are those of forecasts")
    if entry.speed and entry.kind == "codec":
        raise ManifestError(f"{name} is a codec; speed is that of forecasts")
    if len({m.protocol for m in entry.metrics}) < len(entry.metrics):
        raise ManifestError(f"{name}: metrics hold the same protocol twice")
    if len({speed.key for speed in entry.speed}) < len(entry.speed):
        raise ManifestError(f"{name}: speed holds the same device, precision, batch and steps twice")
    if entry.weights is not None:
        needed: dict[str, Any] = {"metrics": entry.metrics, "golden": entry.golden, "training": entry.training}
        if entry.codec is not None:
            needed["codec.sha256"] = entry.codec.sha256
        needed["unsuited"] = (entry.unsuited or "").strip()
        absent = [what for what, value in needed.items() if not value]
        if absent:
            raise ManifestError(f"{name} has weights but no {', no '.join(absent)}")
        if "package" in entry.weights.sources and entry.weights.size > MAX_FILE:
            raise ManifestError(f"{name}: {entry.weights.file} is larger than {MAX_FILE} bytes")
    return entry


def _check_codec(entry: Entry, known: Mapping[str, Entry]) -> None:
    """Raises `ManifestError` if an entry and the entry of its codec do not belong together."""
    if entry.codec is None and has_codec(entry.spec):
        raise ManifestError(f"{entry.name}: 'codec' names the codec's entry of spec.params.codec; it is missing")
    if entry.codec is None:
        return
    codec = known.get(entry.codec.entry)
    if codec is None or codec.kind != "codec":
        raise ManifestError(f"{entry.name}: codec.entry is {entry.codec.entry!r}, which is no codec of this manifest")
    part = entry.spec.params.get("codec")
    if not isinstance(part, Mapping) or not isinstance(part.get("arch"), str):
        raise ManifestError(f"{entry.name}: 'codec' names {codec.name!r}, but spec.params.codec names no architecture")
    wanted = ModelSpec.from_dict(entry.spec.to_dict() | {"params": {}} | dict(part))
    different = differences(wanted, codec.spec, ignoring=("frames_in", "frames_out", "height", "width"))
    if different:
        raise ManifestError(f"{entry.name}: its codec is not that of {codec.name}: {', '.join(different)}")
