"""Folders, pipes and files at the names of a run's own files are renamed, and the run goes on to the same bytes."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from scale.shared import written

from stzoo.errors import StzooError
from stzoo.scale import forecast_archive


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in "abc":
        np.save(folder / f"{name}.npy", np.random.default_rng(ord(name)).random((4, 1, 16, 16), np.float32))
    return folder


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_in_the_way_of_a_file_is_renamed(model: Path, source: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    forecast_archive(source, model, 2, out, in_process=True, unit=1)
    before = written(out)
    signal.alarm(60)  # to open a pipe is to wait without end
    for name in ("clips.jsonl", "errors.jsonl", "plan.json", "done/clips.sha256"):
        remove(out / name)
        if kind == "pipe":
            os.mkfifo(out / name)
        else:
            (out / name / "inside").mkdir(parents=True)
    with pytest.warns(UserWarning, match=r"in the way of a file of this run; it is now called clips\.jsonl\.aside"):
        forecast_archive(source, model, 2, out, in_process=True, unit=1)
    remove(out / "done" / "plan.copy")
    os.mkfifo(out / "done" / "plan.copy")
    with pytest.warns(UserWarning, match=r"it is now called plan\.copy\.aside"):
        forecast_archive(source, model, 2, out, in_process=True, unit=1)
    signal.alarm(0)
    found = written(out)
    assert {name: found[name] for name in before} == before


def test_a_folder_with_the_name_of_a_marker_is_named(model: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    forecast_archive(source, model, 2, tmp_path / "out", in_process=True, unit=1)
    marker = tmp_path / "out" / "done" / "00000001"
    remove(marker)
    marker.mkdir()
    with pytest.raises(StzooError, match=r"00000001 cannot be written: a folder has its name; rename or remove that"):
        forecast_archive(source, model, 2, tmp_path / "out", in_process=True, unit=1)


@pytest.mark.parametrize("name", ["done", ".lock"])
def test_what_is_in_the_way_of_a_folder_or_of_the_lock_is_renamed(
    model: Path, source: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    forecast_archive(source, model, 2, out, in_process=True)
    before = written(out)
    remove(out / name)
    if name == "done":
        (out / name).write_text("mine")
    else:
        (out / name / "inside").mkdir(parents=True)
    with pytest.warns(UserWarning, match=rf"it is now called {name}\.aside"):
        forecast_archive(source, model, 2, out, in_process=True)
    found = written(out)
    assert {each: found[each] for each in before} == before
