"""Compiled code is loaded only if its bytes are the compiled ones, from a folder that nobody else can write to."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from stzoo.train.fused import library

FLAGS = ("-shared", "-fPIC")
pytestmark = pytest.mark.skipif(shutil.which("g++") is None or not hasattr(os, "memfd_create"), reason="no g++ here")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "answer.cpp"
    path.write_text('extern "C" int answer() { return 42; }')
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "kernels"


@pytest.fixture
def planted(tmp_path: Path) -> bytes:
    """A library that leaves a trace as soon as it is loaded."""
    source = tmp_path / "planted.cpp"
    trace = tmp_path / "trace"
    source.write_text(
        f'''#include <cstdio>
        __attribute__((constructor)) void run() {{ std::fclose(std::fopen("{trace}", "w")); }}
        extern "C" int answer() {{ return 0; }}'''
    )
    return library._compiled(source, FLAGS)


def answer(source: Path, folder: Path) -> int:
    return int(library.loaded("answers", "k1", source, FLAGS, folder).answer())


def refuse(*_: object) -> bytes:
    raise AssertionError("compiled although the right library is kept")


def test_a_library_is_compiled_once_for_its_owner_alone(
    source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answer(source, folder) == 42
    (kept,) = folder.iterdir()
    assert library.sha256_in_name(kept) is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.setattr(library, "_compiled", refuse)
    assert answer(source, folder) == 42
    assert list(folder.iterdir()) == [kept]


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "planted under its name", "planted under an old name"])
def test_a_library_of_other_bytes_is_compiled_anew(
    how: str, source: Path, folder: Path, planted: bytes, tmp_path: Path
) -> None:
    assert answer(source, folder) == 42
    (kept,) = folder.iterdir()
    content = kept.read_bytes()
    wrong = kept if how != "planted under an old name" else folder / "answers-k1.so"
    wrong.write_bytes(
        {"cut": content[:5000], "empty": b"", "flipped": content[:9000] + bytes([content[9000] ^ 1]) + content[9001:]}
        .get(how, planted)
    )  # fmt: skip
    if wrong != kept:
        kept.unlink()
    assert answer(source, folder) == 42
    assert [f.name for f in folder.iterdir()] == [kept.name]
    assert kept.read_bytes() == content
    assert not (tmp_path / "trace").exists()


def test_a_library_that_is_cut_while_it_runs_goes_on(source: Path, folder: Path) -> None:
    """It would end the process if it were mapped from the folder."""
    running = library.loaded("answers", "k1", source, FLAGS, folder)
    for file in folder.iterdir():
        os.truncate(file, 0)
    assert running.answer() == 42


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o775])
def test_what_others_could_write_is_not_trusted(
    mode: int, source: Path, folder: Path, planted: bytes, tmp_path: Path
) -> None:
    import hashlib

    folder.mkdir(parents=True)
    (folder / f"answers-k1-{hashlib.sha256(planted).hexdigest()}.so").write_bytes(planted)
    folder.chmod(mode)
    assert answer(source, folder) == 42
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not (tmp_path / "trace").exists()


def test_a_folder_of_another_user_is_refused(source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="belongs to another user.*set STZOO_HOME"):
        answer(source, folder)


def test_where_code_cannot_be_loaded_from_memory_nothing_is_compiled(
    source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(OSError, match="on Linux alone"):
        answer(source, folder)
    assert not folder.exists()


def test_what_the_compiler_says_is_kept(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "wrong.cpp").write_text("no C++")
    with pytest.raises(RuntimeError, match="error"):
        answer(tmp_path / "wrong.cpp", folder)
    assert list(folder.iterdir()) == []
