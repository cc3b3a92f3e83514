"""From a source (a catalogue name, a folder, a file, hf://user/repo@revision) to local, verified files and a spec."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stzoo import catalog, environment
from stzoo.addresses import without_secrets
from stzoo.catalog import CODEC_FILE, CONFIG_FILE, WEIGHTS_FILE, Entry, WeightsFile
from stzoo.data import DATASETS
from stzoo.download import discard
from stzoo.download import download as fetch  # `stzoo.download` is the module
from stzoo.errors import DownloadError, IntegrityError, NotPublishedError, OfflineError, SpecError, WeightsError
from stzoo.hashing import Hashed, hashed, open_regular
from stzoo.hub import huggingface
from stzoo.spec import ModelSpec
from stzoo.spec import shown as shown_value

if TYPE_CHECKING:
    from stzoo.tensorfile import TensorFile

MAX_CONFIG = 1 << 20  # bytes that a config.json may have
_CHECKPOINTS = (".pth", ".pt", ".ckpt", ".tar", ".bin", ".pkl")  # suffixes that PyTorch's users give files
MAX_SOURCE = 4096  # characters that a source may have: no path is longer


@dataclass(frozen=True)
class Resolved:
    """The files of a model on this machine.

    Attributes:
        path: the safetensors file.
        spec: the spec that belongs to it.
        sha256: of `path`, 64 hexadecimal digits, computed when the file was found. Whoever loads the file checks that
            the bytes loaded have it.
        codec: the file of a modular model's codec, if `path` does not hold the codec itself; otherwise None.
        codec_sha256: of `codec`; None if there is no such file.
        known: by path, the files as they were when they were hashed. It spares the loader a second look at small files,
            and is left out when this object is pickled.
        held: `path` as it was read whole, if it was, for the first loader to take: the tensors become the module's own.
            It is left out when this object is pickled.
    """

    path: Path
    spec: ModelSpec
    sha256: str
    codec: Path | None = None
    codec_sha256: str | None = None
    known: Mapping[Path, Hashed] = field(default_factory=dict, repr=False, compare=False)
    held: list[TensorFile] = field(default_factory=list, repr=False, compare=False)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"known": {}, "held": []}


def resolve(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    offline: bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Resolved:
    """Find the file of a source, download it if it is remote, and check its hash if one is pinned.

    The file of a catalogue entry is looked for in the package, then in the cache below $STZOO_HOME, in the entry's hub
    repositories, at its https addresses and at the mirrors in STZOO_MIRRORS. The first file that has the pinned sha256
    is taken.

    Args:
        source: a catalogue name, a folder that `save_pretrained` wrote, a `.safetensors` file that carries its spec,
            or "hf://user/repo@revision".
        revision: the branch, tag or commit of an hf:// source that names none itself.
        offline: True opens no socket; None follows STZOO_OFFLINE and HF_HUB_OFFLINE.
        cache_dir: where downloads are kept, instead of huggingface_hub's cache and `weights` below $STZOO_HOME.
        progress: show a bar while a file is downloaded.

    Raises:
        UnknownModelError: the catalogue has no such entry.
        NotPublishedError: the entry has no weights yet; the message holds the command that trains them.
        DownloadError: a remote source cannot be read. OfflineError: the file is not here and the network is off.
        IntegrityError: no source has a file with the pinned sha256.
        WeightsError: `source` is neither text nor a path, leads to no model, or has a revision that means nothing.
        SpecError: the spec beside the weights or inside them is wrong.
    """
    text = source_text(source)
    cache = None if cache_dir is None else Path(os.path.expanduser(cache_dir))  # which leaves a user alone who is none
    means = _Means(environment.offline(offline), cache, progress)
    if revision is not None and (not text.startswith("hf://") or "@" in text):
        raise WeightsError(
            f"revision {revision!r} has no meaning for {text!r}; give one only with an hf:// source that names none"
        )
    if text.startswith("hf://"):
        repo, named = huggingface.parse(text)
        return _from_repository(repo, named or revision, means)
    if len(text) > MAX_SOURCE:
        raise WeightsError(f"{text[:50]}... is neither a name nor a path")
    path = Path(os.path.expanduser(text))  # pathlib would raise on text that can be no path
    if path.suffix == ".safetensors":
        return _from_file(path)
    if os.path.isdir(path) and (isinstance(source, os.PathLike) or os.sep in text or text not in catalog.entries()):
        return _from_folder(path)
    if os.path.isfile(path) and (isinstance(source, os.PathLike) or text not in catalog.entries()):
        raise WeightsError(f"{path} is no model; {_remedy(path)}")
    if isinstance(source, os.PathLike) or os.sep in text or text.startswith("."):
        hint = (
            f"; for a repository of a hub write hf://{text}" if re.fullmatch(huggingface.REPO, text, re.ASCII) else ""
        )
        raise WeightsError(f"{path} is no folder that save_pretrained wrote{hint}")
    return _from_entry(catalog.info(text), means)


def _remedy(file: Path) -> str:
    """What to do with a file that is not safetensors."""
    if file.suffix.lower() in _CHECKPOINTS:
        return (
            "a checkpoint of PyTorch is converted first, and the folder DIR is loaded then: stzoo convert openstl "
            f"{shlex.quote(str(file))} --dataset NAME --out DIR"
        )
    return "it is a file, and a model is a name that `stzoo list` shows, a folder or a .safetensors file"


def source_text(source: str | os.PathLike[str]) -> str:
    """A source as text. Raises `WeightsError` if it is neither text nor a path, and says what it may be."""
    text = os.fspath(source) if isinstance(source, os.PathLike) else source
    if not isinstance(text, str):
        raise WeightsError(
            f"the source is {shown_value(source)}; it may be a name in the catalogue, a folder that save_pretrained "
            "wrote, a .safetensors file, or hf://user/repo@revision"
        )
    return text


@dataclass(frozen=True)
class _Means:
    """How to get files that are not on this machine."""

    offline: bool
    cache_dir: Path | None
    progress: bool

    def from_hub(self, repo: str, revision: str | None, name: str) -> Path:
        return huggingface.fetch(
            repo, revision, name, cache_dir=self.cache_dir, offline=self.offline, progress=self.progress
        )

    def cached(self, weights: WeightsFile) -> Path:
        """Where a file from an https address is kept: its name is its sha256."""
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
    return _resolved(entry.spec, _pinned_file(entry.weights, means), codec)


def _resolved(spec: ModelSpec, file: Hashed, codec: Hashed | None = None) -> Resolved:
    known = {each.path: each for each in (file, codec) if each is not None}
    if codec is None:
        return Resolved(file.path, spec, file.sha256, known=known)
    return Resolved(file.path, spec, file.sha256, codec.path, codec.sha256, known)


def _codec_file(entry: Entry, means: _Means) -> Hashed:
    """The codec that a modular entry was trained with. Raises `IntegrityError` if the codec's entry has another now."""
    assert entry.codec is not None
    resolved = _from_entry(catalog.info(entry.codec.entry), means)
    found = resolved.known[resolved.path]
    if found.sha256 != entry.codec.sha256:
        raise IntegrityError(
            f"{entry.name} was trained on the codec {entry.codec.entry} with sha256 {entry.codec.sha256}; "
            f"that entry's file now has {found.sha256}, so its latents differ. Install the release that has both files"
        )
    return found


def _pinned_file(weights: WeightsFile, means: _Means) -> Hashed:
    """The file of the first source that has the pinned sha256. Raises one error that says what each source had."""
    tried: list[tuple[str, Exception]] = []
    for place, find in _places(weights, means):
        try:
            return find()
        except (WeightsError, OSError) as error:  # OSError: a file that this user may not read
            if isinstance(error, IntegrityError):
                warnings.warn(f"{place}: {error}; trying the next source", stacklevel=5)
            tried.append((place, error))
    kinds = [type(error) for _, error in tried]
    kind = next((k for k in (IntegrityError, OfflineError) if k in kinds), DownloadError)
    remedy = "allow the network, " if kind is OfflineError else ""
    raise kind(
        f"no source has {weights.file} with sha256 {weights.sha256}. Tried, in order: {listed(tried)}. "
        f"To go on, {remedy}reinstall stzoo, name a mirror in STZOO_MIRRORS, or put the file at {means.cached(weights)}"
    )


def listed(tried: list[tuple[str, Exception]]) -> str:
    """What was wrong with each of the places that were tried, in order. No error repeats its place at its beginning."""
    told = [str(error).removeprefix(f"cannot fetch {place}: ").removeprefix(f"{place} ") for place, error in tried]
    return "; ".join(f"({i}) {place}: {text}" for i, ((place, _), text) in enumerate(zip(tried, told, strict=True), 1))


def _places(weights: WeightsFile, means: _Means) -> Iterator[tuple[str, Callable[[], Hashed]]]:
    """The name of each source, for messages, and the function that gets the file from it."""
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


def _packaged(weights: WeightsFile) -> Hashed:
    return _verified(_inside(catalog.CHECKPOINTS / weights.file), weights)


def _from_cache(cached: Path, weights: WeightsFile) -> Hashed:
    try:
        file = _verified(_inside(cached), weights)
    except IntegrityError:
        with suppress(OSError, NotImplementedError):  # a read-only folder, or one without locks
            discard(cached, weights.sha256)
        raise
    with suppress(OSError):
        os.utime(cached)  # the time of the last use, which `stzoo cache list` shows
    return file


def _from_hub(source: str, weights: WeightsFile, means: _Means) -> Hashed:
    repo, revision = huggingface.parse(source)
    path = means.from_hub(repo, revision, WEIGHTS_FILE)
    try:
        return _verified(path, weights)
    except IntegrityError:
        huggingface.remove(path)
        raise


def _from_https(url: str, cached: Path, weights: WeightsFile, means: _Means) -> Hashed:
    if means.offline:
        raise OfflineError("the network is off")
    fetch(url, cached, weights.size, weights.sha256, progress=means.progress)
    return _verified(cached, weights)


def _inside(path: Path) -> Path:
    """`path` itself. Raises `DownloadError` if it is no file, or a link that leads out of its folder."""
    if not path.is_file():
        raise DownloadError(f"{path} is not there")
    if path.resolve().parent != path.parent.resolve():
        raise DownloadError(f"{path} is a link out of its folder to {path.resolve()}; put a copy there instead")
    return path


def _verified(path: Path, weights: WeightsFile) -> Hashed:
    file = hashed(path)
    if file.sha256 != weights.sha256:
        raise IntegrityError(f"{path} has sha256 {file.sha256}, expected {weights.sha256}")
    return file


def _from_repository(repo: str, revision: str | None, means: _Means) -> Resolved:
    """The model in a repository that `push_to_hub` or `stzoo catalog publish` filled."""
    config = means.from_hub(repo, revision, CONFIG_FILE)
    commit = config.parent.name if re.fullmatch(huggingface.COMMIT, config.parent.name) else revision
    weights = means.from_hub(repo, commit, WEIGHTS_FILE)  # the same commit: the branch may have moved on
    file = _check_name(weights)
    content = _config_bytes(config)
    _check_config(config, content)
    spec = _agreed_spec(config, content, file)
    if _is_modular(spec):
        try:
            return _resolved(spec, file, _check_name(means.from_hub(repo, commit, CODEC_FILE)))
        except huggingface.AbsentError:
            pass
        except OfflineError:
            if not _holds_codec(file):
                raise
    return _resolved(spec, file)


def _holds_codec(file: Hashed) -> bool:
    """Whether the weights of a modular model hold its codec, too."""
    from stzoo.tensorfile import names_in
    from stzoo.weights import CODEC_PREFIX

    return any(name.startswith(CODEC_PREFIX) for name in names_in(file))


def _check_name(path: Path) -> Hashed:
    """A file in huggingface_hub's cache, hashed.

    If that cache has links, a large file is called by its sha256 there.

    Raises:
        IntegrityError: the name says another sha256, so the download was damaged; the file has been removed.
    """
    named, file = _blob(path), _read(path)
    if re.fullmatch(r"[0-9a-f]{64}", named) and named != file.sha256:
        raise IntegrityError(f"{path} has sha256 {file.sha256}, expected {named}; {huggingface.remove(path)}")
    return file


def _check_config(path: Path, content: bytes) -> None:
    """Raises `IntegrityError` if a config.json is not JSON and not the file that the hub has.

    A small file is called by git's sha1 of its content in huggingface_hub's cache.
    """
    try:
        json.loads(content)
    except (ValueError, RecursionError) as error:
        named, git = _blob(path), hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        if named != git.hexdigest():
            raise IntegrityError(f"{path} is damaged ({error}); {huggingface.remove(path)}") from error


def _blob(path: Path) -> str:
    """The name of the blob that a file of huggingface_hub's cache links to; "" if the file is no link.

    One link is followed: a blob may itself be a link, to a store that repositories share.
    """
    return Path(os.readlink(path)).name if path.is_symlink() else ""


def _from_file(path: Path) -> Resolved:
    """A safetensors file that stands alone."""
    from stzoo.weights import SPEC_KEY, embedded_spec  # imports torch, which finding and downloading do not need

    if not os.path.isfile(path):
        raise WeightsError(f"{path} does not exist")
    file = _read(path)
    spec = embedded_spec(file)
    if spec is None:
        raise WeightsError(
            f"{path} names no model: its metadata has no {SPEC_KEY!r}; load the folder that holds its config.json"
        )
    return _resolved(spec, file)


def _from_folder(folder: Path) -> Resolved:
    """The model in a folder that `save_pretrained` wrote."""
    from stzoo.weights import NEXT_CONFIG_FILE, embedded_spec

    config, weights, codec = folder / CONFIG_FILE, folder / WEIGHTS_FILE, folder / CODEC_FILE
    pending = folder / NEXT_CONFIG_FILE
    for needed, there in ((config, config.is_file() or pending.is_file()), (weights, weights.is_file())):
        if not there:
            raise _incomplete(folder, needed)
    file = _read(weights)
    if pending.is_file():
        with suppress(OSError, SpecError):
            spec = read_config(pending)
            if spec == embedded_spec(file):  # a save was killed after its weights had their name
                return _with_codec(spec, file, codec)
    if not config.is_file():
        raise _incomplete(folder, config)
    return _with_codec(_agreed_spec(config, _config_bytes(config), file), file, codec)


def _incomplete(folder: Path, needed: Path) -> WeightsError:
    best = folder / "best"
    where = f"; those of this training run are in {best}" if (best / WEIGHTS_FILE).is_file() else ""
    return WeightsError(f"{folder} holds no {needed.name}; a saved model has {CONFIG_FILE} and {WEIGHTS_FILE}{where}")


def _with_codec(spec: ModelSpec, file: Hashed, codec: Path) -> Resolved:
    return _resolved(spec, file, _read(codec) if codec.is_file() and _is_modular(spec) else None)


def _agreed_spec(config: Path, content: bytes, weights: Hashed) -> ModelSpec:
    """The spec in a config.json. Raises `SpecError` if it is wrong, or is not the one inside the weights."""
    from stzoo.weights import embedded_spec

    spec = _parsed(config, content)
    if embedded_spec(weights) not in (None, spec):
        raise SpecError(
            f"{config} and the spec inside {weights.path.name} differ; save the model again, into a new folder"
        )
    return spec


def _is_modular(spec: ModelSpec) -> bool:
    """Whether a codec is a part of the model, which may then lie in a file of its own."""
    from stzoo.models import architecture_of

    return architecture_of(spec).kind == "modular"


def read_config(path: Path) -> ModelSpec:
    """The spec in a ``config.json``.

    Raises:
        SpecError: the file is too large, is not JSON, or holds no spec. OSError: it cannot be read.
    """
    return _parsed(path, _bounded(path))


def _parsed(path: Path, content: bytes) -> ModelSpec:
    try:
        return ModelSpec.from_dict(json.loads(content.decode("utf-8")))
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path}: {error}") from error


def _config_bytes(path: Path) -> bytes:
    try:
        return _bounded(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error


def _read(path: Path) -> Hashed:
    """A file of weights, hashed. Raises `WeightsError` if it cannot be read."""
    try:
        return hashed(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {error}") from error


def _bounded(path: Path) -> bytes:
    with open_regular(path) as (file, _), io.BufferedReader(file) as reader:
        content = reader.read(MAX_CONFIG + 1)
    if len(content) > MAX_CONFIG:
        raise SpecError(f"{path} has more than {MAX_CONFIG:,} bytes; a spec is smaller")
    return content
