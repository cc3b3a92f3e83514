"""ONNX graphs of blocks, made once and kept below `stzoo.environment.home()`, without the values of the weights.

So one file serves every model with the same layers, however it was trained, and a model whose weights change needs no
other one. Making it takes torch many seconds.
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, nn

from stzoo import environment
from stzoo.errors import NoHomeError
from stzoo.files import write_atomically
from stzoo.models import stride_of
from stzoo.models.encoder_decoder import EncodeTranslateDecode
from stzoo.spec import ModelSpec
from stzoo.tracing import OPSET, as_onnx, free_axes, traced

FORMAT = 1  # of the files; a change of what is in them adds one


class Part(nn.Module):
    """What a graph computes of a block: all of it, or of one that works along a motion what lies between two motions.

    The estimate of the motion stays with torch, which takes minutes to trace it, and computes it no slower.
    """

    def __init__(self, block: Any):
        super().__init__()
        self.block = block
        self.moves = type(block).forward is EncodeTranslateDecode.forward and block.lagrangian

    def forward(self, past: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, T, C, H, W), both normalised."""
        future: Tensor = self.block.still(past) if self.moves else self.block(past)
        return future


def graph_of(part: Part, spec: ModelSpec, *, anew: bool = False) -> bytes:
    """The serialised graph of a block, whose initializers have the names of the part's tensors, but no values.

    It is read from the cache, or made and put there, which a line on stderr says before it makes the caller wait.
    Several processes that need the same one make it once.

    Args:
        part: on any device; it stays as it is.
        spec: the block's.
        anew: do not read the file that is there, which is damaged.

    Raises:
        NoHomeError: there is no folder to keep files in, or nobody may write to it.
    """
    folder = environment.made(environment.home() / "graphs")
    path = folder / f"{key_of(part, spec)}.onnx"
    if not anew and path.is_file():
        return path.read_bytes()
    wait = "torch writes its graph for ONNX Runtime, once on this machine, which takes up to a minute"
    print(f"{spec.arch}: {wait} ...", file=sys.stderr, flush=True)
    with _one_process(path.with_suffix(".lock")):
        if not anew and path.is_file():  # another process made it meanwhile
            return path.read_bytes()
        content = _made(part, spec)
        with suppress(OSError):  # a full disk, for example: the next process makes it again
            write_atomically(path, content)
        return content


@contextmanager
def _one_process(path: Path) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire()
    except OSError as error:
        reason = f"{path.parent} cannot be written to ({error.strerror})"
        raise NoHomeError(f"{reason}; set STZOO_HOME to a folder of yours") from error
    try:
        yield
    finally:
        lock.release()


def key_of(part: Part, spec: ModelSpec) -> str:
    """Names what decides how a block's graph looks: its layers, the shapes of its weights, the versions."""
    import onnx
    import onnxscript

    from stzoo import __version__

    stride = stride_of(part.block)
    facts = {
        "versions": [FORMAT, OPSET, __version__, torch.__version__, onnx.__version__, onnxscript.__version__],
        "arch": [spec.arch, spec.to_dict()["params"], part.moves],
        "frames": [spec.frames_in, spec.channels, stride, *((spec.height, spec.width) if stride is None else ())],
        "layers": [repr(part), [f"{type(layer).__module__}.{type(layer).__qualname__}" for layer in part.modules()]],
        "tensors": {name: list(tensor.shape) for name, tensor in part.state_dict().items()},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def filled(graph: bytes, tensors: dict[str, Tensor]) -> bytes:
    """A graph with the values of its weights.

    Raises:
        ValueError: it is damaged, or of other weights. (Parsing may raise errors of its own.)
    """
    import onnx

    model = onnx.load_from_string(graph)
    for one in model.graph.initializer:
        if one.name in tensors:
            own = tensors[one.name].detach().cpu().float() if one.data_type == onnx.TensorProto.FLOAT else None
            if own is None or list(own.shape) != list(one.dims):
                raise ValueError(f"{one.name} is not what the module has")
            one.raw_data = own.contiguous().numpy().tobytes()
    content: bytes = model.SerializeToString()
    return content


def _made(part: Part, spec: ModelSpec) -> bytes:
    own = copy.deepcopy(part).cpu().float().eval().requires_grad_(False)
    stride = stride_of(part.block)
    shape = ("batch", spec.frames_in, spec.channels, *free_axes(spec, stride))
    model = as_onnx(traced(own, spec, stride), shape, shape, optimize=False)
    names = own.state_dict().keys()
    for one in model.graph.initializer:
        if one.name in names:
            one.ClearField("raw_data")
    content: bytes = model.SerializeToString()
    return content


def kept_choice(name: str) -> Path:
    """The file in the cache that holds a measured choice."""
    return environment.made(environment.home() / "graphs") / f"{name}.choice"
