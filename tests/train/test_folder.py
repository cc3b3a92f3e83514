"""A run folder belongs to one run and to one process at a time, and what a killed process left is cleared away."""

import dataclasses
import json
import math
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import pytest
from test_loop import RECIPE, SPEC, clips, log, run

from stzoo.errors import TrainingError
from stzoo.models import build
from stzoo.train import train
from stzoo.train.checkpoint import read_checkpoint, write_checkpoint
from stzoo.train.folder import RunFolder

OFTEN = dataclasses.replace(RECIPE, validate_every=5)


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path, 20)
    with pytest.raises(TrainingError, match="another recipe"):
        run(tmp_path, 20, recipe=dataclasses.replace(RECIPE, lr=1e-4))
    with pytest.raises(TrainingError, match="another spec"):
        run(tmp_path, 20, spec=SPEC.replace(hid_t=8))
    with pytest.raises(TrainingError, match="another number of steps"):
        run(tmp_path, 21)


def test_a_setting_that_is_newer_than_the_run_has_its_default_there(tmp_path: Path) -> None:
    """Of a run of an earlier version neither the plan nor the checkpoint names the setting."""
    run(tmp_path, 10, recipe=OFTEN)
    saved, plan = read_checkpoint(tmp_path / "checkpoint.pt"), json.loads((tmp_path / "plan.json").read_text())
    for each in (saved["plan"], plan):
        del each["recipe"]["decoded_weight"], each["recipe"]["l2_weight"]
    del plan["sha256"]
    write_checkpoint(tmp_path / "checkpoint.pt", saved)
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(tmp_path, 10, recipe=OFTEN)  # nothing is left to do
    (tmp_path / "plan.json").unlink()
    with pytest.warns(UserWarning, match="The plan in the checkpoint takes its place"):
        run(tmp_path, 10, recipe=OFTEN)
    with pytest.raises(TrainingError, match="another recipe"):
        run(tmp_path, 10, recipe=dataclasses.replace(OFTEN, l2_weight=0.5))


def test_a_folder_is_trained_in_by_one_process(tmp_path: Path) -> None:
    with RunFolder(tmp_path).locked(), pytest.raises(TrainingError, match="another process"):
        run(tmp_path, 20)


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    run(tmp_path, 20)
    litter = [tmp_path / ".checkpoint.pt.abc123", tmp_path / "best" / ".model.safetensors.abc123"]
    for file in litter:
        file.write_bytes(b"half")
    run(tmp_path, 20)
    assert not any(file.exists() for file in litter)


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs of 10 steps that differ in nothing but their clips; each has a checkpoint of step 5 and of step 10."""
    out = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        run(out / str(seed), 10, recipe=OFTEN, training=clips(seed))
    return out / "1", out / "2"


def assert_it_ends_as(mine: Path, copy: Path) -> None:
    run(copy, 10, recipe=OFTEN, training=clips(1))
    for name in ("best/model.safetensors", "best.sha256"):
        assert (copy / name).read_bytes() == (mine / name).read_bytes(), name
    assert [r["loss"] for r in log(copy)] == [r["loss"] for r in log(mine)]


@pytest.mark.parametrize("plan", ["there", "missing"])
def test_the_checkpoint_of_another_run_is_not_continued(runs: tuple[Path, Path], tmp_path: Path, plan: str) -> None:
    mine, other = runs
    copy = copied(mine, tmp_path / "copy")
    shutil.copy(other / "checkpoint.pt", copy)
    if plan == "missing":
        (copy / "plan.json").unlink()
    with pytest.warns(UserWarning, match=r"is of a run with other clips. Training goes on from .* of step 5"):
        assert_it_ends_as(mine, copy)
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        shutil.copy(other / name, copy)
    with pytest.raises(TrainingError, match=r"other clips; .* other clips. There is no other checkpoint"):
        run(copy, 10, recipe=OFTEN, training=clips(1))


def test_the_best_weights_of_another_run_are_not_kept(runs: tuple[Path, Path], tmp_path: Path) -> None:
    mine, other = runs
    copy = copied(mine, tmp_path / "copy")
    for name in ("best/model.safetensors", "best.sha256"):
        shutil.copy(other / name, copy / name)
    with pytest.warns(UserWarning, match="best is damaged or missing; the weights of step 10"):
        run(copy, 10, recipe=OFTEN, training=clips(1))
    assert (copy / "best/model.safetensors").read_bytes() != (other / "best/model.safetensors").read_bytes()


def test_best_weights_that_are_newer_than_the_checkpoint_are_kept(runs: tuple[Path, Path], tmp_path: Path) -> None:
    mine, _ = runs
    copy = copied(mine, tmp_path / "copy")
    os.replace(copy / "checkpoint.previous.pt", copy / "checkpoint.pt")  # it was killed before it saved
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_it_ends_as(mine, copy)


def test_what_kills_left_of_the_best_weights_is_cleared_away(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copied(runs[0], tmp_path / "copy")
    for name in (".best.k1ll3d00/config.json", ".best.k1ll3d01/.model.safetensors.k1ll3d02/model.safetensors"):
        (copy / name).parent.mkdir(parents=True)  # as earlier versions left them
        (copy / name).write_bytes(b"half")
    (copy / ".best.year2026").mkdir()
    (copy / ".best.year2026" / "notes").write_text("precious")
    with monkeypatch.context() as patch:  # a folder that nobody removes, as after SIGKILL
        patch.setattr(tempfile.TemporaryDirectory, "cleanup", lambda self: self._finalizer.detach())
        patch.setattr("stzoo.train.folder.file_sha256", killed)
        with pytest.raises(KeyboardInterrupt):
            RunFolder(copy).keep(SPEC, build(SPEC).state_dict())
    assert len(list(copy.glob(".best.*"))) == 4
    with RunFolder(copy).locked():
        assert [left.name for left in copy.glob(".best.*")] == [".best.year2026"]


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_stray_folders_do_not_end_a_run(runs: tuple[Path, Path], tmp_path: Path) -> None:
    copy = copied(runs[0], tmp_path / "copy")
    os.replace(copy / "checkpoint.previous.pt", copy / "checkpoint.pt")
    (copy / ".lock").unlink(missing_ok=True)
    (copy / ".lock" / "inside").mkdir(parents=True)
    (copy / "samples" / "0000010.png").unlink()
    (copy / "samples" / "0000010.png" / "inside").mkdir(parents=True)
    with (
        pytest.warns(UserWarning, match=r"it is now called \.lock\.aside"),
        pytest.warns(UserWarning, match="the picture .* cannot be written"),
    ):
        assert_it_ends_as(runs[0], copy)


def test_weights_that_are_not_finite_are_no_start(tmp_path: Path) -> None:
    for factor, words in ((math.nan, "holds NaN or infinite values"), (1e30, "forecast is not finite")):
        start = {n: t * factor if t.is_floating_point() else t for n, t in build(SPEC).state_dict().items()}
        with pytest.raises(TrainingError, match=f"weights to begin from {words}. .* use other weights"):
            train(SPEC, RECIPE, clips(1), clips(2, 100), tmp_path, steps=4, start=start, device="cpu", progress=False)
        assert not (tmp_path / "best").exists()
        assert not (tmp_path / "log.jsonl").exists()
