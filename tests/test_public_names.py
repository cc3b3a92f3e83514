"""What `import stzoo` offers: every name and room is there, and none costs torch before it is used."""

import subprocess
import sys
from importlib import import_module

import pytest

import stzoo


@pytest.mark.parametrize("name", sorted(set(dir(stzoo)) - {"__version__"}))
def test_a_public_name_is_there(name: str) -> None:
    assert name.startswith("_") or getattr(stzoo, name) is not None


def test_rooms_are_attributes() -> None:
    for name in ("train", "scale"):
        assert getattr(stzoo, name) is import_module(f"stzoo.{name}")
    assert callable(stzoo.train.train)
    assert callable(stzoo.train.fine_tune)
    assert callable(stzoo.scale.forecast_archive)


def test_a_name_that_is_not_there_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'stzoo' has no attribute 'forecasting'"):
        _ = stzoo.forecasting


def test_importing_costs_no_torch_and_a_room_is_imported_when_it_is_used() -> None:
    code = """
import sys
import stzoo
dir(stzoo), stzoo.list_models(), stzoo.scale
assert not {"torch", "numpy", "matplotlib"} & set(sys.modules)
stzoo.train.train
assert "torch" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
