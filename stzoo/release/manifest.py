"""Changing weights_manifest.json of this checkout, and the checkpoints beside it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stzoo import catalog
from stzoo.files import replacing, write_atomically


def read_manifest() -> dict[str, Any]:
    """The manifest's JSON as it is now, keys in the file's order."""
    manifest: dict[str, Any] = json.loads(catalog.manifest_path().read_text("utf-8"))
    return manifest


def manifest_text(manifest: Mapping[str, Any]) -> bytes:
    """The content of the file that holds `manifest`. Raises `ManifestError` if an entry is wrong."""
    content = (json.dumps(manifest, indent=2) + "\n").encode()
    catalog.parse_manifest(content)
    return content


def write_manifest(manifest: Mapping[str, Any]) -> None:
    """Replace the file, completely or not at all; the catalogue of this process is read anew.

    Raises:
        ManifestError: an entry is wrong. OSError: the file cannot be written.
    """
    write_atomically(catalog.manifest_path(), manifest_text(manifest))
    catalog.entries.cache_clear()


def enter(name: str, weights: Path, values: Mapping[str, Any]) -> None:
    """Move the file `weights` to the entry's checkpoint and put `values` into the entry `name`: both, or neither.

    Raises:
        ManifestError: the entry would be wrong. OSError: a file cannot be written.
    """
    manifest = read_manifest()
    manifest["models"][name] = manifest["models"].get(name, {}) | dict(values)
    manifest_text(manifest)  # checked before anything is moved
    final = catalog.CHECKPOINTS / f"{name}.safetensors"
    before, new = final.with_name(f".{final.name}.before"), not final.exists()
    if not new:  # so that a kill at any point leaves the entry a file
        with replacing(before) as copy:
            shutil.copyfile(final, copy)
    try:
        os.replace(weights, final)
        write_manifest(manifest)
    except BaseException:
        if new:
            final.unlink(missing_ok=True)
        else:
            os.replace(before, final)
        raise
    before.unlink(missing_ok=True)
