"""No two forecasts of a run share a file, and nothing but what stzoo left half-written is removed."""

import json
import os
import unicodedata
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stzoo import cli
from stzoo.frames import write
from stzoo.scale import forecast_archive
from stzoo.scale.clips import list_clips
from stzoo.scale.folder import ArchiveFolder
from stzoo.scale.naming import forecast_names, row_name


def clip(path: Path) -> Path:
    """A clip of the kind that its suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(len(path.name)).integers(0, 256, (6, 16, 16), dtype=np.uint8)
    if path.suffix == ".gif":
        write(path, [Image.fromarray(frame) for frame in frames])
    else:
        np.save(path, frames)
    return path


def missing(source: Path, out: Path, suffix: str = "npy") -> list[str]:
    """The clips without a forecast."""
    forecasts = ArchiveFolder(out).forecasts
    return [c.name for c in list_clips(source, "path", suffix) if not (forecasts / f"{c.out}.{suffix}").is_file()]


NAMES = {
    "a suffix that Zarr gives to half-written files": ["x.partial/a.npy", f"x.{'0' * 32}.partial/b.npy", "a.tmp/c.npy"],
    "a name of the run's own": ["plan.json/a.npy", "done/b.npy", "forecasts/c.npy", "clips.jsonl.npy", "x.lock.npy"],
    "a folder called like a forecast": ["b.gif", "b.npy/c.gif", "b-0.npy/d.gif", "b-00.npy/e.npy", "b--0.npy/f.npy"],
    "a folder called like a folder of forecasts": ["b.gif", "deep/b.npy/c.gif", "deep/b.gif"],
    "one stem": ["a.npy", "a.gif", "a-0.npy", "A-1.gif"],
    "other cases": ["Rain.npy", "rAIN.gif", "STRASSE.npy", "straße.npy", "b.gif", "B.NPY/c.npy"],
    "accents written in two ways": [unicodedata.normalize(form, "é.npy") for form in ("NFC", "NFD")],
    "long names": ["n" * 251 + ".npy", "n" * 251 + ".gif", "ü" * 125 + ".npy", "m" * 246 + ".npy"],
    "names that are not UTF-8": [os.fsdecode(name + b".npy") for name in (b"a\xff", b"a\xfe", b"\xff" * 251)],
    "names that steer terminals": ["a\x1b[31m.npy", "a\n.npy", "a\u202egpj.npy"],
}  # fmt: skip


@pytest.mark.parametrize("what", NAMES)
def test_no_forecast_is_lost(model: Path, tmp_path: Path, what: str) -> None:
    for name in NAMES[what]:
        clip(tmp_path / "clips" / name)
    report = forecast_archive(tmp_path / "clips", model, 2, tmp_path / "out", in_process=True, unit=2)
    assert (report.forecasts, report.failed) == (len(NAMES[what]), 0)
    assert missing(tmp_path / "clips", tmp_path / "out") == []
    assert len([p for p in (tmp_path / "out" / "forecasts").rglob("*") if p.is_file()]) == report.forecasts
    again = forecast_archive(tmp_path / "clips", model, 2, tmp_path / "out", in_process=True, unit=2)
    assert again.earlier == report.forecasts
    assert missing(tmp_path / "clips", tmp_path / "out") == []


def test_the_forecast_of_a_hidden_folder_that_is_one_clip(model: Path, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (6, 16, 16), dtype=np.uint8)
    write(tmp_path / ".hidden", [Image.fromarray(frame) for frame in frames])
    assert forecast_archive(tmp_path / ".hidden", model, 2, tmp_path / "out", in_process=True).failed == 0
    assert [p.name for p in (tmp_path / "out" / "forecasts").iterdir()] == ["hidden.npy"]


def test_what_lies_beside_the_output_folder_is_in_nobodys_way(model: Path, tmp_path: Path) -> None:
    clip(tmp_path / "clips" / "b.gif")
    (tmp_path / "b.npy").mkdir()
    assert forecast_archive(tmp_path / "clips", model, 2, tmp_path / "out", in_process=True).failed == 0


@pytest.mark.parametrize("command", ["predict", "rollout --steps 2"])
def test_a_forecast_does_not_replace_what_it_is_made_from(
    model: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = clip(tmp_path / "a.npy")
    before = given.read_bytes()
    link = tmp_path / "link.npy"
    link.symlink_to(given)
    for source, out in ((given, given), (link, given), (link, link), (given, link), (given, model / ".." / "a.npy")):
        assert cli.main([*command.split(), str(source), "--model", str(model), "--out", str(out)]) == 2
        assert f"{out} is the input itself; name another file for the forecast" in capsys.readouterr().err
        assert link.is_symlink()
        assert given.read_bytes() == before


PARTS = st.sampled_from(
    ["a", "A", "b", "a.npy", "a-0", "a-0.npy", "a--0.npy", "a-1.npy", "é", "e\u0301", "ß", "ss.npy"]
)


@given(st.lists(st.lists(PARTS, min_size=1, max_size=3).map("/".join), min_size=1, max_size=6, unique=True))
def test_whatever_clips_are_called_each_forecast_has_a_place(paths: list[str]) -> None:
    """On a file system that knows neither case nor accents written in two ways, too."""
    clips = [f"{path}.gif" for path in paths]
    files = [_plainly(f"{name}.npy") for name in forecast_names(clips, ".npy", "alone")]
    folders = {str(folder) for file in files for folder in PurePosixPath(file).parents}
    assert len(set(files)) == len(clips)
    assert folders.isdisjoint(files)


def _plainly(path: str) -> str:
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def test_a_name_is_changed_only_where_it_must_be() -> None:
    assert forecast_names(["b.gif", "b.npy/c.gif", "x/y.avi"], ".npy", "") == ["b-0", "b.npy/c", "x/y"]
    assert forecast_names(["b.gif", "b.npy/c.gif", "x/y.avi"], ".gif", "") == ["b", "b.npy/c", "x/y"]
    assert forecast_names(["a.avi", "a.mp4", "b.v2"], ".npy", "") == ["a-0", "a-1", "b.v2"]
    assert forecast_names([""], ".npy", "rain") == ["rain"]
    assert row_name(12345, "far/NAME.avi", 1000) == "00012/00012345-NAME"


def test_what_stands_in_the_place_of_a_forecast_costs_that_one(model: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        clip(tmp_path / "clips" / f"{name}.npy")
    (tmp_path / "clips" / "d").mkdir()
    clip(tmp_path / "clips" / "d" / "e.npy")
    out = ArchiveFolder(tmp_path / "out")
    command = ["forecast-archive", str(tmp_path / "clips"), "--model", str(model), "--steps", "2", "--in-process"]
    assert cli.main([*command, "--out", str(out.path)]) == 0
    (out.forecasts / "b.npy").unlink()
    (out.forecasts / "b.npy" / "precious").mkdir(parents=True)
    (out.forecasts / "d" / "e.npy").unlink()
    (out.forecasts / "d").rmdir()
    (out.forecasts / "d").write_bytes(b"precious")
    out.marker(0).unlink()
    assert cli.main([*command, "--out", str(out.path)]) == 0
    assert [json.loads(line)["item"] for line in out.errors.read_text().splitlines()] == ["b.npy", "d/e.npy"]
    assert (out.forecasts / "a.npy").is_file()
    assert (out.forecasts / "b.npy" / "precious").is_dir()
    assert (out.forecasts / "d").read_bytes() == b"precious"


def test_only_what_was_left_half_written_is_removed(model: Path, tmp_path: Path) -> None:
    clip(tmp_path / "clips" / "a.npy")
    out = tmp_path / "out"

    def run() -> None:
        forecast_archive(tmp_path / "clips", model, 2, out, in_process=True)

    run()
    left = [
        out / ".clips.jsonl.k1ll3d00/clips.jsonl",
        out / "forecasts/.a.npy.k1ll3d00/a.npy",
        out / "done/.00000000.x",
    ]
    kept = [
        out / ".plan.json.mine", out / "forecasts/.git/HEAD", out / "forecasts/x.partial", out / "done/notes",
        out / "forecasts/.a.npy.k1ll3d01/precious", out / "forecasts/y.partial/z",
    ]  # fmt: skip
    for path in (*left, *kept):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    run()
    assert [path for path in left if path.exists() or (path.parent.name.startswith(".") and path.parent.exists())] == []
    assert [path for path in kept if not path.exists()] == []


def test_an_array_of_an_archive_may_be_called_like_a_leftover(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    from scale.shared import field, xr

    for name in ("a.partial", f"a.{'0' * 32}.partial"):
        field(6).rename(name).to_netcdf(tmp_path / "archive.nc")
        out = tmp_path / name
        forecast_archive(tmp_path / "archive.nc", model, 2, out, in_process=True)
        half = out / "forecasts.zarr" / name / f"zarr.{'0' * 32}.partial"
        half.write_bytes(b"")
        forecast_archive(tmp_path / "archive.nc", model, 2, out, in_process=True)
        assert not half.exists()
        with xr.open_dataset(out / "forecasts.zarr", engine="zarr", consolidated=False) as dataset:
            assert np.isfinite(dataset[name].to_numpy()).all()


def test_hidden_files_are_no_clips_and_pages_are(tmp_path: Path) -> None:
    source = tmp_path / "source"
    images = [Image.new("L", (16, 16), value) for value in range(6)]
    for folder in ("pages", "images", ".hidden", "__MACOSX"):
        (source / folder).mkdir(parents=True)
        for i, image in enumerate(images):
            image.save(
                source / folder / f"{i}.tif", save_all=True, append_images=images[1:] if folder == "pages" else []
            )
            (source / folder / f"._{i}.tif").write_bytes(b"hidden")
    found = {each.name: (each.out, each.size > 6) for each in list_clips(source, "path")}
    assert found == {"images": ("images", False)} | {f"pages/{i}.tif": (f"pages/{i}", True) for i in range(6)}
    os.mkfifo(source / "pages" / "6.tif")  # which would block whoever opened it
    assert len(list(list_clips(source, "path"))) == 7
