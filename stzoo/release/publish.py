"""Packaged checkpoints -> repositories of a hub. Where one really is, the manifest says so, and never before."""

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
from stzoo.release.candidate import read_manifest, write_manifest

_ORG = r"hf://([A-Za-z0-9]+(?:[-_.][A-Za-z0-9]+)*)"


@dataclass(frozen=True)
class Published:
    """Where an entry's weights are, and whether this run brought them there."""

    name: str
    source: str
    new: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.source}{'' if self.new else ', since an earlier run'}"


def publish(destination: str, names: Sequence[str] = (), *, private: bool = False) -> Iterator[Published]:
    """Send entries to the repositories ORG/NAME, each in one commit, and add them to the entries' sources.

    A repository holds the packaged file byte for byte, its spec and its card, and of a modular entry the codec's
    packaged file as well. It is read back, at the commit the hub names, before the manifest is changed; so a failure
    keeps what was done before it, and the next run goes on after that.

    Args:
        destination: "hf://ORG".
        names: of entries with weights in the package; none means all of these.
        private: make repositories that only members of ORG can read. Their weights are not for everyone, and yet the
            manifest names them: for a rehearsal in a checkout of one's own.

    Raises:
        WeightsError: ORG is no name, or the hub refused. UnknownModelError, NotPublishedError: an entry that is not
            there or has no weights in the package; nothing has been sent then. IntegrityError: the packaged file, or
            what was read back, is not the pinned one. OfflineError: the network is off.
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
    for name in names:
        entry = catalog.info(name)
        assert entry.weights is not None
        there = next((s for s in entry.weights.sources if s.startswith(f"hf://{org}/{name}@")), None)
        yield Published(name, there, False) if there else Published(name, _send(entry, f"{org}/{name}", private), True)


def _send(entry: Entry, repo: str, private: bool) -> str:
    assert entry.weights is not None
    file = resolve(entry.name, offline=True, progress=False)  # checks the hash, and that of the codec
    with tempfile.TemporaryDirectory() as folder:
        _fill(Path(folder), entry, file, repo)
        source = push(Path(folder), repo, private=private, message=f"{entry.name} {entry.weights.sha256[:12]}")
    with tempfile.TemporaryDirectory() as cache:  # an empty one: it must come from the hub
        back = resolve(source, cache_dir=cache, progress=False)
        codec = None if back.codec is None else file_sha256(back.codec)
        pinned = None if entry.codec is None else entry.codec.sha256
        if (back.sha256, codec, back.spec) != (entry.weights.sha256, pinned, entry.spec):
            raise IntegrityError(f"{source} does not hold what was sent; the manifest is left as it was")
    manifest = read_manifest()
    manifest["models"][entry.name]["weights"]["sources"].append(source)
    write_manifest(manifest)
    return source


def _fill(folder: Path, entry: Entry, file: Resolved, repo: str) -> None:
    shutil.copyfile(file.path, folder / WEIGHTS_FILE)
    if file.codec is not None:
        shutil.copyfile(file.codec, folder / CODEC_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(entry.spec.to_dict(), indent=2) + "\n", "utf-8")
    text = readme(entry_card(entry), entry.spec, entry.name, repo)
    (folder / README).write_text(text, "utf-8", newline="\n")
