"""A model on a test protocol -> a report: every metric, at each step and over all, with persistence beside it."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from stzoo.codec import Codec, usage
from stzoo.data import ClipSource
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
from stzoo.metrics import DEFINITIONS, Definition
from stzoo.models import stride_of
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

Curves = dict[str, np.ndarray]  # metric -> (T, 2): at each step a sum, and what it is to be divided by


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
    """

    clips: int
    steps: dict[str, list[float]]
    total: dict[str, float]
    persistence_steps: dict[str, list[float]]
    persistence_total: dict[str, float]
    files: int | None = None
    matched: bool = False

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
        return json.dumps(asdict(self) | {"skill_steps": self.skill_steps, "skill": self.skill}, indent=2)

    def to_csv(self) -> str:
        """A row for each step; the figures of persistence are in columns of their own."""
        names = list(self.steps)
        rows = [",".join(["step", *names, *map(of_persistence, names)])]
        for t in range(len(self.steps[names[0]])):
            values = [self.steps[n][t] for n in names] + [self.persistence_steps[n][t] for n in names]
            rows.append(",".join([str(t + 1), *(f"{v:.6g}" for v in values)]))
        return "\n".join(rows) + "\n"

    def __str__(self) -> str:
        names = list(self.steps)

        def row(label: str, model: Mapping[str, float], persistence: Mapping[str, float], skill: float | None) -> str:
            figures = "".join(f"{model[n]:10.4f}" for n in names) + "".join(f"{persistence[n]:16.4f}" for n in names)
            return f"{label:<7}{figures}" + ("         -" if skill is None else f"{skill:10.4f}")

        sequences = "1 sequence" if self.clips == 1 else f"{self.clips:,} sequences"
        sequences += "" if self.files is None else f" of {self.files} file{'s' if self.files > 1 else ''}"
        lines = [
            f"{self.model} on {self.protocol}: {sequences}, metrics as defined by {self.definition}, "
            f"{'matched ' if self.matched else ''}forecasts in {self.precision}",
            "step   "
            + "".join(f"{n:>10}" for n in names)
            + "".join(f"{'persist. ' + n:>16}" for n in names)
            + f"{'skill':>10}",
        ]
        for t in range(len(self.steps[names[0]])):
            model, persistence = ({n: v[t] for n, v in x.items()} for x in (self.steps, self.persistence_steps))
            lines.append(row(str(t + 1), model, persistence, self.skill_steps[t]))
        lines.append(row("mean", self.total, self.persistence_total, self.skill))
        return "\n".join(lines)


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
    sums: list[tuple[Curves, Curves]] = []
    workers = os.cpu_count() or 1
    pending: deque[Future[tuple[Curves, Curves]]] = deque()
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(clips), unit="seq", disable=not progress) as bar:
        for past, future, forecast, valid in _forecasts(forecaster, clips, batch, precision, matched):
            pending.append(pool.submit(_measure, defined, past, future, forecast, valid))
            if len(pending) > 2 * workers:
                sums.append(pending.popleft().result())
            bar.update(len(past))
        sums += [job.result() for job in pending]
    model, persistence = ({m: _ratio(np.sum([s[i][m] for s in sums], axis=0)) for m in sums[0][i]} for i in (0, 1))
    return EvaluationReport(
        name, protocol, definition, precision, len(clips),
        {m: v.tolist() for m, v in model.items()}, {m: float(np.nanmean(v)) for m, v in model.items()},
        {m: v.tolist() for m, v in persistence.items()}, {m: float(np.nanmean(v)) for m, v in persistence.items()},
        matched=matched,
    )  # fmt: skip


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
    spec, module, device = codec.spec, codec.module, codec.module.codebook.device
    _check(spec, stride_of(module), clips)
    low, high = spec.value_range or (0.0, 1.0)
    sums, frames = dict.fromkeys(metrics, 0.0), 0
    counts = torch.zeros(len(module.codebook), dtype=torch.int64)
    with tqdm(total=len(clips), unit="seq", disable=not progress) as bar:
        for start in range(0, len(clips), batch):
            clip = clips.clips(start, min(start + batch, len(clips)))
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
    for start in range(0, len(clips), batch):
        clip = clips.clips(start, min(start + batch, len(clips)))
        past, future = to_units(clip.past, spec), to_units(clip.future, spec)
        forecast = torch.stack(list(future_of(engine, spec, past, future.shape[1], matched=matched)), 1)
        unit = [(x.cpu() - low) / (high - low) for x in (past, future, forecast)]
        yield unit[0], unit[1], unit[2], clip.valid


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
    t, c, h, w = clips.clips(0, 1).past.shape[1:]
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
) -> tuple[Curves, Curves]:
    """Sums over the frames of a batch, (B, T, C, H, W), for the forecast and for persistence; NaN is left out."""
    truth, last = future.numpy(), past[:, -1:].expand_as(future).numpy()
    known = None if valid is None else valid.cpu().numpy()

    def curves(frames: np.ndarray) -> Curves:
        values = {m: f(frames, truth, known) for m, f in defined.metrics.items()}
        summed = {m: np.stack([np.nansum(v, 0), (~np.isnan(v)).sum(0)], -1) for m, v in values.items()}
        return summed | {m: f(frames, truth, known).sum(0) for m, f in defined.counts.items()}

    return curves(forecast.numpy()), curves(last)


def _ratio(sums: np.ndarray) -> np.ndarray:
    """(T, 2) sums -> (T,) figures; NaN if the divisor is 0: no such event happened, and none was forecast."""
    with np.errstate(invalid="ignore"):
        return sums[:, 0] / sums[:, 1]
