"""Blocks computed by ONNX Runtime, which is faster than torch where layers are small and many.

It reads the graph of the plain module, with its weights, and rewrites it for itself. Before it is used, its answer to
small frames is compared with the module's own.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from stzoo.engine.graphs import Part, filled, graph_of
from stzoo.errors import MissingExtraError, SpecError, StzooError
from stzoo.models import architecture_of, stride_of
from stzoo.models.motion import along_motion
from stzoo.spec import ModelSpec
from stzoo.tracing import LEAST, check_writes_onnx

TOLERANCE = 1e-3  # of the largest value: more than rounding, by trained weights too; less than any mistake


def why_not(spec: ModelSpec, precision: str) -> str | None:
    """Why ONNX Runtime does not compute forecasts of such a model; None if it does."""
    kind = architecture_of(spec).kind
    if kind != "block":
        return f"ONNX Runtime computes models that forecast a block of frames, such as tau; {spec.arch} is {kind}"
    if precision == "bfloat16":
        return "ONNX Runtime computes in float32, not in bfloat16"
    return None


def check_installed() -> None:
    """Raises `MissingExtraError` if ONNX Runtime, or what writes its graphs, is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingExtraError('ONNX Runtime needs an extra: pip install "stzoo[export]"')
    check_writes_onnx()


def in_onnx_runtime(block: nn.Module, spec: ModelSpec) -> Callable[[Tensor], Tensor]:
    """What `block` computes in eval mode, float32 on the CPU: (B, T, C, H, W) -> (B, T, C, H, W).

    Raises:
        SpecError: the block is not a float32 one on the CPU, torch cannot export it, or ONNX Runtime computes something
            else than the block.
        NoHomeError: there is no folder to keep the graph in.
    """
    one = next(block.parameters())
    if one.device.type != "cpu" or one.dtype != torch.float32:
        raise SpecError(f"ONNX Runtime computes in float32 on the CPU, the model is {one.dtype} on {one.device}")
    part = Part(block).eval()
    run = _checked(part, spec)
    return partial(along_motion, run) if part.moves else run


def _checked(part: Part, spec: ModelSpec) -> Running:
    """The part in ONNX Runtime. A graph that is damaged, or no longer that of the part, is made anew."""
    for anew in (False, True):
        try:
            run = Running(part, graph_of(part, spec, anew=anew))
            if _agrees(part, run, spec):
                return run
            reason = "ONNX Runtime gives other numbers"
        except (StzooError, OSError):
            raise
        except Exception as error:  # of torch's exporter and of ONNX Runtime, also of one that is not installed well
            reason = f"{type(error).__name__}: {str(error).strip()[:200]}"
    raise SpecError(f"{spec.arch} cannot be computed by ONNX Runtime ({' '.join(reason.split())})")


class Running:
    """A session of ONNX Runtime, with as many threads as torch has when it is called.

    Threads do not survive a fork, so a forked process opens a session of its own.
    """

    def __init__(self, part: Part, graph: bytes):
        self._part, self._graph = part, graph
        self._least = LEAST * (stride_of(part.block) or 0)  # rows and columns that the graph takes at least
        self._session: Any = None
        self._opened_for: tuple[int, int] | None = None  # process, threads

    def __call__(self, past: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, T, C, H, W), both float32 and normalised."""
        if min(past.shape[-2:]) < self._least:
            return self._part(past)
        here = os.getpid(), torch.get_num_threads()
        if self._opened_for != here:
            self._open(*here)
        (future,) = self._session.run(None, {"past": past.detach().contiguous().numpy()})
        return torch.from_numpy(future)

    def _open(self, process: int, threads: int) -> None:
        import onnxruntime

        if self._opened_for is not None and self._opened_for[0] != process:
            # the parent's: to end it would wait for threads that are not here, so it is never let go
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        options.add_session_config_entry("session.force_spinning_stop", "1")  # between two calls no thread spins
        content = filled(self._graph, self._part.state_dict())
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._opened_for = process, threads


def _agrees(part: Part, run: Running, spec: ModelSpec) -> bool:
    stride = stride_of(part.block)
    height, width = (spec.height, spec.width) if stride is None else (LEAST * stride, (LEAST + 1) * stride)
    noise = torch.Generator().manual_seed(0)
    past = torch.randn(1, spec.frames_in, spec.channels, height, width, generator=noise, dtype=torch.float32)
    with torch.no_grad():
        wanted, found = part(past), run(past)
    if not wanted.isfinite().all():  # damaged weights, which the forecast itself will tell
        return True
    return bool((found - wanted).abs().max() <= TOLERANCE * wanted.abs().max())
