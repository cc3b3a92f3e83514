"""`stzoo convert --model NAME`: a published file that was fetched by hand is read as `stzoo.load` would read it."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from models.published_shapes import published_shapes

import stzoo
from stzoo.cli import main
from stzoo.errors import MemoryNeededError
from stzoo.published import published, records
from stzoo.published.trust import Pin, pin_file, write_pin
from stzoo.spec import ModelSpec

FRAMES = {
    "frames_in": 3, "frames_out": 3, "channels": 2, "height": 16, "width": 16, "value_range": [0.0, 1.0],
}  # fmt: skip
DESCRIBED = {"arch": "tau", "params": {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2}}
SPEC = ModelSpec.from_dict({**FRAMES, **DESCRIBED})
NAME, GIT = "tau-kth.openstl-ep5", "tau-kth.official"


def file_of(spec: ModelSpec, path: Path) -> Path:
    torch.save(
        {
            name: torch.zeros(shape, dtype=torch.int64 if name.endswith("tracked") else torch.float32)
            for name, shape in published_shapes(spec).items()
        },
        path,
    )
    return path


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of `SPEC`, and two records of it: of `NAME` nothing is known, and git knows that of `GIT`."""
    monkeypatch.setenv("STZOO_HOME", str(tmp_path / "home"))
    path = file_of(SPEC, tmp_path / "theirs.pth")
    content = path.read_bytes()
    one = {
        "model": "tau", "dataset": "kth", "method": "TAU", "stated": "p:1", "file": "a/b/c/d",
        "figures": {"mse": "1.5"}, "spec": DESCRIBED,
    }  # fmt: skip
    head = {"page": "a page", "license": "none", "layout": "openstl", "address": "https://example.org/"}
    known = one | {"git": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}
    files: dict[str, Any] = {
        "datasets.json": {"datasets": {"kth": {"frames": FRAMES, "protocol": "as it is", "clip": None}}},
        "openstl.json": {**head, "publisher": "openstl", "by": "OpenSTL", "files": {NAME: one | {"epochs": 5}}},
        "official.json": {**head, "publisher": "official", "by": "its authors", "files": {GIT: known}},
    }
    monkeypatch.setattr(records, "_read", files.__getitem__)
    published.cache_clear()
    yield path
    monkeypatch.undo()
    published.cache_clear()


@pytest.fixture
def convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Converts to tmp_path/out, and returns the exit code and what was printed."""

    def run(file: Path, name: str) -> tuple[int, str]:
        code = main(["convert", "OpenSTL", str(file), "--model", name, "--out", str(tmp_path / "out")])
        return code, "".join(capsys.readouterr())

    return run


UNKNOWN = f"nothing is known of the content of {NAME}; that this file is it is noted because you say so"


def test_the_folder_has_the_spec_and_the_origin_of_the_file(file: Path, convert: Any, tmp_path: Path) -> None:
    code, said = convert(file, NAME)
    assert code == 0
    assert UNKNOWN in said
    assert "assumed" not in said  # the record says what no tensor tells, and --set cannot change it
    model = stzoo.load(tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert model.spec == SPEC
    assert NAME in card
    assert "https://example.org/a/b/c/d" in card
    origin = model.report.origin
    assert origin is not None
    assert (origin.name, origin.publisher, origin.size) == (NAME, "OpenSTL", file.stat().st_size)
    assert origin.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_where_the_record_is_wrong_the_file_decides(file: Path, convert: Any, tmp_path: Path) -> None:
    wider = SPEC.replace(hid_t=16, frames_in=4)
    assert convert(file_of(wider, file), NAME)[0] == 0
    assert stzoo.load(tmp_path / "out").spec == wider
    for other, message in (
        (SPEC.replace(channels=3), "frames of 3 channels, not of 2"),
        (SPEC.replace(arch="simvp"), "holds a model with arch simvp, not 'tau'"),
    ):
        (tmp_path / "out/model.safetensors").unlink(missing_ok=True)
        code, said = convert(file_of(other, file), NAME)
        assert code == 2
        assert message in said


def test_git_knows_the_file(file: Path, convert: Any, tmp_path: Path) -> None:
    code, said = convert(file, GIT)
    assert (code, "nothing is known" in said) == (0, False)
    assert stzoo.load(tmp_path / "out").report.origin.name == GIT
    (tmp_path / "out/model.safetensors").unlink()
    code, said = convert(file_of(SPEC.replace(n_t=3), file), GIT)
    assert code == 2
    assert f"it is not {GIT}, as --model says; to convert a file of your own, leave out --model and give --da" in said
    assert not (tmp_path / "out/model.safetensors").exists()


def test_a_pin_knows_the_file(file: Path, convert: Any, tmp_path: Path) -> None:
    write_pin(NAME, Pin(url="https://example.org/x", size=1, sha256="0" * 64))
    code, said = convert(file, NAME)
    assert code == 2
    assert f"and the first download of {NAME} had {'0' * 64}; it is not {NAME}, as --model says" in said
    assert f"remove {pin_file(NAME)}" in said
    assert not (tmp_path / "out").exists()
    write_pin(NAME, Pin(url="https://example.org/x", size=1, sha256=hashlib.sha256(file.read_bytes()).hexdigest()))
    code, said = convert(file, NAME)
    assert (code, UNKNOWN in said) == (0, False)


def test_for_lack_of_memory_no_mirror_is_asked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that `stzoo.load` fetched itself: another copy of it would need as much."""
    asked = []

    def download(address: str, path: Path, *_: Any, **__: Any) -> str:
        asked.append(address)
        path.write_bytes(file.read_bytes())
        return hashlib.sha256(file.read_bytes()).hexdigest()

    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("stzoo.published.obtaining.download", download)
    monkeypatch.setattr("stzoo.convert.torch_file._memory", fail)
    monkeypatch.setenv("STZOO_MIRRORS", "https://example.com/mirror")
    with pytest.raises(MemoryNeededError, match=r"a tensor of [\d,]+ bytes in https://example\.org/a/b/c/d; end other"):
        stzoo.load(NAME, progress=False)
    assert len(asked) == 1


@pytest.mark.parametrize("content", [None, b""])
def test_a_file_that_is_none_is_said_to_be(content: bytes | None, file: Path, convert: Any) -> None:
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    code, said = convert(file, GIT)
    assert code == 2
    assert ("does not exist" if content is None else "it is empty") in said
