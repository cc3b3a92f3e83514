"""A source (catalogue name, folder, file, hf://user/repo@revision) -> a local, verified file and its spec."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from stzoo import catalog, environment
from stzoo.catalog import CHECKPOINTS, CODEC_FILE, CONFIG_FILE, WEIGHTS_FILE, Entry, WeightsFile
from stzoo.data import DATASETS
from stzoo.download import discard, file_sha256, without_secrets
from stzoo.download import download as fetch  # `download` stays the module
from stzoo.errors import DownloadError, IntegrityError, NotPublishedError, OfflineError, SpecError, WeightsError
from stzoo.hub import huggingface
from stzoo.spec import ModelSpec, has_codec

MAX_CONFIG = 1 << 20  # bytes of a config.json

__all__ = ["Resolved", "file_sha256", "read_config", "resolve"]


@dataclass(frozen=True)
class Resolved:
    """A file on this machine, the spec it belongs to, and its sha256 as just computed.

    `codec` is the file of a modular entry's codec, which `path` does not repeat; None where `path` holds everything.
    """

    path: Path
    spec: ModelSpec
    sha256: str
    codec: Path | None = None


def resolve(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    offline: bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Resolved:
    """Find the file behind `source`, fetch it if it is remote, and check its hash where one is pinned.

    A catalogue entry's file is looked for in the package, in the cache below $STZOO_HOME, in its hub repositories, at
    its https addresses and in STZOO_MIRRORS, in this order; the first that has the pinned sha256 is it.

    Raises:
        UnknownModelError, NotPublishedError, DownloadError, OfflineError, IntegrityError, WeightsError, SpecError.
    """
    text = os.fspath(source)
    means = _Means(environment.offline(offline), None if cache_dir is None else Path(cache_dir).expanduser(), progress)
    if revision is not None and (not text.startswith("hf://") or "@" in text):
        raise WeightsError(f"revision {revision!r} has no meaning for {text!r}; it is for hf:// sources that name none")
    if text.startswith("hf://"):
        repo, named = huggingface.parse(text)
        return _from_repository(repo, named or revision, means)
    if len(text) > 4096:
        raise WeightsError(f"{text[:50]}... is neither a name nor a path")
    path = Path(os.path.expanduser(text))  # os.path: pathlib raises on what no path can be, and this only says so
    if path.suffix == ".safetensors":
        from stzoo.weights import read_spec  # imports torch, which finding and downloading files does without

        if not os.path.isfile(path):
            raise WeightsError(f"{path} does not exist")
        return Resolved(path, read_spec(path), file_sha256(path))
    if os.path.isdir(path) and (isinstance(source, os.PathLike) or os.sep in text or text not in catalog.entries()):
        return _from_folder(path)
    if isinstance(source, os.PathLike) or os.sep in text or text.startswith("."):
        hint = f"; a repository of a hub is hf://{text}" if re.fullmatch(huggingface.REPO, text, re.ASCII) else ""
        raise WeightsError(f"{path} is no folder that save_pretrained wrote{hint}")
    return _from_entry(catalog.info(text), means)


@dataclass(frozen=True)
class _Means:
    """How files that are not here are asked for."""

    offline: bool
    cache_dir: Path | None
    progress: bool

    def from_hub(self, repo: str, revision: str | None, name: str) -> Path:
        return huggingface.fetch(
            repo, revision, name, cache_dir=self.cache_dir, offline=self.offline, progress=self.progress
        )

    def cached(self, weights: WeightsFile) -> Path:
        """Where a file from an https address is kept, under its sha256."""
        return (self.cache_dir or environment.home() / "weights") / f"{weights.sha256}.safetensors"


def _from_entry(entry: Entry, means: _Means) -> Resolved:
    if entry.weights is None:
        name = repr(entry.name)
        random = f"load_codec({name}, pretrained=False)" if entry.kind == "codec" else f"create({name})"
        files = DATASETS[entry.dataset].files if entry.dataset in DATASETS else f"the files of {entry.dataset}"
        raise NotPublishedError(
            f"{entry.name} has no published weights yet; train them with "
            f"`stzoo train {entry.name} --data DIR --out RUN`, where DIR holds {files}; "
            f"or build it with random weights: stzoo.{random}"
        )
    codec = None if entry.codec is None else _codec_file(entry, means)
    return Resolved(_pinned_file(entry.weights, means), entry.spec, entry.weights.sha256, codec)


def _codec_file(entry: Entry, means: _Means) -> Path:
    """The very codec that a modular entry was trained with. Raises `IntegrityError` where its entry now has another."""
    assert entry.codec is not None
    found = _from_entry(catalog.info(entry.codec.entry), means)
    if found.sha256 != entry.codec.sha256:
        raise IntegrityError(
            f"{entry.name} was trained on the codec {entry.codec.entry} with sha256 {entry.codec.sha256}; "
            f"that entry's file has {found.sha256}: its latents mean something else. Install the release that has both"
        )
    return found.path


def _pinned_file(weights: WeightsFile, means: _Means) -> Path:
    """From the first source that has the pinned sha256. Raises the one error that says what each had instead."""
    tried: list[tuple[str, Exception]] = []
    for place, find in _places(weights, means):
        try:
            return find()
        except (WeightsError, OSError) as error:  # a file that may not be read is no reason to give up either
            if isinstance(error, IntegrityError):
                warnings.warn(f"{place}: {error}; trying the next source", stacklevel=5)
            tried.append((place, error))
    listed = "; ".join(f"({i}) {place}: {error}" for i, (place, error) in enumerate(tried, 1))
    kinds = [type(error) for _, error in tried]
    kind = next((k for k in (IntegrityError, OfflineError) if k in kinds), DownloadError)
    remedy = "allow the network, " if kind is OfflineError else ""
    raise kind(
        f"no source has {weights.file} with sha256 {weights.sha256}. Tried, in order: {listed}. To go on, {remedy}"
        f"reinstall stzoo, name a mirror in STZOO_MIRRORS, or put the file at {means.cached(weights)}"
    )


def _places(weights: WeightsFile, means: _Means) -> Iterator[tuple[str, Callable[[], Path]]]:
    """What each source is called, and how it is asked."""
    if "package" in weights.sources:
        yield "the package", partial(_packaged, weights)
    cached = means.cached(weights)
    yield "the cache", partial(_from_cache, cached, weights)
    for source in weights.sources:
        if source.startswith("hf://"):
            yield source, partial(_from_hub, source, weights, means)
    addresses = [s for s in weights.sources if s.startswith("https://")]
    for url in addresses + [f"{base}/{weights.file}" for base in environment.mirrors()]:
        yield without_secrets(url), partial(_from_https, url, cached, weights, means)


def _packaged(weights: WeightsFile) -> Path:
    return _verified(_inside(CHECKPOINTS / weights.file), weights)


def _from_cache(cached: Path, weights: WeightsFile) -> Path:
    try:
        path = _verified(_inside(cached), weights)
    except IntegrityError:
        with suppress(OSError, NotImplementedError):  # a folder that may only be read, or has no locks
            discard(cached, weights.sha256)
        raise
    with suppress(OSError):
        os.utime(path)  # the last use, which `stzoo cache list` shows
    return path


def _from_hub(source: str, weights: WeightsFile, means: _Means) -> Path:
    repo, revision = huggingface.parse(source)
    path = means.from_hub(repo, revision, WEIGHTS_FILE)
    try:
        return _verified(path, weights)
    except IntegrityError:
        huggingface.remove(path)
        raise


def _from_https(url: str, cached: Path, weights: WeightsFile, means: _Means) -> Path:
    if means.offline:
        raise OfflineError("the network is off")
    fetch(url, cached, weights.size, weights.sha256, progress=means.progress)
    return cached


def _inside(path: Path) -> Path:
    """Raises `DownloadError` where there is no such file, or only a link that leads out of its folder."""
    if not path.is_file():
        raise DownloadError(f"{path} is not there")
    if path.resolve().parent != path.parent.resolve():
        raise DownloadError(f"{path} is a link out of its folder to {path.resolve()}; put a copy there instead")
    return path


def _verified(path: Path, weights: WeightsFile) -> Path:
    found = file_sha256(path)
    if found != weights.sha256:
        raise IntegrityError(f"{path} has sha256 {found}, expected {weights.sha256}")
    return path


def _from_repository(repo: str, revision: str | None, means: _Means) -> Resolved:
    """A repository that `push_to_hub` or `stzoo catalog publish` filled."""
    config = means.from_hub(repo, revision, CONFIG_FILE)
    commit = config.parent.name if re.fullmatch(huggingface.COMMIT, config.parent.name) else revision
    weights = means.from_hub(repo, commit, WEIGHTS_FILE)  # of the same commit: the branch may have moved on meanwhile
    sha256 = _check_name(weights)
    _check_config(config)
    found = _from_folder(config.parent, sha256)
    if not has_codec(found.spec):
        return found
    with suppress(huggingface.AbsentError, OfflineError):
        codec = means.from_hub(repo, commit, CODEC_FILE)
        _check_name(codec)
        return replace(found, codec=codec)
    return found


def _check_name(path: Path) -> str:
    """The sha256 of a file, by which a large one is called in huggingface_hub's cache where that has links.

    Raises:
        IntegrityError: its name says another, so the body was not the file's; it is gone.
    """
    named, found = _blob(path), file_sha256(path)
    if re.fullmatch(r"[0-9a-f]{64}", named) and named != found:
        raise IntegrityError(f"{path} has sha256 {found}, expected {named}; {huggingface.remove(path)}")
    return found


def _check_config(path: Path) -> None:
    """Raises `IntegrityError` where a small file, called by the sha1 that git gives it, is neither JSON nor its own."""
    content = _bounded(path)
    try:
        json.loads(content)
    except (ValueError, RecursionError) as error:
        named, git = _blob(path), hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        if named != git.hexdigest():
            raise IntegrityError(f"{path} is damaged ({error}); {huggingface.remove(path)}") from error


def _blob(path: Path) -> str:
    """What a file of huggingface_hub's cache is called there. One step: a blob may link on to a store of all."""
    return Path(os.readlink(path)).name if path.is_symlink() else ""


def _from_folder(folder: Path, sha256: str | None = None) -> Resolved:
    from stzoo.weights import embedded_spec

    config, weights, codec = folder / CONFIG_FILE, folder / WEIGHTS_FILE, folder / CODEC_FILE
    for file in (config, weights):
        if not file.is_file():
            raise WeightsError(
                f"{folder} holds no {file.name}; save_pretrained writes {CONFIG_FILE} and {WEIGHTS_FILE}"
            )
    spec = read_config(config)
    if embedded_spec(weights) not in (None, spec):
        raise SpecError(f"{config} and the spec inside {weights.name} differ; save the model again, into a new folder")
    apart = codec if has_codec(spec) and codec.is_file() else None
    return Resolved(weights, spec, sha256 or file_sha256(weights), apart)


def read_config(path: Path) -> ModelSpec:
    """The spec in a ``config.json``. Raises `SpecError`."""
    try:
        return ModelSpec.from_dict(json.loads(_bounded(path).decode("utf-8")))
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path}: {error}") from error


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_CONFIG + 1)
    if len(content) > MAX_CONFIG:
        raise SpecError(f"{path} has more than {MAX_CONFIG:,} bytes, which no spec has")
    return content
