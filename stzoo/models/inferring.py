"""Which model a published checkpoint holds, as the names and shapes of its tensors say.

Each architecture reads them by its own `stzoo.models.reading.Reader`: widths, depths, kernel sizes, how many channels a
frame has, and, where a tensor depends on it, how many frames go in and how large they are. No tensor tells activations,
how many frames come out, or the range of values; nor does one tell the settings that `Inferred.untold` names, which are
for the caller to set.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from types import MappingProxyType

from stzoo.errors import SpecError
from stzoo.models import architectures
from stzoo.models.reading import UNKNOWN, Frame, Inferred, Reader, Shapes

# Architectures with published checkpoints that stzoo does not have -> how the name of one of their tensors begins.
ABSENT = MappingProxyType({"DMVFN": r"stu\.0\."})


def infer(shapes: Shapes, known: Frame = UNKNOWN) -> Inferred:
    """The model that tensors of these names and shapes belong to.

    Args:
        shapes: the names and shapes of all tensors of the checkpoint.
        known: what is known of the frames. Recurrent models read patches, and a tensor tells only how many channels a
            patch has: `channels` is needed for them, or, where weights belong to places, `height`.

    Raises:
        SpecError: no architecture is known that has such names, a tensor is missing or has too few dimensions, or what
            is known contradicts the tensors.
    """
    reader = next(readers_of(shapes), None)
    if reader is None:
        absent = next((name for name, mark in ABSENT.items() if any(re.match(mark, tensor) for tensor in shapes)), None)
        if absent is not None:
            raise SpecError(f"its tensors are those of {absent}, an architecture that stzoo does not have")
        raise SpecError(
            "no architecture is known whose published checkpoints have tensors of these names; if you know the model, "
            "name it (--model)"
        )
    try:
        return reader.read(shapes, known)
    except SpecError:
        raise
    except KeyError as error:
        raise SpecError(f"the checkpoint has {reader.mark}, but no tensor {error.args[0]}") from None
    except (IndexError, ValueError, ZeroDivisionError):  # too few dimensions, or an empty one
        raise SpecError(f"the checkpoint has {reader.mark}, but tensors of other shapes beside it") from None


def is_recognised(names: Collection[str]) -> bool:
    """Whether tensors of these names are those of an architecture that is known, be it one that stzoo has or not."""
    marked = any(reader.mark in names for reader in _readers())
    return marked or any(re.match(mark, name) for name in names for mark in ABSENT.values())


def readers_of(shapes: Shapes) -> Iterator[Reader]:
    """The readers that such tensors belong to. If they are a whole checkpoint's, it is one or none."""
    return (reader for reader in _readers() if reader.mark in shapes and reader.also(shapes))


def _readers() -> Iterator[Reader]:
    return (reader for architecture in architectures().values() for reader in architecture.readers)
