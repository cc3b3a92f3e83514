"""A race: stzoo's forecasts against other ways to run the same model, in turns (the tables of docs/speed.md).

    python docs/experiments/race.py
    python docs/experiments/race.py tau-mmnist simvp-mmnist --batch 1 16 --pairs 15
    python docs/experiments/race.py tau-mmnist-paper --precision bfloat16 --with plain autocast openstl --openstl FOLDER

Every number is how many times as long another way takes as stzoo's engine, which ran just before or after it: the
median of pairs. Above 1, stzoo is faster. The ways:

  plain      the plain module in eager PyTorch, float32
  autocast   the same under autocast in bfloat16 (rows of bfloat16 only)
  nhwc       the same as plain, or as autocast, with weights and frames in channels_last order
  compile    the same through torch.compile, with its weights as constants
  onnx       ONNX Runtime on the file that `Forecaster.export` writes, float32
  backend    stzoo with backend="onnxruntime", float32
  openstl    the code of OpenSTL at the same size, float32 or under autocast; --openstl names a folder with a copy of it

A way that cannot run a model is left out of its row, and stderr says why. Weights are random if an entry has none, and
OpenSTL's always are: the time does not depend on them.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import stzoo
from stzoo import catalog
from stzoo.benchmark.counting import macs
from stzoo.benchmark.timing import WARM_UP, Limits, take_turns
from stzoo.engine import multiplies_in_bfloat16
from stzoo.engine.compiling import compiled
from stzoo.forecaster import Forecaster
from stzoo.frames.values import denormalise
from stzoo.models import architecture_of, config_of
from stzoo.models.contract import SequentialForm
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

Way = Callable[[], Tensor]  # one pass: normalised past frames -> (B, T', C, H, W)
ENTRIES = (
    "tau-mmnist", "simvp-mmnist", "tau-radar", "tau-ut", "tau-mmnist-paper", "simvp-mmnist-paper",
    "convlstm-mmnist-paper", "predrnn-mmnist-paper", "predrnnpp-mmnist-paper", "mim-mmnist-paper",
    "e3dlstm-mmnist-paper", "phydnet-mmnist-paper",
)  # fmt: skip
WAYS = ("plain", "autocast", "nhwc", "compile", "onnx", "backend", "openstl")
CPU = torch.device("cpu")


def main() -> None:
    arguments = read_arguments()
    limits = Limits(CPU)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| entry | precision | batch | ms a pass | of the peak | " + " | ".join(arguments.ways) + " |")
    print("|" + "---|" * (5 + len(arguments.ways)))
    for name in arguments.names:
        for precision in arguments.precision:
            for batch in arguments.batch:
                print(row(name, precision, batch, arguments, limits), flush=True)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    native = ["float32", "bfloat16"] if multiplies_in_bfloat16(CPU) else ["float32"]
    parser.add_argument("names", nargs="*", default=ENTRIES)
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--precision", nargs="+", choices=["float32", "bfloat16"], default=native)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--with", dest="ways", nargs="+", choices=WAYS, default=["plain", "onnx"])
    parser.add_argument("--openstl", type=Path)
    arguments = parser.parse_args()
    if "openstl" in arguments.ways and arguments.openstl is None:
        parser.error("the way openstl needs --openstl FOLDER, a folder in which the package openstl lies")
    if arguments.openstl is not None:
        sys.path.insert(0, str(arguments.openstl))
    return arguments


def row(name: str, precision: str, batch: int, arguments: argparse.Namespace, limits: Limits) -> str:
    """One line of the table."""
    model = stzoo.load(name, pretrained=catalog.info(name).weights is not None, precision=precision)
    spec = model.spec
    torch.manual_seed(0)
    past = torch.rand(batch, spec.frames_in, spec.channels, spec.height, spec.width)
    runs: dict[str, Callable[[], Any]] = {"engine": lambda: forecast(model, past)}
    wanted = runs["engine"]()
    with tempfile.TemporaryDirectory() as folder:
        for way in arguments.ways:
            try:
                runs[way] = prepared(way, name, model, past, Path(folder))
                found = [runs[way]() for _ in range(WARM_UP)][-1]
            except Exception as error:  # whatever another program raises
                runs.pop(way, None)
                print(f"{name}, {precision}: {way} does not run: {str(error).splitlines()[0]}", file=sys.stderr)
                continue
            if found.shape != wanted.shape:
                raise SystemExit(f"{way} makes {tuple(found.shape)} where stzoo makes {tuple(wanted.shape)}")
        seconds = take_turns(runs, limits, CPU, arguments.pairs, progress=True)
    ours = statistics.median(seconds["engine"])
    share = 2 * macs(spec, spec.frames_out) * batch / ours / 1e12 / limits.peak[precision]
    ratios = [ratio(seconds["engine"], seconds.get(way)) for way in arguments.ways]
    return f"| `{name}` | {precision} | {batch} | {ours * 1e3:.1f} | {share:.0%} | " + " | ".join(ratios) + " |"


def forecast(model: Forecaster, past: Tensor) -> Tensor:
    """As many frames as the model makes at once: (B, T', C, H, W), normalised like `past`."""
    return torch.stack(list(model.engine.unroll(past, model.spec.frames_out)), 1)


def ratio(ours: list[float], theirs: list[float] | None) -> str:
    """The median of the ratios of pairs, with the lowest and the highest."""
    if theirs is None:
        return "-"
    found = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    return f"{statistics.median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f})"


def prepared(way: str, name: str, model: Forecaster, past: Tensor, folder: Path) -> Way:
    """The way to run. Raises whatever it raises where it cannot."""
    spec, half = model.spec, model.engine.precision == "bfloat16"
    if way == "onnx":
        return exported(model, past, folder / "model.onnx")
    if way == "backend":
        other = stzoo.load(name, pretrained=model.report.sha256 is not None, backend="onnxruntime")
        return lambda: forecast(other, past)
    if way == "openstl":
        return in_half(peer(spec, past), half)
    if way == "autocast" and not half:
        raise ValueError("autocast is for rows of bfloat16")
    module: Any = copy.deepcopy(model.module).eval()
    if way in ("nhwc", "compile"):
        module = module.to(memory_format=torch.channels_last)
    runs = frozen(module, spec) if way == "compile" else module
    return in_half(lambda: torch.stack(list(unroll(runs, spec, past, spec.frames_out)), 1), half and way != "plain")


def in_half(run: Way, half: bool) -> Way:
    """Without gradients, and under autocast if `half`."""

    @torch.no_grad()
    def inside() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            return run().float()

    return inside


def frozen(module: Any, spec: ModelSpec) -> Any:
    """Compiled with its weights as constants, which inductor then folds and packs; a modular one without that."""
    architecture = architecture_of(spec)
    options: dict[str, Any] = {"freezing": True}
    if architecture.kind == "modular":
        return compiled(module, spec)
    if architecture.kind != "sequential":
        return torch.compile(module, options=options)
    step = torch.compile(module.step, options=options)
    read, advance = architecture.reads_clips, architecture.advances
    return SequentialForm(
        module.initial_state, step, module.read if read else None, module.advance if advance else None
    )


def exported(model: Forecaster, past: Tensor, path: Path) -> Way:
    """ONNX Runtime with as many threads as torch has."""
    import onnxruntime

    model.export("onnx", path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.force_spinning_stop", "1")  # or its threads slow down who comes next
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    frames = denormalise(past, model.spec).numpy()
    return lambda: torch.from_numpy(session.run(None, {"past": frames})[0])


def peer(spec: ModelSpec, past: Tensor) -> Way:
    """OpenSTL's model of the same size. Its recurrent models take patches, and a mask of the frames that are given."""
    models: Any = import_module("openstl.models")
    s, (b, t, c, h, w), future = config_of(spec), past.shape, spec.frames_out
    if spec.arch in ("tau", "simvp"):
        kind = "tau" if spec.arch == "tau" else {"gsta": "gSTA"}.get(s.translator, s.translator)
        network = models.SimVP_Model((t, c, h, w), s.hid_s, s.hid_t, s.n_s, s.n_t, kind, s.mlp_ratio).eval()
        return lambda: network(past)
    side = getattr(s, "patch", 4)
    settings = SimpleNamespace(
        in_shape=(t, c, h, w), patch_size=side, filter_size=getattr(s, "kernel", 5), stride=1, layer_norm=0,
        pre_seq_length=t, aft_seq_length=future, total_length=t + future, reverse_scheduled_sampling=0, device=CPU,
    )  # fmt: skip
    if spec.arch == "phydnet":
        network = models.PhyDNet_Model(settings).eval()
        return lambda: network.inference(past, past, None, return_loss=False)[0]
    classes = {
        "convlstm": "ConvLSTM_Model", "predrnn": "PredRNN_Model", "predrnnpp": "PredRNNpp_Model", "mim": "MIM_Model",
        "e3dlstm": "E3DLSTM_Model",
    }  # fmt: skip
    if spec.arch not in classes:
        raise ValueError(f"OpenSTL's {spec.arch} is not in this race")
    network = getattr(models, classes[spec.arch])(s.layers, [s.hidden] * s.layers, settings).eval()
    clip = torch.cat([past, past.new_zeros(b, future, c, h, w)], 1)
    patches = clip.unflatten(4, (-1, side)).unflatten(3, (-1, side)).permute(0, 1, 3, 5, 4, 6, 2).flatten(4)
    unseen = patches.new_zeros(b, future - 1, *patches.shape[2:])

    def run() -> Tensor:
        made = network(patches, unseen, return_loss=False)[0][:, -future:]
        return made.unflatten(4, (side, side, c)).permute(0, 1, 6, 2, 4, 3, 5).flatten(5).flatten(3, 4)

    return run


if __name__ == "__main__":
    main()
