"""What decides the bytes that a run writes. It is kept in plan.json, and compared when a run goes on.

Imports no torch, so that the command line can show the defaults.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType, NoneType
from typing import Any, Literal

from stzoo.errors import SpecError
from stzoo.machine import BACKENDS, DEVICES, check_backend, check_precision
from stzoo.spec import shown

UNIT = 16  # how many forecasts are made together by default

_LATER = MappingProxyType(  # keys that plans did not have before, with their defaults, which are not written down
    {"variable": None, "time": None, "units": None, "missing": "keep", "matched": False, "backend": "torch"}
)
_NUMBERS = ("steps", "every", "stride", "unit", "threads")

SIZES = ("model", "own")  # what `--size` may say
_OF_THE_RUN = ("threads", "size", "color")  # options which, where they are not given, are those of the run that goes on

SourceKind = Literal["folder", "table", "archive"]

_OPTION_OF = MappingProxyType(  # how a message calls a difference in these keys; the others have an option's own name
    {
        "kind": "source",
        "source_sha256": "source",
        "model_sha256": "model",
        "codec_sha256": "model",
        "spec": "model",
    }
)


@dataclass(frozen=True, kw_only=True)
class ForecastOptions:
    """The options that decide what is written. Each is a key of plan.json, in this order.

    Attributes:
        steps: frames of one forecast.
        every: frames 0, every, 2 * every, ... of a clip are read, or frames of an archive that are so far apart.
        stride: frames between two starts in an archive. None for clips, and where the default of 1 is meant.
        size: of the forecasts of images and videos: "model" leaves them in the model's, "own" runs the model at theirs.
            None: forecast at the model's size and brought back to theirs; or not chosen, in a run that goes on.
        color: "gray" makes one gray forecast of images, videos and arrays in colour. None: each channel is forecast if
            the model reads gray; or not chosen, in a run that goes on.
        format: suffix of a clip's forecast, without the dot. None for an archive, and where the default is meant.
        unit: how many forecasts are made together, and kept together.
        precision: the number format in which the model computes. "auto" is replaced before it is written down.
        device: "cpu" or "cuda", where each worker runs the model.
        threads: threads of torch in each worker; sums depend on their number. None: not chosen yet.
        variable: which variable of an archive, or of each map among the clips, is forecast; None: the only one.
        time: the name of their dimension of time; None: the one that its name or attributes tell.
        units: of a model of rain, the unit of the numbers; None: that of the attribute of a map, or else the model's.
        missing: what a forecast of rain holds where nothing was observed: NaN ("keep") or the model's values ("fill").
        matched: forecasts get the values of the last past frame, see `Forecaster.rollout`.
        backend: what computes, "torch" or "onnxruntime".

    Raises:
        SpecError: a number is below 1, or the device, the precision or the backend is unknown.
    """

    steps: int
    every: int
    stride: int | None
    size: str | None
    color: str | None
    format: str | None
    unit: int
    precision: str
    device: str
    threads: int | None
    variable: str | None = None
    time: str | None = None
    units: str | None = None
    missing: str = "keep"
    matched: bool = False
    backend: str = "torch"

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            number = getattr(self, name)
            if number is not None and number < 1:
                raise SpecError(f"--{name} is {number}; it must be at least 1")
        if self.device not in DEVICES:
            raise SpecError(f"device is {self.device!r}; it may be {', '.join(DEVICES)}")
        if self.size not in (None, *SIZES):
            raise SpecError(f"--size is {self.size!r}; it may be {' or '.join(SIZES)}")
        if self.color not in (None, "gray"):
            raise SpecError(f"--color is {self.color!r}; it may be gray")
        check_precision(self.precision)
        check_backend(self.backend, BACKENDS)

    @property
    def resize(self) -> bool | None:
        """`size` as the argument `resize` of `Forecaster.rollout`."""
        return None if self.size is None else self.size == "model"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides what a run writes, except the machine and the versions of the installed packages.

    Attributes:
        kind: what the source is.
        items: how many forecasts there are in all.
        source_sha256: hash of the clips' names and sizes, or of an archive's names, sizes and times.
        model_sha256: hash of the model's file.
        codec_sha256: hash of the file of its codec; None where the model has no codec in a file of its own.
        spec: the model's spec.
        options: what was asked for, with every default filled in but the number of threads.
    """

    kind: SourceKind
    items: int
    source_sha256: str
    model_sha256: str
    codec_sha256: str | None
    spec: dict[str, Any]
    options: ForecastOptions

    @property
    def units(self) -> int:
        """How many units the items are cut into; the last one may be smaller."""
        return -(-self.items // self.options.unit)

    def numbers(self, unit: int) -> range:
        """The items of a unit."""
        return range(unit * self.options.unit, min(self.items, (unit + 1) * self.options.unit))

    def to_dict(self) -> dict[str, Any]:
        """The keys and values of plan.json: one flat object."""
        values = asdict(self)
        values |= values.pop("options")
        return {key: value for key, value in values.items() if key not in _LATER or value != _LATER[key]}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Raises ValueError, TypeError or RecursionError if the text is not what `to_json` writes."""
        values: dict[str, Any] = dict(_LATER) | dict(json.loads(text))
        if isinstance(values.get("keep_size"), bool):  # as versions of stzoo wrote it that made gray of colour
            values |= {"size": "own" if values.pop("keep_size") else "model", "color": "gray"}
        known = [field.name for each in (cls, ForecastOptions) for field in fields(each) if field.name != "options"]
        if set(values) != set(known):
            absent, foreign = sorted(set(known) - set(values)), sorted(set(values) - set(known))
            raise ValueError(
                f"it has no {absent[0]}" if absent else f"this version of stzoo knows no {shown(foreign[0])} in a plan"
            )
        if any(type(values[name]) not in (int, NoneType) for name in _NUMBERS):
            raise ValueError(f"{', '.join(_NUMBERS)} must be whole numbers or null")
        if any(type(values[name]) not in (type(default), str, NoneType) for name, default in _LATER.items()):
            raise ValueError(f"{', '.join(_LATER)} must be text or null, or true or false")
        options = {field.name: values.pop(field.name) for field in fields(ForecastOptions) if field.name in values}
        return cls(options=ForecastOptions(**options), **values)

    def going_on_from(self, other: Plan) -> Plan:
        """This plan, with those options of the plan of an earlier run that this one leaves open."""
        left_open = [name for name in _OF_THE_RUN if getattr(self.options, name) is None]
        taken = {name: getattr(other.options, name) for name in left_open}
        return replace(self, options=replace(self.options, **taken))

    def differences(self, other: Plan) -> list[str]:
        """The names of the options in which two plans differ, each once."""
        ours, theirs = json.loads(self.to_json()), json.loads(other.to_json())
        both = dict.fromkeys([*ours, *theirs])
        keys = [key for key in both if key != "items" and ours.get(key) != theirs.get(key)]  # the source tells of items
        return list(dict.fromkeys(_OPTION_OF.get(key, key) for key in keys))
