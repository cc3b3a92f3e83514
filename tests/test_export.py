"""Exported files, run by ONNX Runtime and by torch.export, beside the plain module; and the loop that the docs give."""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import stzoo
from stzoo import export as export_room
from stzoo.cli import main
from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.errors import ForecastError
from stzoo.export import SPEC_KEY, Exported
from stzoo.forecaster import Forecaster
from stzoo.models import architectures, stride_of
from stzoo.models.metaformers import BLOCKS as METAFORMERS
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

REPOSITORY = Path(__file__).parents[1]
TOLERANCE = 1e-4  # of the largest difference, relative to the largest value

BLOCK: dict[str, Any] = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2}
META: dict[str, Any] = {"hid_s": 4, "hid_t": 16, "n_s": 2, "n_t": 2}
LAYERED: dict[str, Any] = {"layers": 2, "hidden": 4, "kernel": 3, "patch": 4}
TCTN: dict[str, Any] = {"layers": 1, "hidden": 8, "heads": 2, "expansion": 2, "window": 2, "patch": 4}
CODEC = {"arch": "vqvae", "params": {"width": 16, "residual_layers": 1, "residual_width": 4, "codes": 32, "dim": 8}}
VAE = {"arch": "vae", "params": {"width": 16, "residual_layers": 1, "residual_width": 4, "dim": 8}}


def spec_of(arch: str, params: dict[str, Any], frames_out: int = 2, size: int = 16) -> ModelSpec:
    """Physical units, with a mean and a std for each of two channels: nothing is clipped, much is normalised."""
    return ModelSpec(
        arch=arch, frames_in=2, frames_out=frames_out, channels=2, height=size, width=size, value_range=None,
        mean=(3.0, -1.0), std=(2.0, 0.5), params=params,
    )  # fmt: skip


def modular(arch: str, params: dict[str, Any], **changes: Any) -> ModelSpec:
    return spec_of("modular", {"codec": CODEC, "predictor": {"arch": arch, "params": params}} | changes, size=32)


TOKENS = {"dim": 16, "heads": 2, "head_dim": 8, "blocks": 1, "patch": 4}
TRAIN = {"hidden": [4, 4], "layers": 1, "skip": 1, "order": 2, "steps": 2, "ranks": 2, "kernel": 3, "patch": 4}
SWIN = {"dim": 8, "down": [2], "up": [1], "heads": [2], "window": 2, "sigmoid": False}
ONE = LAYERED | {"layers": 1}
CASES: dict[str, ModelSpec] = {  # a graph takes torch time by its nodes, so these are as small as can be
    "tau": spec_of("tau", BLOCK),
    "tau, patch, project, from_last": spec_of("tau", BLOCK | {"patch": 2, "project": True, "from_last": True}),
    "tau, lagrangian, blurs": spec_of("tau", BLOCK | {"from_last": True, "lagrangian": True, "blurs": 2}),
    "simvp, gSTA": spec_of("simvp", BLOCK),
    "simvp, IncepU": spec_of("simvp", BLOCK | {"translator": "incepu"}),
    **{f"simvp, {kind}": spec_of("simvp", META | {"translator": kind}) for kind in (*METAFORMERS, "van")},
    "conv": spec_of("conv", BLOCK),
    "conv, stride 1": spec_of("conv", BLOCK | {"n_s": 1}),
    "convlstm": spec_of("convlstm", ONE),
    "convttlstm": spec_of("convttlstm", TRAIN, frames_out=1),
    "predrnn": spec_of("predrnn", LAYERED, frames_out=1),
    "predrnn, layer_norm": spec_of("predrnn", ONE | {"layer_norm": True}, frames_out=1),
    "predrnnpp": spec_of("predrnnpp", LAYERED, frames_out=1),
    "mim": spec_of("mim", LAYERED, frames_out=1),
    "e3dlstm": spec_of("e3dlstm", ONE | {"history": 1}, frames_out=1),
    "e3dlstm, public": spec_of("e3dlstm", ONE | {"variant": "public"}, frames_out=1),
    "phydnet": spec_of("phydnet", {"width": 16, "lstm": [4], "kernel": 3, "sigmoid": False}, frames_out=1),
    "mau": spec_of("mau", ONE | {"patch": 1, "tau": 2, "recall": True}, frames_out=1),
    "pfgnet": spec_of("pfgnet", {"hid_s": 4, "hid_t": 10, "n_s": 2, "n_t": 1, "patch": 2}),
    "prednet": spec_of("prednet", {"widths": [8]}, frames_out=1),
    "crevnet": spec_of("crevnet", {"blocks": [1, 1], "layers": 1}, frames_out=2).replace(frames_in=3),
    "lmc": spec_of("lmc", {"width": 2, "layers": 1, "slots": 4, "pools": 3}),
    "predformer": spec_of("predformer", TOKENS),
    "swinlstm": spec_of("swinlstm", SWIN, frames_out=1),
    "tctn": spec_of("tctn", TCTN),
    "modular, predrnn": modular("predrnn", ONE | {"patch": 1, "hidden": 16}),
    "modular, tau, vae": modular("tau", BLOCK, codec=VAE),
    "modular, tau, quantised": modular("tau", BLOCK, reads="quantised", paints="quantised"),
}
ALWAYS = ("tau", "convlstm", "modular, predrnn")  # of each kind one; a graph takes ten seconds and more
each = pytest.mark.parametrize(
    "case", [case if case in ALWAYS else pytest.param(case, marks=pytest.mark.nightly) for case in CASES]
)


def model_of(spec: ModelSpec) -> Forecaster:
    """Random weights, none at the value it starts from, and large enough that a forecast hangs on all of them."""
    torch.manual_seed(0)
    model = stzoo.create(spec)
    with torch.no_grad():
        for tensor in model.module.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(1.5).add_(0.1 * torch.randn_like(tensor))
    return model


def clip(spec: ModelSpec, batch: int, height: int, width: int) -> Tensor:
    """About as far from the spec's mean as its std says."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    shape = (batch, spec.frames_in, spec.channels, height, width)
    return mean + std * torch.rand(shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def plain(model: Forecaster, past: Tensor, steps: int) -> Tensor:
    """The forecast of the plain module, float32 in the spec's units."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.spec.mean, model.spec.std))
    return torch.stack([f * std + mean for f in unroll(model.module, model.spec, (past - mean) / std, steps)], 1)


def difference(found: Any, wanted: Tensor) -> float:
    """The largest, relative to the largest value."""
    found = torch.as_tensor(found)
    assert found.shape == wanted.shape
    assert found.dtype == torch.float32
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def session_of(path: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def sizes_of(model: Forecaster) -> list[tuple[int, int, int]]:
    """Batches and frames of other sizes than those exported with, where there are any."""
    h, w, stride = model.spec.height, model.spec.width, stride_of(model.module)
    if stride is None:
        return [(1, h, w), (3, h, w)]
    return [(1, h, w), (3, 3 * stride, 2 * stride), (2, 2 * stride, h + stride)]


def check(model: Forecaster, run: Any, case: str, steps: int | None = None) -> None:
    """`run`, of a file, forecasts as the plain module does; what is seen is printed, for docs/export.md."""
    worst = 0.0
    for size in sizes_of(model):
        past = clip(model.spec, *size)
        wanted = plain(model, past, steps or model.spec.frames_out)
        assert difference(plain(model, past.flip(-1), steps or model.spec.frames_out), wanted) > 10 * TOLERANCE
        worst = max(worst, difference(run(past), wanted))
    print(f"largest relative difference: {case}: {worst:.1e}")
    assert worst < TOLERANCE


def test_every_forecaster_of_the_zoo_is_tried_here() -> None:
    assert {spec.arch for spec in CASES.values()} == {n for n, a in architectures().items() if not a.is_codec}


@pytest.fixture
def traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both formats are written from one trace of a model, which takes most of the time."""
    monkeypatch.setattr(export_room, "_program", cache(export_room._program))


@each
@pytest.mark.usefixtures("traced_once")
def test_both_formats_forecast_as_the_plain_module_does(case: str, tmp_path: Path) -> None:
    model, path, other = model_of(CASES[case]), tmp_path / "model.onnx", tmp_path / "model.pt2"
    written = model.export("onnx", path)
    assert list(tmp_path.iterdir()) == [path]
    assert written.size == path.stat().st_size
    session = session_of(path)
    assert [(i.name, tuple(i.shape)) for i in session.get_inputs()] == [("past", written.past)]
    assert [(o.name, tuple(o.shape)) for o in session.get_outputs()] == [("future", written.future)]
    assert ModelSpec.from_dict(json.loads(session.get_modelmeta().custom_metadata_map[SPEC_KEY])) == model.spec
    check(model, lambda past: session.run(["future"], {"past": past.numpy()})[0], f"{case}, onnx")
    if stride_of(model.module) is None:
        assert written.past == ("batch", 2, 2, 16, 16)
        with pytest.raises(Exception, match="invalid dimensions"):
            session.run(["future"], {"past": clip(model.spec, 1, 16, 20).numpy()})

    assert model.export("torch-export", other).future == written.future
    extra = {SPEC_KEY: ""}
    run = torch.export.load(other, extra_files=extra).module()
    assert ModelSpec.from_dict(json.loads(extra[SPEC_KEY])) == model.spec
    assert not run(clip(model.spec, *sizes_of(model)[0])).requires_grad
    check(model, run, f"{case}, torch-export")


@pytest.mark.parametrize(("case", "steps"), [("tau", 5), pytest.param("convlstm", 3, marks=pytest.mark.nightly)])
def test_as_many_steps_as_asked_for(case: str, steps: int, tmp_path: Path) -> None:
    """Of a block architecture several blocks, of which the last one is cut."""
    model, path = model_of(CASES[case]), tmp_path / "model.onnx"
    assert model.export("onnx", path, steps=steps).future[1] == steps
    session = session_of(path)
    check(model, lambda past: session.run(["future"], {"past": past.numpy()})[0], f"{case}, {steps} steps, onnx", steps)


def test_a_file_of_more_blocks_is_no_larger_and_valid(tmp_path: Path) -> None:
    """Of an architecture that forecasts blocks; each block reads the frames of the one before it."""
    model, path = model_of(CASES["conv"]), tmp_path / "9.onnx"
    sizes = [model.export("onnx", tmp_path / f"{steps}.onnx", steps=steps).size for steps in (3, 9)]
    assert abs(sizes[0] - sizes[1]) < 100
    onnx.checker.check_model(path, full_check=True)
    session = session_of(path)
    assert session.get_inputs()[0].shape == ["batch", 2, 2, "2*rows", "2*columns"]
    check(model, lambda past: session.run(["future"], {"past": past.numpy()})[0], "conv, 9 steps, onnx", 9)


@pytest.mark.slow
@pytest.mark.usefixtures("traced_once")
def test_a_trained_checkpoint(tmp_path: Path) -> None:
    model = stzoo.load("tau-mmnist")
    past = MovingDigits(drawn_digits(), 0, 2, 10, 1).clips(0, 2).past.float() / 255
    wanted = plain(model, past, 10)
    model.export("onnx", tmp_path / "tau.onnx")
    found = session_of(tmp_path / "tau.onnx").run(["future"], {"past": past.numpy()})[0]
    model.export("torch-export", tmp_path / "tau.pt2")
    again = torch.export.load(tmp_path / "tau.pt2").module()(past)
    for name, forecast in (("onnx", found), ("torch-export", again)):
        print(f"largest relative difference: tau-mmnist, {name}: {difference(forecast, wanted):.1e}")
        assert difference(forecast, wanted) < TOLERANCE


def rollout_without_torch(folder: Path, model: Path, past: Tensor, steps: int) -> Tensor:
    """What the loop in docs/export.md makes, in a process that has no torch."""
    (code,) = re.findall(
        r"```python\n(import json\n\nimport numpy.*?)```", (REPOSITORY / "docs" / "export.md").read_text(), re.DOTALL
    )
    np.save(folder / "past.npy", past.numpy())
    code += f"\n\nnp.save('future.npy', rollout({str(model)!r}, np.load('past.npy'), {steps}))\n"
    code += "import sys\nassert not {'torch', 'stzoo'} & set(sys.modules)\n"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=300)
    return torch.from_numpy(np.load(folder / "future.npy"))


@pytest.mark.parametrize("frames_out", [pytest.param(1, marks=pytest.mark.nightly), 4])
def test_the_documented_loop_is_rollout_for_a_block_architecture(frames_out: int, tmp_path: Path) -> None:
    spec = CASES["tau"].replace(frames_out=frames_out, value_range=(0.0, 1.0), mean=(0.5,), std=(0.5,))
    model, past = model_of(spec), clip(spec, 2, 16, 24)
    model.export("onnx", tmp_path / "model.onnx")
    wanted = model.rollout(past, 7)
    assert 0.1 < (wanted.eq(0.0) | wanted.eq(1.0)).float().mean() < 0.9  # clipping at every block would show
    assert difference(rollout_without_torch(tmp_path, tmp_path / "model.onnx", past, 7), wanted) < TOLERANCE


def test_of_a_recurrent_one_the_loop_reads_its_forecasts_again_block_by_block(tmp_path: Path) -> None:
    model = model_of(CASES["convlstm"])
    past, path = clip(model.spec, 2, 16, 24), tmp_path / "model.onnx"
    model.export("onnx", path)
    found, wanted = rollout_without_torch(tmp_path, path, past, 6), model.rollout(past, 6)
    assert difference(found[:, :2], wanted[:, :2]) < TOLERANCE
    assert difference(found[:, 2:], wanted[:, 2:]) > 10 * TOLERANCE
    again = plain(model, plain(model, past, 2), 2)
    assert difference(found[:, 2:4], again) < TOLERANCE
    model.export("onnx", path, steps=6)
    assert difference(rollout_without_torch(tmp_path, path, past, 6), wanted) < TOLERANCE


def test_the_loop_is_rollout_for_every_block_architecture_of_the_catalogue() -> None:
    """It is where a file holds whole blocks."""
    for name in stzoo.list_models():
        spec = stzoo.info(name).spec
        if architectures()[spec.arch].kind == "block":
            assert spec.frames_out % min(spec.frames_in, spec.frames_out) == 0, name


@pytest.mark.usefixtures("traced_once")
def test_what_is_written_is_valid_and_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    model = model_of(CASES["conv"])
    for format, path in (("onnx", tmp_path / "m.onnx"), ("torch-export", tmp_path / "m.pt2")):
        model.export(format, path)
        for folder in (REPOSITORY, Path(torch.__file__).parent, Path.home()):
            assert f"{folder}/".encode() not in path.read_bytes()
    onnx.checker.check_model(tmp_path / "m.onnx", full_check=True)


def test_the_model_stays_as_it_is(tmp_path: Path) -> None:
    """It may be in training, or in half precision; what is exported forecasts, in float32."""
    model = model_of(CASES["conv"])
    past = clip(model.spec, 2, 16, 16)
    wanted = plain(model, past, 2)
    model.module.train().double()
    model.export("torch-export", tmp_path / "m.pt2")
    assert all(p.requires_grad and p.dtype == torch.float64 for p in model.module.parameters())
    assert all(m.training for m in model.module.modules())
    assert difference(torch.export.load(tmp_path / "m.pt2").module()(past), wanted) < TOLERANCE


BAD = [
    ({"format": "onx"}, "'onx'; it may be 'onnx' or 'torch-export'"),
    ({"out": "m.pt2"}, "cannot write m.pt2 as onnx; its name must end in .onnx"),
    ({"format": "torch-export"}, "cannot write m.onnx as torch-export; its name must end in .pt2"),
    ({"out": "nowhere/m.onnx"}, "nowhere does not exist"),
    ({"out": "folder.onnx"}, "folder.onnx is a folder"),
    ({"steps": 0}, "steps is 0; it must be a whole number"),
    ({"steps": 1025}, "at most, so run it again for more"),
]


@pytest.mark.parametrize(("wrong", "message"), BAD)
def test_bad_input_is_one_line_before_any_work(
    wrong: dict[str, Any],
    message: str,
    forecaster: Forecaster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export_room, "_program", pytest.fail)
    (tmp_path / "folder.onnx").mkdir()
    given = {"format": "onnx", "out": "m.onnx", "steps": 3} | wrong
    with pytest.raises(stzoo.StzooError, match=re.escape(message)):
        forecaster.export(given["format"], given["out"], steps=given["steps"])
    options = [f"--{name}={value}" for name, value in given.items()]
    assert main(["export", "no-such-model", *options]) == 2  # so that one would be told first
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["folder.onnx"]


@pytest.mark.parametrize("absent", ["onnx", "onnxscript"])
def test_without_the_extra(
    absent: str, forecaster: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(stzoo.errors.MissingExtraError, match=r"pip install \"stzoo\[export\]\""):
        forecaster.export("onnx", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
    forecaster.export("torch-export", tmp_path / "m.pt2")


def test_what_fails_leaves_the_old_file(
    forecaster: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.pt2").write_text("old")
    monkeypatch.setattr(export_room.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        forecaster.export("torch-export", tmp_path / "m.pt2")
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt2"]
    assert (tmp_path / "m.pt2").read_text() == "old"


@pytest.mark.parametrize(("value", "what"), [(torch.nan, "NaN"), (torch.inf, "NaN|infinite")])
def test_weights_that_forecast_no_numbers_are_not_written(
    value: float, what: str, forecaster: Forecaster, tmp_path: Path
) -> None:
    with torch.no_grad():
        next(forecaster.module.parameters()).fill_(value)
    with pytest.raises(ForecastError, match=rf"frame 1 that the model made holds ({what}).*: its weights are damaged"):
        forecaster.export("torch-export", tmp_path / "a.pt2")
    assert not any(tmp_path.iterdir())


def test_a_full_disk_names_the_file(forecaster: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_room, "_program", lambda *_: None)
    monkeypatch.setattr(export_room, "_pt2", lambda *_: b"content")
    monkeypatch.setattr(export_room, "write_atomically", full)
    with pytest.raises(OSError, match=r"a\.pt2 cannot be written: No space left on device"):
        forecaster.export("torch-export", tmp_path / "a.pt2")


def test_the_command_says_one_line_and_nothing_else(forecaster: Forecaster, tmp_path: Path) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    folder = tmp_path / "here"
    folder.mkdir()
    command = [sys.executable, "-m", "stzoo", "export", str(tmp_path / "model"), "--format", "onnx", "-o", "m.onnx"]
    done = subprocess.run([*command, "--steps", "6"], cwd=folder, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    shapes = "past (batch, 4, 1, 2*rows, 2*columns) -> future (batch, 6, 1, 2*rows, 2*columns), float32"
    assert re.fullmatch(rf"m\.onnx: {re.escape(shapes)}, \d\.\d MB\n", done.stdout)
    assert [p.name for p in folder.iterdir()] == ["m.onnx"]
    past = torch.rand(2, 4, 1, 16, 20)
    found = session_of(folder / "m.onnx").run(["future"], {"past": past.numpy()})[0]
    assert difference(found, plain(forecaster, past, 6)) < TOLERANCE


def test_what_was_written_is_said() -> None:
    written = Exported(Path("m.pt2"), 1_234_567, ("batch", 2, 1, "rows", 8), ("batch", 3, 1, "rows", 8))
    assert str(written) == "m.pt2: past (batch, 2, 1, rows, 8) -> future (batch, 3, 1, rows, 8), float32, 1.2 MB"
