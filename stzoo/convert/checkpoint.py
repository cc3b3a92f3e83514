"""The tensors of a published checkpoint, out of whatever its publisher wrapped around them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from stzoo.convert.other_formats import RESAVE
from stzoo.convert.pickled import Name, Other, StoredTensor
from stzoo.convert.torch_file import TorchFile
from stzoo.errors import WeightsError, printable
from stzoo.models.published import Layout
from stzoo.spec import shown

# Keys under which trainers save the tensors, the first that has some. What stands beside them is not read, but may not
# be more tensors of a model. If none of these has tensors, the only other key that has some is taken.
WRAPPERS = ("state_dict", "model_state_dict", "net_param", "model", "ema")
PREFIXES = ("module.", "model.", "_orig_mod.")  # of DistributedDataParallel, of Lightning, of torch.compile
COUNTED = re.compile(r"(?:.+\.)?total_(?:ops|params)")  # what thop leaves in a model whose operations it has counted
_MOST_WRAPPERS = 4  # one in the other; a damaged file may hold itself


def named_tensors(file: TorchFile, known: Callable[[Collection[str]], bool]) -> dict[str, StoredTensor]:
    """The tensors that a checkpoint claims to hold, by their names without prefixes.

    They lie in the file itself, or under one of `WRAPPERS`, or under the only other key that has tensors. `PREFIXES`
    are dropped, however often they stand there, and so is any other prefix that all names share, unless they are known.

    Args:
        file: the checkpoint.
        known: whether names are those of some model.

    Raises:
        WeightsError: something else than dense tensors stands among them, one of them stands there twice, or there are
            tensors in several places.
    """
    place, content = _unwrapped(file)
    where = f"{file.path}{place}"
    _check_content(where, content)
    tensors: dict[str, StoredTensor] = {}
    for key, value in content.items():
        if isinstance(value, Other) and value.maker == "_rebuild_qtensor":
            raise WeightsError(f"{where}: {short(key)} is a quantised tensor; save it as tensor.dequantize()")
        if isinstance(value, Other) and value.maker.startswith("_rebuild"):
            raise WeightsError(f"{where}: {short(key)} is not a dense tensor that holds its values")
        if not isinstance(key, str):
            raise WeightsError(f"{where}: {_key(key)} is the key of {_kind(value)}; the names of tensors are text")
        if not isinstance(value, StoredTensor):
            raise WeightsError(f"{where}: {shown(key)} is {_kind(value)}, not a tensor")
        _enter(tensors, re.sub(_PREFIXES, "", key), replace(value, key=key), file)
    return _without_shared_prefixes(tensors, known, file)


def as_laid_out(tensors: Mapping[str, StoredTensor], layout: Layout, file: TorchFile) -> dict[str, StoredTensor]:
    """The tensors by their names after `layout.inner`. Raises `WeightsError` if two of them have the same name then."""
    renamed: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        _enter(renamed, inner(name, layout), tensor, file)
    return renamed


def inner(name: str, layout: Layout) -> str:
    """A published name after `layout.inner`."""
    for wrapped, plain in layout.inner:
        name = re.sub(wrapped, plain, name)
    return name


def first_parts(names: Iterable[str]) -> list[str]:
    """The first parts of dotted names, each once and in order; what thop counted is left out."""
    return sorted({name.partition(".")[0] for name in names if not COUNTED.fullmatch(name)})


def below(part: str, names: Iterable[str]) -> list[str]:
    """The names that begin with this first part, without it."""
    return [name.removeprefix(f"{part}.") for name in names if name.startswith(f"{part}.")]


def short(name: object) -> str:
    """A name from a checkpoint, for a message: printable, on one line, and cut if it is long."""
    return printable(name) if isinstance(name, str) and len(name) <= 200 else shown(name)


_PREFIXES = re.compile(rf"^(?:{'|'.join(map(re.escape, PREFIXES))})+")


def _unwrapped(file: TorchFile) -> tuple[str, Any]:
    """Where in the file the mapping of tensors lies, for messages ("" or, say, ", model"), and the mapping."""
    place, content = "", file.content
    for _ in range(_MOST_WRAPPERS):
        key = _wrapper(content, f"{file.path}{place}") if isinstance(content, dict) else None
        if key is None:
            break
        place, content = f"{place}, {short(key)}", content[key]
    return place, content


def _wrapper(content: dict[Any, Any], where: str) -> Any:
    """The key under which tensors lie; None if none does. Raises `WeightsError` if several places may be meant."""
    holding = [key for key, value in content.items() if isinstance(key, str) and isinstance(value, dict)]
    seen: dict[int, bool] = {}  # a damaged file may hold one mapping under a million keys
    holding = [key for key in holding if _has_tensors(content[key], seen)]
    bare = [key for key, value in content.items() if isinstance(value, StoredTensor) and value.shape]
    for key in WRAPPERS:
        if key in holding:
            others = [name for name in bare if _may_be_weights(content[name])]
            if others:
                raise WeightsError(
                    f"{where} has tensors under {shown(key)}, and others beside it, such as {_key(others[0])}; save "
                    f"alone those that you want: torch.save(torch.load(FILE)[{shown(key)}], 'tensors.pth')"
                )
            return key
    if holding and not bare:
        if len(holding) > 1:
            raise WeightsError(
                f"{where} has tensors under {' and '.join(map(shown, holding[:4]))}; save those that you want alone: "
                f"torch.save(torch.load(FILE)[KEY], 'tensors.pth')"
            )
        return holding[0]
    for key in WRAPPERS:
        if key in content and (key == WRAPPERS[0] or isinstance(content[key], dict)):
            return key
    return None


def _may_be_weights(tensor: StoredTensor) -> bool:
    """Whether a tensor is more than a figure, such as a loss, and no state of a random generator, which is of bytes."""
    return tensor.dtype.is_floating_point and math.prod(tensor.shape) > 1


def _has_tensors(values: dict[Any, Any], seen: dict[int, bool], deep: int = 1) -> bool:
    """Whether a mapping has named tensors, or has one of `WRAPPERS` that does."""
    if id(values) not in seen:
        here = any(isinstance(key, str) and isinstance(value, StoredTensor) for key, value in values.items())
        inside = (values[key] for key in WRAPPERS if isinstance(values.get(key), dict) and deep < _MOST_WRAPPERS)
        seen[id(values)] = here or any(_has_tensors(each, seen, deep + 1) for each in inside)
    return seen[id(values)]


def _check_content(where: str, content: Any) -> None:
    """Raises `WeightsError`, which says what to do, unless `content` is a mapping that may be one of named tensors."""
    if isinstance(content, Other | Name):
        raise WeightsError(f"{where} is not a checkpoint of pure tensors: {_names(content)}; {RESAVE}")
    if isinstance(content, StoredTensor):
        raise WeightsError(f"{where} holds a single tensor without a name, not named tensors; {RESAVE}")
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{where} holds {type(content).__name__}, not named tensors; {RESAVE}")
    if any(isinstance(value, StoredTensor) for value in content.values()):
        return
    for key, value in content.items():
        if isinstance(value, Other) and not value.maker.startswith("_rebuild"):
            raise WeightsError(
                f"{where} is not a checkpoint of pure tensors: {_names(value)}, under the key {_key(key)}, and no key "
                f"has tensors; {RESAVE}"
            )


def _names(value: Other | Name) -> str:
    text = value.maker if isinstance(value, Other) else value.text
    return f"it names {printable(text[:200])}, which may be code and is not run"


def _kind(value: Any) -> str:
    """What an entry of a checkpoint is, in a word or by the name of its class."""
    if isinstance(value, Other | Name):
        return printable((value.maker if isinstance(value, Other) else value.text)[:200])
    return "a tensor" if isinstance(value, StoredTensor) else type(value).__name__


def _key(key: Any) -> str:
    return _kind(key) if isinstance(key, Other | Name) else shown(key)


def _without_shared_prefixes(
    tensors: dict[str, StoredTensor], known: Callable[[Collection[str]], bool], file: TorchFile
) -> dict[str, StoredTensor]:
    """The tensors without what stands before all names, such as "net.", if they are known then; else unchanged.

    Raises `WeightsError` if two of them have the same name then.
    """
    found = tensors
    for _ in range(_MOST_WRAPPERS):
        if known(found.keys()):
            return found
        heads = first_parts(found)
        if len(heads) != 1 or heads[0] in found:
            break
        shorter: dict[str, StoredTensor] = {}
        for name, tensor in found.items():
            _enter(shorter, re.sub(_PREFIXES, "", name.removeprefix(f"{heads[0]}.")), tensor, file)
        found = shorter
    return tensors


def _enter(tensors: dict[str, StoredTensor], name: str, tensor: StoredTensor, file: TorchFile) -> None:
    if name in tensors:
        one, other = (short(each.key) for each in (tensors[name], tensor))
        raise WeightsError(f"{file.path} holds {short(name)} twice, as {one} and as {other}; save it under one name")
    tensors[name] = tensor
