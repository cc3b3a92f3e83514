from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Decoded frames go here, never into the user's home."""
    monkeypatch.setenv("STZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "frames"
