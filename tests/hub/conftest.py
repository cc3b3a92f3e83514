"""A mirror whose certificate the tests trust, a model to put on a hub, and processes that cost little to start."""

import multiprocessing
import ssl
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import trustme
from hub.server import LoopbackMirror
from hub.shared import CONTENT, Load, Place

import stzoo
from stzoo.forecaster import Forecaster


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Downloaded weights go here."""
    monkeypatch.setenv("STZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def _mirror(authority: trustme.CA) -> Iterator[LoopbackMirror]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = LoopbackMirror(context)
    yield server
    server.close()


@pytest.fixture
def mirror(
    _mirror: LoopbackMirror, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> LoopbackMirror:
    """Empty at first."""
    _mirror.clear()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    return _mirror


@pytest.fixture
def place(mirror: LoopbackMirror, tmp_path: Path) -> Place:
    url = mirror.add("/weights/a.safetensors", CONTENT)
    return Place(mirror, url, tmp_path / "weights" / "a.safetensors")


@pytest.fixture
def files(forecaster: Forecaster, tmp_path: Path) -> dict[str, bytes]:
    """What save_pretrained writes."""
    forecaster.save_pretrained(tmp_path / "saved")
    return {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def load(cache: Path) -> Load:
    """`stzoo.load` with this cache; by default of hf://user/model."""

    def call(source: str = "hf://user/model", **arguments: Any) -> Forecaster:
        return stzoo.load(source, cache_dir=cache, progress=False, **arguments)

    return call


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Children are forked from a process that has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hub.children", "stzoo.weights", "requests", "huggingface_hub.file_download"])
    return context
