"""A published checkpoint, by name -> a safetensors file on this machine, converted once and verified ever after."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stzoo import catalog, environment
from stzoo.addresses import without_secrets
from stzoo.catalog import CONFIG_FILE, WEIGHTS_FILE
from stzoo.convert import convert
from stzoo.download import download, lock
from stzoo.errors import (
    DownloadError,
    IntegrityError,
    NotPublishedError,
    OfflineError,
    WeightsError,
)
from stzoo.files import replacing, write_atomically
from stzoo.hashing import file_sha256
from stzoo.hub import Resolved, read_config, resolve
from stzoo.published.behaviour import glance
from stzoo.published.records import PublishedCheckpoint, info, is_published_name, published
from stzoo.published.support import best_for, why_unsupported
from stzoo.published.trust import Pin, checked, expected_sha256, pin_file, read_pin, write_pin
from stzoo.spec import ModelSpec

ORIGIN_KEY = "stzoo_origin"  # in the metadata of a converted file: which file of whom it was made of
CONVERTER = 1  # a converted file of another number is made anew


def find(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    offline: bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
    sha256: str | None = None,
) -> Resolved:
    """The files of a source, as `stzoo.hub.resolve` finds them, or those of a checkpoint that others published.

    A published checkpoint is downloaded from its publisher, or from the mirrors in STZOO_MIRRORS, compared with what is
    known of it (`stzoo.published.trust`), and converted. Only the converted file is kept, in the folder `published`
    below $STZOO_HOME. An entry of the catalogue that has no weights of its own takes the published checkpoint that has
    its spec, and says so in one line.

    Args:
        source: a name of a published checkpoint, or what `stzoo.hub.resolve` takes.
        revision, offline, progress: as `stzoo.hub.resolve` takes them.
        cache_dir: where downloads are kept instead.
        sha256: that of the publisher's file, if you know it.

    Raises:
        NotPublishedError: nobody published such weights, or stzoo does not support them yet; the message says why.
        IntegrityError: the file is not the one that is known.
        WeightsError: the file is no checkpoint of pure tensors, or `sha256` is given for another kind of source.
        MismatchError: its tensors are those of another architecture, or contradict the frames of its data.
        SpecError: its tensors tell sizes that no model may have.
        What `stzoo.hub.resolve` raises.
    """
    record = _record(source, progress)
    if record is None:
        if sha256 is not None:
            raise WeightsError(f"sha256 pins the file of a published checkpoint; {os.fspath(source)} is none")
        return resolve(source, revision=revision, offline=offline, cache_dir=cache_dir, progress=progress)
    if revision is not None:
        raise WeightsError(f"revision {revision!r} has no meaning for {os.fspath(source)!r}; leave it out")
    folder = environment.home() / "published" if cache_dir is None else Path(cache_dir).expanduser()
    return _Place(record, folder, environment.offline(offline), progress).resolved(sha256)


def _record(source: str | os.PathLike[str], progress: bool) -> PublishedCheckpoint | None:
    """The published checkpoint that a source stands for; None if it stands for something else."""
    if not isinstance(source, str) or os.sep in source or source.endswith(".safetensors"):
        return None
    if source in published():
        return published()[source]
    entry = catalog.entries().get(source)
    if entry is not None and entry.weights is None and entry.kind == "forecaster":
        record = best_for(entry)
        if record is not None and progress:
            mse = f" (MSE {record.figures['mse']} by its publisher's measurement)" if "mse" in record.figures else ""
            print(f"{source} has no weights of its own; these are {record.name} by {record.by}{mse}", file=sys.stderr)
        return record
    if is_published_name(source) and not os.path.isdir(source):
        info(source)  # raises, with the names that are close
    return None


@dataclass(frozen=True)
class _Conversion:
    """What lies beside a converted file, in JSON.

    Attributes:
        converter: which version of the conversion made it.
        sha256: of the converted file.
        origin: the sha256 of the publisher's file.
        spec: of the model.
    """

    converter: int
    sha256: str
    origin: str
    spec: ModelSpec


@dataclass(frozen=True)
class _Place:
    """Where one published checkpoint is kept, and how its file may be got."""

    record: PublishedCheckpoint
    folder: Path
    offline: bool
    progress: bool

    @property
    def converted(self) -> Path:
        return self.folder / f"{self.record.name}.safetensors"

    @property
    def beside(self) -> Path:
        return self.folder / f"{self.record.name}.json"

    def resolved(self, asked: str | None) -> Resolved:
        """The converted file, made if it is not there. Of several processes that ask at once, one makes it."""
        pin = read_pin(self.record.name)
        expected = expected_sha256(self.record, pin, asked)
        kept = self.kept(expected)
        if kept is not None:
            return kept
        reason = why_unsupported(self.record)
        if reason is not None:
            raise NotPublishedError(f"{self.record.name} is not supported yet: {reason}")
        if self.offline:
            raise OfflineError(
                f"{self.record.name} is not on this machine, and the network is off; allow the network once: its file "
                f"comes from {self.record.url}"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with lock(self.converted):
                pin = read_pin(self.record.name)  # another process may have been here meanwhile
                expected = expected_sha256(self.record, pin, asked)
                kept = self.kept(expected)
                return kept if kept is not None else self.made(pin, expected)
        except (OSError, NotImplementedError) as error:  # a full disk; a file system without locks
            raise DownloadError(f"cannot keep {self.record.name} in {self.folder}: {error}") from error

    def kept(self, expected: str | None) -> Resolved | None:
        """The converted file, if it is there, whole, and made of the expected file by this conversion."""
        try:
            values = json.loads(self.beside.read_bytes())
            found = _Conversion(**values | {"spec": ModelSpec.from_dict(values["spec"])})
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        if found.converter != CONVERTER or found.origin != (expected or found.origin) or not self.converted.is_file():
            return None
        if file_sha256(self.converted) != found.sha256:
            warnings.warn(f"{self.converted} is damaged and is made anew", stacklevel=6)
            return None
        return Resolved(self.converted, found.spec, found.sha256)

    def made(self, pin: Pin | None, expected: str | None) -> Resolved:
        """Download, check, convert and try the file, and keep what came of it."""
        file = self.folder / f"{self.record.name}.pth"
        came = self.downloaded(file, pin, expected)
        try:
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=f".{self.record.name}.") as scratch:
                out = Path(scratch)
                _convert(self.record, file, out)
                spec = read_config(out / CONFIG_FILE)
                origin = {"name": self.record.name, "publisher": self.record.by, "url": came.url, "sha256": came.sha256}
                _with_metadata(out / WEIGHTS_FILE, self.converted, ORIGIN_KEY, json.dumps(origin))
        finally:
            file.unlink(missing_ok=True)  # nothing but its tensors is of use
        sha256 = file_sha256(self.converted)
        verdict = glance(self.record, spec, self.converted, sha256)
        if not verdict.ok:
            warnings.warn(str(verdict), stacklevel=6)
        if pin is None:
            write_pin(self.record.name, came)
        note = {"converter": CONVERTER, "sha256": sha256, "origin": came.sha256, "spec": spec.to_dict()}
        write_atomically(self.beside, json.dumps(note).encode())
        return Resolved(self.converted, spec, sha256)

    def downloaded(self, file: Path, pin: Pin | None, expected: str | None) -> Pin:
        """Bring the publisher's file to `file`, from the first address that has it. Raises one error for all."""
        name = self.record.url.rpartition("/")[2]
        tried: list[tuple[str, Exception]] = []
        for url in (self.record.url, *(f"{base}/{name}" for base in environment.mirrors())):
            try:
                download(url, file, None, expected, progress=self.progress)
                return checked(self.record, file, without_secrets(url))
            except WeightsError as error:
                if isinstance(error, IntegrityError):
                    file.unlink(missing_ok=True)
                tried.append((without_secrets(url), error))
        listed = "; ".join(f"({i}) {url}: {error}" for i, (url, error) in enumerate(tried, 1))
        if any(isinstance(error, IntegrityError) for _, error in tried):
            known = f" If you trust a new file of the publisher, remove {pin_file(self.record.name)}." if pin else ""
            raise IntegrityError(f"no address has the right file of {self.record.name}. Tried: {listed}.{known}")
        raise DownloadError(
            f"cannot fetch {self.record.name}. Tried, in order: {listed}; a mirror of the file {name} can be named in "
            "STZOO_MIRRORS"
        )


def _convert(record: PublishedCheckpoint, file: Path, out: Path) -> None:
    """Convert the publisher's file. Where its tensors tell something else than the record, they decide.

    They must be those of the record's architecture, and fit the frames of its data. Raises what `convert` raises.
    """
    known = {name: value for name, value in record.frames.items() if name != "frames_in"} | {"arch": record.spec.arch}
    presumed = {"frames_in": record.spec.frames_in, "params": record.spec.params}
    convert(record.layout, file, None, out, known=known, presumed=presumed)


def _with_metadata(source: Path, target: Path, key: str, value: str) -> None:
    """Copy a safetensors file with one more entry in its metadata; `target` appears whole or not at all."""
    with source.open("rb") as old, replacing(target) as partial, partial.open("wb") as new:
        header: dict[str, Any] = json.loads(old.read(int.from_bytes(old.read(8), "little")))
        header["__metadata__"] = header.get("__metadata__", {}) | {key: value}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
        new.write(len(text).to_bytes(8, "little") + text)
        shutil.copyfileobj(old, new, 1 << 20)
