"""What is in the way below a folder of clips costs itself only, and is reported."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scale.test_archive_naming import clip

from stzoo.errors import DataError
from stzoo.scale import forecast_archive
from stzoo.scale.clips import list_clips
from stzoo.scale.folder import ArchiveFolder


def run(model: Path, source: Path, out: Path) -> dict[str, str]:
    """Forecast, and return the reason for each item that has no forecast."""
    report = forecast_archive(source, model, 2, out, in_process=True, unit=3)
    errors = [json.loads(line) for line in ArchiveFolder(out).errors.read_text().splitlines()]
    assert report.failed == len(errors) < report.forecasts
    return {each["item"]: each["error"] for each in errors}


def test_pipes_sockets_devices_and_links_to_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = clip(tmp_path / "clips" / "good.npy").parent
    for name in ("pipe.npy", "pipe.gif", "pipe.mp4", "pipe.nc", "pipe.zarr", "pipe"):
        os.mkfifo(clips / name)
    (clips / "device.npy").symlink_to("/dev/zero")
    (clips / "to-pipe.npy").symlink_to("pipe")
    (clips / "nothing.npy").symlink_to("nowhere")
    (clips / "itself.npy").symlink_to("itself.npy")
    monkeypatch.chdir(clips)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.npy")
        errors = run(model, clips, tmp_path / "out")
    special = {"pipe.npy", "pipe.gif", "pipe.mp4", "pipe.nc", "pipe.zarr", "device.npy", "to-pipe.npy", "socket.npy"}
    assert errors.keys() == special | {"nothing.npy", "itself.npy"}
    assert all("is a pipe, a socket or a device" in errors[name] for name in special)
    assert "does not exist" in errors["nothing.npy"]


def test_a_table_that_names_a_pipe(model: Path, tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    clip(tmp_path / "good.npy")
    os.mkfifo(tmp_path / "pipe.npy")
    paths = ["pipe.npy", "good.npy", "/dev/zero", "/dev/zero.npy", "x" * 5000, "a\x1b[31m.npy", "good.npy/deeper.npy"]
    parquet.write_table(pa.table({"path": paths}), tmp_path / "table.parquet")
    assert run(model, tmp_path / "table.parquet", tmp_path / "out").keys() == set(paths) - {"good.npy"}


def test_folders_linked_in_a_circle(model: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    for name in ("a", "b"):
        clip(clips / name / f"{name}.npy")
    (clips / "a" / "to-b").symlink_to(clips / "b")
    (clips / "b" / "to-a").symlink_to("../a")
    (clips / "up").symlink_to(clips)
    (clips / "above").symlink_to(tmp_path)
    (clips / "out").symlink_to(tmp_path / "out")
    assert run(model, clips, tmp_path / "out") == {}
    run(model, clips, tmp_path / "out")  # its own forecasts, to which a link leads, are no clips
    (clips / "out").unlink()
    assert [c.name for c in list_clips(clips, "path")] == ["a/a.npy", "a/to-b/b.npy", "b/b.npy", "b/to-a/a.npy"]


def test_links_to_links_do_not_multiply_a_folder_without_end(model: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clip(clips / "12" / "good.npy")
    for i in range(12):  # 2 ** 12 ways to the clip
        (clips / f"{i:02d}").mkdir()
        for name in ("left", "right"):
            (clips / f"{i:02d}" / name).symlink_to(clips / f"{i + 1:02d}")
    listed = list(list_clips(clips, "path"))
    assert len(listed) < 2000
    assert "12/good.npy" in [each.name for each in listed]
    assert {each.fault for each in listed} == {
        "", "is not looked into: more than 100 links lead to the same folder"
    }  # fmt: skip


def test_a_folder_that_may_not_be_looked_into(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = clip(tmp_path / "clips" / "good.npy").parent
    for name in ("closed", "pictures"):
        (clips / name).mkdir()
    clip(clips / "pictures" / "0.gif").rename(clips / "pictures" / "0.png")
    (clips / "pictures" / "lost+found").mkdir()
    clip(clips / "dim" / "a.npy")
    (clips / "dim" / "deeper").mkdir()
    _closed(monkeypatch, {"closed", "lost+found"}, {"deeper", "a.npy"})
    errors = run(model, clips, tmp_path / "out")
    assert errors.keys() == {"closed", "dim/a.npy", "dim/deeper", "pictures", "pictures/lost+found"}
    for name in ("closed", "pictures/lost+found"):
        assert errors[name] == f"{clips / name} cannot be looked into: Permission denied"
    assert "4 past frames" in errors["pictures"]  # it is still one clip, although of one image
    assert "Permission denied" in errors["dim/a.npy"]
    assert "Permission denied" in errors["dim/deeper"]
    _closed(monkeypatch, {"clips"}, set())
    with pytest.raises(DataError, match="clips cannot be looked into: Permission denied"):
        forecast_archive(clips, model, 2, tmp_path / "out", in_process=True)


def _closed(monkeypatch: pytest.MonkeyPatch, unlisted: set[str], unseen: set[str]) -> None:
    """Make folders that cannot be listed and files of which nothing is known, even where root runs the tests."""

    def denied(function: Any, names: set[str]) -> Any:
        def asked(path: Path, **options: Any) -> Any:
            if path.name in names:
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, **options)

        return asked

    monkeypatch.setattr(Path, "iterdir", denied(Path.iterdir, unlisted))
    monkeypatch.setattr(Path, "stat", denied(Path.stat, unseen))


def test_folders_within_folders_within_folders(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = clip(tmp_path / "clips" / "good.npy").parent
    monkeypatch.chdir(clips)
    for _ in range(400):
        os.mkdir("d")
        os.chdir("d")
    monkeypatch.chdir(tmp_path)
    errors = run(model, clips, tmp_path / "out")
    assert [error.rpartition(" ")[2] for error in errors.values()] == ["folders"]
    assert "is not looked into: it lies in more than 300 folders" in next(iter(errors.values()))


@pytest.mark.parametrize("where", ["paths", "a name"])
def test_a_table_whose_text_is_not_utf_8(model: Path, tmp_path: Path, where: str) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    clip(tmp_path / "good.npy")
    text = pa.Array.from_buffers(pa.string(), 1, pa.array([b"a\xff.npy"]).buffers())
    table = pa.table({"path": text if where == "paths" else ["good.npy"], "other": [1]})
    parquet.write_table(table, tmp_path / "table.parquet")
    if where == "a name":
        content = (tmp_path / "table.parquet").read_bytes()
        (tmp_path / "table.parquet").write_bytes(content.replace(b"other", b"oth\xffr"))
    with pytest.raises(DataError, match=r"table\.parquet (holds text that is not UTF-8|is damaged)") as raised:
        forecast_archive(tmp_path / "table.parquet", model, 2, tmp_path / "out", in_process=True)
    assert str(raised.value).isprintable()
    assert not (tmp_path / "out").exists()


def test_columns_of_a_table_do_not_steer_the_terminal(model: Path, tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"\x1b[31mred\n": ["a"], "\u202egpj": ["b"]}), tmp_path / "table.parquet")
    with pytest.raises(DataError, match="has no column path; it has ") as raised:
        forecast_archive(tmp_path / "table.parquet", model, 2, tmp_path / "out", in_process=True)
    assert r"\x1b[31mred\n, \u202egpj" in str(raised.value)
    assert str(raised.value).isprintable()


def test_a_clip_that_is_added_while_the_folder_is_looked_at(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stzoo.scale import forecast

    clips = clip(tmp_path / "clips" / "a.npy").parent
    begin = forecast._begin

    def late(*arguments: Any) -> None:
        clip(clips / "0.npy")
        begin(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(forecast, "_begin", late)
        with pytest.raises(DataError, match="has changed while it was looked at"):
            forecast_archive(clips, model, 2, tmp_path / "out", in_process=True)
    (clips / "0.npy").unlink()
    assert forecast_archive(clips, model, 2, tmp_path / "out", in_process=True).forecasts == 1
    assert np.load(tmp_path / "out" / "forecasts" / "a.npy").shape == (2, 16, 16)
