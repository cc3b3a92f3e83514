"""A forecaster as one file that runs without stzoo: ONNX, or a program of `torch.export`.

What is written is a whole forecast: past frames in the spec's units in, the next frames out; normalisation, weights and
the autoregressive loop, unrolled, are inside. docs/export.md says how such a file is run, and what stays outside.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from stzoo.errors import MissingExtraError, SpecError, WeightsError
from stzoo.files import write_atomically
from stzoo.frames import whole_number
from stzoo.frames.values import denormalise, normalise
from stzoo.models import stride_of
from stzoo.spec import ModelSpec, shown
from stzoo.unroll import unroll

SUFFIXES: Mapping[str, str] = MappingProxyType({"onnx": ".onnx", "torch-export": ".pt2"})  # of the formats
SPEC_KEY = "stzoo.spec"  # of an ONNX file's metadata, and of a .pt2's extra files
OPSET = 20  # the one that torch's exporter is written in; ONNX Runtime reads it from 1.18 on
MAX_STEPS = 1024  # as many frames as a spec may forecast; each is a part of the graph of its own
LEAST = 2  # strides in height and width: of one alone, torch takes the graph to be another
NOISY = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")  # loggers


@dataclass(frozen=True)
class Exported:
    """What was written: the file, its bytes, and the shapes it takes and gives; an axis of any size has a name."""

    path: Path
    size: int
    past: tuple[int | str, ...]
    future: tuple[int | str, ...]

    def __str__(self) -> str:
        past, future = (", ".join(map(str, shape)) for shape in (self.past, self.future))
        return f"{self.path}: past ({past}) -> future ({future}), float32, {self.size / 1e6:.1f} MB"


def check_exportable(format: str, path: Path, steps: int | None = None) -> None:
    """Whether `export` can write this, as far as can be told before a model is there.

    Raises:
        SpecError: no such format, a suffix of another one, or too many steps. FramesError: `steps` is no count.
        WeightsError: no such folder, or one that cannot be written to; or `path` is a folder.
        MissingExtraError: what writes the format is not installed.
    """
    if format not in SUFFIXES:
        raise SpecError(f"format is {shown(format)}; it may be {' or '.join(map(repr, SUFFIXES))}")
    if path.suffix != SUFFIXES[format]:
        raise SpecError(f"cannot write {path.name} as {format}; its name must end in {SUFFIXES[format]}")
    if steps is not None and whole_number("steps", steps) > MAX_STEPS:
        raise SpecError(f"steps is {steps}; a file may forecast {MAX_STEPS} frames at most, so run it again for more")
    if not path.parent.is_dir():
        raise WeightsError(f"the folder {path.parent} does not exist")
    if path.is_dir():
        raise WeightsError(f"{path} is a folder")
    if not os.access(path.parent, os.W_OK):
        raise WeightsError(f"the folder {path.parent} cannot be written to")
    if format == "onnx" and not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))):
        raise MissingExtraError('ONNX files need an extra: pip install "stzoo[export]"')


def export(spec: ModelSpec, module: nn.Module, format: str, path: Path, steps: int | None = None) -> Exported:
    """Write the forecast of `steps` frames by a plain module; see `Forecaster.export`."""
    check_exportable(format, path, steps)
    steps = spec.frames_out if steps is None else whole_number("steps", steps)
    size: tuple[int | str, ...] = (spec.height, spec.width)
    stride = stride_of(module)
    if stride is not None:
        size = tuple(axis if stride == 1 else f"{stride}*{axis}" for axis in ("rows", "columns"))
    past, future = (("batch", frames, spec.channels, *size) for frames in (spec.frames_in, steps))
    with _quiet(), torch.no_grad():
        program = _program(spec, module, stride, steps)
        content = _onnx(program, spec, past, future) if format == "onnx" else _pt2(program, spec)
    write_atomically(path, content)
    return Exported(path, len(content), past, future)


class _Forecast(nn.Module):
    """(B, frames_in, C, H, W) in the spec's units -> (B, steps, C, H, W) in the same, neither rounded nor clipped."""

    def __init__(self, spec: ModelSpec, module: nn.Module, steps: int):
        super().__init__()
        self.spec, self.module, self.steps = spec, module, steps

    def forward(self, past: Tensor) -> Tensor:
        frames = unroll(self.module, self.spec, normalise(past, self.spec), self.steps)
        return denormalise(torch.stack(list(frames), 1), self.spec)


def _program(spec: ModelSpec, module: nn.Module, stride: int | None, steps: int) -> Any:
    """A `torch.export.ExportedProgram` of a copy, in float32 on the CPU, that knows nothing of this machine's paths."""
    from torch.export import Dim
    from torch.export import export as trace

    own = copy.deepcopy(module).cpu().float().eval().requires_grad_(False)
    axes: dict[int, Any] = {0: Dim("batch")}
    height, width = spec.height, spec.width
    if stride is not None:
        rows, columns = Dim("rows", min=LEAST), Dim("columns", min=LEAST)
        axes |= {3: rows, 4: columns} if stride == 1 else {3: stride * rows, 4: stride * columns}
        height, width = max(height, LEAST * stride), max(width, LEAST * stride)
    example = torch.zeros(2, spec.frames_in, spec.channels, height, width)  # a batch of one would stay one
    program = trace(_Forecast(spec, own, steps).eval(), (example,), dynamic_shapes=(axes,), strict=False)
    for graph in (part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)):
        for node in graph.nodes:
            node.meta.pop("stack_trace", None)
    return program


def _onnx(program: Any, spec: ModelSpec, past: tuple[int | str, ...], future: tuple[int | str, ...]) -> bytes:
    import onnx

    model = torch.onnx.export(
        program, input_names=["past"], output_names=["future"], opset_version=OPSET, dynamo=True, verbose=False
    ).model_proto  # type: ignore[union-attr]
    graph = model.graph
    del graph.value_info[:]  # shapes in between, by the names that axes had in torch
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]  # half of a small file: where in the source each node came from
    for value, shape in ((graph.input[0], past), (graph.output[0], future)):
        for axis, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            if isinstance(size, str):
                axis.dim_param = size
    onnx.helper.set_model_props(model, {SPEC_KEY: json.dumps(spec.to_dict())})
    return model.SerializeToString()


def _pt2(program: Any, spec: ModelSpec) -> bytes:
    from torch.export import save

    content = io.BytesIO()
    save(program, content, extra_files={SPEC_KEY: json.dumps(spec.to_dict())})
    return content.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters' warnings and logs, of packages that are absent and constants left as they are, stay unseen."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
