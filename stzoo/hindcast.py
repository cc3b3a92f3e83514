"""Does a model fit these frames? A forecast of frames that are known already, beside persistence.

A hindcast is a forecast of the past: the last known frames are forecast from those before them. Persistence, which
repeats the last frame before them, needs no model. A model that does worse on frames like these is of no use for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stzoo import html
from stzoo.engine import Engine
from stzoo.engine.handing_out import future
from stzoo.errors import ForecastError, FramesError, warn_caller
from stzoo.spec import ModelSpec

_UNSEEN = (1 / 255) ** 2  # the squared error of one gray level of 8 bits, which nobody sees in a picture
_CHEAP = 512 * 512  # pixels of all clips together up to which one more forecast is cheap enough to go unasked


@dataclass(frozen=True, repr=False)
class Hindcast:
    """Forecast frames beside the true ones, and persistence beside both. ``repr`` is one line.

    Errors are mean squared errors of a value (a channel of a pixel). If the model's values have a range, it is scaled
    to [0, 1]; otherwise errors are in the units of the data.

    Attributes:
        mse_steps: the error of the forecast at each step ahead; NaN where nothing was observed.
        persistence_mse_steps: the error of persistence, which repeats the last past frame, at each step ahead.
        has_range: whether the model's values have a range.
    """

    mse_steps: tuple[float, ...]
    persistence_mse_steps: tuple[float, ...]
    has_range: bool

    @property
    def steps(self) -> int:
        """How many frames were forecast."""
        return len(self.mse_steps)

    @property
    def mse(self) -> float:
        """The error of the forecast, mean over steps."""
        return _mean(self.mse_steps)

    @property
    def persistence_mse(self) -> float:
        """The error of persistence, mean over steps."""
        return _mean(self.persistence_mse_steps)

    @property
    def skill(self) -> float | None:
        """1 - mse / persistence_mse: 1 is perfect, 0 no better than persistence, and below 0 it is worse.

        None if persistence makes no error, because nothing changes in the frames.
        """
        return skill(self.mse, self.persistence_mse)

    @property
    def skill_steps(self) -> tuple[float | None, ...]:
        """The skill at each step ahead."""
        return tuple(map(skill, self.mse_steps, self.persistence_mse_steps))

    @property
    def fits(self) -> bool:
        """Whether the forecast is at least as good as persistence, or its error too small to be seen in a picture."""
        return self.mse <= self.persistence_mse or (self.has_range and self.mse <= _UNSEEN)

    def __repr__(self) -> str:
        shown = "skill undefined: nothing changes" if self.skill is None else f"skill {self.skill:.2f}"
        return (
            f"Hindcast({self.steps} frame{'s' if self.steps > 1 else ''}: MSE {self.mse:.3g}, persistence "
            f"{self.persistence_mse:.3g}, {shown}; {'fits' if self.fits else 'worse than persistence'})"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the errors at each step, below the line that ``repr`` is."""
        labels = [*map(str, range(1, self.steps + 1)), "mean"]
        errors = (*self.mse_steps, self.mse), (*self.persistence_mse_steps, self.persistence_mse)
        skills = ["-" if each is None else f"{each:.2f}" for each in (*self.skill_steps, self.skill)]
        shown = ([f"{error:.3g}" for error in each] for each in errors)
        rows = zip(labels, *shown, skills, strict=True)
        return html.table(repr(self), ("step", "MSE", "persistence", "skill"), rows)


def skill(mse: float, persistence_mse: float) -> float | None:
    """1 - mse / persistence_mse; None if persistence makes no error."""
    return 1 - mse / persistence_mse if persistence_mse > 0 else None


@torch.no_grad()
def hindcast(
    engine: Engine, spec: ModelSpec, frames: Tensor, observed: Tensor | None = None, keeps: bool = True
) -> Hindcast:
    """Forecast all frames but the first `spec.frames_in` from these, and compare.

    A cell counts if its truth and its last past value were observed, and something along the path of what is there.

    Args:
        engine: runs the model.
        spec: the spec of the model.
        frames: (B, T, C, H, W) float32 in the spec's units, T > frames_in.
        observed: (B, T, 1, H, W) booleans, true where the frames were observed; None if all of them were, everywhere.
        keeps: as in `future`; with False the forecast counts also where nothing along the path was observed.

    Raises:
        FramesError: there are no frames beyond those that the model reads, or no cell counts at any step.
        ForecastError: the model makes NaN or infinite values.
        MemoryNeededError: there is not enough memory, by an estimate.
    """
    past, truth = frames[:, : spec.frames_in], frames[:, spec.frames_in :]
    if truth.shape[1] < 1:
        raise FramesError(
            f"a check forecasts the last of the frames from {spec.frames_in} before them, so it needs at least "
            f"{spec.frames_in + 1} frames; given are {frames.shape[1]}"
        )
    low, high = spec.value_range or (0.0, 1.0)
    made, kept = [], []
    seen = None if observed is None else observed[:, : spec.frames_in]
    for step, coming in enumerate(future(engine, spec, past, truth.shape[1], observed=seen, keeps=keeps)):
        forecast = coming.to(truth.device)
        if spec.value_range is not None:
            forecast = forecast.clamp(low, high)  # as whoever asks for a forecast gets it
        known = ~forecast.isnan()
        if observed is not None:
            known &= observed[:, spec.frames_in + step] & observed[:, spec.frames_in - 1]
        made.append(_error(forecast, truth[:, step], known, high - low))
        kept.append(_error(past[:, -1], truth[:, step], known, high - low))
    if all(map(math.isnan, made)):
        raise FramesError(
            "no cell was observed both in the past and in the frames that followed, so nothing is compared"
        )
    return Hindcast(tuple(made), tuple(kept), spec.value_range is not None)


def tried(
    engine: Engine, spec: ModelSpec, frames: Tensor, observed: Tensor | None = None, keeps: bool = True
) -> Hindcast | None:
    """`hindcast`, where it can be had cheaply.

    Args: as those of `hindcast`.

    Returns:
        None if there are no frames beyond those that the model reads, if the frames are so large that another forecast
        would take long, if the model makes NaN of them, or if too little of them was observed.
    """
    b, t, _, h, w = frames.shape
    if t <= spec.frames_in or b * h * w > _CHEAP:
        return None
    try:
        return hindcast(engine, spec, frames, observed, keeps)
    except (
        FramesError,
        ForecastError,
    ):  # which the forecast itself raises as well, unless only earlier frames cause it
        return None


def warn_unless_it_fits(found: Hindcast | None) -> None:
    """One line of warning if the model does worse than persistence; None, for frames that were not tried, fits."""
    if found is None or found.fits:
        return
    shown = "" if found.skill is None else f", skill {found.skill:.2f}"
    last = "known frame" if found.steps == 1 else f"{found.steps} known frames"
    warn_caller(
        "on these frames this model does worse than repeating the last one: of the last "
        f"{last}, forecast from those before, the MSE is {found.mse:.3g}, and that of "
        f"repeating is {found.persistence_mse:.3g}{shown}. See what the model was trained on (stzoo info NAME); "
        "perhaps another model fits, or another `every`"
    )


def _error(made: Tensor, truth: Tensor, known: Tensor, width: float) -> float:
    """The mean squared error of the known values; NaN if there are none."""
    return ((made.double() - truth.double())[known] / width).square().mean().item()


def _mean(errors: tuple[float, ...]) -> float:
    """Of the steps at which something was known."""
    known = [error for error in errors if not math.isnan(error)]
    return sum(known) / len(known)
