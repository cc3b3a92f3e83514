"""What stzoo keeps on a machine, and what is left of it after `clear`."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hub.hf_server import LoopbackHub

import stzoo
from stzoo.catalog import CHECKPOINTS
from stzoo.cli import main
from stzoo.download import lock, part_of
from stzoo.errors import UnknownModelError
from stzoo.forecaster import Forecaster
from stzoo.hub import cache


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own: a checkpoint, frames, kernels, graphs, and what a killed download left."""
    monkeypatch.setenv("STZOO_HOME", str(tmp_path / "home"))
    weights = stzoo.info("tau-ut").weights
    assert weights is not None
    for name, content in {
        f"weights/{weights.sha256}.safetensors": (CHECKPOINTS / weights.file).read_bytes(),
        f"weights/.{'0' * 64}.safetensors.part": b"half",
        "frames/abc.uint8": bytes(100),
        "frames/def.uint8": bytes(50),
        "frames/.ghi.uint8.k1ll3d/ghi.uint8": bytes(7),  # as `stzoo.files.replacing` leaves it
        f"kernels/fused-0123-{hashlib.sha256(bytes(20)).hexdigest()}.so": bytes(20),
        "graphs/0123.onnx": bytes(30),
        "graphs/4567.choice": b"torch",
    }.items():
        (tmp_path / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / name).write_bytes(content)
    return tmp_path / "home"


def kept() -> list[cache.Kept]:
    """Without what other tests left in huggingface_hub's cache, whose place cannot be changed any more."""
    return [each for each in cache.listed() if each.kind != "hub"]


def files(folder: Path) -> set[str]:
    return {f.name for f in folder.rglob("*") if f.is_file() and not f.name.endswith(".lock")}


def test_everything_is_listed_by_name_with_its_size(home: Path) -> None:
    found = {each.name: each for each in kept()}
    assert {name: (each.kind, each.size) for name, each in found.items()} == {
        "tau-ut": ("weights", (CHECKPOINTS / "tau-ut.safetensors").stat().st_size),
        "frames": ("frames", 150),
        "kernels": ("kernels", 20),
        "graphs": ("graphs", 35),
        "unfinished": ("unfinished", 4),  # and not what is being decoded at this moment
    }
    assert "tau-ut" in str(found["tau-ut"])


def test_use_is_seen(home: Path) -> None:
    (file,) = (home / "weights").glob("[!.]*")
    os.utime(file, (0, 0))
    assert kept()[0].used.year < 2000
    (home.parent / "empty").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stzoo.catalog.CHECKPOINTS", home.parent / "empty")
        assert stzoo.load("tau-ut").report.source == str(file)
    assert kept()[0].used.year > 2000


def test_changed_bytes_are_found_and_removed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "verify"]) == 0
    (file,) = (home / "weights").glob("[!.]*")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    (home / "frames" / "abc.uint8").write_bytes(b"")
    assert main(["cache", "verify"]) == 2
    assert "2 files were damaged and have been removed" in capsys.readouterr().err
    assert files(home) & {file.name, "abc.uint8"} == set()
    assert main(["cache", "verify"]) == 0


@pytest.mark.parametrize("content", [bytes(19), b"", b"planted"])
@pytest.mark.parametrize("name", ["fused-0123-" + hashlib.sha256(bytes(20)).hexdigest(), "fused-0123"])
def test_kernels_that_were_cut_or_planted_are_found(home: Path, name: str, content: bytes) -> None:
    wrong = home / "kernels" / f"{name}.so"
    wrong.write_bytes(content)
    assert [bad for found, bad in cache.verified() if found.kind == "kernels"] == [(wrong,)]
    assert not wrong.exists()


def test_clearing_by_name_leaves_the_rest(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "clear", "frames", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"freed": 150}
    assert {k.name for k in kept()} == {"tau-ut", "kernels", "graphs", "unfinished"}
    with pytest.raises(UnknownModelError, match="'tau-mmnist'; there is graphs, kernels, tau-ut, unfinished"):
        cache.clear("tau-mmnist")


def test_clearing_everything_leaves_what_is_being_written(home: Path) -> None:
    target = home / "weights" / f"{'0' * 64}.safetensors"
    with lock(target):
        cache.clear()
        assert files(home) == {part_of(target).name, "ghi.uint8"}
    cache.clear()
    assert files(home) == {"ghi.uint8"}
    assert cache.clear() == 0
    assert stzoo.load("tau-ut").report.source == str(CHECKPOINTS / "tau-ut.safetensors")  # the package is untouched


@pytest.mark.parametrize("of", [".one.download/one.pth", "one.safetensors"], ids=["the download", "what is made of it"])
def test_a_published_download_that_runs_for_long_is_left_alone(home: Path, of: str) -> None:
    """Its lock and the tag of its part are written once, so they look as if nobody used them any more."""
    hidden = home / "published" / ".one.download"
    hidden.mkdir(parents=True)
    for name, content in {".one.pth.part": b"part", ".one.pth.part-tag": b'"tag"', "one.pth": b"whole"}.items():
        (hidden / name).write_bytes(content)
    with lock(home / "published" / of):
        if of == "one.safetensors":
            (hidden / ".one.pth.lock").touch()
        before = {path: path.stat().st_ino for path in hidden.iterdir()}
        for path in before:
            os.utime(path, (0, 0))
        cache.clear()
        assert {path: path.stat().st_ino for path in hidden.iterdir()} == before
    assert cache.clear() == len(b"partwhole")
    assert not hidden.exists()


def test_of_what_torch_compiled_only_what_is_old_is_cleared(home: Path) -> None:
    """A running process may be about to load the rest."""
    compiled = home / "compiled"
    for name, content in {"ab/old.so": bytes(9), "fxgraph/cd/new": bytes(5), "locks/old.lock": b""}.items():
        (compiled / name).parent.mkdir(parents=True)
        (compiled / name).write_bytes(content)
        if "old" in name:
            os.utime(compiled / name, (0, 0))
    assert [(k.size, bad) for k, bad in cache.verified() if k.kind == "compiled"] == [(14, ())]
    assert cache.clear("compiled") == 9
    assert {f.name for f in compiled.rglob("*") if f.is_file()} == {"new", "old.lock"}


def test_what_a_killed_decoder_left_is_cleared(home: Path) -> None:
    left = home / "frames" / ".ghi.uint8.k1ll3d"
    os.utime(left / "ghi.uint8", (0, 0))  # nothing has been written to it for a long time
    assert sorted(k.size for k in kept() if k.kind == "unfinished") == [4, 7]
    assert cache.clear("unfinished") == 11
    assert not left.exists()


def test_of_a_shared_cache_only_stzoos_models_are_shown_and_cleared(
    home: Path, forecaster: Forecaster, frames: np.ndarray, tmp_path: Path, hub_server: LoopbackHub
) -> None:
    from huggingface_hub import hf_hub_download

    forecaster.save_pretrained(tmp_path / "saved")
    ours = {n: (tmp_path / "saved" / n).read_bytes() for n in ("config.json", "model.safetensors")}
    hub_server.add("user/ours", ours)
    hub_server.add("user/theirs", {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"x"})
    stzoo.load("hf://user/ours", progress=False)
    theirs = Path(hf_hub_download("user/theirs", "config.json"))
    names = {k.name: k for k in cache.listed() if k.kind == "hub"}
    assert "user/theirs" not in names
    found = names["user/ours"]
    assert found.size == sum(map(len, ours.values()))

    (blob,) = (f for f in found.files if len(f.name) == 64)
    blob.write_bytes(b"other" + blob.read_bytes()[5:])
    assert [bad for k, bad in cache.verified() if k.name == "user/ours"] == [(blob,)]
    expected = forecaster.predict(frames)
    np.testing.assert_array_equal(stzoo.load("hf://user/ours", progress=False).predict(frames), expected)

    assert cache.clear("user/ours") == found.size
    assert "user/ours" not in {k.name for k in cache.listed()}
    assert theirs.is_file()
