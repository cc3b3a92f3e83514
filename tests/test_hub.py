"""Sources, and huggingface_hub itself against a small server on loopback."""

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

import stzoo
from stzoo import catalog, hub
from stzoo.errors import DownloadError, IntegrityError, NotPublishedError, OfflineError, UnknownModelError, WeightsError
from stzoo.forecaster import Forecaster
from stzoo.weights import half_precision, save_weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def server(forecaster: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The resolve protocol of a hub that holds one repository, user/model, of this forecaster."""
    forecaster.save_pretrained(tmp_path / "repo")
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            requests.append(self.path)
            match = re.fullmatch(r"/user/model/resolve/(main|" + COMMIT + r")/([\w.]+)", self.path)
            file = tmp_path / "repo" / match[2] if match else None
            if file is None or not file.is_file():
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound" if match else "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = file.read_bytes()
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{running.server_port}"
    import huggingface_hub.constants
    import huggingface_hub.file_download

    for module in (huggingface_hub.constants, huggingface_hub.file_download):
        for name, value in (("ENDPOINT", endpoint), ("HF_HUB_ETAG_TIMEOUT", 5)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield requests
    running.shutdown()


def test_a_hub_repository_loads_at_its_commit(
    server: list[str], forecaster: Forecaster, frames: np.ndarray, tmp_path: Path
) -> None:
    for source in (f"hf://user/model@{COMMIT}", "hf://user/model"):
        loaded = stzoo.load(source, cache_dir=tmp_path / "cache", progress=False)
        np.testing.assert_array_equal(loaded.predict(frames), forecaster.predict(frames))
    seen = len(server)
    stzoo.load(f"hf://user/model@{COMMIT}", cache_dir=tmp_path / "cache", offline=True)
    assert len(server) == seen  # offline opens no connection


def test_what_a_hub_lacks_is_a_download_error(server: list[str], tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="other/model"):
        stzoo.load("hf://other/model", cache_dir=tmp_path, progress=False)
    with pytest.raises(OfflineError, match="not in|no config.json in the local cache"):
        stzoo.load("hf://user/model", cache_dir=tmp_path, offline=True)


@pytest.fixture
def packaged(forecaster: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue of one entry, whose checkpoint is this forecaster's."""
    file = tmp_path / "one.safetensors"
    save_weights(file, forecaster.spec, half_precision(forecaster.module.state_dict()))
    entry = catalog.Entry(
        name="one", summary="", dataset="", spec=forecaster.spec, license="", data_terms="", citation="",
        weights=catalog.WeightsFile(
            file=file.name, size=file.stat().st_size, sha256=hub.file_sha256(file), sources=("package",)
        ),
    )  # fmt: skip
    monkeypatch.setattr(catalog, "entries", lambda: MappingProxyType({"one": entry}))
    monkeypatch.setattr(hub, "CHECKPOINTS", tmp_path)
    return file


def test_a_catalogue_name_loads_the_packaged_file(packaged: Path) -> None:
    model = stzoo.load("one")
    assert model.report.sha256 == hub.file_sha256(packaged)
    assert "float16" in repr(model)


def test_one_flipped_bit_is_found(packaged: Path) -> None:
    content = bytearray(packaged.read_bytes())
    content[-1] ^= 1
    packaged.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"sha256 .*, expected .*; reinstall"):
        stzoo.load("one")
    packaged.unlink()
    with pytest.raises(WeightsError, match="not in this installation"):
        stzoo.load("one")


def test_no_random_weights_under_a_pretrained_name() -> None:
    with pytest.raises(NotPublishedError, match="stzoo train tau-mmnist-paper"):
        stzoo.load("tau-mmnist-paper")
    assert "random weights" in repr(stzoo.load("tau-mmnist", pretrained=False))


def test_sources_that_are_none(tmp_path: Path) -> None:
    for source, error, message in (
        ("hf://nobody", WeightsError, "no hub source"),
        (tmp_path / "nothing", WeightsError, "no folder"),
        ("./nothing", WeightsError, "no folder"),
        (tmp_path / "a.safetensors", WeightsError, "does not exist"),
        (tmp_path, WeightsError, "holds no config.json"),
        ("nothing", UnknownModelError, "no model"),
        ("x" * 5000, WeightsError, "neither a name nor a path"),
    ):
        with pytest.raises(error, match=message):
            stzoo.load(source)


@pytest.mark.parametrize("source", ["tau-mmnist", "./folder", f"hf://user/model@{COMMIT}"])
def test_a_revision_is_never_silently_ignored(source: str) -> None:
    with pytest.raises(WeightsError, match="revision 'v2' has no meaning"):
        stzoo.load(source, revision="v2")


def test_offline_by_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STZOO_OFFLINE", "1")
    with pytest.raises(OfflineError):
        stzoo.load("hf://user/model", cache_dir=tmp_path)


def test_a_catalogue_source_is_pinned_by_commit() -> None:
    with pytest.raises(stzoo.StzooError, match="40 hex"):
        catalog.WeightsFile(file="a.safetensors", size=1, sha256="0" * 64, sources=("hf://a/b@main",))
