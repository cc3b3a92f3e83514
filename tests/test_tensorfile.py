"""What is hashed is what is loaded, however often the file is swapped, overwritten or cut meanwhile."""

import dataclasses
import os
import pickle
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file

import stzoo
from stzoo import hashing, tensorfile
from stzoo.errors import IntegrityError, MismatchError, WeightsError
from stzoo.forecaster import Forecaster
from stzoo.hub import resolve
from stzoo.weights import load_module, read_tensors, save_weights

TENSORS = {
    "half": torch.randn(3, 4).half(), "bytes": torch.arange(5, dtype=torch.uint8), "empty": torch.zeros(0, 7),
    "scalar": torch.tensor(3), "truth": torch.tensor([True, False]), "wide": torch.randn(70_000, 2),
}  # fmt: skip


@pytest.fixture(params=[True, False], ids=["kept in memory", "read twice"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether files are small enough to be kept in memory after they were hashed."""
    if not request.param:
        monkeypatch.setattr(hashing, "MAX_KEPT", 0)
        monkeypatch.setattr(hashing, "_START", 1 << 14)
    return bool(request.param)


@pytest.fixture
def folder(forecaster: Forecaster, tmp_path: Path) -> Path:
    forecaster.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_tensors_are_those_that_the_library_reads(kept: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(TENSORS, path, {"key": "text"})
    known = hashing.hashed(path)
    assert (known.content is not None) == kept
    assert tensorfile.metadata_of(known) == {"key": "text"}
    for found in (tensorfile.read(path), tensorfile.read(path, known=known)):
        assert found.sha256 == known.sha256 == hashing.file_sha256(path)
        assert found.tensors.keys() == TENSORS.keys()
        for name, tensor in load_file(path).items():
            assert found.tensors[name].dtype == tensor.dtype
            assert torch.equal(found.tensors[name], tensor)


def test_a_swap_after_the_hash_never_reaches_the_module(kept: bool, folder: Path) -> None:
    """The bytes that were hashed are loaded, or nothing is."""
    found, expected = resolve(folder), stzoo.load(folder).module.state_dict()
    weights = folder / "model.safetensors"
    state = {name: torch.zeros_like(t) for name, t in expected.items()}
    save_weights(weights, found.spec, state)
    if not kept:
        with pytest.raises(IntegrityError, match="it was changed after it had been found; load again"):
            Forecaster.from_files(found, "model")
        return
    loaded = Forecaster.from_files(found, "model")
    assert loaded.report.sha256 == found.sha256
    assert all(torch.equal(t, expected[name]) for name, t in loaded.module.state_dict().items())


def test_a_swapped_codec_is_noticed(kept: bool, tmp_path: Path) -> None:
    found = resolve("tctn-modular-mmnist")
    assert found.codec is not None
    swapped = tmp_path / "codec.safetensors"
    save_file({name: torch.zeros_like(t) for name, t in read_tensors(found.codec).items()}, swapped)
    with pytest.raises(IntegrityError, match=r"codec\.safetensors has sha256"):
        Forecaster.from_files(dataclasses.replace(found, codec=swapped, known={}), "model")


def test_loads_during_swaps_hold_one_model_or_the_other_and_say_which(folder: Path, tmp_path: Path) -> None:
    """The report's sha256 is that of the weights in the module."""
    weights, model = folder / "model.safetensors", stzoo.load(folder)
    contents = {}
    for value in (0.25, 0.75):
        state = {n: torch.full_like(t, value) for n, t in model.module.state_dict().items()}
        save_weights(tmp_path / "new.safetensors", model.spec, state)
        contents[hashing.file_sha256(tmp_path / "new.safetensors")] = (
            value,
            (tmp_path / "new.safetensors").read_bytes(),
        )
    weights.write_bytes(next(iter(contents.values()))[1])
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for _, content in contents.values():
                (folder / "next").write_bytes(content)
                os.replace(folder / "next", weights)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(20):
            loaded = stzoo.load(folder)
            assert loaded.report.sha256 is not None
            value = contents[loaded.report.sha256][0]
            assert all((t == torch.full_like(t, value)).all() for t in loaded.module.state_dict().values())
    finally:
        done.set()
        swapper.join()


def test_a_file_that_is_cut_while_it_is_read_is_an_error(folder: Path) -> None:
    """Not the end of the process, as it would be if the file were mapped."""
    weights = folder / "model.safetensors"
    with pytest.raises(WeightsError, match="it was cut while it was read"):
        tensorfile.read(weights, lambda header: os.truncate(weights, weights.stat().st_size - 100))


def test_no_memory_is_taken_before_the_shapes_are_known_to_fit(forecaster: Forecaster, tmp_path: Path) -> None:
    """A file of a few blocks may claim any size, with a hole in it."""
    path = tmp_path / "a.safetensors"
    head = save({"a": torch.zeros(0)})
    claimed = 2**40
    head = head.replace(b'"F32"', b'"U8"').replace(b"[0]", b"[%d]" % claimed).replace(b"[0,0]", b"[0,%d]" % claimed)
    length = head.rindex(b"}") + 1 - 8
    with path.open("wb") as file:
        file.write(length.to_bytes(8, "little") + head[8 : 8 + length])
        file.truncate(8 + length + claimed)
    with pytest.raises(MismatchError, match="1 unexpected: a"):
        load_module(forecaster.spec, path, None)


def test_found_files_travel_to_other_processes_without_their_bytes(folder: Path) -> None:
    found = resolve(folder)
    assert found.known
    sent = pickle.dumps(found)
    assert len(sent) < 5000
    again = pickle.loads(sent)
    assert again == found
    assert Forecaster.from_files(again, "model").report.sha256 == found.sha256


def test_a_loaded_module_shares_no_memory_with_what_was_read(folder: Path) -> None:
    found = resolve(folder)
    before = bytes(found.known[found.path].start)
    model = Forecaster.from_files(found, "model")
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.add_(1)
    assert bytes(found.known[found.path].start) == before


def test_what_is_written_has_the_bytes_that_the_library_writes() -> None:
    shapes = [(3,), (), (2, 5), (0,)]
    tensors = {
        f"{name}-{number}é{case}": (torch.rand(shape) * 100).to(dtype)
        for name, dtype in tensorfile.DTYPES.items()
        for number, shape in enumerate(shapes)
        for case in "bA"
    }
    assert b"".join(tensorfile.packed(tensors, {"key": "é"})) == save(tensors, {"key": "é"})
