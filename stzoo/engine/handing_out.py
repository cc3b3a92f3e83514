"""From what a module makes to what is handed out: in units, matched if asked for, and NaN where nothing was observed.

None of this reaches the module again: it goes on from the frames that it made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor

from stzoo.engine import Engine, in_units
from stzoo.engine.matching import match_rollout
from stzoo.engine.observing import observed_motion, where_observed
from stzoo.frames.values import normalise
from stzoo.spec import ModelSpec


def future(
    engine: Engine,
    spec: ModelSpec,
    past: Tensor,
    steps: int | None,
    *,
    observed: Tensor | None = None,
    matched: bool = False,
) -> Iterator[Tensor]:
    """The frames (B, C, H, W) that follow, in the spec's units and unclipped; without end if `steps` is None.

    Args:
        engine: runs the module that `spec` describes.
        spec: of the module.
        past: (B, T, C, H, W) in the spec's units, finite.
        steps: how many frames follow.
        observed: (B, T, 1, H, W) booleans, true where the past was observed; what rests on nothing that was observed is
            NaN. With None there are numbers everywhere.
        matched: as in `Forecaster.rollout`.

    Raises:
        ForecastError: a frame that the module made holds NaN or infinite values.
    """
    device = next(engine.module.parameters()).device
    past, observed = past.to(device), None if observed is None else observed.to(device)
    return handed_out(engine.unroll(normalise(past, spec), steps), spec, past, observed=observed, matched=matched)


def handed_out(
    made: Iterable[Tensor], spec: ModelSpec, past: Tensor, *, observed: Tensor | None, matched: bool
) -> Iterator[Tensor]:
    """The same of frames (B, C, H, W) that a module made, normalised, on the device of the past."""
    seen = normalise(past, spec)
    coming: Iterator[Tensor] = (in_units(frame, spec, number) for number, frame in enumerate(made, 1))
    if matched:
        if spec.value_range is not None:  # beyond it values are delivered as equals, so that their order means nothing
            low, high = spec.value_range
            coming = (frame.clamp(low, high) for frame in coming)
        motion = observed_motion(seen, observed)
        coming = match_rollout(coming, past[:, -1], motion, None if observed is None else observed[:, -1])
    return where_observed(coming, seen, observed)
