"""torch.hub on this checkout, as a user of ``source="local"`` sees it."""

import ast
import importlib.util
from pathlib import Path

import pytest
import torch

import stzoo
from stzoo.forecaster import Forecaster

ROOT = Path(__file__).parent.parent


def test_every_model_has_an_entry_point_that_reads_well() -> None:
    place = importlib.util.spec_from_file_location("hubconf_listed", ROOT / "hubconf.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    listed = [n for n in dir(module) if callable(getattr(module, n)) and not n.startswith("_")]
    assert listed == sorted(name.replace("-", "_") for name in stzoo.list_models(kind="forecaster"))
    assert stzoo.info("tau-mmnist").summary in module.tau_mmnist.__doc__
    assert "pretrained (bool)" in module.tau_mmnist.__doc__


def test_dependencies_are_import_names() -> None:
    tree = ast.parse((ROOT / "hubconf.py").read_text())
    (names,) = [
        ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "dependencies"
    ]
    assert all(importlib.util.find_spec(name) for name in names)


@pytest.mark.parametrize("pretrained", [True, False])
def test_local_loading(pretrained: bool) -> None:
    model = torch.hub.load(str(ROOT), "tau_mmnist", source="local", pretrained=pretrained)
    assert isinstance(model, Forecaster)
    assert ("random weights" in repr(model)) is not pretrained
