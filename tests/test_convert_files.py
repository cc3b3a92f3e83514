"""What trainers save beside the tensors, what files hold instead of tensors, and what is said of each."""

import argparse
import collections
import dataclasses
import enum
import gzip
import hashlib
import io
import os
import pathlib
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models.published_shapes import published_shapes
from safetensors.torch import save
from test_convert import published, spec_of

import stzoo
from stzoo.cli import main
from stzoo.convert import convert
from stzoo.convert.pickled import MAX_STEPS, Other, followed
from stzoo.convert.torch_file import open_torch_file
from stzoo.errors import MemoryNeededError, MismatchError, SpecError, WeightsError
from stzoo.models import architectures
from stzoo.models.inferring import ABSENT
from stzoo.spec import ModelSpec

SIZE = {"frames_out": 3, "height": 16, "width": 16}


@dataclasses.dataclass
class Settings:
    lr: float = 0.1


class Kind(enum.Enum):
    A = 1


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


class Attributes(dict[str, Any]):
    """As Lightning keeps hyper-parameters."""


def quantised() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it deprecated; old files have it
        return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


BESIDE: dict[str, Any] = {
    "array": np.ones(3),
    "scalar": np.float64(1.0),
    "namespace": argparse.Namespace(lr=1, path=Path("x")),
    "path": pathlib.PurePosixPath("/x"),
    "defaultdict": collections.defaultdict(int, a=1),
    "counter": collections.Counter("aab"),
    "ordered": collections.OrderedDict(a=np.float32(2)),
    "dataclass": Settings(),
    "enum": {Kind.A: Kind.A},
    "sets": [{(1, (2, 3))}, frozenset({1}), bytearray(b"1"), 1 + 2j, 10**60],
    "runs": Runs(),
    "module": torch.nn.Conv2d(1, 1, 1),
    "tuple keys": {(Path("x"), (1, 2)): 1},
    "quantised": quantised(),
    "sparse": torch.eye(2).to_sparse(),
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 5])
@pytest.mark.parametrize("old", [False, True], ids=["zip", "before torch 1.6"])
def test_what_stands_beside_the_tensors_is_in_nobodys_way_and_never_runs(
    protocol: int, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tensors = published("tau")[1]
    beside = {name: value for name, value in BESIDE.items() if protocol >= 2 or name != "quantised"}
    torch.save({**beside, "state_dict": tensors}, "a.pth", pickle_protocol=protocol,
               _use_new_zipfile_serialization=not old)  # fmt: skip
    report = convert("openstl", Path("a.pth"), None, Path("out"), known=SIZE)
    assert report.spec == spec_of("tau")
    assert not Path("ran").exists()
    assert torch.equal(stzoo.load("out").module.state_dict()["decoder.readout.bias"], tensors["dec.readout.bias"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("array", r"'x' is numpy\.ndarray, not a tensor"),
        ("namespace", r"'x' is argparse\.Namespace, not a tensor"),
        ("dataclass", r"'x' is test_convert_files\.Settings, not a tensor"),
        ("runs", r"'x' is \w+\.mkdir, not a tensor"),
        ("quantised", r"x is a quantised tensor; save it as tensor\.dequantize\(\)"),
    ],
)
def test_a_class_among_the_tensors_is_refused_by_its_key_and_name(name: str, message: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {**published("tau")[1], "x": BESIDE[name]}}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=message):
        convert("openstl", tmp_path / "a.pth", None, tmp_path / "out", known=SIZE)
    assert not Path("ran").exists()


def test_a_pickle_has_a_most_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_STEPS < 2**23
    monkeypatch.setattr("stzoo.convert.pickled.MAX_STEPS", 100)
    for endless in (b"]" * 50, b"N" * 200, b"\x8c\x01a" * 200):
        with pytest.raises(ValueError, match="more than 100 steps; where it was written, save its tensors alone"):
            followed(io.BytesIO(b"\x80\x02" + endless + b"."), {})
    copied = b"](" + b"NN\x86" * 15 + b"eq\x00" + b"ccollections\nOrderedDict\nh\x00\x85R" * 3
    with pytest.raises(ValueError, match="steps"):
        followed(io.BytesIO(b"\x80\x02" + copied + b"."), {})


def test_no_name_in_a_pickle_is_looked_up() -> None:
    made = followed(io.BytesIO(b"\x80\x02cno.such.module\nThing\n)R}(X\x01\x00\x00\x00aK\x01ub."), {})
    assert isinstance(made, Other)
    assert (made.maker, made.values) == ("no.such.module.Thing", {"a": 1})


@pytest.mark.parametrize("key", ["net", "params", "network", "ema_state_dict", "generator", "model_ema", "weights"])
def test_the_only_key_with_tensors_is_taken(key: str, tmp_path: Path) -> None:
    content = {
        key: {"state_dict": published("tau")[1]} if key == "net" else published("tau")[1],
        "loss": torch.ones(()),
    }
    torch.save({**content, "model": {"depth": 3}}, tmp_path / "a.pth")
    assert convert("openstl", tmp_path / "a.pth", None, tmp_path / "out", known=SIZE).spec == spec_of("tau")


@pytest.mark.parametrize("prefix", ["net.", "network.", "student.", "module.generator.", "model.net.module."])
@pytest.mark.parametrize("named", [False, True])
def test_a_prefix_that_all_names_share_is_dropped(prefix: str, named: bool, tmp_path: Path) -> None:
    torch.save({prefix + name: tensor for name, tensor in published("tau")[1].items()}, tmp_path / "a.pth")
    spec = spec_of("tau") if named else None
    assert convert("openstl", tmp_path / "a.pth", spec, tmp_path / "out", known={} if named else SIZE).unused == ()


def test_tensors_with_gaps_between_their_values_are_written_without(tmp_path: Path) -> None:
    """Also those of one value, whose stride says nothing."""
    tensors = {n: torch.stack([t, t], -1)[..., 0] if t.ndim else t for n, t in published("tau")[1].items()}
    torch.save(tensors, tmp_path / "a.pth")
    convert("openstl", tmp_path / "a.pth", None, tmp_path / "out", known=SIZE)
    one = file_of("convlstm", tmp_path, hidden=1, layers=1)
    content = torch.load(one)["state_dict"]
    torch.save({n: torch.stack([t, t], -1)[..., 0] for n, t in content.items()}, tmp_path / "b.pth")
    known = {"frames_in": 4, "frames_out": 4, "channels": 1, "height": 32, "width": 32}
    convert("openstl", tmp_path / "b.pth", None, tmp_path / "other", known=known)


def test_tensors_in_several_places_are_not_chosen_from(tmp_path: Path) -> None:
    tensors = published("tau")[1]
    for content, message in (
        (
            {"generator": tensors, "critic": tensors},
            "has tensors under 'generator' and 'critic'; save those that you want",
        ),
        (
            {f"{p}.{n}": t for p in ("student", "teacher") for n, t in tensors.items()},
            "a model under student and teacher",
        ),
        (
            {"ema": tensors, **tensors},
            r"has tensors under 'ema', and others beside it, such as 'enc.+'; save alone .*\(FILE\)\['ema'\], 'tensors",
        ),
        (
            {f"net.{wrapped}{n}": t for wrapped in ("model.", "") for n, t in tensors.items()},
            r"holds enc\S+ twice, as net\.model\.enc\S+ and as net\.enc\S+; save it under one name",
        ),
        ({0: tensors["dec.readout.bias"]}, "0 is the key of a tensor; the names of tensors are text"),
        (tensors["dec.readout.bias"], "holds a single tensor without a name"),
        (torch.nn.Conv2d(1, 1, 1), r"names torch\.nn\.modules\.conv\.Conv2d, .* torch\.save\(model\.state_dict\(\)"),
    ):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(WeightsError, match=message):
            convert("openstl", tmp_path / "a.pth", None, tmp_path / "out", known=SIZE)


def test_figures_and_states_of_generators_beside_a_wrapper_are_no_tensors_of_a_model(tmp_path: Path) -> None:
    beside = {"loss": torch.ones(()), "best": torch.ones(1), "steps": torch.arange(9), "rng": torch.get_rng_state()}
    torch.save({"model": published("tau")[1], **beside}, tmp_path / "a.pth")
    assert convert("openstl", tmp_path / "a.pth", None, tmp_path / "out", known=SIZE).spec == spec_of("tau")


def test_messages_and_the_report_have_the_names_that_are_in_the_file(tmp_path: Path) -> None:
    """Prefixes are dropped before tensors are matched, and what `Layout.inner` says is replaced."""
    spec = ModelSpec(
        arch="swinlstm", frames_in=4, frames_out=4, channels=1, height=32, width=32,
        params={"dim": 8, "down": (2,), "up": (2,), "heads": (2,)},
    )  # fmt: skip
    inside, theirs = ("Downsample.layers.0.Swin.layers.0", "module.net.Downsample.layers.0.STBs.0")
    tensors = {f"module.net.{name.replace('.Swin.layers.', '.STBs.')}": torch.zeros(shape)
               for name, shape in published_shapes(spec).items()}  # fmt: skip
    assert f"{theirs}.norm1.weight" in tensors
    weight, unread = tensors[f"{theirs}.norm1.weight"], f"{theirs}.attn_mask"
    for number, (change, message) in enumerate(
        (
            ({f"{theirs}.norm1.weight": torch.zeros(9)}, rf"{theirs}\.norm1\.weight is \(9,\), not"),
            ({f"{theirs}.norm1.weight": weight.long()}, rf"{theirs}\.norm1\.weight is torch\.int64, not"),
            ({f"{theirs}.norm1.weight": weight / 0}, rf"{theirs}\.norm1\.weight holds values that are not finite"),
            ({f"{theirs}.more": weight}, rf"{theirs}\.more is unknown"),
            (
                {f"{theirs.replace('.STBs.', '.Swin.layers.')}.norm1.weight": weight},
                rf"holds {inside}\.norm1\.weight twice, as {theirs}\S+ and as module\.net\.{inside}\S+; save it",
            ),
        )
    ):
        torch.save(tensors | change, tmp_path / "a.pth")
        with pytest.raises(WeightsError, match=message):
            convert("openstl", tmp_path / "a.pth", spec, tmp_path / f"out{number}")
    torch.save(tensors | {unread: torch.zeros(1)}, tmp_path / "a.pth")
    report = convert("openstl", tmp_path / "a.pth", spec, tmp_path / "out")
    assert report.unused == (unread,)
    assert f"unused: {unread}\n" in str(report)


def test_paths_may_be_text(tmp_path: Path) -> None:
    torch.save(published("tau")[1], tmp_path / "a.pth")
    report = convert("openstl", str(tmp_path / "a.pth"), spec_of("tau"), str(tmp_path / "out"))
    assert report.folder == tmp_path / "out"
    assert stzoo.load(report.folder).spec == spec_of("tau")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), MemoryNeededError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 B"), MemoryNeededError),
        (RuntimeError("shape is invalid"), WeightsError),
    ],
)
@pytest.mark.parametrize("step", ["_memory", "_open_zip"])
def test_a_lack_of_memory_is_not_called_damage(
    step: str, error: Exception, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    torch.save(published("tau")[1], tmp_path / "a.pth")
    monkeypatch.setattr(f"stzoo.convert.torch_file.{step}", fail)
    message = "there is not enough memory for .*a.pth; end other programs" if kind is MemoryNeededError else "a.pth is "
    with pytest.raises(kind, match=message):
        convert("openstl", tmp_path / "a.pth", spec_of("tau"), tmp_path / "out")


def test_a_lack_of_memory_for_the_copies_is_told_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory")

    torch.save(published("tau")[1], tmp_path / "a.pth")
    monkeypatch.setattr("stzoo.convert.matching._state", fail)
    with pytest.raises(MemoryNeededError, match="not enough memory for the tensors of"):
        convert("openstl", tmp_path / "a.pth", spec_of("tau"), tmp_path / "out")


def test_what_tools_leave_in_a_model_is_tolerated_and_other_tensors_are_not(tmp_path: Path) -> None:
    ours, theirs = published("tau")
    counted = {"total_ops": torch.zeros(1), "enc.total_params": torch.zeros(1)}
    bare = {name: tensor for name, tensor in theirs.items() if not name.endswith("num_batches_tracked")}
    torch.save(bare | counted, tmp_path / "a.pth")
    report = convert("openstl", tmp_path / "a.pth", None, tmp_path / "out", known=SIZE)
    assert report.unused == ("enc.total_params", "total_ops")
    state = stzoo.load(tmp_path / "out").module.state_dict()
    assert state.keys() == ours.keys()
    torch.save(theirs | {"extra_head": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(MismatchError, match="holds a tau, but also a tensor that no tau has: extra_head"):
        convert("openstl", tmp_path / "a.pth", None, tmp_path / "other", known=SIZE)


def saved(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr(name, content)
    return stream.getvalue()


def program() -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it deprecated; old files are such
        torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.ones(1, 1)), stream)
    return stream.getvalue()


FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "page": (lambda: b"\n<!DOCTYPE html><html></html>", "it is a web page; download the file itself"),
    "pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of git-lfs .* git lfs pull"),
    "empty": (lambda: b"", "it is empty; download it again"),
    "half": (lambda: saved(published("tau")[1])[:-500], "damaged or incomplete zip file; download it again"),
    "gzip": (lambda: gzip.compress(b"1"), r"packed by gzip; unpack it first \(gunzip\)"),
    "safetensors": (lambda: save({"a": torch.ones(1)}), r"safetensors file; .*safetensors\.torch\.load_file"),
    "program": (program, r"TorchScript program; .*torch\.jit\.load\(FILE\)\.state_dict\(\)"),
    "zip": (lambda: zipped("a.pth", b"1"), "zip file that torch.save did not write; unpack it"),
    "text": (lambda: b"moved to another place", "it is text; download it again"),
    "hdf": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    "other": (lambda: bytes(1024), "a format that torch.save does not write; download it again"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_of_another_format_are_named_with_what_to_do(name: str, tmp_path: Path) -> None:
    content, message = FILES[name]
    (tmp_path / "a.pth").write_bytes(content())
    with pytest.raises(WeightsError, match=f"a.pth is not a checkpoint of pure tensors: .*{message}") as caught:
        convert("openstl", tmp_path / "a.pth", None, tmp_path / "out", known=SIZE)
    assert str(caught.value).isprintable()


def test_a_file_that_does_not_exist_is_said_to(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"a\.pth does not exist"), open_torch_file(tmp_path / "a.pth"):
        pass


def test_architectures_that_stzoo_does_not_have_are_named(tmp_path: Path) -> None:
    torch.save({"stu.0.conv0.0.0.weight": torch.zeros(3, 3)}, tmp_path / "a.pth")
    with pytest.raises(MismatchError, match="those of DMVFN, an architecture that stzoo does not have"):
        convert("openstl", tmp_path / "a.pth", None, tmp_path / "out", known=SIZE)


def test_no_architecture_that_stzoo_has_counts_as_absent() -> None:
    assert not {name.lower() for name in ABSENT} & set(architectures())


def file_of(arch: str, folder: Path, stated: Any = None, origin: str = "openstl", **params: Any) -> str:
    """A checkpoint of this architecture for four frames of 1x32x32, of zeros, with hyper-parameters beside."""
    spec = ModelSpec(arch=arch, frames_in=4, frames_out=4, channels=1, height=32, width=32, params=params)
    tensors = {name: torch.zeros(shape, dtype=torch.int64 if name.endswith("tracked") else torch.float32)
               for name, shape in published_shapes(spec, origin).items()}  # fmt: skip
    content = {"state_dict": tensors} | ({} if stated is None else {"hyper_parameters": stated})
    torch.save(content, folder / "a.ckpt")
    return str(folder / "a.ckpt")


MAU = {"hidden": 8, "layers": 2, "shrink": 2, "patch": 1}


def test_what_no_tensor_tells_and_nobody_said_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = ["--channels", "1", "--frames-in", "4", "--frames-out", "4", "--size", "32x32"]
    for arch, params, said in (
        ("mau", MAU, "tau 5, recall false, residual false, value_range [0.0, 1.0]; change with --set tau=VALUE"),
        ("phydnet", {"width": 16, "lstm": (8,)}, "patch 4, sigmoid true, value_range"),
        ("e3dlstm", {"hidden": 4, "layers": 1}, "stride 1, value_range"),
        (
            "simvp",
            {"translator": "vit", "hid_s": 8, "hid_t": 16, "n_s": 2, "n_t": 2},
            "heads 8, from_last false, period 0, lagrangian false, value",
        ),
        ("convlstm", {"hidden": 8, "layers": 1}, "value_range [0.0, 1.0]; change with --set value_range=VALUE"),
    ):
        command = ["convert", "OpenSTL", file_of(arch, tmp_path, **params), "--out", str(tmp_path / arch), *frames]
        assert main(command) == 0
        assert f"assumed, because no tensor tells: {said}" in capsys.readouterr().out
    command = ["convert", "openstl", file_of("mau", tmp_path, **MAU), "--out", str(tmp_path / "set"), *frames]
    said = ("tau=3", "recall=true", "residual=true", "value_range=null")
    assert main([*command, *(word for each in said for word in ("--set", each))]) == 0
    assert "assumed" not in capsys.readouterr().out


def test_the_facts_of_the_data_set_are_printed_as_far_as_they_were_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tau = file_of("tau", tmp_path, hid_s=8, hid_t=16, n_s=2, n_t=2)
    options = ["--frames-out", "8", "--set", "value_range=null"]
    command = ["convert", "openstl", tau, "--out", str(tmp_path / "out"), "--dataset", "weather-t2m", *options]
    assert main(command) == 2  # twelve frames in
    capsys.readouterr()
    conv = file_of("convlstm", tmp_path, hidden=8, layers=1)
    assert main(["convert", "openstl", conv, "--out", str(tmp_path / "out"), "--dataset", "mmnist", *options]) == 0
    said = "from the data set mmnist: frames_in 10, channels 1, height 64, width 64\n"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("kind", [dict, Attributes, lambda values: argparse.Namespace(**values)])
def test_hyper_parameters_of_the_file_are_used_where_tensors_do_not_tell(
    kind: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stated = {"method": "MAU", "dataname": "weather_t2m_5_625", "in_shape": [4, 1, 32, 32], "pre_seq_length": 4,
              "aft_seq_length": 6, "tau": 3, "model_mode": "recall", "cell_mode": "residual", "patch_size": 7,
              "sr_size": 64}  # fmt: skip
    file = file_of("mau", tmp_path, kind(stated), **MAU)
    assert main(["convert", "openstl", file, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    said = "frames_in 4, frames_out 6, channels 1, value_range null, tau 3, recall true, residual true\n"
    assert f"from the file's hyper_parameters: {said}" in out
    assert "assumed" not in out
    spec = stzoo.load(tmp_path / "out").spec
    assert (spec.frames_out, spec.value_range, spec.height) == (6, None, 32)
    assert {name: spec.params[name] for name in ("tau", "recall", "residual", "patch", "shrink")} == {
        "tau": 3, "recall": True, "residual": True, "patch": 1, "shrink": 2,
    }  # fmt: skip
    options = ["--frames-out", "5", "--set", "tau=4", "--set", "value_range=[0, 1]"]
    assert main(["convert", "openstl", file, "--out", str(tmp_path / "other"), *options]) == 0
    spec = stzoo.load(tmp_path / "other").spec
    assert (spec.frames_out, spec.params["tau"], spec.value_range) == (5, 4, (0.0, 1.0))


@pytest.mark.parametrize(
    "stated",
    [
        {"in_shape": [4, 3, 64, 64], "aft_seq_length": 4},
        {"in_shape": [10, 1, 64, 64]},
        {"in_shape": "x", "tau": []},
        [1],
    ],
)
def test_hyper_parameters_that_tensors_contradict_do_not_count(stated: Any, tmp_path: Path) -> None:
    """Nor does what else they say of the frames."""
    file = file_of("tau", tmp_path, stated, hid_s=8, hid_t=16, n_s=2, n_t=2)
    with pytest.raises(SpecError, match="holds a tau, tells height and width;"):
        convert("openstl", file, None, tmp_path / "out", known={"frames_out": 4})
    known = {"frames_out": 4, "height": 32, "width": 32}
    report = convert("openstl", file, None, tmp_path / "out", known=known)
    assert (report.spec.channels, report.spec.frames_in, report.spec.height) == (1, 4, 32)
    assert report.decision is not None
    assert not report.decision.stated


def test_hyper_parameters_that_the_user_contradicts_do_not_count_either(tmp_path: Path) -> None:
    """A convolution over patches of 16 channels fits frames of one channel, and of three as little as of two."""
    file = file_of("convlstm", tmp_path, {"in_shape": [4, 3, 64, 64]}, hidden=8, layers=1)
    known = {"frames_in": 4, "frames_out": 4, "channels": 1}
    with pytest.raises(SpecError, match="holds a convlstm, tells height and width;"):
        convert("openstl", file, None, tmp_path / "out", known=known)


def test_all_that_is_missing_is_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arch, params, fields, options in (
        ("convlstm", {"hidden": 8, "layers": 1}, "channels, frames_in, frames_out, height and width",
         "--channels, --frames-in, --frames-out and --size"),
        ("mim", {"hidden": 8, "layers": 2}, "channels, frames_in and frames_out",
         "--channels, --frames-in and --frames-out"),
    ):  # fmt: skip
        assert main(["convert", "openstl", file_of(arch, tmp_path, **params), "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert f"reads patches of 16 channels, tells {fields};" in error
        assert f"({options})" in error


def test_a_file_that_only_fits_a_published_name_does_not_get_its_origin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """tests/published/test_by_hand.py has files that do."""
    record = stzoo.published.info("phydnet-mmnist-paper.official")
    tensors = {name: torch.zeros(shape, dtype=torch.int64 if name.endswith("tracked") else torch.float32)
               for name, shape in published_shapes(record.spec, "official").items()}  # fmt: skip
    torch.save(tensors, tmp_path / "a.pth")
    out = tmp_path / "out"
    command = ["convert", "Official", str(tmp_path / "a.pth"), "--out", str(out)]
    assert main([*command, "--model", record.name]) == 2
    said = capsys.readouterr().err
    assert f"is git object {git_id(tmp_path / 'a.pth')}, expected {record.git}; it is not {record.name}" in said
    assert "to convert a file of your own, leave out --model and give --dataset mmnist" in said
    assert not out.exists()
    assert main([*command, "--dataset", "mmnist"]) == 0  # as it says
    assert stzoo.load(out).report.origin is None


def git_id(file: Path) -> str:
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def test_the_card_says_what_was_converted_and_one_of_somebody_else_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_of("convlstm", tmp_path, hidden=8, layers=1)
    command = ["convert", "openstl", file, "--dataset", "mmnist", "--out"]
    assert main([*command, str(tmp_path / "out")]) == 0
    assert "The weights of a.ckpt, a checkpoint in the layout of openstl" in (tmp_path / "out/README.md").read_text()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/README.md").write_text("mine")
    with pytest.warns(UserWarning, match="was written or edited by somebody"):
        assert main([*command, str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine/README.md").read_text() == "mine"


def test_loading_a_checkpoint_of_pytorch_points_to_its_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    for name in ("x.pth", "a/x.PT", "x.ckpt", "x.tar", "x.bin"):
        Path(name).write_bytes(b"1")
        for source in (name, Path(name), str(tmp_path / name)):
            with pytest.raises(WeightsError, match=r"stzoo convert openstl \S+ --dataset NAME --out DIR") as caught:
                stzoo.load(source)
            assert "hf://" not in str(caught.value)


@pytest.mark.parametrize(
    ("arch", "params"),
    [
        ("phydnet", {"width": 16, "lstm": (8,)}),
        ("swinlstm", {"dim": 8, "down": (2,), "up": (2,), "heads": (2,)}),
        ("prednet", {"widths": (4, 8)}),
    ],
)
def test_weather_without_a_range_is_what_a_sigmoid_was_trained_on(
    arch: str, params: dict[str, Any], tmp_path: Path
) -> None:
    stated = {"dataname": "weather_t2m", "in_shape": (4, 1, 32, 32), "aft_seq_length": 4}
    file = file_of(arch, tmp_path, stated, **params)
    spec = convert("openstl", Path(file), None, tmp_path / "out").spec
    assert (spec.value_range, spec.params["any_range"]) == (None, True)
