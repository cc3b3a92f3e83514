"""Sending packaged checkpoints to repositories of a hub. The manifest names a repository only once it holds one."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stzoo import catalog
from stzoo.catalog import CODEC_FILE, CONFIG_FILE, WEIGHTS_FILE, Entry
from stzoo.errors import IntegrityError, NotPublishedError, WeightsError
from stzoo.hub import Resolved, file_sha256, resolve
from stzoo.hub.card import README, entry_card, readme
from stzoo.hub.huggingface import push
from stzoo.release.manifest import read_manifest, write_manifest

_ORG = r"hf://([A-Za-z0-9]+(?:[-_.][A-Za-z0-9]+)*)"


@dataclass(frozen=True)
class Published:
    """Where an entry's weights are published.

    Attributes:
        name: the entry.
        source: "hf://ORG/NAME@<40 hex>".
        new: whether this run sent them; False if an earlier one did.
    """

    name: str
    source: str
    new: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.source}{'' if self.new else ', since an earlier run'}"


def publish(destination: str, names: Sequence[str] = (), *, private: bool = False) -> Iterator[Published]:
    """Send entries to the repositories ORG/NAME, each in one commit, and add those to the entries' sources.

    A repository gets the packaged file byte for byte, its spec and its card, and for a modular entry also the packaged
    file of its codec. It is read back, at the commit that the hub names, before the manifest is changed. So a failure
    keeps what was done before it, and the next run goes on from there.

    Args:
        destination: "hf://ORG", where ORG is an organisation or a user of the hub.
        names: entries with weights in the package; empty means all of these.
        private: make repositories that only members of ORG can read. The manifest names them all the same, although
            not everyone can read them; so this is for a rehearsal in a checkout of one's own.

    Yields:
        Where each entry is, as soon as it is there.

    Raises:
        WeightsError: ORG is no name, or the hub refused.
        UnknownModelError, NotPublishedError: an entry does not exist, or has no weights in the package; nothing has
            been sent then.
        IntegrityError: the packaged file, or what was read back, is not the pinned one.
        OfflineError: the network is off.
    """
    match = re.fullmatch(_ORG, destination)
    if match is None:
        raise WeightsError(f"{destination!r} is no organisation of a hub; write hf://ORG")
    wanted = [catalog.info(name) for name in names] or [e for e in catalog.entries().values() if _packaged(e)]
    lacking = [e.name for e in wanted if not _packaged(e)]
    if lacking:
        raise NotPublishedError(f"no weights in the package for {', '.join(lacking)}; nothing has been sent")
    return _published(match[1], list(dict.fromkeys(e.name for e in wanted)), private)


def _packaged(entry: Entry) -> bool:
    return entry.weights is not None and "package" in entry.weights.sources


def _published(org: str, names: Sequence[str], private: bool) -> Iterator[Published]:
    """`publish`, once its arguments have been checked."""
    for name in names:
        entry = catalog.info(name)
        assert entry.weights is not None
        there = next((s for s in entry.weights.sources if s.startswith(f"hf://{org}/{name}@")), None)
        yield Published(name, there, False) if there else Published(name, _send(entry, f"{org}/{name}", private), True)


def _send(entry: Entry, repo: str, private: bool) -> str:
    """Send one entry, read it back, add the source to the manifest, and return it."""
    assert entry.weights is not None
    file = resolve(entry.name, offline=True, progress=False)  # which checks its hash, and that of the codec
    with tempfile.TemporaryDirectory() as folder:
        _fill(Path(folder), entry, file, repo)
        source = push(Path(folder), repo, private=private, message=f"{entry.name} {entry.weights.sha256[:12]}")
    with tempfile.TemporaryDirectory() as cache:  # an empty cache, so that the file must come from the hub
        back = resolve(source, cache_dir=cache, progress=False)
        pinned = None if entry.codec is None else entry.codec.sha256
        if (back.sha256, back.codec_sha256, back.spec) != (entry.weights.sha256, pinned, entry.spec):
            raise IntegrityError(f"{source} does not hold what was sent; the manifest is left as it was")
    manifest = read_manifest()
    manifest["models"][entry.name]["weights"]["sources"].append(source)
    write_manifest(manifest)
    return source


def _fill(folder: Path, entry: Entry, file: Resolved, repo: str) -> None:
    """Put into `folder` what the repository is to hold.

    Raises:
        IntegrityError: a file was changed since it was found.
    """
    _copy(file.path, folder / WEIGHTS_FILE, file.sha256)
    if file.codec is not None and file.codec_sha256 is not None:
        _copy(file.codec, folder / CODEC_FILE, file.codec_sha256)
    (folder / CONFIG_FILE).write_text(json.dumps(entry.spec.to_dict(), indent=2) + "\n", "utf-8")
    text = readme(entry_card(entry), entry.spec, entry.name, repo)
    (folder / README).write_text(text, "utf-8", newline="\n")


def _copy(file: Path, copy: Path, sha256: str) -> None:
    """Copy a file, and check the copy: the file itself may be swapped at any moment."""
    shutil.copyfile(file, copy)
    if file_sha256(copy) != sha256:
        raise IntegrityError(f"{file} was changed after it had been checked; nothing of it has been sent")
