"""What a run goes on by may be damaged: that shows, the run says so, and what can be gone on from is gone on from."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scale.shared import written
from scale.test_archive_naming import clip

from stzoo.errors import DataError, StzooError
from stzoo.scale import ArchiveReport, forecast_archive
from stzoo.scale.folder import ArchiveFolder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Five clips, of which one is damaged."""
    for i in range(5):
        clip(tmp_path / "clips" / f"{i}.npy")
    (tmp_path / "clips" / "3.npy").write_bytes(b"no array")
    return tmp_path / "clips"


@pytest.fixture
def half(source: Path, model: Path, tmp_path: Path) -> ArchiveFolder:
    """A run of which the first and the last of three units are left."""
    out = ArchiveFolder(tmp_path / "out")
    go_on(source, model, out.path)
    shutil.copytree(out.path, tmp_path / "whole")
    out.marker(1).unlink()
    out.errors.unlink()
    return out


def go_on(source: Path, model: Path, out: Path, **options: Any) -> ArchiveReport:
    return forecast_archive(source, model, 2, out, unit=2, in_process=True, **options)


CHANGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "cut at the end": lambda content: content[:-1],
    "no text": lambda content: b"\xff\xfe" + content,
    "another digit": lambda content: content.replace(b'"threads": ', b'"threads": 1'),
    "another type": lambda content: content.replace(b'"unit": 2', b'"unit": 2.0'),
    "of another version": lambda content: content.replace(b'"unit": 2', b'"unit": 2, "overlap": 1'),
    "of an older version": lambda content: content.replace(b'"unit": 2,', b""),
    "a list": lambda content: b"[]",
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_plan_is_refused_and_its_copy_helps(
    source: Path, model: Path, half: ArchiveFolder, tmp_path: Path, change: str
) -> None:
    plan = half.path / "plan.json"
    whole = plan.read_bytes()
    plan.write_bytes(CHANGES[change](whole))
    with pytest.raises(DataError, match=r"plan\.json is damaged: .*; remove this file, and the same command goes on"):
        go_on(source, model, half.path)
    plan.unlink()  # as the message says
    with pytest.raises(DataError, match="another size"):
        go_on(source, model, half.path, size="own")
    assert go_on(source, model, half.path).earlier == 3
    assert plan.read_bytes() == whole
    assert written(half.path) == written(tmp_path / "whole")


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_copy_of_the_plan_is_written_again(
    source: Path, model: Path, half: ArchiveFolder, tmp_path: Path, change: str
) -> None:
    copy = half.done / "plan.copy"
    whole = copy.read_bytes()
    copy.write_bytes(CHANGES[change](whole))
    assert go_on(source, model, half.path).earlier == 3
    assert copy.read_bytes() == whole


def test_a_run_that_an_older_version_began_goes_on(
    source: Path, model: Path, half: ArchiveFolder, tmp_path: Path
) -> None:
    """It knew no copies."""
    (half.done / "plan.copy").unlink()
    (half.done / "clips.sha256").unlink()
    assert go_on(source, model, half.path).earlier == 3
    assert written(half.path) == written(tmp_path / "whole")
    (half.done / "plan.copy").unlink()
    (half.path / "plan.json").write_bytes(b"")
    with pytest.raises(DataError, match=r"plan\.json is damaged: .*; remove .*out, or name another folder"):
        go_on(source, model, half.path)


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[:40],
        lambda content: content.replace(b'"0.npy"', b'"8.npy"'),
        lambda content: content.replace(b'"size": ', b'"size": 9'),
        lambda content: b"\xff" + content,
    ],
)
def test_a_damaged_list_of_clips_is_written_again(
    source: Path, model: Path, half: ArchiveFolder, tmp_path: Path, change: Any, sealed: bool
) -> None:
    half.clips.write_bytes(change(half.clips.read_bytes()))
    if not sealed:
        (half.done / "clips.sha256").unlink()
    with pytest.warns(UserWarning, match=r"clips\.jsonl is damaged, and is written again"):
        assert go_on(source, model, half.path).earlier == 3
    assert written(half.path) == written(tmp_path / "whole")


@pytest.mark.parametrize("sealed", [True, False])
def test_the_name_of_a_forecast_in_the_list_is_not_taken_on_trust(
    source: Path, model: Path, half: ArchiveFolder, tmp_path: Path, sealed: bool
) -> None:
    if not sealed:
        (half.done / "clips.sha256").unlink()
    half.clips.write_bytes(half.clips.read_bytes().replace(b'"out": "2"', b'"out": "../../2"'))
    with pytest.warns(UserWarning, match="is written again"):
        go_on(source, model, half.path)
    assert not (tmp_path / "2.npy").exists()
    assert written(half.path) == written(tmp_path / "whole")


def test_a_list_that_cannot_be_what_it_was_is_refused(source: Path, model: Path, half: ArchiveFolder) -> None:
    (half.done / "clips.sha256").write_text("0" * 64)
    with pytest.warns(UserWarning, match="is written again"), pytest.raises(DataError, match="begin anew"):
        go_on(source, model, half.path)


@pytest.mark.parametrize("content", [b"{", b'{"item": "3.npy"', b"[]\n", b"\xff\n", b"\0" * 9, b'{"item": 1}\n'])
def test_a_unit_with_a_damaged_marker_is_made_again(
    source: Path, model: Path, half: ArchiveFolder, tmp_path: Path, content: bytes
) -> None:
    go_on(source, model, half.path)
    half.marker(1).write_bytes(content)
    (half.forecasts / "2.npy").unlink()
    assert half.failed(1) is None
    assert go_on(source, model, half.path).earlier == 3
    assert written(half.path) == written(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["clips", "archive"])
def test_forecasts_that_are_gone_do_not_count_as_made(
    source: Path, model: Path, half: ArchiveFolder, archive: Path, kind: str
) -> None:
    if kind == "archive":
        half, source = ArchiveFolder(half.path.with_name("another")), archive
        go_on(source, model, half.path)
    gone = half.store if kind == "archive" else half.forecasts
    shutil.rmtree(gone)
    with pytest.raises(DataError, match=f"{gone.name} is gone, although forecasts were made; remove .*done to have"):
        go_on(source, model, half.path)
    shutil.rmtree(half.done)  # as the message says
    assert go_on(source, model, half.path).earlier == 0
    assert gone.is_dir()


def test_strangers_among_the_markers(source: Path, model: Path, half: ArchiveFolder, tmp_path: Path) -> None:
    (half.done / "00000001").mkdir()
    with pytest.raises(StzooError, match="cannot be written"):
        go_on(source, model, half.path)
    (half.done / "00000001").rmdir()
    (half.done / "00000007x").write_bytes(b"mine")
    (half.done / "12").mkdir()
    (half.done / "00000013").symlink_to("nowhere")
    assert go_on(source, model, half.path).earlier == 3
    assert written(half.path) == written(tmp_path / "whole")


def test_a_full_disk_ends_a_run_of_any_kind_in_one_line(
    source: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """netCDF4 and NumPy do not say that the disk is full, in an error that others do not raise."""
    pytest.importorskip("netCDF4")
    from scale.shared import field, xr

    field(6).to_netcdf(source / "field.nc")
    out = tmp_path / "out"
    for error in (OSError(28, "No space left on device"), OSError("51200 requested and 128 written")):
        with monkeypatch.context() as patch:
            patch.setattr("stzoo.frames.writing.write_array", lambda *_, error=error: _raise(error))
            with pytest.raises(StzooError, match=r"0\.npy cannot be written: .*; what is finished stays") as raised:
                go_on(source, model, out)
        assert str(raised.value).count("cannot be written") == 1
    for number in (*range(5), "x"):
        (source / f"{number}.npy").unlink(missing_ok=True)
    with monkeypatch.context() as patch:
        patch.setattr(xr.Dataset, "to_netcdf", lambda *_, **__: _raise(RuntimeError("NetCDF: HDF error")))
        with pytest.raises(
            StzooError, match=r"field\.nc cannot be written: not all of it fits there; is the disk full"
        ):
            go_on(source, model, tmp_path / "nc", format="nc")
    assert go_on(source, model, tmp_path / "nc", format="nc").failed == 0
    with monkeypatch.context() as patch:
        patch.setattr("stzoo.scale.forecast.create_store", lambda *_: _raise(OSError(28, "No space left on device")))
        with pytest.raises(StzooError, match=r"zarr cannot be written: .*No space left on device; what is finished"):
            go_on(source / "field.nc", model, tmp_path / "zarr")


def _raise(error: Exception) -> None:
    raise error


def test_an_empty_list_of_errors_is_json_lines(source: Path, model: Path, half: ArchiveFolder) -> None:
    go_on(source, model, half.path)
    (line,) = half.errors.read_text().splitlines()
    assert json.loads(line)["index"] == 3
    assert np.load(half.forecasts / "4.npy").shape == (2, 16, 16)
