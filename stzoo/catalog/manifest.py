"""weights_manifest.json -> entries, checked key by key and against one another."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from stzoo.catalog.records import Entry
from stzoo.errors import ManifestError, SpecError
from stzoo.spec import ModelSpec, differences, from_mapping

SCHEMA = 1
MAX_FILE = 25_000_000  # bytes a packaged checkpoint may have


def parse_manifest(content: bytes) -> dict[str, Entry]:
    """Every entry of a manifest, by name, checked key by key.

    Raises:
        ManifestError: a key is missing, unknown or has a wrong value, or entries do not belong together; the message
            names the first such key.
    """
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
        raise ManifestError(f"{name!r} is no name for a model; use lower-case words joined by hyphens")
    try:
        entry = from_mapping(Entry, {**values, "name": name} if isinstance(values, Mapping) else values, name)
    except SpecError as error:
        raise ManifestError(str(error)) from error
    for m in entry.metrics:
        found = (m.persistence_mse is None, m.codes_used is None, m.perplexity is None)
        if found not in (
            ((True, False, False), (True, True, True)) if entry.kind == "codec" else ((False, True, True),)
        ):
            raise ManifestError(
                f"{name}: metrics of a forecaster hold persistence_mse, those of a codec with codes codes_used and "
                "perplexity"
            )
        if entry.kind == "codec" and m.mse_steps is not None:
            raise ManifestError(f"{name} is a codec; only a forecaster has mse_steps")
    if entry.speed and entry.kind == "codec":
        raise ManifestError(f"{name} is a codec; only a forecaster has a speed")
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
    """Raises `ManifestError` if an entry and the entry of its codec do not belong together.

    Architectures are known where torch is. Here the spec's `params` say whether a codec is a part of the model.
    """
    part = entry.spec.params.get("codec")
    part = part if isinstance(part, Mapping) and isinstance(part.get("arch"), str) else None
    if "codec" not in entry.spec.params and entry.codec is None:
        return
    if part is None or entry.codec is None:
        wrong = "it is missing" if entry.codec is None else "spec.params.codec names no architecture"
        raise ManifestError(f"{entry.name}: 'codec' names the codec's entry of a modular model; {wrong}")
    codec = known.get(entry.codec.entry)
    if codec is None or codec.kind != "codec":
        raise ManifestError(f"{entry.name}: codec.entry is {entry.codec.entry!r}, which is no codec of this manifest")
    wanted = ModelSpec.from_dict(entry.spec.to_dict() | {"params": {}} | dict(part))
    different = differences(wanted, codec.spec, ignoring=("frames_in", "frames_out", "height", "width"))
    if different:
        raise ManifestError(f"{entry.name}: its codec is not that of {codec.name}: {', '.join(different)}")
