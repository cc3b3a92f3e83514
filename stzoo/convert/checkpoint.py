"""The tensors of a published checkpoint, out of whatever its publisher wrapped around them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from stzoo.convert.torch_file import Other, StoredTensor, TorchFile
from stzoo.errors import WeightsError, printable
from stzoo.models.published import Layout
from stzoo.spec import shown

# Keys under which trainers save the tensors. The optimizer, the epoch and other entries beside them are not read.
WRAPPERS = ("state_dict", "model_state_dict", "net_param", "model", "ema")
PREFIXES = ("module.", "model.", "_orig_mod.")  # of DistributedDataParallel, of Lightning, of torch.compile
_MOST_WRAPPERS = 4  # one in the other; a damaged file may hold itself


def named_tensors(file: TorchFile) -> dict[str, StoredTensor]:
    """The tensors that a checkpoint claims to hold, by their names without `PREFIXES`, however often these stand there.

    They lie in the file itself, or under one of `WRAPPERS`, the first that is there.

    Raises:
        WeightsError: something else than dense tensors stands among them, or one of them stands there twice.
    """
    path, (place, content) = file.path, _unwrapped(file.content)
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path}{place} holds {type(content).__name__}, not named tensors")
    tensors: dict[str, StoredTensor] = {}
    for key, value in content.items():
        if isinstance(value, Other) and value.maker.startswith("_rebuild"):
            raise WeightsError(f"{path}{place}: {short(key)} is not a dense tensor that holds its values")
        if not isinstance(key, str) or not isinstance(value, StoredTensor):
            kind = value.maker if isinstance(value, Other) else type(value).__name__
            raise WeightsError(f"{path}{place}: {shown(key)} is {printable(kind)}, not a tensor")
        _enter(tensors, re.sub(_PREFIXES, "", key), value, file)
    return tensors


def as_laid_out(tensors: Mapping[str, StoredTensor], layout: Layout, file: TorchFile) -> dict[str, StoredTensor]:
    """The tensors by their names after `layout.inner`. Raises `WeightsError` if two of them have the same name then."""
    renamed: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        for wrapped, plain in layout.inner:
            name = re.sub(wrapped, plain, name)
        _enter(renamed, name, tensor, file)
    return renamed


def short(name: object) -> str:
    """A name from a checkpoint, for a message: printable, on one line, and cut if it is long."""
    return printable(name) if isinstance(name, str) and len(name) <= 200 else shown(name)


_PREFIXES = re.compile(rf"^(?:{'|'.join(map(re.escape, PREFIXES))})+")


def _unwrapped(content: Any) -> tuple[str, Any]:
    """The mapping of tensors, and where in the file it lies, for messages: "" or, say, ", model"."""
    place = ""
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(content, Mapping):
            break
        key = next(
            (k for k in WRAPPERS if k in content and (k == WRAPPERS[0] or isinstance(content[k], Mapping))), None
        )
        if key is None:
            break
        place, content = f"{place}, {key}", content[key]
    return place, content


def _enter(tensors: dict[str, StoredTensor], name: str, tensor: StoredTensor, file: TorchFile) -> None:
    if name in tensors:
        raise WeightsError(f"{file.path} holds {short(name)} twice, with and without a prefix")
    tensors[name] = tensor
