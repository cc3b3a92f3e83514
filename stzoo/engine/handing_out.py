"""From what a module makes to what is handed out: in units, matched if asked for, and NaN where nothing was observed.

None of this reaches the module again: it goes on from the frames that it made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from stzoo.engine import Engine, in_units
from stzoo.engine.matching import match_rollout
from stzoo.engine.observing import carried_along, observed_motion, where_observed
from stzoo.frames.values import normalise
from stzoo.spec import ModelSpec


@dataclass(frozen=True)
class Past:
    """Past frames, and where they were observed.

    Attributes:
        given: (B, T, C, H, W) in the spec's units, finite.
        spec: of the module that reads them.
        observed: (B, T, 1, H, W) booleans, true where they were observed, on the same device; None if everywhere.
    """

    given: Tensor
    spec: ModelSpec
    observed: Tensor | None = None

    @cached_property
    def motion(self) -> Tensor:
        """(B, 2, H, W), pixels a frame."""
        return observed_motion(normalise(self.given, self.spec), self.observed)

    @property
    def frames(self) -> Tensor:
        """What the module reads: as `given`, where a parcel was observed in some frame as it was there."""
        return self._carried[0]

    @property
    def known(self) -> Tensor | None:
        """(B, 1, H, W) booleans, true where something is known of the last frame; None if everywhere."""
        return self._carried[1]

    @cached_property
    def _carried(self) -> tuple[Tensor, Tensor | None]:
        if self.observed is None or self.observed.all():
            return self.given, None if self.observed is None else self.observed[:, -1]
        return carried_along(self.given, self.observed, self.motion)


def future(
    engine: Engine,
    spec: ModelSpec,
    past: Tensor,
    steps: int | None,
    *,
    observed: Tensor | None = None,
    keeps: bool = True,
    matched: bool = False,
) -> Iterator[Tensor]:
    """The frames (B, C, H, W) that follow, in the spec's units and unclipped; without end if `steps` is None.

    Args:
        engine: runs the module that `spec` describes.
        spec: of the module.
        past: (B, T, C, H, W) in the spec's units, finite.
        steps: how many frames follow.
        observed: (B, T, 1, H, W) booleans, true where the past was observed. With None there are numbers everywhere.
        keeps: whether what rests on nothing that was observed is NaN, if `observed` is given.
        matched: as in `Forecaster.rollout`.

    Raises:
        ForecastError: a frame that the module made holds NaN or infinite values.
    """
    device = next(engine.module.parameters()).device
    known = Past(past.to(device), spec, None if observed is None else observed.to(device))
    made = engine.unroll(normalise(known.frames, spec), steps)
    return handed_out(made, known, keeps=keeps, matched=matched)


def handed_out(made: Iterable[Tensor], past: Past, *, keeps: bool, matched: bool) -> Iterator[Tensor]:
    """The same of frames (B, C, H, W) that a module made of a past, normalised, on the same device."""
    spec = past.spec
    coming: Iterator[Tensor] = (in_units(frame, spec, number) for number, frame in enumerate(made, 1))
    if matched:
        if spec.value_range is not None:  # beyond it values are delivered as equals, so that their order means nothing
            low, high = spec.value_range
            coming = (frame.clamp(low, high) for frame in coming)
        coming = match_rollout(coming, past.frames[:, -1], past.motion, past.known)
    if keeps and past.known is not None:
        coming = where_observed(coming, past.motion, past.known)
    return coming
