"""How a module becomes a graph that other programs run: by torch.export, and from there to ONNX."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from stzoo.errors import MissingExtraError
from stzoo.spec import ModelSpec

OPSET = 20  # the version of ONNX operators that torch's exporter is written for; ONNX Runtime reads it from 1.18 on
LEAST = 2  # strides in height and width: with a single one, torch would make a graph for that size only
NOISY = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")  # loggers that are silenced meanwhile
Shape = Sequence[int | str]


def check_writes_onnx() -> None:
    """Raises `MissingExtraError` if a package is not installed that writes ONNX."""
    if not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))):
        raise MissingExtraError('ONNX files need an extra: pip install "stzoo[export]"')


def traced(module: nn.Module, spec: ModelSpec, stride: int | None) -> Any:
    """A `torch.export.ExportedProgram` of a module, float32 on the CPU, without paths of this machine.

    Args:
        module: takes past frames (B, T, C, H, W) of the spec, on the CPU.
        spec: gives the shape of its frames.
        stride: H and W may be any multiples of it, from twice the stride on; None if they are the spec's.
    """
    from torch.export import Dim, export

    axes: dict[int, Any] = {0: Dim("batch")}
    height, width = spec.height, spec.width
    if stride is not None:
        rows, columns = Dim("rows", min=LEAST), Dim("columns", min=LEAST)
        axes |= {3: rows, 4: columns} if stride == 1 else {3: stride * rows, 4: stride * columns}
        height, width = max(height, LEAST * stride), max(width, LEAST * stride)
    shape = (2, spec.frames_in, spec.channels, height, width)  # torch would fix a batch of one to one
    with _quiet(), torch.no_grad():
        example = torch.zeros(shape, dtype=torch.float32)
        program = export(module.eval(), (example,), dynamic_shapes=(axes,), strict=False)
    for graph in (part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)):
        for node in graph.nodes:
            node.meta.pop("stack_trace", None)
    return program


def as_onnx(program: Any, past: Shape, future: Shape, *, optimize: bool = True) -> Any:
    """The ONNX model of a program, an `onnx.ModelProto`, whose input is called `past` and whose output `future`.

    Args:
        program: from `traced`.
        past, future: the shapes of both. An axis that may have any size has a name instead of a number.
        optimize: False leaves every parameter as it is, under its name in the module, for other values to be put in.
    """
    model = _converted(program, "past", "future", optimize=optimize)
    for value, shape in ((model.graph.input[0], past), (model.graph.output[0], future)):
        for axis, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            if isinstance(size, str):
                axis.dim_param = size
    return model


def as_onnx_loop(program: Any, past: Shape, future: Shape) -> Any:
    """As `as_onnx`, but the model feeds the program with its own frames until there are as many as `future` says.

    The program is in the file once, however many frames are asked for: torch takes long to trace it, and ONNX Runtime
    to read it.

    Args:
        program: from `traced`; it takes as many frames as `past` says, and may return fewer or more.
        past, future: as in `as_onnx`.
    """
    from onnx import TensorProto, helper

    model = _converted(program, "window", "block", optimize=True)
    graph, taken, steps = model.graph, int(past[1]), int(future[1])
    times = -(-steps // graph.output[0].type.tensor_type.shape.dim[1].dim_value)
    numbers = {"newest": [-taken], "all": [2**63 - 1], "time": [1], "first": [taken], "after": [taken + steps]}
    kind = graph.input[0].type.tensor_type.elem_type
    growing = [None if axis == 1 else size for axis, size in enumerate(past)]
    body = helper.make_graph(
        [
            helper.make_node("Slice", ["seen", "newest", "all", "time"], ["window"]),
            *graph.node,
            helper.make_node("Concat", ["seen", "block"], ["seen_on"], axis=1),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "block",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("seen", kind, growing),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("seen_on", kind, growing),
        ],
        list(graph.initializer),
    )
    whole = helper.make_graph(
        [
            helper.make_node("Loop", ["times", "", "past"], ["everything"], body=body),
            helper.make_node("Slice", ["everything", "first", "after", "time"], ["future"]),
        ],
        "forecast",
        [helper.make_tensor_value_info("past", kind, past)],
        [helper.make_tensor_value_info("future", kind, future)],
        [
            helper.make_tensor("times", TensorProto.INT64, [], [times]),
            *(helper.make_tensor(name, TensorProto.INT64, [1], value) for name, value in numbers.items()),
        ],
    )
    model.graph.CopyFrom(whole)
    return model


def _converted(program: Any, takes: str, gives: str, *, optimize: bool) -> Any:
    """The ONNX model of a program, of which the input and the output have these names."""
    with _quiet(), torch.no_grad():
        model = torch.onnx.export(
            program, input_names=[takes], output_names=[gives], opset_version=OPSET, dynamo=True, verbose=False,
            optimize=optimize,
        ).model_proto  # type: ignore[union-attr]  # fmt: skip
    graph = model.graph
    del graph.value_info[:]  # inner shapes, with torch's names of the axes
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]  # where in the source each node came from: half of a small file
    return model


def free_axes(spec: ModelSpec, stride: int | None) -> tuple[int | str, int | str]:
    """Height and width as `as_onnx` takes them, such as "4*rows" (any multiple of 4); numbers if they are fixed."""
    if stride is None:
        return spec.height, spec.width
    return ("rows", "columns") if stride == 1 else (f"{stride}*rows", f"{stride}*columns")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporters' warnings and logs, which speak of absent packages and unchanged constants."""
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
