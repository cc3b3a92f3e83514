"""What stzoo keeps on this machine (weights, hub models, decoded videos, kernels, graphs): list, verify, clear.

Of huggingface_hub's cache, which other libraries share, only repositories that hold a stzoo model are touched.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from filelock import Timeout

from stzoo import catalog, environment
from stzoo.catalog import CONFIG_FILE, WEIGHTS_FILE
from stzoo.download import lock
from stzoo.errors import SpecError, UnknownModelError, printable
from stzoo.files import is_leftover
from stzoo.hashing import file_sha256, open_regular, sha256_in_name
from stzoo.hub import huggingface, read_config
from stzoo.hub.sources import MAX_CONFIG

_IDLE = 600.0  # seconds: a part that nothing was written to for so long belongs to no running process


Kind = Literal["weights", "published", "hub", "frames", "kernels", "compiled", "graphs", "unfinished"]


@dataclass(frozen=True)
class Kept:
    """Something in a cache that has one name.

    Attributes:
        name: a catalogue entry, a repository ("user/model"), or a part of the cache ("frames").
        kind: "weights" came from an https address; "published" are checkpoints of others, converted; "hub" is in
            huggingface_hub's cache; "frames" are decoded videos; "kernels" were compiled for training; "compiled" is
            the code of torch.compile; "graphs" are what ONNX Runtime computes, and which backend was faster;
            "unfinished" was left by a download or a decoder that was killed.
        files: the files that hold it; for a link, the file that it leads to.
        size: bytes on disk.
        used: when a program last read it, as far as the file system knows.
        origin: the sha256 of the publisher's file that a "published" one was made of; None for every other kind.
    """

    name: str
    kind: Kind
    files: tuple[Path, ...]
    size: int
    used: datetime
    origin: str | None = None

    def __str__(self) -> str:
        more = f", {len(self.files)} files" if len(self.files) > 1 else ""
        more += f", of a file with sha256 {printable(self.origin)}" if self.origin else ""
        name = printable(self.name)
        return f"{name:<28} {self.kind:<10} {self.size / 1e6:>9.1f} MB  used {self.used:%Y-%m-%d %H:%M}{more}"


def listed() -> list[Kept]:
    """Everything in the caches, the largest first."""
    return sorted([*_weights(), *_published(), *_made(), *_hub()], key=lambda kept: -kept.size)


def verified() -> list[tuple[Kept, tuple[Path, ...]]]:
    """Each `Kept`, with those of its files that are damaged. They are removed, and the next use fetches them again.

    Weights, compiled kernels, and large files of a hub have their sha256 in their name. That of a published checkpoint
    stands beside it. A kernel without it was not compiled by this version, and counts as damaged. Decoded videos are
    damaged if they are empty; nothing else is known of them, and nothing at all of what torch.compile made.
    """
    found = []
    for kept in listed():
        unknown = kept.kind in ("unfinished", "compiled")
        bad = tuple(f for f in kept.files if not unknown and _damaged(f, kept.kind))
        for file in bad:
            huggingface.remove(file) if kept.kind == "hub" else _remove(file)
        found.append((kept, bad))
    return found


def clear(name: str | None = None) -> int:
    """Remove what has this name or kind, or everything if `name` is None; return how many bytes are free again.

    A file that a running process is downloading stays, what torch.compile made in the last ten minutes, which a running
    process may be about to load, and every file of the package.

    Raises:
        UnknownModelError: nothing in the caches has this name.
    """
    everything = listed()
    chosen = [k for k in everything if name is None or name in (k.name, k.kind)]
    if name is not None and not chosen:
        names = ", ".join(sorted({k.name for k in everything})) or "nothing"
        raise UnknownModelError(f"nothing in the cache is called {name!r}; there is {names}")
    freed = 0
    for kept in chosen:
        if kept.kind == "hub":
            freed += _clear_repository(kept.name)
        else:
            beside = [f.with_suffix(".json") for f in kept.files] if kept.kind == "published" else []
            files = [f for f in kept.files if kept.kind != "compiled" or _idle(f)]
            freed += sum(_remove(file) for file in (*files, *beside))
    return freed


def _weights() -> Iterator[Kept]:
    """Weights from https addresses, and unfinished downloads of them."""
    folder = environment.home() / "weights"
    names = {e.weights.sha256: e.name for e in catalog.entries().values() if e.weights}
    for file in sorted(f for f in folder.glob("*.safetensors") if f.is_file()):
        yield _kept(names.get(file.stem, file.stem[:12]), "weights", [file])
    parts = [*folder.glob(".*.part")]
    if parts:
        yield _kept("unfinished", "unfinished", parts)


def _published() -> Iterator[Kept]:
    """Checkpoints that others published, converted, and what unfinished ones left."""
    folder = environment.home() / "published"
    for file in sorted(f for f in folder.glob("[!.]*.safetensors") if f.is_file()):
        yield replace(_kept(file.stem, "published", [file]), origin=_beside(file).get("origin"))
    left = [f for pattern in (".*.part", ".*/*") for f in folder.glob(pattern)]
    parts = {f for f in left if f.is_file() and (f.name.endswith(".part") or _idle(f))}
    if parts:  # locks come last: whoever removes these files takes them first
        yield _kept("unfinished", "unfinished", sorted(parts, key=lambda f: (f.name.endswith(".lock"), f)))


def _beside(file: Path) -> dict[str, str]:
    """What stands beside a converted file, as far as it is there: its sha256, and that of the file it was made of."""
    try:
        with open_regular(file.with_suffix(".json")) as (beside, _):
            values = json.loads(beside.read(MAX_CONFIG) or b"")
    except (OSError, ValueError, RecursionError):
        return {}
    known = values.items() if isinstance(values, dict) else ()
    return {key: value for key, value in known if key in ("sha256", "origin") and isinstance(value, str)}


def _made() -> Iterator[Kept]:
    """Files that were made on this machine, and can be made again."""
    folder = environment.home()
    frames, kernels = sorted((folder / "frames").glob("[!.]*.uint8")), sorted((folder / "kernels").glob("*.so"))
    graphs = sorted([*(folder / "graphs").glob("[!.]*.onnx"), *(folder / "graphs").glob("[!.]*.choice")])
    hidden = ("frames/.*.uint8.*", "kernels/.*.so.*", "graphs/.*.onnx.*", "graphs/.*.choice.*")
    unfinished = [left for pattern in hidden for left in folder.glob(pattern)]
    parts = [f for left in unfinished if is_leftover(left) for f in left.iterdir() if _idle(f)]
    # torch's own locks stay: a running process may hold them
    compiled = sorted(f for f in (folder / "compiled").rglob("*") if f.is_file() and f.suffix != ".lock")
    if frames:
        yield _kept("frames", "frames", frames)
    if kernels:
        yield _kept("kernels", "kernels", kernels)
    if compiled:
        yield _kept("compiled", "compiled", compiled)
    if graphs:
        yield _kept("graphs", "graphs", graphs)
    if parts:
        yield _kept("unfinished", "unfinished", parts)


def _hub() -> Iterator[Kept]:
    """The repositories in huggingface_hub's cache that hold a stzoo model."""
    for repository in _repositories():
        files = {
            file.blob_path: file
            for revision in repository.revisions
            for file in revision.files
            if file.blob_path.is_file()
        }
        used = datetime.fromtimestamp(repository.last_accessed)
        yield Kept(repository.repo_id, "hub", tuple(sorted(files)), repository.size_on_disk, used)


def _repositories() -> list[Any]:
    """The repositories in huggingface_hub's cache that are published entries, or have a stzoo model in a revision."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        found = scan_cache_dir().repos
    except (CacheNotFound, ValueError):  # ValueError: the cache is no folder
        return []
    published = {s.partition("@")[0] for e in catalog.entries().values() if e.weights for s in e.weights.sources}
    return [
        repository
        for repository in found
        if repository.repo_type == "model"
        and (
            f"hf://{repository.repo_id}" in published
            or any(_is_ours(revision.snapshot_path) for revision in repository.revisions)
        )
    ]


def _is_ours(snapshot: Path) -> bool:
    try:
        read_config(snapshot / CONFIG_FILE)
    except (OSError, SpecError):
        return False
    return (snapshot / WEIGHTS_FILE).exists()


def _clear_repository(repo: str) -> int:
    from huggingface_hub import scan_cache_dir

    hashes = [r.commit_hash for each in _repositories() if each.repo_id == repo for r in each.revisions]
    strategy = scan_cache_dir().delete_revisions(*hashes)
    strategy.execute()
    return strategy.expected_freed_size


def _kept(name: str, kind: Kind, files: list[Path]) -> Kept:
    facts = {}
    for file in files:
        with suppress(FileNotFoundError):  # another process has finished or removed it meanwhile
            facts[file] = file.stat()
    used = max((max(f.st_atime, f.st_mtime) for f in facts.values()), default=0.0)
    return Kept(name, kind, tuple(facts), sum(f.st_size for f in facts.values()), datetime.fromtimestamp(used))


def _idle(part: Path) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - part.stat().st_mtime > _IDLE
    return False


def _damaged(file: Path, kind: str) -> bool:
    """Whether a file is not what it should be. One that is gone is not; one that cannot be read is, if it is ours."""
    named = sha256_in_name(file)
    try:
        if kind == "frames":
            return not file.stat().st_size
        if kind == "published":
            return file_sha256(file) != _beside(file).get("sha256")
        if named is None:
            return kind == "kernels"
        return file_sha256(file) != named
    except FileNotFoundError:
        return False
    except OSError:
        return kind in ("weights", "published")


def _remove(file: Path) -> int:
    """Remove a file; return how many bytes are free again: 0 if it is being written, or is already gone."""
    hidden = file.parent if file.parent.name.startswith(".") else None  # the folder in which it was being written
    with suppress(FileNotFoundError, Timeout, NotImplementedError):
        size = file.lstat().st_size  # before any lock is taken, which would make a folder anew that is gone
        outer, target = _written_to(file)
        with _held(outer):
            with _held(target):
                if not file.name.endswith(".lock"):  # which `_clear_hidden` removes, when nothing else is left
                    os.unlink(file)
                if file.name.endswith(".part"):
                    file.with_name(f"{file.name}-tag").unlink(missing_ok=True)
            if hidden is not None:
                _clear_hidden(hidden)
        return size
    return 0


def _written_to(file: Path) -> tuple[Path | None, Path | None]:
    """Whose locks a running process holds that is downloading `file`: those of what is made of it, and of the download.

    In the hidden folder of a published checkpoint every file belongs to one download (`stzoo.published.obtaining`), and
    may be old while that download runs: its lock, and the tag of its part, are written once.
    """
    name = file.parent.name
    if name.startswith(".") and name.endswith(".download"):
        name = name[1:].removesuffix(".download")
        return file.parent.with_name(f"{name}.safetensors"), file.with_name(f"{name}.pth")
    return None, file.with_name(file.name[1:].removesuffix(".part")) if file.name.endswith(".part") else None


@contextmanager
def _held(target: Path | None) -> Iterator[None]:
    """Hold the lock of `target`, if there is one. Raises `Timeout` if another process holds it."""
    if target is None:
        yield
        return
    with lock(target).acquire(blocking=False):
        yield


def _clear_hidden(folder: Path) -> None:
    """Remove a hidden folder in which something was written, with its lock, unless it holds more."""
    with suppress(OSError):
        locks = [*folder.iterdir()]
        if all(each.name.endswith(".lock") for each in locks):
            for each in locks:
                each.unlink()
            folder.rmdir()
