"""A run folder belongs to one run and to one process at a time, and what a killed process left is cleared away."""

import dataclasses
from pathlib import Path

import pytest
from test_loop import RECIPE, SPEC, run

from stzoo.errors import TrainingError
from stzoo.train.folder import RunFolder


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path, 20)
    with pytest.raises(TrainingError, match="another recipe"):
        run(tmp_path, 20, recipe=dataclasses.replace(RECIPE, lr=1e-4))
    with pytest.raises(TrainingError, match="another spec"):
        run(tmp_path, 20, spec=SPEC.replace(hid_t=8))
    with pytest.raises(TrainingError, match="another steps"):
        run(tmp_path, 21)


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
