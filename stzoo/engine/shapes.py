"""Tensors that have shapes but no values, and how many bytes of them are alive at the same time.

torch has such tensors on the device "meta", but autocast ignores that device. `ShapeTensor` says that it is on the CPU
and holds one of them, so a module takes the same way through torch as with values. (torch's own FakeTensorMode does so
too. It takes some ten times as long, as it looks for far more.)
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stzoo.engine.shape_rules import shape_rule

_CPU, _META = torch.device("cpu"), torch.device("meta")


class _Block:
    """A block of memory that tensors share. `counts` is told when it is made and when the last of them is gone."""

    __slots__ = ("__weakref__", "_counts", "_size")

    def __init__(self, size: int, counts: CountingShapes) -> None:
        self._size, self._counts = size, counts
        counts.now += size
        counts.peak = max(counts.peak, counts.now)

    def __del__(self) -> None:
        self._counts.now -= self._size


class ShapeTensor(Tensor):
    """A tensor of any shape on the CPU that has no values and takes no memory."""

    held: Tensor
    block: _Block

    @staticmethod
    def __new__(cls, inner: Tensor, block: _Block) -> ShapeTensor:
        made: ShapeTensor = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=_CPU,
        )
        made.held, made.block = inner, block
        return made

    def __init__(self, inner: Tensor, block: _Block) -> None: ...

    @classmethod
    def __torch_dispatch__(cls, function: Any, *_: Any) -> Any:
        raise RuntimeError(f"{function} is called with a ShapeTensor outside of CountingShapes")


class CountingShapes(TorchDispatchMode):
    """Inside the block every new tensor is a `ShapeTensor`, and the bytes that they stand for are added up.

    Attributes:
        now: bytes that are alive.
        peak: the largest value that `now` had.

    What asks for a value (`tensor.item()`, `if tensor:`) raises an error of torch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak = 0, 0
        self._blocks: weakref.WeakValueDictionary[int, _Block] = weakref.WeakValueDictionary()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch would import its compiler, which takes seconds

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given: dict[int, Tensor] = {}  # tensors that the operation is given, by the id of what they hold
        plain = _unwrapped(args, given)
        options = {name: _unwrapped(value, given) for name, value in (kwargs or {}).items()}
        if options.get("device") is not None or not given:
            options["device"] = _META
        if options.get("generator") is not None:
            options["generator"] = None  # it is one of the CPU
        made = _result(function, plain, options)
        if isinstance(made, Tensor):
            return self._wrapped(made, given)
        if isinstance(made, tuple | list):
            return type(made)(self._wrapped(x, given) if isinstance(x, Tensor) else x for x in made)
        return made

    def _wrapped(self, inner: Tensor, given: dict[int, Tensor]) -> Tensor:
        known = given.get(id(inner))
        if known is not None:  # it was changed in place
            return known
        storage = inner.untyped_storage()
        block = self._blocks.get(storage._cdata)
        if block is None:
            block = self._blocks[storage._cdata] = _Block(storage.nbytes(), self)
        return ShapeTensor(inner, block)


def _result(function: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    rule = shape_rule(function)
    made = NotImplemented if rule is None else rule(*args, **options)
    return function(*args, **options) if made is NotImplemented else made


def _unwrapped(value: Any, given: dict[int, Tensor]) -> Any:
    if isinstance(value, ShapeTensor):
        given[id(value.held)] = value
        return value.held
    if isinstance(value, Tensor):  # one with values, from before
        inner = value.to(_META)
        given[id(inner)] = value
        return inner
    if isinstance(value, list | tuple):
        return type(value)(_unwrapped(x, given) for x in value)
    return value
