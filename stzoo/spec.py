"""`ModelSpec`: everything needed to rebuild a forecaster, except its weights.

The same JSON is a manifest entry's `spec`, a folder's `config.json`, and the metadata inside a safetensors file.
This module imports neither torch nor NumPy.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar

from stzoo.errors import SpecError

T = TypeVar("T")
MAX_DEPTH = 8  # how deep mappings and lists in params may be nested
MAX_FLOAT32, MIN_FLOAT32 = 3.4028234e38, 1.1754944e-38  # the largest number, and the smallest of full precision
MAX_INTEGER = 2**63  # integers in params stay below it, so that JSON readers of other languages can hold them


def bounded(default: Any, low: float, high: float) -> Any:
    """A dataclass field with a default, whose value `from_mapping` checks to lie in [low, high]."""
    return field(default=default, metadata={"low": low, "high": high})


def differences(a: ModelSpec, b: ModelSpec, *, ignoring: Collection[str]) -> list[str]:
    """The fields in which two specs differ, each as the text "name x for y": x is the value in `a`, y in `b`.

    Args:
        a, b: the specs.
        ignoring: names of fields that are not compared.
    """
    fields = [f.name for f in dataclasses.fields(ModelSpec) if f.name not in ignoring]
    one, other = a.to_dict(), b.to_dict()
    return [f"{name} {one[name]!r} for {other[name]!r}" for name in fields if one[name] != other[name]]


def required(low: float, high: float) -> Any:
    """Like `bounded`, without a default."""
    return field(metadata={"low": low, "high": high})


def from_mapping(cls: type[T], values: Any, where: str) -> T:
    """Build the frozen dataclass `cls` from JSON values, strictly.

    Args:
        cls: its fields may have bounds (`bounded`, `required`).
        values: a mapping of field names to values.
        where: what errors call the mapping, such as "spec.params".

    Raises:
        SpecError: `values` is no mapping, or a key is unknown or missing, or a value has the wrong type or is out of
            bounds.
    """
    if not isinstance(values, Mapping):
        raise SpecError(f"{where} must be a mapping, not {type(values).__name__}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            close = get_close_matches(_named(key), fields, n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else f"; known keys: {', '.join(fields)}"
            raise SpecError(f"{where}.{_named(key)} is not a known key{hint}")
    hints = typing.get_type_hints(cls)
    checked = {}
    for name, f in fields.items():
        if name in values:
            checked[name] = _checked(hints[name], values[name], f.metadata, f"{where}.{name}")
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise SpecError(f"{where}.{name} is missing")
    return cls(**checked)


def shown(value: Any, most: int = 100) -> str:
    """`value` for a message: its repr, cut after `most` characters. It never raises, whatever a file holds."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, lists a thousand deep
        return f"a {'number' if isinstance(value, int) else type(value).__name__} of absurd size"
    return text if len(text) <= most else f"{text[:most]}..."


def _named(key: Any) -> str:
    """A key for a message: the key itself if it is short and printable, and otherwise as `shown` gives it."""
    return key if isinstance(key, str) and key.isprintable() and len(key) <= 100 else shown(key)


def _checked(hint: Any, value: Any, bounds: Mapping[str, float], where: str) -> Any:
    """`value` as the type `hint`, or a `SpecError`. It knows the types that JSON and TOML hold and dataclasses use."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if not any(value == a and type(value) is type(a) for a in args):
            raise SpecError(f"{where} is {shown(value)}; it may be {' or '.join(map(repr, args))}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        (inner,) = [a for a in args if a is not type(None)]
        return _checked(inner, value, bounds, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise SpecError(f"{where} is {shown(value)}; it must be a list")
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(kinds) != len(value):
            raise SpecError(f"{where} has {len(value)} values; it must have {len(kinds)}")
        return tuple(_checked(k, v, bounds, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise SpecError(f"{where} is {shown(value)}; it must be a mapping")
        return value
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_mapping(hint, value, where)  # type: ignore[arg-type]
    if hint is float and type(value) is int:
        value = float(value) if abs(value) < 1e300 else math.inf
    if type(value) is not hint:
        raise SpecError(f"{where} is {shown(value)}; it must be of type {hint.__name__}")
    if hint is float and not math.isfinite(value):
        raise SpecError(f"{where} is {value!r}; it must be finite")
    if hint in (int, float) and not bounds.get("low", -math.inf) <= value <= bounds.get("high", math.inf):
        size = repr(value) if abs(value) < 1e30 else "a number of absurd size"  # Python may refuse to print it
        raise SpecError(f"{where} is {size}; it must lie in [{bounds.get('low')}, {bounds.get('high')}]")
    return value


def _frozen(value: Any, where: str, depth: int = 0) -> Any:
    """A copy of a JSON value that nobody can change: mappings become read-only views, lists become tuples."""
    if depth > MAX_DEPTH:
        raise SpecError(f"{where} is nested more than {MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        return types.MappingProxyType({str(k): _frozen(v, f"{where}.{_named(k)}", depth + 1) for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"{where} is {value!r}; it must be finite")
    if isinstance(value, int) and abs(value) >= MAX_INTEGER:
        raise SpecError(f"{where} is {shown(value)}; an integer must lie within 64 bits")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise SpecError(f"{where} is of type {type(value).__name__}; it must be a number, text, a list or a mapping")


def _as_float32(number: float) -> float:
    """`number` as float32 rounds it."""
    return float(struct.unpack("f", struct.pack("f", number))[0])


def _plain(value: Any) -> Any:
    """Undoes `_frozen`: the value in dictionaries and lists."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What a forecaster is: its architecture, the frames it takes and gives, and what their values mean.

    A frame is first put in the spec's units (integers are scaled from their dtype's range to `value_range`), then
    normalised as ``(frame - mean) / std``. `params` belong to the architecture: they are checked against its own
    frozen `Config` when a module is built.

    Attributes:
        arch: name of the architecture, a key of `stzoo.models.architectures()`.
        frames_in: how many past frames the module reads.
        frames_out: how many frames `predict` returns.
        channels, height, width: of one frame in training. Convolutional architectures take other sizes as well.
        value_range: (low, high) between which the values of frames must lie and to which forecasts are clipped; None
            for physical units without limits.
        mean, std: one value, or one for each channel, in the spec's units.
        fill: the value that replaces missing values (NaN), in the spec's units; None refuses missing values.
        params: the architecture's own settings.

    Raises:
        SpecError: a field has the wrong type or is out of bounds.
    """

    arch: str
    frames_in: int = required(1, 1024)
    frames_out: int = required(1, 1024)
    channels: int = required(1, 4096)
    height: int = required(1, 16384)
    width: int = required(1, 16384)
    value_range: tuple[float, float] | None = (0.0, 1.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    fill: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(ModelSpec)
        for f in dataclasses.fields(self):
            object.__setattr__(
                self, f.name, _checked(hints[f.name], getattr(self, f.name), f.metadata, f"spec.{f.name}")
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise SpecError(f"spec.{name} has {len(values)} values; it must have 1 or {self.channels}")
        if any(s <= 0 for s in self.std):
            raise SpecError(f"spec.std is {self.std}; every value must be positive")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise SpecError(f"spec.value_range is {self.value_range}; low must be below high")
        self._check_float32()
        object.__setattr__(self, "params", _frozen(self.params, "spec.params"))

    def _check_float32(self) -> None:
        """Frames are float32, so every number that is computed with them must be one, too. Raises `SpecError`."""
        low, high = self.value_range or (0.0, 1.0)
        fill = () if self.fill is None else (self.fill,)
        for name, numbers in (("mean", self.mean), ("std", self.std), ("value_range", (low, high)), ("fill", fill)):
            if any(abs(number) > MAX_FLOAT32 for number in numbers):
                raise SpecError(f"spec.{name} is {getattr(self, name)}; float32 holds numbers up to {MAX_FLOAT32:.3g}")
        if min(self.std) < MIN_FLOAT32:
            raise SpecError(f"spec.std is {self.std}; every value must be at least {MIN_FLOAT32:.3g}")
        if not MIN_FLOAT32 <= _as_float32(high) - _as_float32(low) <= MAX_FLOAT32:
            raise SpecError(
                f"spec.value_range is {self.value_range}; in float32, low and high must differ by {MIN_FLOAT32:.3g} to "
                f"{MAX_FLOAT32:.3g}"
            )

    @classmethod
    def from_dict(cls, values: Any, where: str = "spec") -> ModelSpec:
        """The spec that a JSON object describes. Raises `SpecError`, which names the wrong key as "where.key"."""
        return from_mapping(cls, values, where)

    def to_dict(self) -> dict[str, Any]:
        """The spec as dictionaries, lists, numbers and text, ready for JSON. `from_dict` makes an equal spec of it."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return json.loads(json.dumps(values | {"params": _plain(self.params)}))

    def replace(self, **overrides: Any) -> ModelSpec:
        """A copy with some fields changed. Keys that are not fields of it are set in `params`. Raises `SpecError`."""
        own = {f.name for f in dataclasses.fields(self)}
        values = self.to_dict() | {k: v for k, v in overrides.items() if k in own}
        values["params"] = values["params"] | {k: v for k, v in overrides.items() if k not in own}
        return ModelSpec.from_dict(values)

    def __hash__(self) -> int:
        return hash((self.arch, self.frames_in, self.frames_out, self.channels, self.height, self.width))

    def __reduce__(self) -> tuple[Any, ...]:
        return ModelSpec.from_dict, (self.to_dict(),)  # a mapping proxy can be neither pickled nor copied
