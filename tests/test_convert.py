"""Published checkpoints: what comes out forecasts what the published code would, and nothing is lost on the way."""

import dataclasses
import json
import os
import pickle
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import stzoo
from stzoo.cli import main
from stzoo.convert import convert
from stzoo.errors import MismatchError, SpecError, StzooError, WeightsError
from stzoo.models import architectures, build
from stzoo.spec import ModelSpec

GATED = {"hid_s": 4, "hid_t": 32, "n_s": 3, "n_t": 3, "mlp_ratio": 2}
SPECS = {
    "tau": ("tau", GATED),
    "gsta": ("simvp", GATED),
    "incepu": ("simvp", {"translator": "incepu", "hid_s": 8, "hid_t": 32, "n_s": 3, "n_t": 3}),
}


def spec_of(name: str) -> ModelSpec:
    arch, params = SPECS[name]
    return ModelSpec(arch=arch, frames_in=3, frames_out=3, channels=2, height=16, width=16, params=params)


def gated_names(blocks: int) -> dict[str, str]:
    """Our name of every tensor of the translator -> its published name, spelt out."""
    names = {}
    for i in range(blocks):
        ours, theirs = f"translator.{i}", f"hid.enc.{i}.block"
        for n in (1, 2):
            names[f"{ours}.scale{n}"] = f"{theirs}.layer_scale_{n}"
            for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                names[f"{ours}.norm{n}.{leaf}"] = f"{theirs}.norm{n}.{leaf}"
        parts = {"proj1": "attn.proj_1", "proj2": "attn.proj_2"}
        parts |= {"mlp.0": "mlp.fc1", "mlp.1": "mlp.dwconv.dwconv", "mlp.3": "mlp.fc2"}
        for gate in ("statical", "attention"):
            for j, conv in enumerate(("conv0", "conv_spatial", "conv1")):
                parts[f"gate.{gate}.{j}"] = f"attn.spatial_gating_unit.{conv}"
        for j in (0, 2):
            parts[f"gate.dynamical.{j}"] = f"attn.spatial_gating_unit.fc.{j}"
        for a, b in parts.items():
            for leaf in ("weight", "bias"):
                names[f"{ours}.{a}.{leaf}"] = f"{theirs}.{b}.{leaf}"
        for leaf in ("weight", "bias"):
            names[f"{ours}.reduction.{leaf}"] = f"hid.enc.{i}.reduction.{leaf}"
    return names


def incepu_names(blocks: int) -> dict[str, str]:
    names = {}
    for ours, theirs in (("down", "enc"), ("up", "dec")):
        for i in range(blocks):
            for leaf in ("weight", "bias"):
                names[f"translator.{ours}.{i}.reduce.{leaf}"] = f"hid.{theirs}.{i}.conv1.{leaf}"
                for j in range(4):
                    for k, part in enumerate(("conv", "norm")):
                        name = f"hid.{theirs}.{i}.layers.{j}.{part}.{leaf}"
                        names[f"translator.{ours}.{i}.branches.{j}.{k}.{leaf}"] = name
    return names


def frame_names(layers: int) -> dict[str, str]:
    names = {}
    for leaf in ("weight", "bias"):
        names[f"decoder.readout.{leaf}"] = f"dec.readout.{leaf}"
        for i in range(layers):
            up = ".0" if (layers - 1 - i) % 2 else ""  # where it upsamples, the convolution lies in a shuffle
            names[f"encoder.layers.{i}.conv.{leaf}"] = f"enc.enc.{i}.conv.conv.{leaf}"
            names[f"encoder.layers.{i}.norm.{leaf}"] = f"enc.enc.{i}.conv.norm.{leaf}"
            names[f"decoder.layers.{i}.conv.{leaf}"] = f"dec.dec.{i}.conv.conv{up}.{leaf}"
            names[f"decoder.layers.{i}.norm.{leaf}"] = f"dec.dec.{i}.conv.norm.{leaf}"
    return names


def published(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random weights of our module, and the same under their published names and shapes."""
    torch.manual_seed(0)
    ours = build(spec_of(name)).state_dict()
    for key, tensor in ours.items():
        if tensor.is_floating_point():
            tensor.add_(0.1 * torch.rand_like(tensor))
        else:
            tensor.fill_(len(key))
    names = frame_names(3) | (incepu_names(3) if name == "incepu" else gated_names(3))
    theirs = {names[k]: t.flatten() if k.endswith(("scale1", "scale2")) else t for k, t in ours.items()}
    return ours, theirs


WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda s: s,
    "wrapped": lambda s: {"state_dict": s, "epoch": 3, "loss": 0.5},
    "prefixed": lambda s: {f"model.{k}": t for k, t in s.items()},
    "both": lambda s: {"state_dict": {f"model.{k}": t for k, t in s.items()}},
    "parallel": lambda s: {f"module.{k}": t for k, t in s.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("name", SPECS)
def test_every_tensor_finds_its_place(name: str, wrapping: str, tmp_path: Path) -> None:
    ours, theirs = published(name)
    torch.save(WRAPPINGS[wrapping](theirs), tmp_path / "ckpt.pth")
    report = convert("openstl", tmp_path / "ckpt.pth", spec_of(name), tmp_path / "out")
    assert report.tensors == len(ours)
    assert report.unused == ()
    loaded = stzoo.load(tmp_path / "out")
    assert loaded.spec == spec_of(name)
    state = loaded.module.state_dict()
    assert state.keys() == ours.keys()
    assert all(torch.equal(state[k], t) for k, t in ours.items())


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], Any]], Path]:
    """A TAU checkpoint, changed before it is written."""

    def write(change: Callable[[dict[str, Any]], Any]) -> Path:
        state: dict[str, Any] = dict(published("tau")[1])
        change(state)
        torch.save(state, tmp_path / "ckpt.pth")
        return tmp_path / "ckpt.pth"

    return write


READOUT = "dec.readout.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(READOUT), r"dec\.readout\.weight is missing"),
        (lambda s: s.update({READOUT: torch.zeros(2, 5, 1, 1)}), r"readout\.weight is \(2, 5, 1, 1\), not \(2, 4,"),
        (lambda s: s.update({READOUT: s[READOUT].flatten()}), r"dec\.readout\.weight is \(8,\), not"),
        (lambda s: s.update({"hid.enc.1.block.layer_scale_1": torch.zeros(32, 1, 1)}), r"scale_1 is \(32, 1, 1\)"),
        (lambda s: s.update({"extra.weight": torch.zeros(1)}), r"extra\.weight is unknown"),
        (lambda s: s.update({READOUT: torch.zeros(2, 4, 1, 1, dtype=torch.int64)}), r"weight is torch\.int64"),
    ],
    ids=["missing", "misshapen", "of another rank", "scale", "unknown", "integers"],
)  # fmt: skip
def test_a_tensor_that_does_not_fit_is_named(
    checkpoint: Any, change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(MismatchError, match=message):
        convert("openstl", checkpoint(change), spec_of("tau"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(hyper_parameters={"lr": 1}), r"'hyper_parameters' is dict, not a tensor"),
        (lambda s: s.update({READOUT: torch.full((2, 4, 1, 1), torch.nan)}), r"weight holds .* not finite"),
        (lambda s: s.update({READOUT: torch.eye(3).to_sparse()}), r"weight is not a dense tensor"),
        (lambda s: s.update({READOUT: torch.empty(2, 4, 1, 1, device="meta")}), r"weight is not a dense tensor"),
        (lambda s: s.update({f"model.{READOUT}": s[READOUT]}), r"holds dec\.readout\.weight twice"),
        (lambda s: s.clear(), r"holds dict, not named tensors"),
        (lambda s: s.update({"state_dict": [1]}), r"holds list, not named tensors"),
    ],
)  # fmt: skip
def test_what_is_not_only_tensors_is_refused(
    checkpoint: Any, change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=message):
        convert("openstl", checkpoint(change), spec_of("tau"), tmp_path / "out")


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("content", [Payload(), {"args": Namespace(lr=1)}, {"module": torch.nn.Conv2d(1, 1, 1)}])
def test_a_pickle_that_would_run_code_does_not(content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "zip.pth")
    Path("plain.pth").write_bytes(pickle.dumps(content, protocol=2))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(WeightsError, match=f"{name} is not a checkpoint of pure tensors"):
            convert("openstl", Path(name), spec_of("tau"), Path("out"))
    assert not Path("ran").exists()
    assert not Path("out").exists()


@pytest.mark.parametrize("content", [b"", b"\x00", b"PK\x03\x04", b"not a checkpoint", b"\x80\x02."])
def test_a_file_that_is_no_checkpoint_is_one_clear_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(StzooError, match=r"x\.pth is not a checkpoint of pure tensors"):
        convert("openstl", tmp_path / "x.pth", spec_of("tau"), tmp_path / "out")


def test_tensors_that_share_their_memory_are_written_apart(checkpoint: Any, tmp_path: Path) -> None:
    scale = "hid.enc.1.block.layer_scale_"
    path = checkpoint(lambda s: s.update({f"{scale}1": s[f"{scale}2"]}))
    convert("openstl", path, spec_of("tau"), tmp_path / "out")
    state = stzoo.load(tmp_path / "out").module.state_dict()
    assert torch.equal(state["translator.1.scale1"], state["translator.1.scale2"])


def test_an_architecture_without_a_published_layout_is_refused(tmp_path: Path) -> None:
    spec = ModelSpec(arch="conv", frames_in=3, frames_out=3, channels=1, height=16, width=16)
    with pytest.raises(SpecError, match=r"spec\.arch is 'conv'; layouts of openstl are known for convlstm, crevnet"):
        convert("openstl", tmp_path / "x.pth", spec, tmp_path / "out")


def test_on_the_command_line(checkpoint: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = checkpoint(lambda s: None), tmp_path / "out"
    (tmp_path / "spec.json").write_text(json.dumps(spec_of("tau").to_dict()))
    command = ["convert", "openstl", str(path), "--model", str(tmp_path / "spec.json"), "--out", str(out)]
    assert main(command) == 0
    assert "every tensor was used" in capsys.readouterr().out
    assert stzoo.load(out).predict(torch.rand(3, 2, 16, 16)).shape == (3, 2, 16, 16)
    assert main(command) == 2
    assert "holds a model already" in capsys.readouterr().err
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "large.json").write_bytes(b" " * 2**21)
    (tmp_path / "digits.json").write_text("1" * 5000)
    (tmp_path / "binary.json").write_bytes(path.read_bytes())
    for model, message in (
        ("tau-mnist", "did you mean tau-mmnist"),
        ("tau-mmnist-paper", "does not fit the spec"),
        (str(tmp_path / "none.json"), "none.json does not exist"),
        (str(tmp_path / "fifo.json"), "fifo.json is no regular file"),
        (str(tmp_path / "large.json"), "has more than"),
        (str(tmp_path / "binary.json"), "is not JSON"),
        (str(tmp_path / "digits.json"), "is not JSON"),
    ):
        assert main(["convert", "openstl", str(path), "--model", model, "--out", str(tmp_path / "other")]) == 2
        assert message in capsys.readouterr().err


def test_a_file_that_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.pth")
    (tmp_path / "link.pth").symlink_to(tmp_path / "fifo.pth")
    (tmp_path / "zero.pth").symlink_to("/dev/zero")
    (tmp_path / "folder.pth").mkdir()
    for name in ("fifo.pth", "link.pth", "zero.pth", "folder.pth"):
        with pytest.raises(WeightsError, match=f"{name} is no regular file"):
            convert("openstl", tmp_path / name, spec_of("tau"), tmp_path / "out")


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before torch 1.6"])
def test_both_formats_of_torch_give_the_same_tensors(old: bool, tmp_path: Path) -> None:
    """Views of one storage, strides in another order, parameters, half precision and what stands beside tensors."""
    ours, theirs = published("tau")
    flat = torch.cat([t.flatten() for t in theirs.values() if t.dtype == torch.float32])
    at = 0
    for key, tensor in theirs.items():
        if tensor.dtype == torch.float32:
            theirs[key] = flat[at : at + tensor.numel()].view(tensor.shape)
            at += tensor.numel()
    channels_last = theirs["enc.enc.0.conv.conv.weight"].to(memory_format=torch.channels_last)
    theirs["enc.enc.0.conv.conv.weight"] = torch.nn.Parameter(channels_last)
    theirs[READOUT] = theirs[READOUT].double()
    beside = {"epoch": 3, "args": [("a", 1.5, None), {1: {"b": b"c"}}], "size": torch.Size([1]), "kind": torch.float16}
    path = tmp_path / "ckpt.pth"
    torch.save({"state_dict": theirs, **beside}, path, _use_new_zipfile_serialization=not old)
    assert convert("openstl", path, spec_of("tau"), tmp_path / "out").unused == ()
    state = stzoo.load(tmp_path / "out").module.state_dict()
    assert all(torch.equal(state[k], t) for k, t in ours.items())


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(a=torch.zeros(1).expand(2**35)), "a is unknown"),
        (lambda s: s.update({READOUT: torch.zeros(1).expand(2**35)}), r"readout\.weight is \(34359738368,\), not"),
        (lambda s: s.update(dead=torch.zeros(1).expand(2**35)), r"but its tensors claim 137,[\d,]+, and the model has"),
        (lambda s: s.update(a=torch.zeros(1).as_strided((1,) * 20, (1,) * 20)), "a tensor has 20 dimensions"),
        (lambda s: s.update({"a\x1b[2J" + "b" * 999: torch.zeros(1)}), r"'a\\x1b\[2Jb+\.\.\. is unknown"),
        (
            lambda s: s.update({("\n",): torch.zeros(1)}),
            r"\('\\n',\) is the key of a tensor; the names of tensors are text",
        ),
    ],
    ids=["unknown", "misshapen", "without a use", "dimensions", "control characters", "another key"],
)
def test_what_a_file_claims_is_checked_before_memory_is_taken(
    change: Callable[[dict[Any, Any]], Any], message: str, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = dataclasses.replace(architectures()["tau"].layouts["openstl"], dead="dead")
    monkeypatch.setattr("stzoo.convert.matching._layout", lambda origin, spec: layout)
    state: dict[Any, Any] = dict(published("tau")[1])
    change(state)
    path = tmp_path / "ckpt.pth"
    torch.save(state, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(WeightsError, match=message) as caught:
        convert("openstl", path, spec_of("tau"), tmp_path / "out")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


STORAGE = "ckpt/data/0"
REPACKED: dict[str, tuple[int, Callable[[str, bytes], list[tuple[str, bytes]]], str]] = {
    "larger": (8, lambda n, c: [(n, bytes(10**8) if n == STORAGE else c)], "its tensors claim 100,"),
    "absent": (0, lambda n, c: [] if n == STORAGE else [(n, c)], "storage 0 is absent"),
    "shorter": (0, lambda n, c: [(n, c[:-1] if n == STORAGE else c)], "storage 0 has .* bytes and not"),
    "twice": (0, lambda n, c: [(n, c)] * (1 + (n == STORAGE)), "two of the same name"),
    "many": (0, lambda n, c: [(n, c)] + [(f"ckpt/{i}", b"") for i in range(2**9 * (n == STORAGE))], "at most 512"),
    "lzma": (14, lambda n, c: [(n, c)], "packed in a way that torch does not read"),
    "a program": (0, lambda n, c: [(n, c), (n.replace("data.pkl", "constants.pkl"), c)][: 1 + n.endswith(".pkl")],
                  "TorchScript"),
    "endless description": (8, lambda n, c: [(n, bytes(2**26 + 1) if n.endswith(".pkl") else c)], "more than 67,108,"),
}  # fmt: skip


@pytest.mark.parametrize("what", REPACKED)
def test_a_zip_file_with_other_records_is_refused(
    what: str, checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stzoo.convert.torch_file._MOST_RECORDS", 2**9)
    how, change, message = REPACKED[what]
    path = checkpoint(lambda s: None)
    repacked(path, lambda n, c: [(n, c)], 8)
    convert("openstl", path, spec_of("tau"), tmp_path / "good")  # packed, as some tools for zip files do
    repacked(path, change, how)
    with pytest.raises(WeightsError, match=message):
        convert("openstl", path, spec_of("tau"), tmp_path / "out")


def repacked(path: Path, change: Callable[[str, bytes], list[tuple[str, bytes]]], how: int) -> None:
    """Replace each record of a zip file by those that `change` makes of it."""
    with zipfile.ZipFile(path) as file:
        records = [(each.filename, file.read(each)) for each in file.infolist()]
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", how) as file:
        warnings.simplefilter("ignore")  # of two equal names
        for name, content in records:
            for each in change(name, content):
                file.writestr(*each)


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"\x80\x02]" + b"]a" * 10**5 + b".", "holds list"),
        (b"\x80\x02}" + b"(" * 10**5 + b"t." + b"t" * 10**5, "damaged or has another format|holds"),
        (b"\x80\x02})q\x00" + b"0h\x00h\x00\x86q\x00" * 60 + b"K\x01s.", "a key that is neither text nor a number"),
        (b"\x80\x02r\xff\xff\xff\xff.", "damaged or has another format"),
        (b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x08\x85R.", "it names builtins.bytearray, which"),
        (b"\x80\x02ctorch\nFloatStorage\n\x8a\x05\x00\x00\x00\x00\x08\x85R.", "it names torch.FloatStorage, which"),
        (b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.", "it names builtins.eval, which may be code"),
        (b"\x80\x02cto\x1brch\neval\n.", r"it names to\\x1brch\.eval"),
        (b"\x80\x02X\xff\xff\xff\x7fa.", "expected 2147483647 bytes"),
        (b"\x80\x02\x8b\xff\xff\xff\x7fa.", "not enough data"),
        (b"\x80\x02J\x00\x00\x00\x00Q.", "damaged or has another format"),
    ],
)
def test_hostile_pickles_end_at_once(pickled: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", pickled)
    with pytest.raises(WeightsError, match=message) as caught:
        convert("openstl", path, spec_of("tau"), tmp_path / "out")
    assert str(caught.value).isprintable()
    assert "weights_only" not in str(caught.value)


def test_a_tensor_outside_its_storage_is_refused(checkpoint: Any, tmp_path: Path) -> None:
    path = checkpoint(lambda s: s.update({READOUT: torch.rand(9)[1:].view(2, 4, 1, 1)}))
    offset = b"K\x01(K\x02K\x04K\x01K\x01t"  # offset 1, shape (2, 4, 1, 1)
    repacked(path, lambda n, c: [(n, c.replace(offset, b"K\x02" + offset[2:]))], 0)
    with pytest.raises(WeightsError, match="a tensor reaches outside its storage"):
        convert("openstl", path, spec_of("tau"), tmp_path / "out")
