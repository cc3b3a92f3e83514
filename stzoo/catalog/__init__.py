"""The catalogue: each model in weights_manifest.json is an `Entry`.

`records` holds what an entry states, `describing` how its card says that, `manifest` how the file is read. None of them
imports torch or NumPy, so listing models costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from stzoo.catalog.describing import described, lines, settings
from stzoo.catalog.manifest import MAX_FILE, parse_manifest
from stzoo.catalog.records import CodecReference, Entry, Golden, Speed, Training, TrainingFrames, WeightsFile
from stzoo.errors import ManifestError, SpecError, UnknownModelError
from stzoo.spec import shown

__all__ = [
    "CHECKPOINTS",
    "CODEC_FILE",
    "CONFIG_FILE",
    "MAX_FILE",
    "WEIGHTS_FILE",
    "CodecReference",
    "Entry",
    "Golden",
    "Speed",
    "Training",
    "TrainingFrames",
    "WeightsFile",
    "described",
    "entries",
    "info",
    "lines",
    "list_models",
    "manifest_path",
    "parse_manifest",
    "settings",
]

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"  # what a folder or a hub repository holds
CODEC_FILE = "codec.safetensors"  # beside them, if the weights of a modular model are only those of its predictor

_PACKAGE = Path(__file__).parents[1]
CHECKPOINTS = _PACKAGE / "checkpoints"


def list_models(
    pattern: str = "*",
    *,
    arch: str | None = None,
    dataset: str | None = None,
    pretrained: bool | None = None,
    kind: Literal["forecaster", "codec"] | None = None,
) -> list[str]:
    """The names in the catalogue that match `pattern` and every filter that is given, sorted.

    Args:
        pattern: a shell wildcard, such as `tau-*`. Here and in the filters small letters and capitals are the same.
        arch: the architecture, such as "tau".
        dataset: the dataset, such as "mmnist".
        pretrained: True for entries with weights, False for entries without.
        kind: "forecaster" for what `stzoo.load` opens, "codec" for what `stzoo.load_codec` opens.

    Raises:
        SpecError: the pattern or a filter is not text.
    """
    for what, text in (("pattern", pattern), ("arch", arch), ("dataset", dataset)):
        if not isinstance(text, str) and (text is not None or what == "pattern"):
            raise SpecError(f"{what} is {shown(text)}; it must be text")
    return sorted(
        name
        for name, entry in entries().items()
        if fnmatchcase(name, pattern.lower())
        and (arch is None or arch.lower() == entry.spec.arch)
        and (dataset is None or dataset.lower() == entry.dataset)
        and pretrained in (None, entry.weights is not None)
        and kind in (None, entry.kind)
    )


def info(name: str) -> Entry:
    """The catalogue entry `name`.

    Raises:
        UnknownModelError: there is none; the message has the close matches. SpecError: the name is not text.
    """
    known = entries()
    if not isinstance(name, str):
        spec = "; ModelSpec.from_dict makes a spec of a dict" if isinstance(name, Mapping) else ""
        raise SpecError(f"the name of a model is {shown(name)}; it must be text{spec}")
    if name not in known:
        close = get_close_matches(name.lower(), known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "'stzoo list' shows all names"
        raise UnknownModelError(f"no model {shown(name)} in the catalogue; {hint}")
    return known[name]


@cache
def entries() -> Mapping[str, Entry]:
    """Every entry of the manifest that travels with the package."""
    return MappingProxyType(parse_manifest(manifest_path().read_bytes()))


def manifest_path() -> Path:
    """weights_manifest.json: inside an installed package, or beside it in a checkout.

    Raises:
        ManifestError: it is in neither place.
    """
    candidates = [_PACKAGE / "weights_manifest.json", _PACKAGE.parent / "weights_manifest.json"]
    path = next((p for p in candidates if p.is_file()), None)
    if path is None:
        raise ManifestError(f"weights_manifest.json is missing from {_PACKAGE}; reinstall stzoo")
    return path
