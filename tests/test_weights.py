import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import stzoo
from stzoo.catalog import CHECKPOINTS
from stzoo.errors import MismatchError, SpecError, WeightsError
from stzoo.files import write_atomically
from stzoo.forecaster import Forecaster
from stzoo.tensorfile import MAX_HEADER
from stzoo.weights import (
    SPEC_KEY,
    half_precision,
    load_module,
    read_tensors,
    save_weights,
)


@pytest.fixture
def folder(forecaster: Forecaster, tmp_path: Path) -> Path:
    forecaster.save_pretrained(tmp_path)
    return tmp_path


def test_every_tensor_is_counted(folder: Path, forecaster: Forecaster) -> None:
    report = stzoo.load(folder).report
    assert report.tensors == len(forecaster.module.state_dict())
    assert report.parameters == sum(p.numel() for p in forecaster.module.parameters())
    assert report.stored_as == "float32"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("decoder.readout.bias"), "1 missing: decoder.readout.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "1 unexpected: extra"),
        (lambda s: s.update({"decoder.readout.bias": torch.zeros(7)}), r"1 misshapen: decoder.readout.bias \(7,\) for"),
    ],
)
def test_tensors_that_differ_are_named(folder: Path, change: object, message: str) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)  # type: ignore[operator]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(MismatchError, match=message):
        stzoo.load(folder)


def test_half_precision_keeps_batch_norm_statistics_and_loads_as_float32(
    forecaster: Forecaster, tmp_path: Path
) -> None:
    state = half_precision(forecaster.module.state_dict())
    assert {str(t.dtype) for n, t in state.items() if "running" in n} == {"torch.float32"}
    assert state["decoder.readout.bias"].dtype == torch.float16
    save_weights(tmp_path / "half.safetensors", forecaster.spec, state)
    module, report = load_module(forecaster.spec, tmp_path / "half.safetensors", "")
    assert report.stored_as == "float16 and float32"
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert not any(t.is_meta for t in module.state_dict().values())
    with pytest.raises(WeightsError, match="big does not fit"):
        half_precision({"big": torch.tensor([1e6])})


def test_a_lone_file_carries_its_spec(folder: Path, forecaster: Forecaster) -> None:
    file = folder / "model.safetensors"
    assert stzoo.load(file).spec == forecaster.spec
    save_file(load_file(file), file)  # loses the metadata
    with pytest.raises(WeightsError, match=SPEC_KEY):
        stzoo.load(file)
    save_file(load_file(folder / "model.safetensors"), file, {SPEC_KEY: "{"})
    with pytest.raises(SpecError, match="not JSON"):
        stzoo.load(file)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\xff" * 8 + b"{}", b"PK\x03\x04 a pickle in a zip"])
def test_what_is_no_safetensors_is_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        stzoo.load(folder)


def test_a_config_that_is_not_its_weights_is_refused(folder: Path) -> None:
    """As after a save over an older folder that was killed between its two files."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"mean": [0.5]}))
    with pytest.raises(SpecError, match="differ"):
        stzoo.load(folder)


def test_integers_in_place_of_floats_are_named(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["decoder.readout.bias"] = torch.zeros(1, dtype=torch.int32)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(MismatchError, match=r"1 of another kind: decoder.readout.bias torch.int32"):
        stzoo.load(folder)


@pytest.mark.parametrize("junk", ["[" * 100_000, "1" * 5000, '{"std": [1' + "0" * 400 + "]}"])
def test_junk_in_the_metadata_is_a_spec_error(folder: Path, junk: str) -> None:
    file = folder / "model.safetensors"
    save_file(load_file(file), file, {SPEC_KEY: junk})
    with pytest.raises(SpecError):
        stzoo.load(file)


def test_bad_configs_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for text, message in (("[", "config.json"), (json.dumps(config | {"x": 1}), "spec.x")):
        (folder / "config.json").write_text(text)
        with pytest.raises(SpecError, match=message):
            stzoo.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"holds no config.json"):
        stzoo.load(folder)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"old")
    with pytest.raises(TypeError):
        write_atomically(tmp_path / "a", "text")  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def tensor(shape: Any, offsets: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


TWICE = f'{{"a": {json.dumps(tensor([1], [0, 4]))}, "a": {json.dumps(tensor([1], [0, 4]))}}}'
HEADERS: dict[str, tuple[Any, int]] = {  # what a header says, and how many bytes follow it
    "a tensor of 2^60 bytes": ({"a": tensor([2**58], [0, 2**60])}, 4),
    "more elements than 64 bits count": ({"a": tensor([2**61, 2**61], [0, 4])}, 4),
    "an empty tensor of absurd shape": ({"a": tensor([2**62, 0], [0, 0])}, 0),
    "a side beyond 63 bits": ({"a": tensor([0, 2**64 - 1], [0, 0])}, 0),
    "a thousand dimensions": ({"a": tensor([1] * 1000, [0, 4])}, 4),
    "tensors that overlap": ({"a": tensor([1], [0, 4]), "b": tensor([1], [0, 4])}, 4),
    "bytes of no tensor": ({"a": tensor([1], [0, 4])}, 8),
    "offsets the wrong way round": ({"a": tensor([1], [4, 0])}, 8),
    "no UTF-8": (b'{"a\xff": 1}', 0),
    "a lone surrogate": (b'{"\\ud800": 1}', 0),
    "an integer of 5000 digits": (
        b'{"a": {"dtype": "F32", "shape": [1%s], "data_offsets": [0, 4]}}' % (b"0" * 5000),
        4,
    ),
    "a million nested lists": (b"[" * 1_000_000, 0),
    "a hundred thousand nested mappings": (b'{"a":' * 100_000, 0),
    "a negative side": ({"a": tensor([-1], [0, 4])}, 4),
    "metadata that is no text": ({"__metadata__": {SPEC_KEY: 5}}, 0),
    "float8": ({"a": tensor([1], [0, 1], "F8_E4M3")}, 1),
    "half bytes": ({"a": tensor([2], [0, 1], "F4")}, 1),
    "six bits": ({"a": tensor([4], [0, 3], "F6_E2M3")}, 3),
    "complex numbers": ({"a": tensor([1], [0, 8], "C64")}, 8),
    "an unknown dtype": ({"a": tensor([1], [0, 4], "X")}, 4),
}


@pytest.mark.parametrize("what", HEADERS)
def test_adversarial_headers_are_weights_errors(what: str, tmp_path: Path) -> None:
    header, size = HEADERS[what]
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(content)) + content + bytes(size))
    with pytest.raises(WeightsError, match=r"a\.safetensors"):
        read_tensors(path)
    with pytest.raises(WeightsError):
        stzoo.load(path)


def test_a_name_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    """The library takes one of them; a module is filled strictly all the same."""
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(TWICE)) + TWICE.encode() + bytes(4))
    assert list(read_tensors(tmp_path / "a.safetensors")) == ["a"]


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 1000, MAX_HEADER + 1])
def test_the_length_of_a_header_is_looked_at_before_the_header(length: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", length) + b"{}")
        if length > MAX_HEADER and length < 2**32:
            file.truncate(length + 100)  # the file is as long as it claims, with a hole
    with pytest.raises(WeightsError, match=r"its header (is said to have|has) \d+ bytes"):
        stzoo.load(path)


def test_a_hundred_thousand_tensors_are_too_many(tmp_path: Path) -> None:
    header = json.dumps({f"t{i}": tensor([0], [0, 0]) for i in range(100_000)}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(WeightsError, match=f"at most {MAX_HEADER} are read"):
        stzoo.load(tmp_path / "a.safetensors")


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    """Opening a FIFO would block, and a device has no end."""
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero"), tmp_path / "nothing"):
        with pytest.raises(WeightsError, match="it is no file"):
            read_tensors(path)


def test_names_without_end_are_cut_in_messages(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file(state | {"x" * 100_000: torch.zeros(1), "\n\x1b[31m": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(MismatchError, match="2 unexpected") as caught:
        stzoo.load(folder)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "change",
    [
        '"frames_in": NaN', '"std": [Infinity]', '"mean": [1e400]', f'"height": 1{"0" * 400}', '"arch": "\\ud800"',
        '"\\ud800": 1', f'"arch": {"[" * 900}1{"]" * 900}', f'"arch": "{"a" * 1_000_000}"', '"params": null',
        '"params": {"hid_s": NaN}', '"params": {"x": {"y": [1e999]}}', '"params": {"hid_t": 8192, "mlp_ratio": 16}',
    ],
)  # fmt: skip
def test_adversarial_specs_inside_a_file_are_spec_errors(folder: Path, change: str, forecaster: Forecaster) -> None:
    file = folder / "model.safetensors"
    spec = json.dumps(forecaster.spec.to_dict())[:-1] + f", {change}}}"
    save_file(load_file(file), file, {SPEC_KEY: spec})
    with pytest.raises(SpecError) as caught:
        stzoo.load(file)
    assert len(str(caught.value)) < 1000
    str(caught.value).encode()  # can be printed


def test_the_same_model_always_gives_the_same_bytes(forecaster: Forecaster, tmp_path: Path) -> None:
    code = "import sys, stzoo; stzoo.load(sys.argv[1]).save_pretrained(sys.argv[2])"
    forecaster.save_pretrained(tmp_path / "0")
    for k in range(3):  # each in a process of its own, whose hashes have another seed
        subprocess.run([sys.executable, "-c", code, str(tmp_path / str(k)), str(tmp_path / str(k + 1))], check=True)
    assert len({(tmp_path / str(k) / "model.safetensors").read_bytes() for k in range(4)}) == 1


def test_a_model_outlives_the_file_it_came_from(folder: Path, frames: np.ndarray) -> None:
    model = stzoo.load(folder)
    expected = model.predict(frames)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(0)  # a mapped tensor would end the process here
    np.testing.assert_array_equal(model.predict(frames), expected)


def test_a_codec_beside_a_model_that_has_one_is_refused(tmp_path: Path) -> None:
    stzoo.load("predrnn-modular-mmnist").save_pretrained(tmp_path)
    stzoo.load(tmp_path)
    (tmp_path / "codec.safetensors").write_bytes((CHECKPOINTS / "vqvae-mmnist.safetensors").read_bytes())
    with pytest.raises(MismatchError, match="holds a codec already"):
        stzoo.load(tmp_path)
