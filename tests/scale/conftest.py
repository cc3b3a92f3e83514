from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scale.shared import field

from stzoo.forecaster import Forecaster
from stzoo.frames import write

pd = pytest.importorskip("pandas")


@pytest.fixture
def model(tmp_path: Path, forecaster: Forecaster) -> Path:
    """A folder that `load` opens; it reads 4 frames of 16x16."""
    forecaster.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Seven clips of several kinds and sizes, below one folder; one of them is damaged, and one file is no clip."""
    folder = tmp_path / "clips"
    (folder / "deep" / "er").mkdir(parents=True)
    random = np.random.default_rng(1)
    for name in ("one", "two"):
        np.save(folder / f"{name}.npy", random.integers(0, 256, (6, 16, 16), dtype=np.uint8))
    np.save(folder / "deep" / "large.npy", random.random((5, 1, 24, 32), dtype=np.float32))
    pictures = [Image.fromarray(random.integers(0, 256, (20, 40), dtype=np.uint8)) for _ in range(9)]
    write(folder / "deep" / "moving.gif", pictures)
    write(folder / "deep" / "er" / "pictures", pictures[:6])
    (folder / "broken.npy").write_bytes(b"no array")
    hours = pd.date_range("2020-01-01", periods=5, freq="h")
    field(5).assign_coords(time=hours).to_netcdf(folder / "field.nc")
    (folder / "README.txt").write_text("not a clip")
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """30 hours, of which one has a hole."""
    whole = field(30)
    whole[20, 3, 3] = np.nan
    whole.to_netcdf(tmp_path / "archive.nc")
    return tmp_path / "archive.nc"
