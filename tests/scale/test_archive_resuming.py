"""A run that is killed and started again comes to the very bytes of one that was not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scale.shared import field, written

from stzoo.errors import DataError
from stzoo.frames import write
from stzoo.scale import ArchiveReport, forecast_archive
from stzoo.scale.folder import ArchiveFolder
from stzoo.scale.plan import Plan

xr = pytest.importorskip("xarray")


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """25 clips, some of them damaged."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(25):
        frames = np.random.default_rng(i).integers(0, 256, (5, 16, 16), dtype=np.uint8)
        np.save(folder / f"{i:02d}.npy", frames)
    for i in (3, 4, 20):
        (folder / f"{i:02d}.npy").write_bytes(b"damaged")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clips", "archive"])
def test_killed_again_and_again(model: Path, many: Path, tmp_path: Path, kind: str) -> None:
    source, unit = many, 1
    if kind == "archive":
        source = tmp_path / "past.nc"
        whole = field(60)
        whole[30, 0, 0] = np.nan
        whole.to_netcdf(source)
        unit = 2
    command = [
        sys.executable, "-m", "stzoo", "forecast-archive", str(source), "--model", str(model), "--steps", "40",
        "--unit", str(unit), "--in-process", "--threads", "1", "--out",
    ]  # fmt: skip
    killed, whole_run = tmp_path / "killed", tmp_path / "whole"
    times: dict[str, int] = {}
    for markers in (1, 12):
        process = subprocess.Popen([*command, str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and _markers(killed) < markers:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert markers <= _markers(killed) < 25
        assert not (killed / "errors.jsonl").exists()
        now = _times(killed)
        assert times.items() <= now.items()  # what was finished before was not made again
        times = now
    report = forecast_archive(source, model, 40, killed, unit=unit, threads=1, in_process=True)
    assert report.earlier == unit * len(times)
    assert times.items() <= _times(killed).items()
    forecast_archive(source, model, 40, whole_run, unit=unit, threads=1, in_process=True)
    assert written(killed) == written(whole_run)
    assert (whole_run / "errors.jsonl").read_text().count("\n") == (3 if kind == "clips" else 4)


def _markers(folder: Path) -> int:
    done = folder / "done"
    return sum(name.isdecimal() for name in os.listdir(done)) if done.is_dir() else 0


def _times(folder: Path) -> dict[str, int]:
    """Of each finished unit, when its marker was written."""
    return {p.name: p.stat().st_mtime_ns for p in (folder / "done").iterdir() if p.name.isdecimal()}


@pytest.mark.parametrize(
    ("kind", "target", "call"),
    [
        ("archive", "stzoo.scale.forecast:create_store", 1),  # the plan is written, and nothing else
        ("clips", "stzoo.scale.forecast:write_clip_list", 1),
        ("clips", "stzoo.frames.writing:write_array", 6),  # within a unit
        ("archive", "stzoo.scale.folder:ArchiveFolder.mark", 3),  # a unit's forecasts are there, its marker is not
        ("clips", "stzoo.scale.folder:ArchiveFolder.mark", 1),
        ("archive", "stzoo.scale.folder:ArchiveFolder.finish", 1),  # all is done but errors.jsonl
    ],
)
def test_interrupted_where_it_matters(
    model: Path, many: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, target: str,
    call: int,
) -> None:  # fmt: skip
    source = many if kind == "clips" else archive

    def run(name: str) -> ArchiveReport:
        return forecast_archive(source, model, 3, tmp_path / name, unit=4, threads=1, in_process=True)

    whole = run("whole")
    with monkeypatch.context() as patch:
        patch.setattr(target.replace(":", "."), _interrupting(resolve_name(target), call))
        with pytest.raises(KeyboardInterrupt):
            run("interrupted")
    (tmp_path / "interrupted" / "done" / ".00000000.x").touch()  # as a killed process may leave behind
    assert replace(run("interrupted"), out=whole.out, seconds=0, earlier=0) == replace(whole, seconds=0)
    assert written(tmp_path / "interrupted") == written(tmp_path / "whole")
    assert not (tmp_path / "interrupted" / "done" / ".00000000.x").exists()


def _interrupting(function: Callable[..., Any], call: int) -> Callable[..., Any]:
    """The function, whose so-manieth call is Ctrl-C."""
    calls = count(1)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    return interrupted


def test_a_unit_without_its_marker_is_made_again(model: Path, many: Path, tmp_path: Path) -> None:
    def run() -> ArchiveReport:
        return forecast_archive(many, model, 3, tmp_path / "out", unit=4, in_process=True)

    run()
    before = written(tmp_path / "out")
    shutil.copy(many / "05.npy", many / "04.npy")  # mended, of another size: it would be another source
    np.save(many / "05.npy", np.zeros((5, 16, 16), np.uint8))
    with pytest.raises(DataError, match="another source"):
        run()
    (many / "04.npy").write_bytes(b"damaged")
    ArchiveFolder(tmp_path / "out").marker(1).unlink()
    assert run().earlier == 21
    after = written(tmp_path / "out")
    assert [name for name in after if after[name] != before[name]] == ["forecasts/05.npy"]


def test_memory_does_not_grow_with_the_archive(tmp_path: Path, model: Path) -> None:
    """Of the second archive five times as much is read and written, a hundred megabytes more."""
    pytest.importorskip("zarr")
    program = f"""
import resource, zarr
import xarray as xr
from stzoo.scale import forecast_archive

def peak(frames):
    name = f"{tmp_path}/{{frames}}.zarr"
    xr.Dataset().to_zarr(name, consolidated=False)
    size = (frames, 128, 128)
    zarr.open_group(name).create_array("rain", shape=size, chunks=(1, 128, 128), dtype="float32", fill_value=0.5,
                                       dimension_names=["time", "y", "x"])  # of which nothing is stored
    forecast_archive(name, "{model}", 4, f"{tmp_path}/out-{{frames}}", stride=4, unit=8, threads=1, in_process=True)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

short = peak(200)
print(peak(1000) - short)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 25, done.stdout


def test_a_run_of_before_goes_on_as_it_began(model: Path, tmp_path: Path) -> None:
    """Pictures at the model's size, and gray where the model reads gray: neither was a choice then."""
    images = [Image.fromarray(f) for f in np.random.default_rng(0).integers(0, 256, (6, 20, 38, 3), dtype=np.uint8)]
    (tmp_path / "gifs").mkdir()
    write(tmp_path / "gifs" / "a.png", images)
    write(tmp_path / "gifs" / "b.gif", images)
    out = tmp_path / "out"

    def run(**options: Any) -> None:
        forecast_archive(tmp_path / "gifs", model, 4, out, unit=1, in_process=True, **options)

    run()
    assert np.load(out / "forecasts" / "b.npy").shape == (4, 20, 38, 3)
    shutil.rmtree(out)
    run(size="model", color="gray")
    expected = written(out)
    plan = json.loads((out / "plan.json").read_text())
    old = {("keep_size" if name == "size" else name): value for name, value in plan.items() if name != "color"}
    (out / "plan.json").write_text(json.dumps(old | {"keep_size": False}, indent=2))
    (out / "done" / "plan.copy").unlink()
    ArchiveFolder(out).marker(1).unlink()
    (out / "forecasts" / "b.npy").unlink()
    with pytest.raises(DataError, match="another size"):
        run(size="own")
    run()
    assert written(out) == expected
    assert np.load(out / "forecasts" / "b.npy").shape == (4, 16, 16)


def test_a_plan_of_a_version_that_knew_no_variables_is_read_and_written_as_it_was(
    model: Path, archive: Path, tmp_path: Path
) -> None:
    forecast_archive(archive, model, 2, tmp_path / "out", threads=1, in_process=True)
    text = (tmp_path / "out" / "plan.json").read_text()
    assert list(json.loads(text)) == [
        "kind", "items", "source_sha256", "model_sha256", "codec_sha256", "spec", "steps", "every", "stride",
        "size", "color", "format", "unit", "precision", "device", "threads",
    ]  # fmt: skip
    plan = Plan.from_json(text)
    assert (plan.to_json(), plan.options.variable, plan.options.time) == (text, None, None)
    other = replace(plan, options=replace(plan.options, variable="t2m"))
    assert Plan.from_json(other.to_json()) == other
    assert plan.differences(other) == other.differences(plan) == ["variable"]
    with pytest.raises(ValueError, match="variable, time, units, missing, matched, backend must be text"):
        Plan.from_json(json.dumps(json.loads(text) | {"variable": 3}))
