"""The page that runs models in the reader's browser: its files, the models as ONNX, ONNX Runtime Web, and examples."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageSequence

import stzoo
from stzoo import catalog
from stzoo.data.digits import drawn_digits

HERE = Path(__file__).parent
RUNTIME = (  # of ONNX Runtime Web: for the processor, and for WebGPU
    "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm",
)  # fmt: skip
SERVICE_WORKER = "service-worker.js"


@dataclass(frozen=True)
class Shown:
    """A model on the page: `scene` is what it reads at first, `quantity` how its frames are shown."""

    name: str
    scene: str
    quantity: str = "brightness"


MODELS = (Shown("tau-mmnist", "digits"), Shown("tau-ut", "people"), Shown("tau-radar", "rain", "rain"))


def write(out: Path, modules: Path, cards: Path, models: tuple[Shown, ...] = MODELS) -> None:
    """Everything of the page, in `out`. `modules` is npm's folder; `cards` holds the animation that is the example.

    Raises:
        FileNotFoundError: a file of ONNX Runtime Web, or the example, is missing.
    """
    shutil.copytree(HERE / "live", out)
    shutil.copy(HERE / "static" / "favicon.svg", out)
    runtime = _runtime(out, modules / "onnxruntime-web")
    digits = [digit.flatten().tolist() for digit in drawn_digits()]
    entries = [_model(shown, out / "models", runtime) for shown in models]
    content = {"models": entries, "digits": digits, "example": _example(cards / "tau-ut-typical.gif")}
    (out / "models.json").write_text(json.dumps(content), "utf-8")
    _service_worker(out)


def _service_worker(out: Path) -> None:
    """Tells it the files that make up the page, those that never change, and a version that changes with any file."""
    page = sorted(p for p in out.iterdir() if p.is_file())
    names = [p.name for p in page if p.name != SERVICE_WORKER]
    lasting = sorted(p.relative_to(out).as_posix() for p in out.rglob("*/*") if p.is_file())
    version = hashlib.sha256(b"".join(p.read_bytes() for p in page)).hexdigest()[:12]
    script = (out / SERVICE_WORKER).read_text("utf-8")
    for name, empty, value in (("VERSION", '""', version), ("FILES", "[]", names), ("LASTING", "[]", lasting)):
        before, after = script.split(f"const {name} = {empty}")
        script = f"{before}const {name} = {json.dumps(value)}{after}"
    (out / SERVICE_WORKER).write_text(script, "utf-8")


def _runtime(out: Path, package: Path) -> str:
    version = json.loads((package / "package.json").read_text("utf-8"))["version"]
    folder = f"runtime-{version}"
    (out / folder).mkdir()
    for name in RUNTIME:
        shutil.copy(package / "dist" / name, out / folder / name)
    return folder


def _model(shown: Shown, folder: Path, runtime: str) -> dict[str, Any]:
    """Exports a model, and says what the page must know of it."""
    model = stzoo.load(shown.name)
    folder.mkdir(exist_ok=True)
    whole = folder / f"{shown.name}.onnx"
    model.export("onnx", whole)
    content = in_half(onnx.load(whole)).SerializeToString()
    whole.unlink()
    file = f"{shown.name}.{hashlib.sha256(content).hexdigest()[:8]}.onnx"
    (folder / file).write_bytes(content)
    spec = model.spec
    return {
        "name": shown.name, "summary": catalog.info(shown.name).summary,
        "file": f"models/{file}", "bytes": len(content),
        "frames_in": spec.frames_in, "channels": spec.channels, "height": spec.height, "width": spec.width,
        "fill": spec.fill, "scene": shown.scene, "quantity": shown.quantity, "runtime": runtime,
    }  # fmt: skip


def in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with each weight that float16 holds exactly stored so, and cast when the model is opened.

    Weights of the package are float16, so nothing is lost, and half is to be downloaded.
    """
    graph, casts = model.graph, []
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if tensor.data_type != TensorProto.FLOAT or values.size < 64 or not np.array_equal(half, values):
            continue
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(half, f"{tensor.name}.half"))
        casts.append(helper.make_node("Cast", [f"{tensor.name}.half"], [tensor.name], to=TensorProto.FLOAT))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *rest])
    onnx.checker.check_model(model)
    return model


def _example(card: Path) -> dict[str, Any]:
    """The true frames of the animation on a model's card: on its left, each pixel drawn twice as large."""
    side, zoom, gap = 64, 2, 2
    with Image.open(card) as animation:
        frames = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(animation)]
    top = frames[0].shape[0] - side * zoom - gap
    cut = [frame[top : top + side * zoom : zoom, gap : gap + side * zoom : zoom] for frame in frames]
    return {
        "height": side, "width": side, "frames": [frame.flatten().tolist() for frame in cut],
        "note": "A clip that the model never trained on, from UT-Interaction; the truth is known for ten frames.",
    }  # fmt: skip
