"""Rain in the units of those who measure it <-> dBR, which models of rain read and make.

dBR is 10 log10 of the rain rate R in mm/h. The reflectivity Z in dBZ and R follow from each other by the relation of
Marshall and Palmer (Journal of Meteorology, 1948), Z = 200 R^1.6, so that dBZ = 10 log10(200) + 1.6 dBR.

Less than 0.1 mm/h is dry, which is -10 dBR and 7.01 dBZ. Dry cells become one number in each unit: 0 as a rate, -32 in
dBZ, which is what radar files say where a radar detected nothing, and -10.2 in dBR, the number that models were trained
with. What is more than models know, 11,482 mm/h, becomes that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from stzoo.errors import FramesError, warn_caller
from stzoo.spec import shown

DBR = (-10.4, 40.6)  # the range of models of rain, in dBR; see `stzoo.data.radar`
LEAST_DBR = -10.0  # 0.1 mm/h: less is dry
DRY_DBR, DRY_DBZ = -10.2, -32.0
MOST_RATE = 5e4  # mm/h: more is refused. The 8 bits of radar files go up to 95.5 dBZ, which would be 33,900 mm/h
UNITS = ("mm/h", "dBZ", "dBR")  # as messages and help texts name them; `rain_unit` knows more spellings
_NEGATIVE = -0.05  # mm/h: as far below 0 as interpolation and packing leave rates
_LEAST_DECIBELS = -400.0  # less stands for something else, such as -999 and -9999 for missing data
_MARSHALL_PALMER = (10 * math.log10(200), 1.6)  # dBZ = offset + slope * dBR

_DBR = {
    "dbr",
    "db",
    "dbrr",
    "dbrainrate",
    "10log10mmh",
    "10log10mmhr",
    "10log10mmh1",
    "10log10mmhr1",
    "dbmmh",
    "dbmmhr",
}
_DBZ = {"dbz", "dbze", "dbzh"}
_WORDS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), "mm")
    | dict.fromkeys(("m", "meter", "meters", "metre", "metres"), "m")
    | dict.fromkeys(("in", "inch", "inches"), "in")
    | {"kg": "kg"}
    | dict.fromkeys(("s", "sec", "second", "seconds"), "s")
    | dict.fromkeys(("min", "minute", "minutes"), "min")
    | dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h")
    | dict.fromkeys(("d", "day", "days"), "d")
)
_HOURS: Mapping[str, float] = MappingProxyType({"s": 1 / 3600, "min": 1 / 60, "h": 1.0, "d": 24.0})
_MILLIMETRES: Mapping[str, float] = MappingProxyType({"mm": 1.0, "m": 1000.0, "in": 25.4})
_SUPERSCRIPTS = str.maketrans("\u207b\u00b9\u00b2", "-12")
_PIECE = re.compile(
    r"(?P<per>/|per\b)|(?P<open>\()|(?P<close>\))|(?P<word>[a-z]+)(?:\^|\*\*)?(?P<power>[+-]?\d+)?|[\s.*]+"
)


@dataclass(frozen=True)
class RainUnit:
    """A unit in which rain is given and forecast.

    Attributes:
        name: as the caller wrote it.
        scale: what its numbers are: rates, or decibels of the reflectivity or of the rate.
        of_a_rate: how much 1 mm/h is in it, if its numbers are rates.
    """

    name: str
    scale: Literal["rate", "dBZ", "dBR"]
    of_a_rate: float = 1.0

    def to_dbr(self, values: Tensor) -> Tensor:
        """Numbers in this unit, of any dtype -> dBR in float32 within `DBR`, and NaN where they are NaN.

        Raises:
            FramesError: a number is no rain: a rate below 0 by more than rounding, decibels as low as only marks of
                missing data are, or more than `MOST_RATE`.
        """
        numbers = values.double()
        self._check(numbers)
        if self.scale == "rate":
            dbr = 10 * torch.log10(numbers.clamp(min=0) / self.of_a_rate)
        else:
            offset, slope = self._line
            dbr = (numbers - offset) / slope
        rounded = dbr.float()  # in which a float32 of 0.1 mm/h is -10 dBR
        return torch.where(rounded < LEAST_DBR, DRY_DBR, rounded).clamp(max=DBR[1])

    def from_dbr(self, dbr: Tensor) -> Tensor:
        """dBR -> numbers in this unit, in float64. Dry cells become its number for dry; NaN stays."""
        if self.scale == "rate":
            numbers, dry = 10 ** (dbr.double() / 10) * self.of_a_rate, 0.0
        else:
            offset, slope = self._line
            numbers, dry = offset + slope * dbr.double(), DRY_DBZ if self.scale == "dBZ" else DRY_DBR
        return torch.where(dbr < LEAST_DBR, dry, numbers)

    @property
    def _line(self) -> tuple[float, float]:
        """(offset, slope): decibels in this unit are offset + slope * dBR."""
        return _MARSHALL_PALMER if self.scale == "dBZ" else (0.0, 1.0)

    def _check(self, numbers: Tensor) -> None:
        """Raises `FramesError` in the cases of `to_dbr`."""
        is_rate = self.scale == "rate"
        seen = numbers[~numbers.isnan() & (is_rate | (numbers != -math.inf))]  # which is the decibels of nothing
        if not len(seen):
            return
        least, most = seen.min().item(), seen.max().item()
        highest = self.from_dbr(torch.tensor(10 * math.log10(MOST_RATE))).item()
        remedy = "if it stands for missing data, make it NaN, and otherwise check the units"
        if least < (_NEGATIVE * self.of_a_rate if is_rate else _LEAST_DECIBELS):
            why = "no rain rate is negative" if is_rate else "no radar detects so little"
            raise FramesError(f"given {least:g} {self.name}, and {why}: {remedy}")
        if most > highest:
            raise FramesError(f"given {most:g} {self.name}, and no rain exceeds {highest:.5g} {self.name}: {remedy}")


def rain_unit(text: str) -> RainUnit | None:
    """The unit of rain that a text names, such as "mm/h", "kg m-2 s-1", "dBZ" or "dBR"; None if it names none.

    Rates are lengths of water over time (mm, m or in per s, min, h or day), or kg m-2 over time, which is mm over time.
    "dB" means dBR.
    """
    letters = re.sub(r"[^a-z0-9]", "", text.lower())
    if letters in _DBR | _DBZ:
        return RainUnit(text, "dBR" if letters in _DBR else "dBZ")
    factors = _factors(text)
    time = next((name for name, power in factors.items() if name in _HOURS and power == -1), None)
    if time is None:
        return None
    millimetres = _amount({name: power for name, power in factors.items() if name != time})
    return None if millimetres is None else RainUnit(text, "rate", _HOURS[time] / millimetres)


def is_amount(text: str) -> bool:
    """Whether a text names a unit of an amount of rain, such as "mm" or "kg m-2"."""
    return _amount(_factors(text)) is not None


def is_rain(value_range: tuple[float, float] | None) -> bool:
    """Whether a model, whose spec has this range of values, is one of rain."""
    return value_range == DBR


def asked_unit(units: str | None, value_range: tuple[float, float] | None) -> RainUnit | None:
    """The unit that a caller names for a model whose spec has this range of values; None if the caller names none.

    Raises:
        FramesError: the model is none of rain, or there is no such unit.
    """
    if units is None:
        return None
    if not is_rain(value_range):
        raise FramesError(
            f"units={units!r} (in commands --units) is for models of rain, and this is none; leave it out"
        )
    return checked_unit(units)


def checked_unit(units: str) -> RainUnit:
    """The unit of rain that a caller names. Raises `FramesError` if it is none."""
    found = rain_unit(units) if isinstance(units, str) else None
    if found is not None:
        return found
    amount = "; that is an amount: divide it by the hours in which it fell" if is_amount(str(units)) else ""
    raise FramesError(f"units is {shown(units)}; it may be {', '.join(UNITS)}, or another spelling of these{amount}")


def warn_of_rates(numbers: Tensor) -> None:
    """Warn if numbers that are taken as dBR may be rates: dBR has rain of less than 1 mm/h, or dry cells, below 0."""
    if numbers.numel() and 0 <= torch.where(numbers.isnan(), torch.inf, numbers).min() < torch.inf:
        warn_caller(
            "none of these numbers is below 0, and as dBR, in which this model reads them, 0 is 1 mm/h and dry is "
            "-10.2; if they are rates, say units='mm/h' (in commands --units mm/h)"
        )


def _amount(factors: Mapping[str, int]) -> float | None:
    """How many mm of rain a product of units is; None if it is no amount of rain."""
    if factors == {"kg": 1, "m": -2}:
        return 1.0
    ((name, power),) = factors.items() if len(factors) == 1 else (("", 0),)
    return _MILLIMETRES.get(name) if power == 1 else None


def _factors(text: str) -> dict[str, int]:
    """The factors of a unit with their powers: "kg m-2 s-1" is {"kg": 1, "m": -2, "s": -1}. Empty if it is not read."""
    found: dict[str, int] = {}
    plain = text.lower().translate(_SUPERSCRIPTS).replace("mmh", "mm h")
    at, sign, group = 0, 1, 1
    while at < len(plain):
        piece = _PIECE.match(plain, at)
        if piece is None or (piece["word"] and piece["word"] not in _WORDS):
            return {}
        at = piece.end()
        if piece["per"]:
            sign = -1
        elif piece["open"]:
            group, sign = sign, 1
        elif piece["close"]:
            group, sign = 1, 1
        elif piece["word"]:
            name = _WORDS[piece["word"]]
            found[name] = found.get(name, 0) + group * sign * int(piece["power"] or 1)
            sign = 1
    return found
