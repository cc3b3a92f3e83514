"""Where the output of a command goes: encodings without a letter, full disks, closed outputs, readers that leave."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from stzoo.forecaster import Forecaster

FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")


def run(words: Sequence[object], redirection: str = "", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """`stzoo` in a shell, which redirects its output; it runs unbuffered only if the variables say so."""
    environment = {**os.environ, **variables}
    if "PYTHONUNBUFFERED" not in variables:
        environment.pop("PYTHONUNBUFFERED", None)
    line = f'exec "$@" {redirection}'
    command = ["sh", "-c", line, "sh", sys.executable, "-m", "stzoo", *map(os.fspath, words)]  # type: ignore[call-overload]
    return subprocess.run(command, capture_output=True, env=environment, check=False, timeout=120)


@FULL
@pytest.mark.parametrize("words", [["list"], ["--version"], ["list", "--help"]])
def test_a_full_output_is_one_line_and_an_error(words: list[str]) -> None:
    done = run(words, "> /dev/full")
    assert done.returncode == 2
    said = done.stderr.decode().splitlines()
    assert said == [
        "stzoo: what was to be printed is lost, since standard output takes no more: No space left on device"
    ]


@FULL
def test_what_was_written_before_the_output_was_full_is_told(forecaster: Forecaster, tmp_path: Path) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    np.save(tmp_path / "a.npy", np.zeros((4, 16, 16), np.uint8))
    words = ["predict", tmp_path / "a.npy", "--model", tmp_path / "model", "-o", tmp_path / "b.npy", "--no-check"]
    done = run(words, "> /dev/full")
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        f"stzoo: {tmp_path}/b.npy is written, and only what was to be printed is lost, since standard output takes no "
        "more: No space left on device"
    ]
    assert np.load(tmp_path / "b.npy").shape[1:] == (16, 16)


def test_a_closed_output_is_one_line_and_an_error() -> None:
    for redirection in (">&-", "<&- >&-"):
        done = run(["list"], redirection)
        assert done.returncode == 2
        said = done.stderr.decode().splitlines()
        assert len(said) == 1
        assert said[0].startswith("stzoo: what was to be printed is lost")


@FULL
@pytest.mark.parametrize("redirection", ["2> /dev/full", "2>&-", "> /dev/full 2> /dev/full", ">&- 2>&-"])
def test_an_error_that_cannot_be_told_leaves_the_exit_code(redirection: str) -> None:
    done = run(["info", "nothing"], redirection)
    assert done.returncode == 2
    assert done.stdout + done.stderr == b""


def test_a_reader_that_leaves_is_no_error() -> None:
    code = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-m', 'stzoo', 'list', '--published'], stdout=subprocess.PIPE, "
        "stderr=subprocess.PIPE)\n"
        "p.stdout.close()\n"
        "print(p.stderr.read(), p.wait())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=120)
    assert done.stdout.strip() == b"b'' 0"


@pytest.mark.parametrize(("encoding", "name"), [("ascii", "zürich.npy"), ("cp1252:strict", "прогноз.npy")])
def test_a_name_that_the_output_cannot_encode_is_escaped(
    encoding: str, name: str, forecaster: Forecaster, frames: np.ndarray, tmp_path: Path
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    np.save(tmp_path / "in.npy", frames)
    words = ["predict", tmp_path / "in.npy", "--model", tmp_path / "model", "-o", tmp_path / name]
    done = run(words, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert np.load(tmp_path / name).shape == (4, 16, 16)
    shown = name.encode(encoding.split(":")[0], "backslashreplace")
    assert done.stdout.splitlines() == [b"4 frames -> " + os.fsencode(tmp_path) + b"/" + shown]


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no text exist on Linux")
def test_a_name_that_is_no_text_is_escaped(forecaster: Forecaster, frames: np.ndarray, tmp_path: Path) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    np.save(tmp_path / "in.npy", frames)
    out = tmp_path / os.fsdecode(b"\xff.npy")
    done = run(["predict", tmp_path / "in.npy", "--model", tmp_path / "model", "-o", out, "--no-check"])
    assert done.returncode == 0, done.stderr
    assert out.exists()
    assert done.stdout.splitlines()[-1].endswith(b"\\udcff.npy")
