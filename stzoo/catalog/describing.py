"""How a card says what a model is, in lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stzoo.spec import ModelSpec


def lines(facts: Iterable[tuple[str, str]]) -> list[str]:
    """The lines of a card that say these facts."""
    return [f"  {name:<13} {said}" for name, said in facts]


def described(spec: ModelSpec) -> list[tuple[str, str]]:
    """What a card says of a spec."""
    s = spec
    ranges = "values without a range" if s.value_range is None else f"values in {s.value_range}"
    return [
        ("architecture", f"{s.arch} ({settings(s.params)})"),
        (
            "frames",
            f"{s.frames_in} in, {s.frames_out} out, {s.channels}x{s.height}x{s.width}, {ranges}",
        ),
    ]


def settings(params: Mapping[str, Any]) -> str:
    """A spec's `params` as readable text; a part with an architecture of its own is "NAME (SETTINGS)"."""
    shown = []
    for key, value in params.items():
        if isinstance(value, Mapping):
            value = f"{value.get('arch', '')} ({settings(value.get('params', {}))})"
        shown.append(f"{key} {value}")
    return ", ".join(shown) or "defaults"
