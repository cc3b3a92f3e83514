"""The order of numbered files: by what their numbers say, with their signs, decimal points and exponents.

Every folder that is read as a sequence, or split into parts, is put in order here. What is hidden in it is left out
here, too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

_NOT_SHOWN = ("thumbs.db", "desktop.ini", "__macosx")  # what Windows and macOS leave in folders and in zip files
_SUFFIX = re.compile(r"\.[^\W\d_]\w*$")  # of a file; what follows the point in 0.25 is none
_LEADING_ZEROS = re.compile(r"(?<![\d.,])0+(?=\d)")  # not those of a fraction such as 0.05
_WHOLE = r"\d+"
_DECIMAL = r"(?<![.\d])\d+\.\d+(?!\.?\d)|\d+"  # not the date 2024.1.2, nor the version 1.2.3
_EXPONENT = r"(?<![.\w])\d+(?:\.\d+)?e[+-]?\d{1,3}(?!\w)"  # not the "1e3" in s1e3
_SIGNED = re.compile(r"[-+\N{MINUS SIGN}]$")
_AMBIGUOUS = re.compile(r"[-+\N{MINUS SIGN}]\d|\d\.\d|\de[+-]?\d")  # in other names every number is a whole one


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is not shown to its owner: it begins with a dot, or a system keeps it.

    On disks and in zip files that macOS wrote, each file 1.png has a hidden file ._1.png beside it, which is no image.
    """
    return name.startswith(".") or name.lower() in _NOT_SHOWN


def in_order(paths: Iterable[Path]) -> list[Path]:
    """The paths sorted by name, in natural order: the numbers in the names count by their value, so 2 precedes 10.

    A point between two numbers is a decimal point (0.25, 0.5, 1), except in names such as 1.9, 1.10, which number the
    parts of a part. A minus or plus is a sign if a name begins with it, if names that are alike have a plus or no sign
    in its place (t-2, t-1, t+0 or t0), or if only the letter t precedes it. Otherwise it is a hyphen, as in the date
    2024-01-02 or in frame-1, frame-2. Numbers such as 1e3 have an exponent if all names are alike except for numbers.
    The suffix counts only where the rest is alike, so shot.png precedes shot2.png and shot (2).png. Where capital
    letters and leading zeros make the only difference, the names are sorted as text.
    """
    files = list(paths)
    names = [path.name.lower() for path in files]
    stems = [_SUFFIX.sub("", name) for name in names]
    keys = _numbered(stems) if any(map(_AMBIGUOUS.search, names)) else [_plain(stem) for stem in stems]
    suffixes = [_plain(name[len(stem) :]) for name, stem in zip(names, stems, strict=True)]
    return [files[i] for i in sorted(range(len(files)), key=lambda i: (keys[i], suffixes[i], files[i].name))]


def frame_name(path: Path) -> str:
    """What two files have in common that hold the same frame: the name without suffix, capitals and leading zeros."""
    return _LEADING_ZEROS.sub("", path.stem.casefold())


def _plain(name: str) -> list[Any]:
    """Texts, and the whole numbers between them: "a10.png" -> ["a", 10, ".png"]."""
    parts: list[Any] = re.split(f"({_WHOLE})", name)
    parts[1::2] = map(int, parts[1::2])
    return parts


@dataclass(frozen=True)
class _Name:
    """A name in small letters, without its suffix, taken apart.

    Attributes:
        texts: one more than there are numbers.
        numbers: what stands between them, as it is written and without its sign.
    """

    texts: list[str]
    numbers: list[str]

    @classmethod
    def split(cls, name: str, number: str) -> _Name:
        """Take a name apart; `number` is the pattern of a number."""
        parts = re.split(f"({number})", name)
        return cls(parts[::2], parts[1::2])

    @cached_property
    def signs(self) -> list[str]:
        """The sign before each number, or "". A sign between two numbers is a hyphen, as in a date."""
        found = [_SIGNED.search(text) for text in self.texts[:-1]]
        return ["" if f is None or (at > 0 and f.start() == 0) else f.group() for at, f in enumerate(found)]

    @cached_property
    def template(self) -> tuple[str, ...]:
        """What names have in common that differ in nothing but numbers and their signs."""
        unsigned = (text.removesuffix(sign) for text, sign in zip(self.texts, self.signs, strict=False))
        return (*unsigned, self.texts[-1])

    def key(self, signed: Sequence[bool]) -> list[Any]:
        """Texts and the values of the numbers; the signs before the numbers belong to them where `signed` says so."""
        key: list[Any] = []
        for text, number, sign, counts in zip(self.texts, self.numbers, self.signs, signed, strict=False):
            value = Decimal(number)
            key += [text.removesuffix(sign), value if sign in "+" else -value] if counts else [text, value]
        return [*key, self.texts[-1]]


def _numbered(names: list[str]) -> list[list[Any]]:
    """A key for each name, some of which have signs, points or exponents."""
    split = [_Name.split(name, f"{_EXPONENT}|{_DECIMAL}") for name in names]
    if len({each.template for each in split}) > 1:
        split = [_Name.split(name, _DECIMAL) for name in names]
    parted = {template for template, alike in _by_template(split).items() if _number_parts(alike)}
    if parted:
        split = [
            _Name.split(name, _WHOLE) if each.template in parted else each
            for name, each in zip(names, split, strict=True)
        ]
    signed = {template: _signed(alike) for template, alike in _by_template(split).items()}
    return [each.key(signed[each.template]) for each in split]


def _by_template(names: Iterable[_Name]) -> dict[tuple[str, ...], list[_Name]]:
    alike = defaultdict[tuple[str, ...], list[_Name]](list)
    for each in names:
        alike[each.template].append(each)
    return alike


def _number_parts(alike: list[_Name]) -> bool:
    """Whether points in the numbers of these names separate whole numbers, as in 1.9, 1.10: nobody writes 1.1 so.

    Names whose fractions all have the same number of digits are in the same order either way.
    """
    for column in zip(*(name.numbers for name in alike), strict=True):
        fractions = [number.partition(".")[2] for number in column if "." in number and "e" not in number]
        longer = any(len(each) > 1 and each.endswith("0") for each in fractions)
        if longer and len({len(each) for each in fractions}) > 1:
            return True
    return False


def _signed(alike: list[_Name]) -> list[bool]:
    """For each number of these names: whether a minus or plus before it is its sign."""
    return [
        before in ("", "t") or set(signs) != {"-"}
        for before, signs in zip(alike[0].template, zip(*(name.signs for name in alike), strict=True), strict=False)
    ]
