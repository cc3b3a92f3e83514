"""A forecaster as one file that runs without stzoo: an ONNX model, or a program of `torch.export`.

The file holds a whole forecast: past frames in the spec's units go in, the next frames come out. Normalisation, weights
and the unrolled autoregressive loop are inside. docs/export.md says how to run such a file, and what it does not do.
"""

from __future__ import annotations

import copy
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from stzoo.engine import in_units
from stzoo.errors import SpecError, WeightsError
from stzoo.files import write_atomically, writing_errors_named
from stzoo.frames import whole_number
from stzoo.frames.values import denormalise, noise, normalise
from stzoo.models import architecture_of, stride_of
from stzoo.spec import ModelSpec, shown
from stzoo.tracing import Shape, as_onnx, as_onnx_loop, check_writes_onnx, free_axes, traced
from stzoo.unroll import unroll

SUFFIXES: Mapping[str, str] = MappingProxyType({"onnx": ".onnx", "torch-export": ".pt2"})  # of each format's files
SPEC_KEY = "stzoo.spec"  # where the spec is: the key in an ONNX file's metadata, and in a .pt2 file's extra files
MAX_STEPS = 1024  # as many frames as a spec may forecast; each adds its own part to the graph


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        size: of the file, in bytes.
        past: the shape (B, T, C, H, W) of the frames that it takes. An axis that may have any size has a name instead
            of a number, such as "batch" or "4*rows" (any multiple of 4).
        future: the shape (B, T', C, H, W) of the frames that it returns.
    """

    path: Path
    size: int
    past: tuple[int | str, ...]
    future: tuple[int | str, ...]

    def __str__(self) -> str:
        past, future = (", ".join(map(str, shape)) for shape in (self.past, self.future))
        return f"{self.path}: past ({past}) -> future ({future}), float32, {self.size / 1e6:.1f} MB"


def check_exportable(format: str, path: Path, steps: int | None = None) -> None:
    """Check whether `export` can write such a file, as far as can be told before a model is loaded.

    Raises:
        SpecError: the format is unknown, the suffix of `path` is not that of the format, or there are too many steps.
        FramesError: `steps` is not a whole number of at least 1.
        WeightsError: the folder does not exist or cannot be written to, or `path` is a folder.
        MissingExtraError: a package that writes the format is not installed.
    """
    if format not in SUFFIXES:
        raise SpecError(f"format is {shown(format)}; it may be {' or '.join(map(repr, SUFFIXES))}")
    if path.suffix != SUFFIXES[format]:
        raise SpecError(f"cannot write {path.name} as {format}; its name must end in {SUFFIXES[format]}")
    if steps is not None and whole_number("steps", steps) > MAX_STEPS:
        raise SpecError(f"steps is {steps}; a file may forecast {MAX_STEPS} frames at most, so run it again for more")
    if not path.parent.is_dir():
        raise WeightsError(f"the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise WeightsError(f"{path} is a folder; name a file")
    if not os.access(path.parent, os.W_OK):
        raise WeightsError(f"the folder {path.parent} cannot be written to; choose another one")
    if format == "onnx":
        check_writes_onnx()


def export(spec: ModelSpec, module: nn.Module, format: str, path: Path, steps: int | None = None) -> Exported:
    """Write a module's forecast of `steps` frames to a file; `Forecaster.export` calls this.

    Args:
        spec: the spec of the module.
        module: takes and returns normalised frames, on any device. It stays as it is.
        format: "onnx" or "torch-export".
        path: the file to write; its suffix is that of the format, ``.onnx`` or ``.pt2``.
        steps: how many frames to forecast; None is the spec's `frames_out`.

    Raises:
        SpecError, FramesError, WeightsError, MissingExtraError: as `check_exportable` does.
        ForecastError: the module makes numbers that are not finite of ordinary frames.
        OSError: the disk is full, or does not take the file for another reason; the message names the file.
    """
    check_exportable(format, path, steps)
    steps = spec.frames_out if steps is None else whole_number("steps", steps)
    stride = stride_of(module)
    size = free_axes(spec, stride)
    past, future = (("batch", frames, spec.channels, *size) for frames in (spec.frames_in, steps))
    own = copy.deepcopy(module).cpu().float().eval().requires_grad_(False)
    with torch.no_grad():
        for number, frame in enumerate(unroll(own, spec, normalise(noise(spec, 1), spec), min(steps, spec.frames_out))):
            in_units(frame, spec, number + 1)
    content = _onnx(spec, own, past, future) if format == "onnx" else _pt2(_program(spec, own, stride, steps), spec)
    with writing_errors_named(path):
        write_atomically(path, content)
    return Exported(path, len(content), past, future)


class _Forecast(nn.Module):
    """The whole forecast, from the spec's units to the spec's units."""

    def __init__(self, spec: ModelSpec, module: nn.Module, steps: int):
        super().__init__()
        self.spec, self.module, self.steps = spec, module, steps

    def forward(self, past: Tensor) -> Tensor:
        """(B, frames_in, C, H, W) -> (B, steps, C, H, W), both in the spec's units; neither rounded nor clipped."""
        frames = unroll(self.module, self.spec, normalise(past, self.spec), self.steps)
        return denormalise(torch.stack(list(frames), 1), self.spec)


def _program(spec: ModelSpec, module: nn.Module, stride: int | None, steps: int) -> Any:
    """A `torch.export.ExportedProgram` of a module's whole forecast."""
    return traced(_Forecast(spec, module, steps), spec, stride)


def _onnx(spec: ModelSpec, module: nn.Module, past: Shape, future: Shape) -> bytes:
    """The content of an ONNX file, in which the free axes have the names in `past` and `future`.

    A block that forecasts fewer frames than are asked for is in a loop, which gives it its own frames to read.
    """
    import onnx

    steps, block = int(future[1]), min(spec.frames_in, spec.frames_out)
    loops = architecture_of(spec).kind == "block" and steps > block
    program = _program(spec, module, stride_of(module), block if loops else steps)
    model = as_onnx_loop(program, past, future) if loops else as_onnx(program, past, future)
    onnx.helper.set_model_props(model, {SPEC_KEY: json.dumps(spec.to_dict())})
    content: bytes = model.SerializeToString()
    return content


def _pt2(program: Any, spec: ModelSpec) -> bytes:
    """The content of a .pt2 file."""
    from torch.export import save

    content = io.BytesIO()
    save(program, content, extra_files={SPEC_KEY: json.dumps(spec.to_dict())})
    return content.getvalue()
