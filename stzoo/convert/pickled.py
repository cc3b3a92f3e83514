"""The pickle that describes what `torch.save` saved, followed step by step; nothing that it names is run or imported.

What tensors are made with becomes a claim (`StoredTensor`), plain data becomes itself, and any other object becomes an
`Other`, whose class is never looked for. So what a trainer saved beside the tensors neither runs nor is in the way.
"""

from __future__ import annotations

import math
import pickletools
import re
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import torch

from stzoo.convert.other_formats import RESAVE
from stzoo.errors import printable

MAX_DIMENSIONS, MAX_SIDE = 8, 2**40  # of a tensor
MAX_STEPS = 2**22  # of a pickle, a new container counted as four; a thousand tensors and their optimizer take 10^5
_MOST_BITS = 128  # of a number: larger ones take long to hash and to print
_MOST_IN_A_KEY = 8  # parts of a tuple that is a key
_NO_KEY = "a key that is neither text nor a number"
_STORAGES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "ByteStorage": torch.uint8, "CharStorage": torch.int8,
    "ShortStorage": torch.int16, "IntStorage": torch.int32, "LongStorage": torch.int64, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128, "UntypedStorage": torch.uint8,
    "QInt8Storage": torch.int8, "QInt32Storage": torch.int32, "QUInt8Storage": torch.uint8,
}  # fmt: skip
_DTYPES = {str(each): each for each in vars(torch).values() if isinstance(each, torch.dtype)}
_MAKES_NO_CLASS = ("copyreg._reconstructor", "copy_reg._reconstructor", "copyreg.__newobj__", "copy_reg.__newobj__",
                   "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")  # fmt: skip
_OLD_REFERENCE = re.compile(r"\('storage', <class '([\w.]+)'>, '(\w+)', '[\w:]*', (\d{1,13})(?:, None)?\)")
_OLD_CLASS = re.compile(r"\('module', <class '([\w.]+)'>.*", re.DOTALL)


@dataclass(frozen=True)
class StoredStorage:
    """The memory of one or more tensors, as the file claims it: `count` values of `dtype` under the name `key`."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as the file claims it: a view of a storage. `offset` and `stride` count values of `dtype`.

    `key` is the name that the file has it under, "" where that is not known yet. Names are changed before tensors are
    matched, and messages should have those that a reader finds in the file.
    """

    storage: StoredStorage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    key: str = ""

    @property
    def nbytes(self) -> int:
        """How much memory the tensor takes on its own."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a class or a function in the pickle, such as "torch.FloatStorage". It is not looked up."""

    text: str


@dataclass(eq=False, slots=True)
class Other:
    """An object that is neither a dense tensor nor plain data.

    Attributes:
        maker: the name of its class, or of the function that would have made it.
        values: its attributes or items by name, as far as the pickle has them in one mapping.
    """

    maker: str
    values: dict[Any, Any] = field(default_factory=dict)


def followed(file: BinaryIO, storages: dict[str, StoredStorage]) -> Any:
    """What the pickle at the current position describes. The file is left where the pickle ends.

    Args:
        file: the bytes.
        storages: every storage that the pickle mentions is entered here, by its key.

    Raises:
        ValueError: a step of the pickle is damaged, or one that files of torch.save do not have, or there are more
            than `MAX_STEPS`. Damaged pickles also raise IndexError, KeyError, TypeError or AttributeError.
    """
    stack: list[Any] = []
    below: list[list[Any]] = []  # stacks that were set aside by marks
    memo: dict[int, Any] = {}
    steps = 0
    value: Any
    for step, value, _ in pickletools.genops(file):
        steps += 4 if step.name.startswith("EMPTY") else 1
        if steps > MAX_STEPS:
            raise ValueError(f"its description has more than {MAX_STEPS:,} steps; {RESAVE}")
        match step.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack[-1]
            case "MARK":
                below.append(stack)
                stack = []
            case "POP_MARK":
                stack = below.pop()
            case "POP":  # of a mark, if nothing was put upon it
                if stack:
                    stack.pop()
                else:
                    stack = below.pop()
            case "DUP":
                stack.append(stack[-1])
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[step.name])
            case (
                "BININT" | "BININT1" | "BININT2" | "BINFLOAT" | "FLOAT" | "BINUNICODE" | "SHORT_BINUNICODE"
                | "BINUNICODE8" | "UNICODE" | "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8" | "BYTEARRAY8"
                | "SHORT_BINSTRING" | "BINSTRING" | "STRING"
            ):  # fmt: skip
                stack.append(value)
            case "LONG1" | "LONG4" | "INT" | "LONG":
                stack.append(value if value.bit_length() <= _MOST_BITS else Other("a number of absurd size"))
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"DICT": dict, "LIST": list, "TUPLE": tuple}[step.name[6:]]())
            case "EMPTY_SET":
                stack.append(Other("set"))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(step.name[-1])
                stack[-count:] = [tuple(stack[-count:])] if len(stack) >= count else [stack[-count]]
            case "TUPLE" | "LIST" | "DICT" | "FROZENSET" | "APPENDS" | "SETITEMS" | "ADDITEMS":
                items, stack = stack, below.pop()
                if step.name == "TUPLE":
                    stack.append(tuple(items))
                elif step.name == "LIST":
                    stack.append(items)
                elif step.name == "FROZENSET":
                    stack.append(Other("frozenset"))
                elif step.name == "DICT":
                    stack.append({})
                    _fill(stack[-1], items)
                elif step.name == "SETITEMS":
                    _fill(stack[-1], items)
                elif not isinstance(stack[-1], Other):
                    stack[-1].extend(items)
            case "APPEND":
                item = stack.pop()
                if not isinstance(stack[-1], Other):
                    stack[-1].append(item)
            case "SETITEM":
                item, key = stack.pop(), stack.pop()
                _fill(stack[-1], [key, item])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[value] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[value])
            case "GLOBAL":
                stack.append(Name(value.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(Name(f"{module}.{name}") if isinstance(module, str) and isinstance(name, str) else _BAD)
            case "INST":
                arguments, stack = stack, below.pop()
                stack.append(Other(value.replace(" ", ".", 1)))
            case "OBJ":
                arguments, stack = stack, below.pop()
                stack.append(_made(arguments[0], tuple(arguments[1:])))
            case "REDUCE" | "NEWOBJ" | "NEWOBJ_EX":
                if step.name == "NEWOBJ_EX":
                    stack.pop()  # arguments by name
                arguments, maker = stack.pop(), stack.pop()
                steps += len(arguments[0]) if arguments and isinstance(arguments[0], list | tuple) else 0
                stack.append(_made(maker, arguments))
            case "BUILD":  # attributes, such as the versions that a state_dict carries
                state = stack.pop()
                if isinstance(stack[-1], Other):
                    parts = state if isinstance(state, tuple) else (state,)  # a pair if the class has slots
                    stack[-1].values = next((part for part in parts if isinstance(part, dict)), stack[-1].values)
            case "BINPERSID" | "PERSID":
                referred = _referred(stack.pop() if step.name == "BINPERSID" else _old_reference(value))
                if isinstance(referred, StoredStorage):
                    storages[referred.key] = referred
                stack.append(referred)
            case _:
                raise ValueError(f"its pickle has the step {step.name}")
    raise ValueError("its pickle has no end")


_BAD = Name("an object without a name")
_TENSORS = (Name("torch.Tensor"), Name("torch.nn.parameter.Parameter"), Name("torch.nn.parameter.Buffer"))


def _fill(target: Any, items: list[Any]) -> None:
    """Enter keys and values that follow each other in a mapping, or in what is only known by its class."""
    values = target.values if isinstance(target, Other) else target
    values.update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))


def _key(value: Any) -> Any:
    """`value` itself, if it may be the key of a mapping: hashing tuples inside tuples may take for ever."""
    flat = value if isinstance(value, tuple) else (value,)
    plain = len(flat) <= _MOST_IN_A_KEY and all(
        isinstance(each, str | bytes | int | float | Name | None) for each in flat
    )
    return value if plain else Other(_NO_KEY)


def _old_reference(text: str) -> tuple[Any, ...]:
    """A storage or a class as pickles of protocol 0 refer to it, in text."""
    module = _OLD_CLASS.fullmatch(text)
    if module is not None:
        return "module", Name(module[1])
    found = _OLD_REFERENCE.fullmatch(text)
    if found is None:
        raise ValueError("a storage in it is described in an unknown way")
    return "storage", Name(found[1]), found[2], "cpu", int(found[3])


def _referred(claim: tuple[Any, ...]) -> StoredStorage | Name:
    """What torch keeps outside the pickle: a storage, or, before torch 1.6, the source of a module's class."""
    if claim[0] == "module" and isinstance(claim[1], Name):
        return claim[1]
    kind, storage, key, _, count = claim[:5]
    if kind != "storage" or (len(claim) > 5 and claim[5] is not None) or not isinstance(key, str):
        raise ValueError("a storage in it is described in an unknown way")
    name = storage.text.rpartition(".")[2]
    if name not in _STORAGES:
        raise ValueError(f"it has values of the kind {printable(name[:50])}, which stzoo does not read")
    return StoredStorage(key, _STORAGES[name], _size(count))


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_SIDE:
        raise ValueError("a tensor in it has an absurd size")
    return value


def _made(maker: Any, arguments: tuple[Any, ...]) -> Any:
    """What the call of `maker` would have returned: a claim, plain data, or an `Other`. Nothing is called."""
    if not isinstance(maker, Name):
        return Other(maker.maker if isinstance(maker, Other) else "an object without a class")
    name = maker.text.removeprefix("torch._utils.")
    if name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
        storage, offset, shape, stride = arguments[:4]
        changed = name[-1] == "2" and len(arguments) > 6 and bool(arguments[6])  # conjugated or negated when it is read
        if changed or not isinstance(storage, StoredStorage):
            return Other(name)
        dtype = _DTYPES[arguments[6].text] if name[-1] == "3" else storage.dtype
        if len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS:
            raise ValueError(f"a tensor has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are read")
        return StoredTensor(storage, dtype, _size(offset), tuple(map(_size, shape)), tuple(map(_size, stride)))
    if name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
        return arguments[0]
    if name == "torch._tensor._rebuild_from_type_v2" and arguments[1] in _TENSORS:
        return _made(arguments[0], arguments[2])
    if name == "torch.Size":
        return tuple(arguments[0])
    if name == "collections.OrderedDict":
        return {_key(key): value for key, value in (arguments[0] if arguments else ())}
    if name == "collections.defaultdict":
        return {}
    if name in _MAKES_NO_CLASS and arguments and isinstance(arguments[0], Name):
        return Other(arguments[0].text)
    return Other(name)
