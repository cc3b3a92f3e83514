"""A model on a test protocol -> a report: every metric, at each step and over all, with persistence beside it."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from stzoo.codec import Codec, usage
from stzoo.data import Clip, ClipSource
from stzoo.data.joined import Part, parts_of
from stzoo.engine import Engine, in_units
from stzoo.engine.forking import use_one_thread_if_forked
from stzoo.engine.handing_out import future as future_of
from stzoo.engine.padding import Padding
from stzoo.errors import DataError
from stzoo.figures import of_persistence
from stzoo.forecaster import Forecaster
from stzoo.frames.values import denormalise, noise, normalise, to_units
from stzoo.hindcast import skill
from stzoo.machine import PRECISIONS, Precision, check_precision
from stzoo.metrics import DEFINITIONS, Definition, Totals
from stzoo.models import stride_of
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

_CELLS_AT_ONCE = 2**18  # of the clips that are measured together: 16 of 128x128
_COLUMNS = 6  # figures that stand side by side in the text of a report


@dataclass(frozen=True)
class _Heading:
    """What every report begins with.

    Attributes:
        model: the name of the weights.
        protocol: the name of the test protocol, which says which clips were measured.
        definition: how the metrics are defined, a key of `stzoo.metrics.DEFINITIONS`.
        precision: the precision in which the model ran.
    """

    model: str
    protocol: str
    definition: str
    precision: Precision

    def to_json(self) -> str:
        """A JSON object with every field."""
        return json.dumps(asdict(self), indent=2)


@dataclass(frozen=True)
class EvaluationReport(_Heading):
    """Figures of one forecaster on one protocol, after the fields of the heading.

    Attributes:
        clips: how many sequences were forecast.
        steps: metric -> its value at each step ahead.
        total: metric -> its mean over steps.
        persistence_steps, persistence_total: the same for persistence, which repeats the last past frame.
        files: how many files of one's own the sequences are from; None for a dataset, whose files its protocol says.
        matched: whether forecasts got the values of the last past frame, as in `Forecaster.rollout`.
        step_minutes: from one step to the next; None if the clips do not say it, or differ in it.
        parts: name -> the report of one of several sources that the clips are from, such as radars. The figures of the
            whole are of the clips of all parts, not means over parts.
    """

    clips: int
    steps: dict[str, list[float]]
    total: dict[str, float]
    persistence_steps: dict[str, list[float]]
    persistence_total: dict[str, float]
    files: int | None = None
    matched: bool = False
    step_minutes: float | None = None
    parts: dict[str, EvaluationReport] = field(default_factory=dict)

    @property
    def skill_steps(self) -> list[float | None]:
        """1 - MSE / MSE of persistence at each step: below 0 the model does worse. None if persistence has no error."""
        return list(map(skill, self.steps["mse"], self.persistence_steps["mse"]))

    @property
    def skill(self) -> float | None:
        """1 - MSE / MSE of persistence, both means over steps."""
        return skill(self.total["mse"], self.persistence_total["mse"])

    def to_json(self) -> str:
        """A JSON object with every field, and the two skills."""
        return json.dumps(self._values(), indent=2)

    def _values(self) -> dict[str, Any]:
        inner = {name: part._values() for name, part in self.parts.items()}
        return asdict(self) | {"parts": inner, "skill_steps": self.skill_steps, "skill": self.skill}

    def to_csv(self) -> str:
        """A row for each step; the figures of persistence are in columns of their own.

        If there are parts, the first column names the part, and is empty in the rows of the whole.
        """
        names, named = list(self.steps), ["part", "minutes"] if self.parts else []
        rows = [",".join([*named[:1], "step", *named[1:], *names, *map(of_persistence, names)])]
        for part, report in {"": self, **self.parts}.items():
            for t in range(len(report.steps[names[0]])):
                figures = [x[n][t] for x in (report.steps, report.persistence_steps) for n in names]
                minutes = "" if report.step_minutes is None else f"{(t + 1) * report.step_minutes:g}"
                heading = [part, str(t + 1), minutes] if self.parts else [str(t + 1)]
                rows.append(",".join([*heading, *(f"{v:.6g}" for v in figures)]))
        return "\n".join(rows) + "\n"

    def __str__(self) -> str:
        sequences = "1 sequence" if self.clips == 1 else f"{self.clips:,} sequences"
        sequences += "" if self.files is None else f" of {self.files} file{'s' if self.files > 1 else ''}"
        lines = [
            f"{self.model} on {self.protocol}: {sequences}, metrics as defined by {self.definition}, "
            f"{'matched ' if self.matched else ''}forecasts in {self.precision}"
        ]
        names = list(self.steps)
        for few in np.array_split(names, -(-len(names) // _COLUMNS)):
            lines += self._table(few.tolist())
        return "\n\n".join(["\n".join(lines), *map(str, self.parts.values())])

    def _table(self, names: list[str]) -> list[str]:
        """The lines of a table: a row for each step and one for their mean; the skill is beside the MSE."""
        longest = max(map(len, names))
        width, beside = max(10, longest + 2), max(16, longest + 11)

        def row(label: str, model: Mapping[str, float], persistence: Mapping[str, float], skill: float | None) -> str:
            figures = "".join(f"{model[n]:{width}.4f}" for n in names)
            figures += "".join(f"{persistence[n]:{beside}.4f}" for n in names)
            shown = f"{'-':>10}" if skill is None else f"{skill:10.4f}"
            return f"{label:<{start}}{figures}" + (shown if "mse" in names else "")

        labels = [str(t + 1) for t in range(len(self.steps[names[0]]))]
        if self.step_minutes is not None:
            labels = [f"{label} ({int(label) * self.step_minutes:g} min)" for label in labels]
        start = max(7, 1 + max(map(len, labels)))
        heading = "".join(f"{n:>{width}}" for n in names) + "".join(f"{'persist. ' + n:>{beside}}" for n in names)
        lines = [f"{'step':<{start}}{heading}" + (f"{'skill':>10}" if "mse" in names else "")]
        for t, label in enumerate(labels):
            model, persistence = ({n: v[t] for n, v in x.items()} for x in (self.steps, self.persistence_steps))
            lines.append(row(label, model, persistence, self.skill_steps[t]))
        return [*lines, row("mean", self.total, self.persistence_total, self.skill)]


@dataclass(frozen=True)
class CodecReport(_Heading):
    """Figures of one codec, after the fields of the heading: of frames that went through its codebook and back.

    Attributes:
        frames: how many frames were measured.
        total: metric -> its mean over frames.
        codes_used: how many codes occur at all.
        perplexity: the exponential of the entropy of how often each code occurs.
    """

    frames: int
    total: dict[str, float]
    codes_used: int
    perplexity: float

    def to_csv(self) -> str:
        """One row."""
        values = self.total | {"codes_used": self.codes_used, "perplexity": self.perplexity}
        return ",".join(values) + "\n" + ",".join(f"{v:.6g}" for v in values.values()) + "\n"

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in self.total.items())
        return (
            f"{self.model} on {self.protocol}: {self.frames:,} frames, metrics as defined by {self.definition}, "
            f"in {self.precision}\n"
            f"reconstruction {figures}\n{self.codes_used} codes in use, perplexity {self.perplexity:.1f}"
        )


def evaluate(
    forecaster: Forecaster,
    clips: ClipSource,
    *,
    name: str,
    protocol: str,
    definition: str = "stzoo",
    precision: Precision = "float32",
    batch: int = 16,
    progress: bool = True,
    matched: bool = False,
) -> EvaluationReport:
    """Forecast every clip and measure the forecasts.

    Forecasts are made in this thread, and the metrics of earlier batches are computed in others: NumPy releases the
    interpreter while it works on large arrays, so every core is used. A few batches are held at a time.

    Args:
        forecaster: it stays as it is.
        clips: past frames (T, C, H, W), at least `spec.frames_in` of them, and the future frames to forecast. H and W
            may be any, except for a model whose weights have the size in them.
        name, protocol: how the report calls the model and the clips.
        definition: how the metrics are defined, a key of `stzoo.metrics.DEFINITIONS`.
        precision: the precision of the forecasts, "float32" or "bfloat16", whatever the forecaster's own is.
        batch: how many clips are forecast together.
        progress: show a bar.
        matched: forecasts get the values of the last past frame, as in `Forecaster.rollout`.

    Raises:
        DataError: there are no clips, their shape is not the model's, the model's values have no range, or there is no
            such definition.
        SpecError: there is no such precision.
        ForecastError: the model makes NaN or infinite values of a clip.
    """
    use_one_thread_if_forked()
    defined = _definition(definition, precision)
    _check(forecaster.spec, stride_of(forecaster.module), clips)
    found: list[tuple[Part, tuple[Totals, Totals]]] = []  # of the model and of persistence
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(clips), unit="seq", disable=not progress) as bar:
        for part in parts_of(clips):
            pending: deque[Future[tuple[Totals, Totals]]] = deque()
            totals: list[tuple[Totals, Totals]] = []
            for past, future, forecast, valid in _forecasts(forecaster, part.source, batch, precision, matched):
                pending.append(pool.submit(_measure, defined, past, future, forecast, valid))
                if len(pending) > 2 * workers:
                    totals.append(pending.popleft().result())
                bar.update(len(past))
            totals += [job.result() for job in pending]
            found.append((part, _sum(totals)))

    def report(
        protocol: str,
        count: int,
        totals: tuple[Totals, Totals],
        minutes: float | None,
        parts: dict[str, EvaluationReport],
    ) -> EvaluationReport:
        model, persistence = totals
        return EvaluationReport(
            name, protocol, definition, precision, count, model.steps(), model.over_steps(), persistence.steps(),
            persistence.over_steps(), matched=matched, step_minutes=minutes, parts=parts,
        )  # fmt: skip

    parts = {
        p.name: report(f"{protocol}, {p.name}", len(p.source), own, p.step_minutes, {}) for p, own in found if p.name
    }
    steps = {part.step_minutes for part, _ in found}
    return report(protocol, len(clips), _sum([t for _, t in found]), steps.pop() if len(steps) == 1 else None, parts)


def _sum(totals: list[tuple[Totals, Totals]]) -> tuple[Totals, Totals]:
    """Totals of the model and of persistence, each summed."""
    model, persistence = (reduce(add, both) for both in zip(*totals, strict=True))
    return model, persistence


@torch.no_grad()
def evaluate_codec(
    codec: Codec,
    clips: ClipSource,
    *,
    name: str,
    protocol: str,
    definition: str = "stzoo",
    precision: Precision = "float32",
    batch: int = 32,
    progress: bool = True,
) -> CodecReport:
    """Send every frame of every clip through the codebook and measure what comes back.

    The arguments and errors are those of `evaluate`. Both the past and the future frames of a clip are measured.
    """
    use_one_thread_if_forked()
    metrics = _definition(definition, precision).metrics
    if not metrics:
        raise DataError(f"the metrics {definition} are those of forecasts; those of a codec may be stzoo or openstl")
    spec, module, device = codec.spec, codec.module, codec.module.codebook.device
    _check(spec, stride_of(module), clips)
    low, high = spec.value_range or (0.0, 1.0)
    sums, frames = dict.fromkeys(metrics, 0.0), 0
    counts = torch.zeros(len(module.codebook), dtype=torch.int64)
    with tqdm(total=len(clips), unit="seq", disable=not progress) as bar:
        for clip in (clip for part in parts_of(clips) for clip in _batches(part.source, batch)):
            truth = to_units(torch.cat([clip.past, clip.future], 1), spec)
            padding = Padding.of((truth.shape[-2], truth.shape[-1]), stride_of(module))
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                latents = module.encode(padding.add(normalise(truth.to(device).flatten(0, 1), spec)))
                quantised, codes = module.quantise(latents)
                painted = module.decode(quantised).float()
            painted = in_units(padding.remove(painted), spec, 1).reshape(truth.shape).cpu()
            counts += torch.bincount(codes.cpu().flatten(), minlength=len(counts))
            frames += truth.shape[0] * truth.shape[1]
            unit = [((x - low) / (high - low)).numpy() for x in (painted, truth)]
            sums = {m: sums[m] + float(f(unit[0], unit[1], None).sum()) for m, f in metrics.items()}
            bar.update(len(truth))
    total = {m: s / frames for m, s in sums.items()}
    return CodecReport(name, protocol, definition, precision, frames, total, *usage(counts))


@torch.no_grad()
def golden(model: Forecaster | Codec, seed: int) -> tuple[float, float]:
    """Mean and standard deviation of what the model makes of uniform noise from `seed`, in the spec's units, unclipped.

    A forecaster forecasts `spec.frames_out` frames; a codec sends one frame through its codebook. The manifest keeps
    these numbers for every checkpoint, because whatever changes a model's numbers changes them.
    """
    spec, module = model.spec, model.module
    past = normalise(noise(spec, 1, seed).to(next(module.parameters()).device), spec)
    if isinstance(model, Codec):
        made = model.module(past[:, 0])
    else:
        made = torch.stack(list(unroll(module, spec, past, spec.frames_out)), 1)
    values = denormalise(made, spec).double()
    return values.mean().item(), values.std().item()


@torch.no_grad()
def _forecasts(
    forecaster: Forecaster, clips: ClipSource, batch: int, precision: Precision, matched: bool
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """Batch by batch: past, future and forecast, (B, T, C, H, W) float32 on the CPU, and where the future is known.

    The spec's range of values is brought to [0, 1].
    """
    spec = forecaster.spec
    low, high = spec.value_range or (0.0, 1.0)
    engine = Engine(forecaster.module, spec, precision)
    for clip in _batches(clips, batch):
        past, future = to_units(clip.past, spec), to_units(clip.future, spec)
        forecast = torch.stack(list(future_of(engine, spec, past, future.shape[1], matched=matched)), 1)
        unit = [(x.cpu() - low) / (high - low) for x in (past, future, forecast)]
        yield unit[0], unit[1], unit[2], clip.valid


def _batches(clips: ClipSource, batch: int) -> Iterator[Clip]:
    """All clips of one size, at most `batch` at a time, and fewer if they are large."""
    height, width = clips.clips(0, 1).past.shape[-2:]
    together = max(1, min(batch, _CELLS_AT_ONCE // (height * width)))
    for start in range(0, len(clips), together):
        yield clips.clips(start, min(start + together, len(clips)))


def _definition(name: str, precision: str) -> Definition:
    """The definition of that name.

    Raises:
        DataError: there is no such definition. SpecError: there is no such precision.
    """
    check_precision(precision, PRECISIONS)
    if name not in DEFINITIONS:
        raise DataError(f"metrics have no definition {name!r}; it may be {', '.join(DEFINITIONS)}")
    return DEFINITIONS[name]


def _check(spec: ModelSpec, stride: int | None, clips: ClipSource) -> None:
    """Raises `DataError` if the metrics are not defined for the model, or the clips do not fit it."""
    if spec.value_range is None:
        raise DataError("the metrics are defined for values in [0, 1]; this model's values have no range")
    if len(clips) == 0:
        raise DataError("there are no clips to measure")
    for part in parts_of(clips):
        _check_size(spec, stride, *part.source.clips(0, 1).past.shape[1:])


def _check_size(spec: ModelSpec, stride: int | None, t: int, c: int, h: int, w: int) -> None:
    if c != spec.channels or t < spec.frames_in:
        raise DataError(
            f"the clips have {t} past frames of {c}x{h}x{w}; this model reads {spec.frames_in} of {spec.channels} "
            "channels"
        )
    if stride is None and (h, w) != (spec.height, spec.width):
        raise DataError(
            f"the clips have frames of {h}x{w}; {spec.height}x{spec.width} is the only size this model takes, because "
            "its weights have that size in them: bring the clips to that size (in commands --size model)"
        )


def _measure(
    defined: Definition, past: Tensor, future: Tensor, forecast: Tensor, valid: Tensor | None
) -> tuple[Totals, Totals]:
    """What a batch, (B, T, C, H, W), adds to the totals of the model and of persistence."""
    before, truth, last = past.numpy(), future.numpy(), past[:, -1:].expand_as(future).numpy()
    known = None if valid is None else valid.cpu().numpy()
    model, persistence = (Totals.of(defined, before, x, truth, known) for x in (forecast.numpy(), last))
    return model, persistence
