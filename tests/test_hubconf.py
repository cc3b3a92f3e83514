"""torch.hub on this checkout, as a user of ``source="local"`` sees it."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
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
    names = [*stzoo.list_models(kind="forecaster"), *stzoo.list_published()]
    assert listed == sorted(name.replace("-", "_").replace(".", "_") for name in names)
    assert "TAU on kth, as OpenSTL published it (tau-kth.openstl-ep100)" in module.tau_kth_openstl_ep100.__doc__
    assert stzoo.info("tau-mmnist").summary in module.tau_mmnist.__doc__
    assert "pretrained (bool)" in module.tau_mmnist.__doc__


def test_dependencies_are_import_names() -> None:
    tree = ast.parse((ROOT / "hubconf.py").read_text())
    (names,) = [
        ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "dependencies"
    ]
    assert all(importlib.util.find_spec(name) for name in names)
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "stzoo").rglob("*.py"))
    assert [name for name in names if not re.search(rf"^ *(import|from) {name}\b", code, re.MULTILINE)] == []


@pytest.mark.parametrize("pretrained", [True, False])
def test_local_loading(pretrained: bool) -> None:
    model = torch.hub.load(str(ROOT), "tau_mmnist", source="local", pretrained=pretrained)
    assert isinstance(model, Forecaster)
    assert ("random weights" in repr(model)) is not pretrained
    with pytest.raises(stzoo.StzooError, match="device is 'tpu9'"):
        torch.hub.load(str(ROOT), "tau_mmnist", source="local", pretrained=pretrained, device="tpu9")
    again = torch.hub.load(str(ROOT), "tau_mmnist", source="local", pretrained=pretrained, device=torch.device("cpu"))
    assert next(again.module.parameters()).device.type == "cpu"


def test_loading_from_a_zip_of_the_repository_where_stzoo_is_not_installed(tmp_path: Path) -> None:
    """As torch.hub keeps what it downloaded: the zip's one folder, unpacked as owner_repository_branch."""
    archive = tmp_path / "main.zip"
    with zipfile.ZipFile(archive, "w") as writer:
        for path in (ROOT / "hubconf.py", ROOT / "weights_manifest.json", *sorted((ROOT / "stzoo").rglob("*"))):
            if path.is_file() and "__pycache__" not in path.parts:
                writer.write(path, Path("stzoo-main") / path.relative_to(ROOT))
    (tmp_path / "hub").mkdir()
    with zipfile.ZipFile(archive) as reader:
        reader.extractall(tmp_path)
    (tmp_path / "stzoo-main").rename(tmp_path / "hub" / "someone_stzoo_main")
    code = """
import importlib.util, numpy, torch
found = importlib.util.find_spec("stzoo")
assert found is None or found.origin is None, found  # None: a folder without code, of an editable installation
listed = torch.hub.list("someone/stzoo:main", trust_repo=True, skip_validation=True)
assert "tau_mmnist" in listed and "predrnn_modular_mmnist" in listed, listed
assert "10 to 10 frames" in torch.hub.help("someone/stzoo:main", "tau_mmnist", trust_repo=True, skip_validation=True)
for name in ("tau_mmnist", "predrnn_modular_mmnist"):
    model = torch.hub.load("someone/stzoo:main", name, trust_repo=True, skip_validation=True)
    frames = model.predict(numpy.zeros((10, 64, 64), numpy.uint8))
    assert frames.shape == (10, 64, 64)
    print(model.report.source)
"""
    # Without `site` an editable installation is not seen, and packages that were copied there are.
    packages = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    if any((Path(folder) / "stzoo" / "__init__.py").exists() for folder in packages):
        pytest.skip("stzoo is installed as a copy, which no process can be without")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sorted(packages)),
        "TORCH_HOME": str(tmp_path),
        "STZOO_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    sources = [line for line in done.stdout.splitlines() if line.startswith(str(tmp_path))]
    assert [Path(line).name for line in sources] == ["tau-mmnist.safetensors", "predrnn-modular-mmnist.safetensors"]
