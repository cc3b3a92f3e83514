"""A source (catalogue name, folder, file, hf://user/repo@revision) -> a local, verified file and its spec."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from stzoo import catalog
from stzoo.catalog import CHECKPOINTS, Entry
from stzoo.data import DATASETS
from stzoo.errors import DownloadError, IntegrityError, NotPublishedError, OfflineError, SpecError, WeightsError
from stzoo.spec import ModelSpec
from stzoo.weights import CONFIG_FILE, WEIGHTS_FILE, embedded_spec, read_spec


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

    Raises:
        UnknownModelError, NotPublishedError, DownloadError, OfflineError, IntegrityError, WeightsError, SpecError.
    """
    text = os.fspath(source)
    fetch = _Fetch(_offline(offline), None if cache_dir is None else Path(cache_dir), progress)
    if revision is not None and (not text.startswith("hf://") or "@" in text):
        raise WeightsError(f"revision {revision!r} has no meaning for {text!r}; it is for hf:// sources that name none")
    if text.startswith("hf://"):
        repo, named = _parse_hf(text)
        return _from_folder(fetch.repo(repo, named or revision))
    path = Path(text).expanduser()
    if len(path.name.encode()) > 255:  # no file system has such a name, and asking for it raises
        raise WeightsError(f"{text[:50]}... is neither a name nor a path")
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise WeightsError(f"{path} does not exist")
        return Resolved(path, read_spec(path), file_sha256(path))
    if path.is_dir() and (isinstance(source, os.PathLike) or os.sep in text or text not in catalog.entries()):
        return _from_folder(path)
    if isinstance(source, os.PathLike) or os.sep in text or text.startswith("."):
        raise WeightsError(f"{path} is no folder that save_pretrained wrote")
    return _from_entry(catalog.info(text), fetch)


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class _Fetch:
    """How remote files are asked for."""

    offline: bool
    cache_dir: Path | None
    progress: bool

    def repo(self, repo: str, revision: str | None) -> Path:
        """A folder with the repository's config.json and model.safetensors."""
        self.file(repo, revision, CONFIG_FILE)
        return self.file(repo, revision, WEIGHTS_FILE).parent

    def file(self, repo: str, revision: str | None, name: str) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
        from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

        shown = not are_progress_bars_disabled()
        if shown and not self.progress:
            disable_progress_bars()
        try:
            return Path(
                hf_hub_download(repo, name, revision=revision, cache_dir=self.cache_dir, local_files_only=self.offline)
            )
        except LocalEntryNotFoundError as error:
            if self.offline:
                raise OfflineError(f"{repo} has no {name} in the local cache, and the network is off") from error
            raise DownloadError(f"cannot reach the hub for {repo}/{name}: {error}") from error
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise DownloadError(f"cannot fetch {name} of {repo}: {error}") from error
        finally:
            if shown and not self.progress:
                enable_progress_bars()


def _from_entry(entry: Entry, fetch: _Fetch) -> Resolved:
    """The first source of a catalogue entry that has the pinned file."""
    if entry.weights is None:
        name = repr(entry.name)
        random = f"load_codec({name}, pretrained=False)" if entry.kind == "codec" else f"create({name})"
        files = DATASETS[entry.dataset].files if entry.dataset in DATASETS else f"the files of {entry.dataset}"
        raise NotPublishedError(
            f"{entry.name} has no published weights yet; train them with "
            f"`stzoo train {entry.name} --data DIR --out RUN`, where DIR holds {files}; "
            f"or build it with random weights: stzoo.{random}"
        )
    codec = None if entry.codec is None else _codec_file(entry, fetch)
    packaged = CHECKPOINTS / entry.weights.file
    if "package" in entry.weights.sources and packaged.is_file():
        return Resolved(packaged, entry.spec, _verified(packaged, entry), codec)
    for source in entry.weights.sources:
        if source.startswith("hf://"):
            repo, revision = _parse_hf(source)
            path = fetch.file(repo, revision, entry.weights.file)
            return Resolved(path, entry.spec, _verified(path, entry), codec)
    raise WeightsError(f"{entry.weights.file} is not in this installation, and has no other source; reinstall stzoo")


def _codec_file(entry: Entry, fetch: _Fetch) -> Path:
    """The very codec that a modular entry was trained with. Raises `IntegrityError` where its entry now has another."""
    assert entry.codec is not None
    found = _from_entry(catalog.info(entry.codec.entry), fetch)
    if found.sha256 != entry.codec.sha256:
        raise IntegrityError(
            f"{entry.name} was trained on the codec {entry.codec.entry} with sha256 {entry.codec.sha256}; "
            f"that entry's file has {found.sha256}: its latents mean something else. Install the release that has both"
        )
    return found.path


def _verified(path: Path, entry: Entry) -> str:
    """The file's sha256, equal to the pinned one. A downloaded file that differs is removed."""
    assert entry.weights is not None
    found = file_sha256(path)
    if found == entry.weights.sha256:
        return found
    if path.parent == CHECKPOINTS:
        remedy = "reinstall stzoo"
    else:
        for file in {path, path.resolve()}:  # huggingface_hub links a snapshot to its blob
            file.unlink(missing_ok=True)
        remedy = "it has been removed; load again to fetch it anew"
    raise IntegrityError(f"{path} has sha256 {found}, expected {entry.weights.sha256}; {remedy}")


def _from_folder(folder: Path) -> Resolved:
    config, weights = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    for file in (config, weights):
        if not file.is_file():
            raise WeightsError(
                f"{folder} holds no {file.name}; save_pretrained writes {CONFIG_FILE} and {WEIGHTS_FILE}"
            )
    try:
        spec = ModelSpec.from_dict(json.loads(config.read_text("utf-8")))
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{config}: {error}") from error
    if embedded_spec(weights) not in (None, spec):
        raise SpecError(f"{config} and the spec inside {weights.name} differ; save the model again, into a new folder")
    return Resolved(weights, spec, file_sha256(weights))


def _parse_hf(source: str) -> tuple[str, str | None]:
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", source)
    if match is None:
        raise WeightsError(f"{source!r} is no hub source; write hf://user/repo or hf://user/repo@revision")
    return match[1], match[2]


def _offline(asked: bool | None) -> bool:
    if asked is not None:
        return asked
    return any(
        os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON") for name in ("STZOO_OFFLINE", "HF_HUB_OFFLINE")
    )
