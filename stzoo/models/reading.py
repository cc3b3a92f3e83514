"""What the tensors of a published checkpoint tell of its model, by their names and shapes: for an architecture to read.

A `stzoo.models.published.Layout` has a `Reader` for each way in which its tensors were named, and
`stzoo.models.inferring` finds the one that a checkpoint belongs to. Names are those in the file, without "module." and
such in front; `Layout.inner` has not been applied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

from stzoo.errors import SpecError
from stzoo.spec import bounded

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Channels, height and width of a frame, as far as they are known."""

    channels: int | None = bounded(None, 1, 4096)
    height: int | None = bounded(None, 1, 16384)
    width: int | None = bounded(None, 1, 16384)


UNKNOWN = Frame()


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the tensors tell.

    Attributes:
        params: for `ModelSpec.params`; what is not among them cannot be read from tensors.
        frame: channels, height and width; None where no tensor depends on them.
        frames_in: how many frames go in; None where no tensor depends on it.
        untold: what else in `ModelSpec.params` a forecast depends on and no tensor tells.
        product: two of `untold`, and what they make when multiplied, which the tensors do tell.
        hint: the field of `frame` that was needed to read the others, and that the tensors do not tell, therefore.
    """

    params: Mapping[str, Any]
    frame: Frame
    frames_in: int | None = None
    untold: tuple[str, ...] = ()
    product: tuple[str, str, int] | None = None
    hint: str | None = None


class ChannelsUntold(SpecError):
    """The first layer reads patches of `features` channels, and nothing says how many channels a frame has.

    Attributes:
        features: how many channels a patch has.
        told: the fields of `Frame` that the tensors tell as soon as the channels are known.
    """

    def __init__(self, features: int, told: tuple[str, ...]):
        super().__init__(
            f"the first layer reads patches of {features} channels; say how many channels a frame has (--channels or "
            "--dataset), because no tensor tells that from the size of a patch"
        )
        self.features, self.told = features, told


def always(shapes: Shapes) -> bool:
    """The mark of a `Reader` is enough."""
    return True


@dataclass(frozen=True)
class Reader:
    """How published checkpoints of one layout are recognised, and what their tensors tell.

    A checkpoint must belong to one reader alone, among those of all architectures.

    Attributes:
        mark: the name of a tensor that such checkpoints have.
        read: (the shapes of all tensors, what is known of the frames) -> what they tell. A `KeyError` says which tensor
            is missing; an `IndexError`, `ValueError` or `ZeroDivisionError`, that one has too few dimensions or is
            empty; a `SpecError`, what else is wrong.
        also: what else is true of such checkpoints, where those of another architecture have the mark as well.
    """

    mark: str
    read: Callable[[Shapes, Frame], Told]
    also: Callable[[Shapes], bool] = always


def lacks(*names: str) -> Callable[[Shapes], bool]:
    """For `Reader.also`: such checkpoints have none of these tensors, which those of another architecture have."""
    return lambda shapes: not any(name in shapes for name in names)


def depth(shapes: Shapes, stack: str) -> int:
    """How many parts there are of a stack, named `stack`.0, `stack`.1, and so on."""
    heads = {name[len(stack) + 1 :].split(".", 1)[0] for name in shapes if name.startswith(f"{stack}.")}
    return next(i for i in range(len(heads) + 1) if str(i) not in heads)


def patches(features: int, known: Frame, grid: tuple[int, int] | None, shrink: int = 1) -> tuple[int, Frame]:
    """The size of a patch, and the frame, of a model whose first layer reads `features` channels.

    Args:
        grid: rows and columns of the planes that weights belong to, if there are such.
        shrink: how many patches lie side by side in one place of the grid.

    Raises:
        SpecError: `known` does not tell, or contradicts the tensors.
    """
    if known.channels is not None:
        patch = isqrt(features // known.channels)
    elif grid is not None and known.height is not None:
        patch = known.height // (grid[0] * shrink)
    else:
        raise ChannelsUntold(features, () if grid is None else ("height", "width"))
    channels = features // max(1, patch * patch)
    height, width = (None, None) if grid is None else (side * shrink * patch for side in grid)
    found = Frame(channels=channels, height=height, width=width)
    agrees = all(
        None in (wanted, got) or wanted == got
        for wanted, got in (
            (known.channels, channels),
            (known.height, height),
            (known.width, width),
        )
    )
    if not patch or channels * patch * patch != features or not agrees:
        raise SpecError(
            f"the first layer reads patches of {features} channels{_of(grid, shrink)}, which do not make frames of "
            f"{shown_size(known)}"
        )
    return patch, found


def _of(grid: tuple[int, int] | None, shrink: int) -> str:
    return "" if grid is None else f", {grid[0] * shrink} rows and {grid[1] * shrink} columns of them"


def shown_size(frame: Frame) -> str:
    """For messages."""
    return f"{frame.channels or '?'}x{frame.height or '?'}x{frame.width or '?'} (channels x height x width)"


def plane(shapes: Shapes, name: str) -> tuple[int, int]:
    """The last two dimensions of a weight for every place."""
    return shapes[name][-2], shapes[name][-1]


def hint_of(known: Frame) -> str:
    """Which field of what is known told `patches` the size of a patch: `Told.hint`."""
    return "height" if known.channels is None else "channels"


def same_channels(found: int, known: int | None) -> int:
    """How many channels a frame has, as the first layer tells. Raises `SpecError` if more or fewer are known."""
    if known not in (None, found):
        raise SpecError(f"the first layer reads frames of {found} channels, not of {known}")
    return found
