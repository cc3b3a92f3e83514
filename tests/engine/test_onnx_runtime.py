"""What ONNX Runtime computes is the plain module's function, as weights, sizes and processes change; and the choice."""

import copy
import json
import os
import pickle
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine.test_engine import clips, difference, module_of, plainly, run, spec_of
from torch import Tensor, nn

import stzoo
from stzoo import engine as room
from stzoo.cli import main
from stzoo.engine import Engine, choosing, graphs
from stzoo.errors import MissingExtraError, NoHomeError, SpecError
from stzoo.forecaster import Forecaster

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the graph of `spec_of("tau")`, which the tests share, because torch takes seconds for each."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STZOO_HOME", str(home))
        graphs.graph_of(graphs.Part(module_of(spec_of("tau"))), spec_of("tau"))
    return home


@pytest.fixture(autouse=True)
def _home(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STZOO_HOME", str(made))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and the folder of graphs in it."""
    monkeypatch.setenv("STZOO_HOME", str(tmp_path))
    return tmp_path / "graphs"


@pytest.fixture
def not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_made", pytest.fail)


def kept(made: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The graph of `spec_of("tau")`, which is also what torch makes from now on, in no time."""
    (path,) = (made / "graphs").glob(f"{graphs.key_of(graphs.Part(module_of(spec_of('tau'))), spec_of('tau'))}.onnx")
    monkeypatch.setattr(graphs, "_made", lambda *_: path.read_bytes())
    return path.read_bytes()


def exactly(module: nn.Module, spec: stzoo.ModelSpec, past: Tensor, steps: int) -> Tensor:
    return plainly(copy.deepcopy(module).double(), spec, past.double(), steps)


@pytest.mark.parametrize("kind", ["tau", "tau moved", pytest.param("tau patched", marks=pytest.mark.nightly)])
def test_it_is_exact_for_every_batch_and_size_and_beyond_frames_out(kind: str) -> None:
    spec = spec_of(kind)
    module = module_of(spec)
    engine, tolerance = Engine(module, spec, backend="onnxruntime"), 1e-3 if "moved" in kind else 1e-5
    for batch, height, width in ((1, 24, 16), (3, 16, 40), (2, 21, 18)):
        past = clips(spec.replace(height=height, width=width), batch)
        if height % module.stride == 0 == width % module.stride:
            assert difference(run(engine, past, 6), exactly(module, spec, past, 6)) < tolerance
        assert difference(run(engine, past, 6), run(Engine(module, spec), past, 6)) < tolerance
    assert (engine.backend, engine.precision) == ("onnxruntime", "float32")


def test_frames_of_a_single_stride_are_computed_too(not_made: None) -> None:
    spec = spec_of("tau")
    module, past = module_of(spec), clips(spec, 1)[..., :2, :2]
    assert module.stride == 2
    assert difference(run(Engine(module, spec, backend="onnxruntime"), past, 4), exactly(module, spec, past, 4)) < 1e-5


def test_weights_that_change_need_no_other_graph(not_made: None) -> None:
    spec = spec_of("tau")
    module, past = module_of(spec), clips(spec, 1)
    engine = Engine(module, spec, backend="onnxruntime")
    before = run(engine, past, 4)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(1.1)
    assert difference(run(engine, past, 4), exactly(module, spec, past, 4)) < 1e-5
    assert difference(run(engine, past, 4), before) > 1e-3


def test_a_layer_that_was_replaced_gets_another_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of("tau")
    one, other = module_of(spec), module_of(spec)
    other.decoder.layers[0].act = nn.GELU()
    assert graphs.key_of(graphs.Part(one), spec) != graphs.key_of(graphs.Part(other), spec)


@pytest.mark.parametrize("content", [b"", b"no graph", "of other weights"])
def test_a_damaged_file_is_made_anew(
    content: Any, elsewhere: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of("tau")
    module, past = module_of(spec), clips(spec, 1)
    good = kept(made, monkeypatch)
    path = elsewhere / f"{graphs.key_of(graphs.Part(module), spec)}.onnx"
    elsewhere.mkdir()
    if isinstance(content, str):
        content = good.replace(b"Sigmoid", b"Softmax")
        assert content != good
    path.write_bytes(content)
    assert difference(run(Engine(module, spec, backend="onnxruntime"), past, 4), exactly(module, spec, past, 4)) < 1e-5
    assert path.read_bytes() == good


def test_two_forecasters_copies_and_pickles_share_one_file(not_made: None, made: Path) -> None:
    spec = spec_of("tau")
    models = [Forecaster(spec, module_of(spec), stzoo.create(spec).report, backend="onnxruntime") for _ in range(2)]
    frames = clips(spec, 1)[0].numpy()
    first = models[0].predict(frames)
    models += [copy.deepcopy(models[0]), pickle.loads(pickle.dumps(models[0]))]
    for model in models[1:]:
        assert np.array_equal(model.predict(frames), first)
        assert model.engine.backend == "onnxruntime"
    assert len([*made.glob("graphs/*.onnx")]) <= 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_forked_process_computes(not_made: None) -> None:
    """With the threads of its parent it would wait for ever, and so it would if it ended the parent's session."""
    spec, threads = spec_of("tau"), torch.get_num_threads()
    module, past = module_of(spec), clips(spec, 1)
    try:
        torch.set_num_threads(2)
        engine = Engine(module, spec, backend="onnxruntime")
        wanted = run(engine, past, 4)
        child = os.fork()
        if not child:
            signal.alarm(60)
            close = difference(run(engine, past, 4), wanted) < 1e-5
            engine.refresh()
            os._exit(0 if close and difference(run(engine, past, 4), wanted) < 1e-5 else 3)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(threads)


REFUSED: list[tuple[str, str, str, str]] = [
    ("tau", "float32", "onnx", "backend is 'onnx'; it may be torch, onnxruntime, auto"),
    ("tau", "bfloat16", "onnxruntime", 'computes in float32, not in bfloat16; use the backend "torch" or "auto"'),
    ("convlstm", "float32", "onnxruntime", "such as tau; convlstm is sequential; use the backend"),
    ("modular tau", "float32", "onnxruntime", "such as tau; modular is modular; use the backend"),
]


@pytest.mark.parametrize(("kind", "precision", "backend", "message"), REFUSED)
def test_what_it_does_not_compute_is_refused_at_once(kind: str, precision: str, backend: str, message: str) -> None:
    spec = spec_of(kind)
    with pytest.raises(SpecError, match=message):
        Engine(module_of(spec), spec, precision, backend)


def test_other_numbers_than_float32_are_refused_at_the_forecast() -> None:
    spec = spec_of("tau")
    engine = Engine(module_of(spec).double(), spec, backend="onnxruntime")
    with pytest.raises(SpecError, match="computes in float32 on the CPU, the model is torch.float64 on cpu"):
        run(engine, clips(spec, 1).double(), 4)


def test_torch_compile_is_refused() -> None:
    spec = spec_of("tau")
    with pytest.raises(SpecError, match='torch.compile is for the backend "torch"'):
        Engine(module_of(spec), spec, backend="onnxruntime").compile()


@pytest.mark.parametrize("absent", ["onnxruntime", "onnx", "onnxscript"])
def test_without_the_extra(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of("tau")
    module, past = module_of(spec), clips(spec, 1)
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(MissingExtraError, match=r"pip install \"stzoo\[export\]\""):
        Engine(module, spec, backend="onnxruntime")
    engine = Engine(module, spec, backend="auto")
    assert torch.equal(run(engine, past, 4), run(Engine(module, spec), past, 4))
    assert engine.backend == "torch"


@pytest.mark.parametrize("wins", [True, False])
def test_auto_keeps_the_faster_and_remembers_it(
    wins: bool, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, made: Path
) -> None:
    spec = spec_of("tau")
    module, past = module_of(spec), clips(spec, 1)
    kept(made, monkeypatch)
    wanted = "onnxruntime" if wins else "torch"
    monkeypatch.setattr(choosing, "faster", lambda *_: wins)
    engine = Engine(module, spec, "auto", "auto")
    assert engine.backend == "torch"
    run(engine, past, 4)
    assert engine.backend == wanted
    assert engine.precision == ("float32" if wins else Engine(module, spec, "auto").precision)
    monkeypatch.setattr(choosing, "faster", pytest.fail)
    again = Engine(module, spec, "auto", "auto")
    run(again, past, 4)
    assert again.backend == wanted
    with torch.no_grad():
        module.decoder.readout.weight.mul_(2)
    rounded = 1e-5 if again.precision == "float32" else 0.1
    assert difference(run(again, past, 4), exactly(module, spec, past, 4)) < rounded
    assert again.backend == wanted


def test_auto_takes_torch_where_onnx_runtime_fails(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> bytes:
        raise RuntimeError("no such operator")

    spec = spec_of("tau")
    module, past = module_of(spec), clips(spec, 1)
    monkeypatch.setattr(graphs, "_made", fails)
    with pytest.raises(SpecError, match=r"tau cannot be computed by ONNX Runtime \(RuntimeError: no such operator\)"):
        run(Engine(module, spec, backend="onnxruntime"), past, 4)
    engine = Engine(module, spec, backend="auto")
    run(engine, past, 4)
    assert engine.backend == "torch"
    monkeypatch.setattr(room, "in_onnx_runtime", pytest.fail)  # the next one knows
    run(Engine(module, spec, backend="auto"), past, 4)


def test_a_folder_that_nobody_may_write_to(elsewhere: Path, not_made: None) -> None:
    spec = spec_of("tau")
    module, past = module_of(spec), clips(spec, 1)
    (elsewhere / f"{graphs.key_of(graphs.Part(module), spec)}.lock").mkdir(parents=True)  # this holds for root as well
    with pytest.raises(NoHomeError, match=r"graphs cannot be written to \(.*\); set STZOO_HOME to a folder of yours"):
        run(Engine(module, spec, backend="onnxruntime"), past, 4)
    engine = Engine(module, spec, backend="auto")
    assert torch.equal(run(engine, past, 4), run(Engine(module, spec), past, 4))
    assert engine.backend == "torch"


def test_a_graph_that_is_waited_for_is_told(
    elsewhere: Path, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_of("tau")
    part = graphs.Part(module_of(spec))
    kept(made, monkeypatch)
    graphs.graph_of(part, spec)
    assert "tau: torch writes its graph for ONNX Runtime, once on this machine" in capsys.readouterr().err
    graphs.graph_of(part, spec)
    assert capsys.readouterr().err == ""


def test_an_installation_that_is_broken(elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "packages" / "onnxruntime"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libonnxruntime.so: wrong ELF class')\n")
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(broken.parent)
    monkeypatch.setattr(graphs, "_made", lambda *_: b"")
    spec = spec_of("tau")
    module, past = module_of(spec), clips(spec, 1)
    monkeypatch.setattr("stzoo.engine.onnx_runtime.filled", lambda *_: b"")
    with pytest.raises(SpecError, match="cannot be computed by ONNX Runtime .*wrong ELF class"):
        run(Engine(module, spec, backend="onnxruntime"), past, 4)
    engine = Engine(module, spec, backend="auto")
    run(engine, past, 4)
    assert engine.backend == "torch"


def test_auto_takes_torch_for_what_onnx_runtime_does_not_compute() -> None:
    for kind, precision in (("convlstm", "float32"), ("tau", "bfloat16")):
        spec = spec_of(kind)
        engine = Engine(module_of(spec), spec, precision, "auto")
        run(engine, clips(spec, 1), 2)
        assert engine.backend == "torch"


def test_a_race_ends_and_has_a_winner() -> None:
    slow = [torch.rand(200, 200)] * 20
    assert choosing.faster(lambda x: x, lambda x: torch.linalg.multi_dot(slow) @ x, torch.rand(200, 1))


def test_commands_take_a_backend(not_made: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = spec_of("tau")
    model = Forecaster(spec, module_of(spec), stzoo.create(spec).report)
    model.save_pretrained(tmp_path / "model")
    frames = clips(spec, 1)[0].numpy()
    np.save(tmp_path / "in.npy", frames)
    given = ["--model", str(tmp_path / "model"), "--backend", "onnxruntime", "-o", str(tmp_path / "out.npy")]
    assert main(["predict", str(tmp_path / "in.npy"), *given]) == 0, capsys.readouterr().err
    assert difference(torch.from_numpy(np.load(tmp_path / "out.npy")), torch.from_numpy(model.predict(frames))) < 1e-5
    loaded = stzoo.load(tmp_path / "model", backend="onnxruntime")
    assert loaded.engine.backend == "onnxruntime"


@pytest.mark.nightly
def test_the_benchmark_says_which_backend_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = spec_of("tau")
    Forecaster(spec, module_of(spec), stzoo.create(spec).report).save_pretrained(tmp_path / "model")
    given = ["--backend", "onnxruntime", "--repeats", "2", "--json"]
    assert main(["benchmark", str(tmp_path / "model"), *given]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["backend"] == "onnxruntime"
    assert "--backend onnxruntime" in report["command"]
