"""How a checkpoint that others published is laid out: what its tensors are called, and what shapes they have.

An architecture states its layouts beside its class, one for each origin, such as "openstl"; `stzoo.convert` reads them.
A rule maps a name of ours to the published name, so that every tensor of ours is looked for and none is forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stzoo.models.reading import Reader, Shape
from stzoo.spec import ModelSpec


def same_shape(shape: Shape) -> Shape:
    """The published tensor has our shape."""
    return shape


def same_spec(spec: ModelSpec, config: Any) -> ModelSpec:
    """The converted model has the spec that was asked for."""
    return spec


@dataclass(frozen=True)
class Rule:
    r"""Where tensors of ours are found in a published checkpoint.

    Attributes:
        ours: a regular expression that matches the whole name of our tensor but its last part, such as "weight".
        theirs: the published name, without that last part too. ``\1`` is what the first group of `ours` matched;
            ``<\1+1>`` is that number plus one, ``<\1*2>`` is twice that number.
        shape: our shape -> the published one. Both must have the same elements in the same order.
    """

    ours: str
    theirs: str
    shape: Callable[[Shape], Shape] = same_shape

    def name(self, stem: str) -> str | None:
        """The published name of our tensor `stem`, both without the last part; None if the rule is not for it."""
        match = re.fullmatch(self.ours, stem)
        return match and re.sub(r"<(\d+)([+*])(\d+)>", _computed, match.expand(self.theirs))


def _computed(numbers: re.Match[str]) -> str:
    a, b = int(numbers[1]), int(numbers[3])
    return str(a + b if numbers[2] == "+" else a * b)


@dataclass(frozen=True, kw_only=True)
class Layout:
    r"""The published tensors of one architecture from one origin.

    Attributes:
        rules: the first one that matches a tensor of ours says where it is found.
        dead: a regular expression of the published names that nothing reads, in the code that published them or in the
            forecast. Any other tensor without a use is an error.
        inner: pairs of a regular expression and its replacement, applied to each published name before the rules:
            names that differ only by how deep a layer was wrapped.
        spec: (the spec asked for, its configuration) -> the spec that such weights were trained as.
        readers: how such checkpoints are recognised, and what their tensors tell. By default their model must be named.
    """

    rules: tuple[Rule, ...]
    dead: str = r"(?!)"
    inner: tuple[tuple[str, str], ...] = ()
    spec: Callable[[ModelSpec, Any], ModelSpec] = same_spec
    readers: tuple[Reader, ...] = ()


def rules(*pairs: tuple[str, str], shape: Callable[[Shape], Shape] = same_shape) -> tuple[Rule, ...]:
    """A `Rule` for each pair of (ours, theirs), all with the same change of shape."""
    return tuple(Rule(ours, theirs, shape) for ours, theirs in pairs)
