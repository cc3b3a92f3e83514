"""How torch's threads wait: what OpenMP says that it was told, in processes of their own. Nothing is timed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stzoo import environment, threads

gnu = pytest.mark.skipif(next(threads._libraries(), None) is None, reason="this torch brings no OpenMP of GNU's")
SHOW = "import os; print(stzoo.threads.WAITING, os.environ.get('GOMP_SPINCOUNT'), sep=';')"


def told(code: str, folder: Path | None = None, **variables: str) -> tuple[str, str]:
    """What a process that runs the code prints, and what its OpenMP prints of its settings when it is loaded."""
    others = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    safe = [] if environment.lies_here() else ["-P"]
    done = subprocess.run(
        [sys.executable, *safe, "-c", code],
        env=others | {"OMP_DISPLAY_ENV": "verbose"} | variables,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip(), done.stderr


@gnu
def test_threads_spin_for_a_short_time_and_the_environment_stays_as_it_was() -> None:
    said, settings = told(f"import stzoo; {SHOW}; import torch")
    assert said == "1,000 spins, then asleep;None"
    assert settings.count("GOMP_SPINCOUNT") == 1
    assert "GOMP_SPINCOUNT = '1000'" in settings


@gnu
@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "77"), ("OMP_WAIT_POLICY", "PASSIVE")])
def test_what_users_set_is_respected(name: str, value: str) -> None:
    said, settings = told(f"import stzoo; {SHOW}; import torch", **{name: value})
    assert said.startswith(f"as {name}={value} says")
    assert f"{name} = '{value}'" in settings


@gnu
@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", ""), ("GOMP_SPINCOUNT", " "), ("OMP_WAIT_POLICY", "")])
def test_an_empty_value_is_none(name: str, value: str) -> None:
    """As for OpenMP itself, which would go on with its own value."""
    said, settings = told(f"import stzoo; {SHOW}; import torch", **{name: value})
    assert said == f"1,000 spins, then asleep;{value if name == 'GOMP_SPINCOUNT' else None}".strip()
    assert "GOMP_SPINCOUNT = '1000'" in settings


@gnu
def test_an_openmp_that_was_there_before_stays() -> None:
    said, settings = told(f"import torch, stzoo; {SHOW}")
    assert said == "as its OpenMP does by itself, which was loaded before stzoo;None"
    assert "GOMP_SPINCOUNT = '1000'" not in settings


def test_a_library_in_the_current_folder_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch" / "lib").mkdir(parents=True)
    (tmp_path / "torch" / "__init__.py").touch()
    (tmp_path / "torch" / "lib" / "libgomp.so.1").touch()
    monkeypatch.setattr(sys, "path", ["", str(tmp_path)])
    assert list(threads._libraries()) == [str(tmp_path / "torch" / "lib" / "libgomp.so.1")] * (sys.platform == "linux")
    monkeypatch.chdir(tmp_path)
    assert not list(threads._libraries())
