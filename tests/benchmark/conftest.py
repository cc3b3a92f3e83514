from pathlib import Path

import pytest

from stzoo.forecaster import Forecaster


@pytest.fixture
def saved(forecaster: Forecaster, tmp_path: Path) -> Path:
    forecaster.save_pretrained(tmp_path / "model")
    return tmp_path / "model"
