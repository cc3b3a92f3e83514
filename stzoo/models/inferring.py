"""Which model a published checkpoint holds, as the names and shapes of its tensors say.

The `stzoo.models.reading.Reader` of a layout reads them: widths, depths, kernel sizes, how many channels a
frame has, and, where a tensor depends on it, how many frames go in and how large they are. No tensor tells activations,
how many frames come out, or the range of values; nor does one tell the settings that `Told.untold` names, which are
for the caller to set.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from types import MappingProxyType

from stzoo.errors import SpecError
from stzoo.models import architectures
from stzoo.models.reading import UNKNOWN, Frame, Reader, Shapes, Told

# Architectures with published checkpoints that stzoo does not have -> how the name of one of their tensors begins.
ABSENT = MappingProxyType({"DMVFN": r"stu\.0\."})


@dataclass(frozen=True)
class Inferred:
    """The model that tensors belong to.

    Attributes:
        arch: `ModelSpec.arch`.
        origin: the layout whose names these are, one of `Architecture.layouts`.
        told: what the tensors tell of it.
    """

    arch: str
    origin: str
    told: Told


def infer(shapes: Shapes, known: Frame = UNKNOWN) -> Inferred:
    """The model that tensors of these names and shapes belong to.

    Args:
        shapes: the names and shapes of all tensors of the checkpoint.
        known: what is known of the frames. Recurrent models read patches, and a tensor tells only how many channels a
            patch has: `channels` is needed for them, or, where weights belong to places, `height`.

    Raises:
        SpecError: no architecture is known that has such names, or several are; a tensor is missing or has too few
            dimensions; or what is known contradicts the tensors.
    """
    found = readers_of(shapes)
    if not found:
        absent = next((name for name, mark in ABSENT.items() if any(re.match(mark, tensor) for tensor in shapes)), None)
        if absent is not None:
            raise SpecError(f"its tensors are those of {absent}, an architecture that stzoo does not have")
        raise SpecError(
            "no architecture is known whose published checkpoints have tensors of these names; if you know the model, "
            "name it (--model)"
        )
    if len(found) > 1:
        names = " and ".join(arch for arch, _, _ in found)
        raise SpecError(f"its tensors may be those of {names}; if you know the model, name it (--model)")
    arch, origin, reader = found[0]
    try:
        return Inferred(arch, origin, reader.read(shapes, known))
    except SpecError:
        raise
    except KeyError as error:
        raise SpecError(f"the checkpoint has {reader.mark}, but no tensor {error.args[0]}") from None
    except (IndexError, ValueError, ZeroDivisionError):  # too few dimensions, or an empty one
        raise SpecError(f"the checkpoint has {reader.mark}, but tensors of other shapes beside it") from None


def is_recognised(names: Collection[str]) -> bool:
    """Whether tensors of these names are those of an architecture that is known, be it one that stzoo has or not."""
    marked = any(reader.mark in names for _, _, reader in _readers())
    return marked or any(re.match(mark, name) for name in names for mark in ABSENT.values())


def readers_of(shapes: Shapes) -> list[tuple[str, str, Reader]]:
    """Architecture, origin and reader of each layout that such tensors are of: for a whole checkpoint, one or none."""
    return [found for found in _readers() if found[2].mark in shapes and found[2].also(shapes)]


def _readers() -> Iterator[tuple[str, str, Reader]]:
    for name, architecture in architectures().items():
        origins: dict[Reader, str] = {}
        for origin, layout in architecture.layouts.items():
            for reader in layout.readers:
                origins.setdefault(reader, origin)  # a layout that two origins share is that of the first
        yield from ((name, origin, reader) for reader, origin in origins.items())
