"""Shared fixtures. Real data is used where STZOO_DATA names its folder; the tests that need it skip elsewhere."""

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from stzoo.forecaster import Forecaster, create
from stzoo.spec import ModelSpec

hypothesis.settings.register_profile("stzoo", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("stzoo")  # never a time in a test: machines are shared

SMALL = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2}


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
