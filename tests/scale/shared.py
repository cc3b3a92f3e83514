"""What the tests of bulk forecasting share."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

xr = pytest.importorskip("xarray", reason="the extra `array` is not installed")
pd = pytest.importorskip("pandas")


def field(frames: int) -> Any:
    """Hours of float32 in [0, 1], with coordinates of every sort."""
    return xr.DataArray(
        np.random.default_rng(2).random((frames, 16, 16), dtype=np.float32),
        dims=("time", "latitude", "longitude"),
        name="t2m",
        attrs={"units": "1", "valid_max": np.float32(1)},
        coords={
            "time": ("time", pd.date_range("2019-02-28T20", periods=frames, freq="h"), {"long_name": "valid time"}),
            "latitude": ("latitude", np.linspace(58, 50, 16), {"units": "degrees_north"}),
            "longitude": np.arange(16),
            "area": (("latitude", "longitude"), np.ones((16, 16))),
            "step": 0,
            "age": ("time", np.arange(frames)),
        },
    )


def written(folder: Path) -> dict[str, bytes]:
    """Every byte that a run came to, by file; but not its plan and its markers."""
    names = [
        p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).parts[0] not in ("done", "plan.json")
    ]
    return {str(p.relative_to(folder)): p.read_bytes() for p in names}
