"""A published checkpoint, by name -> a safetensors file on this machine, converted once and verified ever after."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stzoo import catalog, environment
from stzoo.convert.matching import Converted, converted
from stzoo.errors import (
    DownloadError,
    IntegrityError,
    MemoryNeededError,
    NotPublishedError,
    OfflineError,
    SpecError,
    UnknownModelError,
    WeightsError,
)
from stzoo.files import make_way, write_atomically
from stzoo.hashing import open_regular
from stzoo.hub import Resolved, resolve
from stzoo.hub.sources import MAX_CONFIG, listed
from stzoo.published.answers import unlike_a_checkpoint
from stzoo.published.behaviour import glance
from stzoo.published.obtaining import fetched, kept_or_made
from stzoo.published.records import (
    PublishedCheckpoint,
    best_for,
    called_after,
    info,
    is_published_name,
    published,
    told_of,
    unknown,
)
from stzoo.published.support import why_unsupported
from stzoo.published.trust import Pin, check_git, pin_file, write_pin
from stzoo.spec import ModelSpec
from stzoo.tensorfile import TensorFile, packed, read
from stzoo.weights import Origin, metadata_for, origin_in

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
    if record is not None:
        if revision is not None:
            raise WeightsError(f"revision {revision!r} has no meaning for {os.fspath(source)!r}; leave it out")
        folder = environment.home() / "published" if cache_dir is None else Path(os.path.expanduser(cache_dir))
        return _Place(record, folder, environment.offline(offline), progress).resolved(sha256)
    if sha256 is not None:
        raise WeightsError(f"sha256 pins the file of a published checkpoint; {os.fspath(source)} is none")
    try:
        return resolve(source, revision=revision, offline=offline, cache_dir=cache_dir, progress=progress)
    except UnknownModelError:
        raise unknown(os.fspath(source)) from None
    except WeightsError as error:
        if isinstance(source, os.PathLike) and (named := os.fspath(source)) in {*catalog.entries(), *published()}:
            raise WeightsError(f"{error}; if you mean the model of this name, give it as text: {named!r}") from None
        raise


def _record(source: str | os.PathLike[str], progress: bool) -> PublishedCheckpoint | None:
    """The published checkpoint that a source stands for; None if it stands for something else.

    Raises:
        NotPublishedError: it is an entry without weights, and what others published of it is not taken by itself.
        UnknownModelError: it is written as a name of a published checkpoint, and there is none of this name.
    """
    if not isinstance(source, str) or os.sep in source or source.endswith(".safetensors"):
        return None
    if source in published():
        return published()[source]
    entry = catalog.entries().get(source)
    if entry is not None:
        record = best_for(entry)
        others = called_after(entry) if entry.weights is None else []
        if record is None and others:
            reasons = "; ".join(f"{r.name} by {r.by}: {r.unsupported or r.doubt}" for r in others)
            names = [f"stzoo.load({r.name!r})" for r in others if r.unsupported is None]
            remedy = f"; load it by its own name, {' or '.join(names)}" if names else ""
            raise NotPublishedError(
                f"{source} has no weights of its own, and what others published is not taken by itself ({reasons})"
                f"{remedy}; or train the model: stzoo train {source} --data DIR --out RUN"
            )
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
        """The converted file, made if it is not there."""
        return kept_or_made(
            self.record.name, self.record.name, self.converted, asked,
            kept=self.kept, check_allowed=self.check_allowed, made=self.made,
        )  # fmt: skip

    def check_allowed(self) -> None:
        """Raises an error if the publisher's file must not be fetched."""
        reason = why_unsupported(self.record)
        if reason is not None:
            raise NotPublishedError(f"{self.record.name} is not supported yet: {reason}")
        if self.offline:
            raise OfflineError(
                f"{self.record.name} is not on this machine, and the network is off; allow the network once: its file "
                f"comes from {self.record.url}. {self.by_hand}"
            )

    @property
    def by_hand(self) -> str:
        """What to do where the file cannot be downloaded, in a sentence."""
        return (
            f"Or fetch that file on another machine and run 'stzoo convert {self.record.layout} FILE --model "
            f"{self.record.name} --out DIR'; then load DIR"
        )

    def kept(self, pin: Pin | None, expected: str | None) -> Resolved | None:
        """The converted file, if it is there, whole, and made of the expected file by this conversion.

        A pin that was lost is written again from what the file says of its origin.
        """
        try:
            with open_regular(self.beside) as (beside, _):
                values = json.loads(beside.read(MAX_CONFIG) or b"")
            found = _Conversion(**values | {"spec": ModelSpec.from_dict(values["spec"])})
            if found.converter != CONVERTER or found.origin != (expected or found.origin):
                return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        if not self.converted.is_file():
            return None
        try:
            file = read(self.converted)
        except WeightsError:
            file = None
        if file is None or file.sha256 != found.sha256:
            warnings.warn(f"{self.converted} is damaged and is made anew", stacklevel=7)
            return None
        if pin is None:
            origin = origin_in(file.metadata)
            if origin is not None and origin.size and origin.sha256 == found.origin:
                with suppress(WeightsError, SpecError):  # a folder that this user may only read
                    write_pin(self.record.name, Pin(url=origin.url, size=origin.size, sha256=origin.sha256))
        return Resolved(self.converted, found.spec, found.sha256, held=[file])

    def made(self, pin: Pin | None, expected: str | None) -> Resolved:
        """Download, check and convert the file, from the first address that has it, and keep what came of it."""

        def read(file: Path, came: Pin) -> Converted:
            check_git(self.record, file, came.url)
            return _converted(self.record, file, came.url)

        with fetched(
            self.record.name, self.record.url, self.folder, expected,
            progress=self.progress, read=read, failure=partial(self.failure, pin),
        ) as (found, came):  # fmt: skip
            return self.keep(found, came, pin)

    def keep(self, found: Converted, came: Pin, pin: Pin | None) -> Resolved:
        """Try the converted model, and write its file, the pin, and what stands beside the file."""
        record = self.record
        found.module.load_state_dict(found.state, strict=True, assign=True)
        verdict = glance(record, found.spec, found.module.eval())
        if not verdict.ok:
            warnings.warn(str(verdict), stacklevel=7)
        for path in (self.converted, self.beside):
            make_way(path)
        metadata = metadata_for(found.spec, origin_of(record, came))
        content, digest = packed(found.state, metadata), hashlib.sha256()
        for piece in content:
            digest.update(piece)
        write_atomically(self.converted, *content)
        file = TensorFile(metadata, found.state, digest.hexdigest(), borrowed=False)
        if pin is None:
            write_pin(record.name, came)
        note = {
            "converter": CONVERTER, "sha256": file.sha256, "origin": came.sha256, "spec": found.spec.to_dict(),
        }  # fmt: skip
        write_atomically(self.beside, json.dumps(note).encode())
        return Resolved(self.converted, found.spec, file.sha256, held=[file])

    def failure(self, pin: Pin | None, tried: list[tuple[str, Exception]]) -> Exception:
        """The error that says what each address had. Its kind is that of the first file that was a wrong one."""
        said, errors = listed(tried), [error for _, error in tried]
        if any(isinstance(error, IntegrityError) for error in errors):
            trusted = f" If you trust a new file of the publisher, remove {pin_file(self.record.name)}." if pin else ""
            return IntegrityError(f"no address has the right file of {self.record.name}. Tried: {said}.{trusted}")
        wrong = next((error for error in errors if not isinstance(error, DownloadError)), None)
        name = self.record.url.rpartition("/")[2]
        kind, what = (DownloadError, "cannot fetch") if wrong is None else (type(wrong), "no address has the model of")
        return kind(
            f"{what} {self.record.name}. Tried, in order: {said}; a mirror of the file {name} can be named in "
            f"STZOO_MIRRORS. {self.by_hand}"
        )


def _converted(record: PublishedCheckpoint, file: Path, url: str) -> Converted:
    """The publisher's file, converted. Where its tensors tell something else than the record, they decide.

    Raises what `convert` raises, with the address in place of the file, which will be gone.
    """
    known, presumed = told_of(record)
    wrong = unlike_a_checkpoint(file)
    if wrong is not None:
        raise WeightsError(f"{url} sent {wrong}")
    try:
        return converted(record.layout, file, None, known=known, presumed=presumed)
    except (WeightsError, SpecError, MemoryNeededError) as error:
        raise type(error)(str(error).replace(str(file), url)) from None


def origin_of(record: PublishedCheckpoint, came: Pin) -> Origin:
    """What is noted of the publisher's file in what is made of it."""
    return Origin(
        name=record.name, publisher=record.by, url=came.url, sha256=came.sha256, size=came.size,
        license=record.license, figures=dict(record.figures),
    )  # fmt: skip
