"""The command line in a process of its own: what it takes from the current folder, the terminal and the user."""

import argparse
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from stzoo import cli, environment
from stzoo.errors import NoHomeError, StzooError, printable

STRANGE = "a\x1b]0;owned\x07\n\u202e\x9b1m\udcff"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain: ä, 漢字 and → stay", "plain: ä, 漢字 and → stay"),
        ("", ""),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("two\nlines\r\tand tabs", r"two\nlines\r\tand tabs"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\udcff\x9b\x7f\u2028\U000e0041", r"\udcff\x9b\x7f\u2028\U000e0041"),
    ],
)
def test_text_from_outside_is_shown_and_nothing_else(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize(
    "words",
    [
        ["predict", STRANGE, "--model", "tau-mmnist", "--out", "x.npy"],
        ["predict", "x.npy", "--model", STRANGE, "--out", "x.npy"],
        ["forecast-archive", STRANGE, "--model", "tau-mmnist", "--steps", "1", "--out", "x"],
        ["info", STRANGE],
        [STRANGE],
        ["list", "a", STRANGE],
        ["list", f"--{STRANGE}"],
        ["rollout", "x.npy", "--model", "tau-mmnist", "--out", "x.npy", "--steps", STRANGE],
    ],
)
def test_no_error_steers_the_terminal(
    words: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        raise SystemExit(cli.main(words))  # as argparse does by itself
    said = capfd.readouterr().err
    assert "stzoo" in said.splitlines()[-1]
    assert all(line.isprintable() for line in said.splitlines())


def test_no_warning_steers_the_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[str] = []

    def warn(_: argparse.Namespace) -> None:
        said.append(warnings.formatwarning(UserWarning(STRANGE), UserWarning, "x.py", 1))

    parser = SimpleNamespace(parse_args=lambda _: argparse.Namespace(run=warn))
    monkeypatch.setattr(sys.modules["stzoo.cli.main"], "build_parser", lambda: parser)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    assert cli.main() == 0
    assert os.environ["PYTHONSAFEPATH"] == "1"
    assert said[0].startswith("stzoo: warning: ")
    assert said[0].endswith("\n")
    assert said[0].removesuffix("\n").isprintable()


def test_the_current_folder_holds_no_code(tmp_path: Path) -> None:
    """`python -m` puts it first on the path, where everything but stzoo itself would be taken from it."""
    for name in ("json", "argparse", "tomllib", "numpy", "torch"):
        (tmp_path / f"{name}.py").write_text("import pathlib; pathlib.Path('planted').touch()\n")
    done = subprocess.run(
        [sys.executable, "-m", "stzoo", "list"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "tau-mmnist" in done.stdout
    assert not (tmp_path / "planted").exists()


def test_stzoo_may_run_from_the_folder_that_it_lies_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(Path(environment.__file__).parent.parent)
    assert environment.lies_here()
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    assert not environment.lies_here()
    (tmp_path / "gone").rmdir()
    assert not environment.lies_here()
    monkeypatch.chdir(tmp_path)


def test_a_user_without_a_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container that runs as a number: neither HOME nor an entry in the list of users."""
    import pwd

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("STZOO_HOME")
    with pytest.raises(NoHomeError, match="set STZOO_HOME to a folder") as raised:
        environment.home()
    assert isinstance(raised.value, StzooError)
    assert isinstance(raised.value, OSError)
    assert cli.main(["cache", "list"]) == 2
    assert capsys.readouterr().err == f"stzoo: {raised.value}\n"
    assert cli.main(["list", "tau-mmnist"]) == 0  # which needs none
    monkeypatch.setenv("STZOO_HOME", "~nobody-of-that-name/stzoo")
    with pytest.raises(NoHomeError):
        environment.home()
    monkeypatch.setenv("STZOO_HOME", str(tmp_path))
    assert environment.home() == tmp_path


def test_a_home_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Somebody else's, or on a disk that is not there; here a file lies in its place."""
    (tmp_path / "file").touch()
    monkeypatch.delenv("STZOO_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    with pytest.raises(
        NoHomeError, match=r"frames cannot be made \(Not a directory\); set STZOO_HOME to a folder of yours"
    ):
        environment.made(environment.home() / "frames")
    monkeypatch.setenv("STZOO_HOME", str(tmp_path / "mine"))
    assert environment.made(environment.home() / "frames").is_dir()


@pytest.mark.parametrize("home", [None, "/dev/null/nothing", "/nonexistent/of/stzoo"])
def test_what_travels_in_the_package_needs_no_home(
    home: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pwd

    import numpy as np
    from PIL import Image

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("STZOO_HOME")
    if home is None:
        monkeypatch.setattr(pwd, "getpwuid", unknown)
        monkeypatch.delenv("HOME", raising=False)
    else:
        monkeypatch.setenv("HOME", home)
    pictures = [Image.fromarray(np.full((64, 64), 9 * i, np.uint8)) for i in range(10)]
    pictures[0].save(tmp_path / "in.gif", save_all=True, append_images=pictures[1:])
    words = ["predict", str(tmp_path / "in.gif"), "--model", "tau-ut", "-o", str(tmp_path / "out.gif")]
    assert cli.main(words) == 0
    assert "HOME" not in capsys.readouterr().err  # a bar may be there, on a busy machine
    assert (tmp_path / "out.gif").is_file()
    assert not Path("/nonexistent/of").exists()
