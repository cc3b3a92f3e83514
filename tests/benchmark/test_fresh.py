"""What is measured in fresh processes."""

from pathlib import Path

import pytest
import torch

from stzoo.benchmark import fresh
from stzoo.benchmark.setting import Setting
from stzoo.errors import StzooError


def test_memory_is_the_peak_of_the_fresh_process_alone() -> None:
    ours = bytearray(400 << 20)  # which a child begins with, as far as ru_maxrss goes
    code = (
        "from stzoo.benchmark.fresh import _resident as r; before = r('VmHWM'); x = bytearray(100 << 20); del x; "
        "print([before, r('VmHWM'), r('VmRSS')])"
    )
    before, most, now = fresh._run(code)
    assert before < len(ours) >> 20
    assert 95 < most - before < 110  # the kernel counts pages in batches
    if Path("/proc/self/status").exists():
        assert now < most - 90


def test_a_fresh_process_takes_no_code_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json", "stzoo", "torch", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("import pathlib; pathlib.Path('planted').touch()\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "of_the_user.py").write_text("found = 7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "mine"))  # which stays respected
    assert fresh._run("import json, stzoo, of_the_user; print(of_the_user.found)") == 7
    assert not (tmp_path / "planted").exists()


def test_a_fresh_process_that_fails_says_why() -> None:
    with pytest.raises(StzooError, match=r"failed with code 1: .*WeightsError: nowhere/at/all is no folder"):
        fresh.measure_memory(Setting(source="nowhere/at/all"), 1)


def test_streaming_is_measured_in_a_process_of_its_own(saved: Path) -> None:
    values = vars(Setting(source=str(saved), threads=torch.get_num_threads()))
    assert fresh.streaming(values, 9) > 50  # MiB; torch alone has more
    whole = fresh.one_pass(values, 9)["whole"]
    assert whole is not None
    assert whole > 50
