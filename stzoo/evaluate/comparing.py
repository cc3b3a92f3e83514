"""Several forecasters on the same frames: a report of each, what they forecast of one clip, and a chart of both."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from stzoo import html
from stzoo.charts import Chart, Strip, comparison_chart
from stzoo.charts.curves import PERSISTENCE
from stzoo.data import Clip, ClipSource
from stzoo.engine import Engine
from stzoo.errors import SpecError, printable
from stzoo.evaluate.measuring import check_clips, check_definition, evaluate, forecast, scaled
from stzoo.evaluate.report import EvaluationReport, aligned, as_json, side_by_side, skill_text
from stzoo.figures import FIGURES
from stzoo.forecaster import Forecaster
from stzoo.machine import Precision
from stzoo.spec import ModelSpec

_COLUMNS = 20  # frames of a row of a strip, at most; some of a longer clip are left out
_BEFORE = 4  # of these, how many past frames are shown however long the forecast is
_ERRORS = ("mse", "mae")  # metrics whose axis begins at 0


@dataclass(frozen=True)
class ShownClip:
    """One clip, and what each model forecasts of it. 0 and 1 are the ends of the spec's range of values.

    If the spec has none, they are the least and the largest value of the past frames.

    Attributes:
        number: of the clip among those that were measured, from 0 on.
        past: (T, C, H, W).
        truth: (T', C, H, W), the future; NaN where nothing was observed.
        forecasts: the name of a model -> (T', C, H, W).
    """

    number: int
    past: np.ndarray
    truth: np.ndarray
    forecasts: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Comparison:
    """Forecasters that forecast the same frames. Its text is a table, with persistence in the last row.

    Attributes:
        reports: the name of a model -> its report, in the order of the table.
        parameters: the name of a model -> how many parameters it has.
        shown: a clip with all forecasts of it; None if none was asked for.
    """

    reports: Mapping[str, EvaluationReport]
    parameters: Mapping[str, int]
    shown: ShownClip | None = field(default=None, repr=False)

    @property
    def first(self) -> EvaluationReport:
        """The first report, for what all of them share: protocol, clips, definition, and the figures of persistence."""
        return next(iter(self.reports.values()))

    def with_files(self, files: int | None) -> Comparison:
        """The same, and how many files of one's own the sequences are from."""
        return replace(self, reports={name: replace(report, files=files) for name, report in self.reports.items()})

    def chart(self, metric: str = "mse") -> Chart:
        """The metric at each step ahead for every model and persistence, and below it the clip that is shown, if any.

        Raises:
            SpecError: the definition has no such metric. MissingExtraError: matplotlib is not installed.
        """
        check_metric(metric, self.first.definition, tuple(self.first.steps))
        curves = {name: report.steps[metric] for name, report in self.reports.items()}
        curves[PERSISTENCE] = self.first.persistence_steps[metric]
        minutes = self.first.step_minutes
        return comparison_chart(
            curves,
            next((figure.title for figure in FIGURES if figure.name == metric), metric),
            None if self.shown is None else _strip(self.shown),
            title=printable(self.first.about),
            from_zero=metric in _ERRORS,
            ahead="steps ahead" if minutes is None else f"steps ahead, of {minutes:g} minutes",
        )

    def to_json(self) -> str:
        """A JSON object: what was measured, each model with its figures, and persistence."""
        first, kept = self.first, ("steps", "total", "skill_steps", "skill")
        models = [
            {"model": name, "parameters": self.parameters[name]} | {key: getattr(report, key) for key in kept}
            for name, report in self.reports.items()
        ]
        shared = ("protocol", "definition", "precision", "clips", "files", "step_minutes")
        values = {key: getattr(first, key) for key in shared} | {"models": models}
        values[PERSISTENCE] = {"steps": first.persistence_steps, "total": first.persistence_total}
        return as_json(values)

    def to_csv(self) -> str:
        """A row for each model and step; those of persistence come last, and have no number of parameters."""
        text, first = io.StringIO(), self.first
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["model", "parameters", "step", *first.steps])
        curves: dict[tuple[str, Any], dict[str, list[float]]]
        curves = {(name, self.parameters[name]): report.steps for name, report in self.reports.items()}
        curves[PERSISTENCE, ""] = first.persistence_steps
        for (name, parameters), steps in curves.items():
            for number, figures in enumerate(zip(*steps.values(), strict=True), 1):
                rows.writerow([name, parameters, number, *(f"{value:.6g}" for value in figures)])
        return text.getvalue()

    def __str__(self) -> str:
        tables = ["\n".join(aligned(self._table(few), 0)) for few in side_by_side(list(self.first.total))]
        return "\n".join([printable(self.first.about), *tables])

    def _repr_html_(self) -> str:
        """What a notebook shows: the table."""
        head, *rows = self._table(list(self.first.total))
        return html.table(self.first.about, head, rows)

    def _table(self, names: list[str]) -> list[list[str]]:
        """A heading, and a row for each model and for persistence, of some metrics; the skill is beside the MSE."""
        rows = [["model", "parameters", *names, "skill"]]
        for name, report in self.reports.items():
            figures = (f"{report.total[n]:.4f}" for n in names)
            rows.append([name, f"{self.parameters[name]:,}", *figures, skill_text(report.skill)])
        rows.append([PERSISTENCE, "-", *(f"{self.first.persistence_total[n]:.4f}" for n in names), "-"])
        return rows if "mse" in names else [row[:-1] for row in rows]


def compare(
    models: Mapping[str, Forecaster],
    clips: ClipSource,
    *,
    protocol: str,
    definition: str = "stzoo",
    precision: Precision = "float32",
    batch: int = 16,
    clip: int | None = None,
    progress: bool = True,
) -> Comparison:
    """Forecast every clip with every model, one model after the other, and measure the forecasts as `evaluate` does.

    Args:
        models: name -> forecaster, at least one; they stay as they are. None is called "persistence".
        clips: past frames (T, C, H, W), at least as many as the model needs that reads the most; every model reads the
            last of them. And the future frames to forecast: beyond those that it forecasts at once, a model continues
            from its own forecasts.
        protocol: what the table calls the clips.
        definition: how the metrics are defined, a key of `stzoo.metrics.DEFINITIONS`.
        precision: the precision of the forecasts, "float32" or "bfloat16", whatever a forecaster's own is.
        batch: how many clips are forecast together.
        clip: number of the clip whose forecasts are kept and drawn, from 0 on; None keeps none.
        progress: show a bar for each model.

    Raises:
        SpecError: there is no model; models differ in channels, range of values or fill value, so that no frames are
            the same for all; a model is called "persistence"; there is no such clip or precision.
        DataError: the clips do not fit a model, which the message names, or there is no such definition.
        ForecastError: a model makes NaN or infinite values of a clip.
    """
    check_comparable({name: model.spec for name, model in models.items()})
    check_definition(definition, precision)
    for name, model in models.items():  # or a model would be refused after others were measured for hours
        check_clips(model, clips, definition, name=name)
    if clip is not None:
        check_clip(clip, len(clips))
    reports, parameters, forecasts = {}, {}, {}
    chosen = None if clip is None else clips.clips(clip, clip + 1)
    past = truth = np.empty(0)
    for name, model in models.items():
        reports[name] = evaluate(
            model, clips, name=name, protocol=protocol, definition=definition, precision=precision, batch=batch,
            progress=progress,
        )  # fmt: skip
        parameters[name] = sum(p.numel() for p in model.module.parameters())
        if chosen is not None:
            engine = Engine(model.module, model.spec, precision)
            frames = forecast(engine, model.spec, chosen)
            shades = model.spec.value_range or _extremes(frames[0])
            past, truth, forecasts[name] = (scaled(x[0], shades).numpy() for x in frames)
    if clip is None or chosen is None:
        return Comparison(reports, parameters)
    return Comparison(reports, parameters, ShownClip(clip, past, _observed(truth, chosen), forecasts))


def _extremes(past: torch.Tensor) -> tuple[float, float]:
    """The least and the largest value of past frames without NaN; of frames that are all alike, a range around them."""
    low, high = past[~past.isnan()].aminmax()
    return (float(low), float(high)) if low < high else (float(low) - 0.5, float(low) + 0.5)


def check_comparable(specs: Mapping[str, ModelSpec], *, sizes: bool = False) -> None:
    """Check that the same frames can be given to all models.

    Args:
        specs: the name of a model -> its spec.
        sizes: whether frames must have the same height and width, too.

    Raises:
        SpecError: they cannot. The message says in what the specs differ, and what to do.
    """
    if not specs:
        raise SpecError("there is no model to compare; name one at least")
    if PERSISTENCE in specs:
        raise SpecError(f"a model is called {PERSISTENCE}, which is in every comparison already; rename it")
    (first, one), *others = specs.items()
    for name, other in others:
        unlike = [said for said, of in _ALIKE.items() if of(one) != of(other)]
        if unlike:
            raise SpecError(
                f"{first} and {name} cannot read the same frames: {_differing(one, other, unlike)}; "
                "compare models of the same kind of frames"
            )
        if sizes and (one.height, one.width) != (other.height, other.width):
            raise SpecError(
                f"{first} was trained on frames of {one.height}x{one.width} (height x width), {name} on frames of "
                f"{other.height}x{other.width}; on clips of your own compare them at the size of the clips, with "
                "--size own"
            )


_ALIKE: Mapping[str, Any] = {
    "channels": lambda spec: spec.channels,
    "range of values": lambda spec: spec.value_range,
    "value for what is missing": lambda spec: spec.fill,
}


def _differing(one: ModelSpec, other: ModelSpec, unlike: list[str]) -> str:
    return ", ".join(f"{said} {_ALIKE[said](one)} and {_ALIKE[said](other)}" for said in unlike)


def check_metric(metric: str, definition: str, names: tuple[str, ...]) -> None:
    """Raises `SpecError` if `metric` is none of the `names` that the definition has."""
    if metric not in names:
        raise SpecError(f"there is no metric {metric!r} in the definition {definition}; it has {', '.join(names)}")


def check_clip(clip: int, count: int) -> None:
    """Raises `SpecError` if no clip has this number among `count` of them."""
    if not 0 <= clip < count:
        raise SpecError(f"there is no clip {clip}; the number may be 0 to {count - 1}, of the clips that are measured")


def _observed(truth: np.ndarray, clip: Clip) -> np.ndarray:
    """The truth (T', C, H, W) of a single clip, NaN where nothing was observed."""
    return truth if clip.valid is None else np.where(clip.valid[0].cpu().numpy(), truth, np.nan)


def _strip(shown: ShownClip) -> Strip:
    """The truth and the forecasts as rows of gray or coloured frames. The brightest value of the truth is white."""
    steps = len(shown.truth)
    before = min(len(shown.past), max(_BEFORE, _COLUMNS - steps))
    after = np.unique(np.linspace(0, steps - 1, min(steps, _COLUMNS - before)).round().astype(int))
    brightest = max(float(np.nanmax(x, initial=0)) for x in (shown.past, shown.truth)) or 1.0

    def row(past: np.ndarray, future: np.ndarray) -> np.ndarray:
        frames = np.concatenate([past[len(past) - before :], future[after]]) / brightest
        return np.moveaxis(frames, 1, -1) if frames.shape[1] == 3 else frames.mean(1)

    unknown = np.full_like(shown.past, np.nan)
    rows = [("truth", row(shown.past, shown.truth))]
    rows += [(name, row(unknown, made)) for name, made in shown.forecasts.items()]
    columns = [str(number) for number in range(1 - before, 1)] + [f"+{number + 1}" for number in after]
    return Strip(
        rows,
        columns,
        title=f"Clip {shown.number}: truth and forecasts",
        axis="steps after the last past frame, which is number 0",
    )
