"""A file is written whole or not at all, and what a killed process left is told from what others made."""

from pathlib import Path

import pytest

from stzoo.files import is_leftover, remove_leftovers, replacing


@pytest.mark.parametrize("name", ["a.npy", "a", ".a", "a.b.c", "n" * 255, "ü" * 127, "a\nb", "x.partial"])
@pytest.mark.parametrize("content", ["nothing", "a file", "a folder"])
def test_a_leftover_is_known_by_what_is_in_it(tmp_path: Path, name: str, content: str) -> None:
    writing = replacing(tmp_path / name)
    partial = writing.__enter__()
    if content == "a file":
        partial.write_bytes(b"half")
    elif content == "a folder":
        partial.mkdir()
        (partial / "0.png").write_bytes(b"half")
    (left,) = tmp_path.iterdir()
    assert is_leftover(left)
    remove_leftovers(tmp_path / "b.c")
    if len(name.encode()) < 255 and (content != "nothing" or len(name) < 100):
        remove_leftovers(tmp_path / f"{name}x")
    assert left.exists()
    remove_leftovers(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "mine",
    [
        ".log.jsonl.backup1", ".log.jsonl.k1ll3d/log.jsonl2", ".log.jsonl.k1ll3d/.git/HEAD",
        ".log.jsonl.more.k1ll3d00/x",
        "log.jsonl.k1ll3d00/log.jsonl", ".log.jsonl.K1LL3D00/log.jsonl", ".log.jsonl.year2026/notes",
    ],
)  # fmt: skip
def test_what_others_made_stays(tmp_path: Path, mine: str) -> None:
    path = tmp_path / mine
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"precious")
    remove_leftovers(tmp_path / "log.jsonl")
    assert path.read_bytes() == b"precious"
    assert not any(is_leftover(each) for each in tmp_path.iterdir())


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a").write_bytes(b"precious")
    (tmp_path / ".a.k1ll3d00").symlink_to(tmp_path / "far")
    remove_leftovers(tmp_path / "a")
    assert (tmp_path / "far" / "a").read_bytes() == b"precious"


def test_a_leftover_of_another_file_stays_while_it_is_written(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.b") as partial:
        partial.write_bytes(b"whole")
        remove_leftovers(tmp_path / "a")
    assert (tmp_path / "a.b").read_bytes() == b"whole"
    remove_leftovers(tmp_path / "nowhere" / "a")
