import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import stzoo
from stzoo.errors import MismatchError, SpecError, WeightsError
from stzoo.forecaster import Forecaster
from stzoo.weights import SPEC_KEY, half_precision, load_module, save_weights, write_atomically


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
