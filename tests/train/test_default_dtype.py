"""A program that works in float64 by default: models stay in float32, and forecast and learn as in any other."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from test_several_processes import CONVLSTM, RECIPE, VQVAE, losses, run

import stzoo
from stzoo.forecaster import Forecaster
from stzoo.opening import create
from stzoo.spec import ModelSpec


@pytest.fixture
def float64() -> Iterator[None]:
    """Sets the default to float64 when the test asks for it, and back at its end."""
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("float64")
def test_models_are_made_loaded_and_run_in_float32(forecaster: Forecaster, frames: np.ndarray, tmp_path: Path) -> None:
    expected = forecaster.rollout(frames, 9)
    forecaster.save_pretrained(tmp_path / "saved")
    torch.set_default_dtype(torch.float64)
    loaded = stzoo.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.rollout(frames, 9), expected)
    assert {p.dtype for p in create(forecaster.spec).module.parameters()} == {torch.float32}
    assert torch.get_default_dtype() == torch.float64
    codec = stzoo.load_codec("vqvae-mmnist")
    assert codec.reconstruct(np.zeros((2, 64, 64), np.uint8)).shape == (2, 64, 64)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("spec", [CONVLSTM, VQVAE], ids=["convlstm", "vqvae"])
def test_training_goes_as_with_float32(spec: ModelSpec, tmp_path: Path) -> None:
    run(tmp_path / "plain", spec, RECIPE, 3)
    torch.set_default_dtype(torch.float64)
    run(tmp_path / "other", spec, RECIPE, 3)
    assert losses(tmp_path / "other") == losses(tmp_path / "plain")
