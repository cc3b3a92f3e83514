"""What cannot be done is refused before the first forecast, and leaves nothing behind."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from scale.shared import field, written

from stzoo import cli
from stzoo.errors import DataError, FramesError, MissingExtraError, SpecError, StzooError
from stzoo.opening import create
from stzoo.scale import forecast_archive
from stzoo.scale.folder import ArchiveFolder
from stzoo.spec import ModelSpec


@dataclass(frozen=True)
class Place:
    """Where a test may put what is wrong."""

    clips: Path
    archive: Path
    model: Path
    out: Path


@pytest.fixture
def place(clips: Path, archive: Path, model: Path, tmp_path: Path) -> Place:
    return Place(clips, archive, model, tmp_path / "out")


def _wide(place: Place, suffix: str = "wide.npy") -> Path:
    folder = place.out.parent / "wide"
    folder.mkdir()
    np.save(folder / suffix, np.zeros((6, 16, 17), np.uint8))
    return folder


def _of_one_size(place: Place) -> Path:
    """A model whose weights have the size of frames in them."""
    params = {"hid_s": 4, "n_s": 2, "n_t": 2, "hid_t": 8, "translator": "mlpmixer"}
    spec = ModelSpec(arch="simvp", frames_in=4, frames_out=4, channels=1, height=16, width=16, params=params)
    create(spec).save_pretrained(place.out.parent / "fixed")
    return place.out.parent / "fixed"


def _table(place: Place, **columns: list[Any]) -> Path:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table(columns), place.clips / "table.parquet")
    return place.clips / "table.parquet"


def _made(folder: Path, **files: bytes) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def _saved(place: Place, array: Any) -> Path:
    array.to_netcdf(place.archive.parent / "other.nc")
    return place.archive.parent / "other.nc"


def _maps(place: Place) -> Path:
    folder = place.out.parent / "maps"
    folder.mkdir()
    field(9).to_netcdf(folder / "f.nc")
    return folder


def _file(path: Path) -> Path:
    path.write_bytes(b"content")
    return path


WRONG: dict[str, tuple[Callable[[Place], dict[str, Any]], type[Exception], str]] = {
    "no source": (lambda p: {"source": p.clips / "absent"}, DataError, "does not exist"),
    "one clip": (lambda p: {"source": p.clips / "one.npy"}, DataError, "stzoo rollout"),
    "no clips": (lambda p: {"source": _made(p.out.parent / "empty", text=b"")}, DataError, "holds no video"),
    "a wrong size": (
        lambda p: {"source": _wide(p), "model": _of_one_size(p)}, FramesError, "16x16, the only size this model takes"
    ),
    "nothing sound": (
        lambda p: {"source": _made(p.out.parent / "bad", **{"a.npy": b"a", "b.npy": b"b"})},
        FramesError,
        "of 2 clips",
    ),
    "no such model": (lambda p: {"model": "tau-mnist"}, StzooError, "tau-mmnist"),
    "a codec": (lambda p: {"model": "vqvae-mmnist"}, SpecError, "codec"),
    "no steps": (lambda p: {"steps": 0}, SpecError, "--steps is 0"),
    "no unit": (lambda p: {"unit": 0}, SpecError, "--unit is 0"),
    "no such device": (lambda p: {"device": "tpu"}, SpecError, "cpu, cuda"),
    "no such precision": (lambda p: {"precision": "int8"}, SpecError, "bfloat16"),
    "no such format": (lambda p: {"format": "doc"}, SpecError, "npz"),
    "a format for fields": (lambda p: {"format": "nc"}, FramesError, "cannot write"),
    "a stride of clips": (lambda p: {"stride": 2}, SpecError, "--stride is for archives"),
    "a column of clips": (lambda p: {"column": "where"}, SpecError, "--column is for"),
    "a format of an archive": (lambda p: {"source": p.archive, "format": "gif"}, SpecError, "--format, --size and"),
    "a size of an archive": (lambda p: {"source": p.archive, "size": "own"}, SpecError, "--format, --size and"),
    "two ways to run": (lambda p: {"workers": 2}, SpecError, "--in-process"),
    "a variable that no map among the clips has": (
        lambda p: {"source": _maps(p), "variable": "u10"}, FramesError, "f.nc: the variable 'u10' is not there"
    ),
    "a variable of clips without maps": (lambda p: {"source": _wide(p), "variable": "t2m"}, SpecError, "is for netCDF"),
    "a time of clips without maps": (lambda p: {"source": _wide(p), "time": "t"}, SpecError, "--time is for netCDF"),
    "no such variable": (
        lambda p: {"source": p.archive, "variable": "u10"}, FramesError, "'u10' is not there; there are t2m"
    ),
    "no such time": (lambda p: {"source": p.archive, "time": "hour"}, FramesError, "hour"),
    "other units": (
        lambda p: {"source": _saved(p, field(9).assign_attrs(units="K"))}, FramesError, "r.nc: the values are in 'K'"
    ),
    "too few frames": (lambda p: {"every": 9}, FramesError, "every=9 leaves"),
    "too few times": (lambda p: {"source": p.archive, "every": 10}, DataError, "has 30 times; a forecast reads 31"),
    "too large a unit": (lambda p: {"source": p.archive, "unit": 2**20}, DataError, "--unit of at most"),
    "another size": (
        lambda p: {"source": _saved(p, field(9)[:, :15]), "model": _of_one_size(p)}, FramesError, "given 15x16"
    ),
    "no such choice of size": (lambda p: {"size": "small"}, SpecError, "it may be model or own"),
    "no such choice of colour": (lambda p: {"color": "red"}, SpecError, "it may be gray"),
    "other dimensions": (lambda p: {"source": _saved(p, field(9).expand_dims(a=2, b=2))}, FramesError, "dimensions"),
    "falling times": (lambda p: {"source": _saved(p, field(9)[::-1])}, DataError, "rise"),
    "a dimension of ours": (
        lambda p: {"source": _saved(p, field(9).drop_vars("step").rename(latitude="step"))}, DataError, "rename"
    ),
    "no archive": (lambda p: {"source": _file(p.clips / "no.nc")}, FramesError, "damaged"),
    "no table": (lambda p: {"source": _file(p.clips / "no.parquet")}, DataError, "no Parquet table"),
    "no column": (lambda p: {"source": _table(p, file=["a"], size=[1])}, DataError, "it has file, size"),
    "no paths": (lambda p: {"source": _table(p, path=[1, 2])}, DataError, "expected the path of a clip"),
    "an empty table": (lambda p: {"source": _table(p, path=[])}, DataError, "holds no"),
    "out is in source": (lambda p: {"out": p.clips / "out"}, DataError, "lies in"),
    "out is source": (lambda p: {"out": p.clips}, DataError, "lies in"),
    "out is a file": (lambda p: {"out": _file(p.out)}, DataError, "is not a folder"),
    "out is in no folder": (lambda p: {"out": p.out / "there"}, DataError, "does not exist"),
    "out holds hidden things": (lambda p: {"out": _made(p.out, **{".git": b"precious"})}, DataError, "holds no run"),
    "out holds other things": (lambda p: {"out": _made(p.out, mine=b"precious")}, DataError, "holds no run"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_refused_and_nothing_is_written(place: Place, what: str) -> None:
    change, kind, says = WRONG[what]
    arguments = {"source": place.clips, "model": place.model, "steps": 3, "out": place.out, "in_process": True}
    arguments |= change(place)
    before = written(place.out.parent)
    with pytest.raises(kind) as raised:
        forecast_archive(**arguments)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert written(place.out.parent) == before
    assert place.out.exists() == (what in ("out is a file", "out holds other things", "out holds hidden things"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 4}, "another steps;"),
        ({"every": 2, "size": "own"}, "another every and size;"),
        ({"model": "other"}, "another model;"),
        ({"threads": 2}, "another threads;"),
        ({"source": "fewer"}, "another source;"),
    ],
)
def test_another_run_in_the_folder_is_refused(place: Place, spec: ModelSpec, change: dict[str, Any], says: str) -> None:
    arguments: dict[str, Any] = {"source": place.clips, "model": place.model, "steps": 3, "out": place.out}
    forecast_archive(**arguments, threads=1, in_process=True)
    before = written(place.out)
    other = place.out.parent / "other"
    if "model" in change:
        create(spec.replace(n_t=3)).save_pretrained(other)
        change = {"model": other}
    if "source" in change:
        (place.clips / "two.npy").unlink()
        change = {}
    with pytest.raises(DataError, match=says):
        forecast_archive(**arguments | {"threads": 1} | change, in_process=True)
    assert written(place.out) == before


def test_a_damaged_plan_and_a_busy_folder_are_refused(place: Place) -> None:
    def run() -> None:
        forecast_archive(place.clips, place.model, 3, place.out, in_process=True)

    run()
    with FileLock(place.out / ".lock"), pytest.raises(DataError, match="another process is at work"):
        run()
    plan = place.out / "plan.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"unknown": 1}))
    with pytest.raises(DataError, match=r"plan\.json is damaged"):
        run()
    plan.write_text("{")
    with pytest.raises(DataError, match=r"plan\.json is damaged"):
        run()


def test_a_fault_of_the_model_or_the_disc_ends_the_run_which_then_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "forecast-archive", str(place.clips), "--model", str(place.model), "--steps", "3", "--out", str(place.out),
        "--in-process", "--unit", "2",
    ]  # fmt: skip
    for target, error, says in (
        ("stzoo.frames.write", OSError(28, "No space left on device"), "cannot be written: [Errno 28] No space left"),
        ("stzoo.scale.worker.future", RuntimeError("not enough memory: 9 GB\nat"), "smaller --unit"),
        ("stzoo.frames.read", MemoryError(), "MemoryError"),
        ("stzoo.frames.read", MissingExtraError('pip install "stzoo[video]"'), "stzoo[video]"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr("stzoo.scale.clips.read_clip", lambda *_: object())  # what is looked at first is sound
            patch.setattr(target, _raising(error))
            assert cli.main(command) == 2
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stzoo: ")]
        assert len(said) == 1
        assert says in said[0]
    assert not ArchiveFolder(place.out).finished()
    assert cli.main(command) == 0
    assert sum(ArchiveFolder(place.out).finished().values()) == 1


def _raising(error: Exception) -> Callable[..., Any]:
    def raises(*_: Any, **__: Any) -> Any:
        raise error

    return raises
