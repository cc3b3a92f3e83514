"""Shared fixtures. Real data is used where STZOO_DATA names its folder; the tests that need it skip elsewhere."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hub.hf_server import LoopbackHub

from stzoo.forecaster import Forecaster
from stzoo.opening import create
from stzoo.spec import ModelSpec

hypothesis.settings.register_profile("stzoo", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("stzoo")  # never a time in a test: machines are shared

HUB, HOME = pytest.StashKey[LoopbackHub](), pytest.StashKey[str]()
PERSONAL = (  # of whoever runs the tests, and no business of theirs
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE", "STZOO_OFFLINE", "STZOO_MIRRORS",
)  # fmt: skip

SMALL = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2}


def pytest_configure(config: pytest.Config) -> None:
    """No test reads or writes the user's caches, or talks to another hub than the one on loopback.

    This is done here because huggingface_hub reads its environment once, when it is imported.
    """
    assert "huggingface_hub" not in sys.modules
    config.stash[HUB], config.stash[HOME] = LoopbackHub(), tempfile.mkdtemp(prefix="stzoo-tests-")
    for name in PERSONAL:
        os.environ.pop(name, None)
    os.environ |= {
        "HF_ENDPOINT": config.stash[HUB].url,
        "HF_HOME": f"{config.stash[HOME]}/huggingface",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",  # a protocol of its own, which the hub on loopback does not speak
        "HF_HUB_ETAG_TIMEOUT": "5",
        "HF_HUB_DOWNLOAD_TIMEOUT": "3",
        "NO_PROXY": "127.0.0.1",
        "STZOO_HOME": f"{config.stash[HOME]}/stzoo",
    }
    if "PYTEST_XDIST_WORKER" in os.environ:  # small models wait for a second thread longer than that computes
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[HUB].close()
    shutil.rmtree(config.stash[HOME], ignore_errors=True)


@pytest.fixture
def hub_server(request: pytest.FixtureRequest) -> Iterator[LoopbackHub]:
    """The hub that HF_ENDPOINT names, empty at first."""
    server = request.config.stash[HUB]
    server.clear()
    yield server
    server.clear()


@pytest.fixture(scope="session")
def mnist() -> Path:
    folder = Path(os.environ.get("STZOO_DATA", "")) / "mnist"
    if not folder.is_dir():
        pytest.skip("set STZOO_DATA to a folder that holds mnist/ to run this test")
    return folder


@pytest.fixture
def spec() -> ModelSpec:
    return ModelSpec(arch="tau", frames_in=4, frames_out=4, channels=1, height=16, width=16, params=SMALL)


@pytest.fixture
def forecaster(spec: ModelSpec) -> Forecaster:
    """Random weights, shifted so that forecasts spread over [0, 1] and somewhat beyond."""
    torch.manual_seed(0)
    model = create(spec)
    with torch.no_grad():
        model.module.decoder.readout.bias.fill_(0.4)
    return model


@pytest.fixture
def frames() -> np.ndarray:
    """(6, 16, 16) uint8 noise."""
    return np.random.default_rng(0).integers(0, 256, (6, 16, 16), dtype=np.uint8)
