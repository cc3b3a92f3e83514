"""A forecaster on a test protocol -> `Report`: every metric, per step and over all, with persistence beside it."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from stzoo.codec import Codec, usage
from stzoo.data import ClipSource
from stzoo.engine import Engine
from stzoo.errors import DataError
from stzoo.forecaster import Forecaster
from stzoo.frames.values import denormalise, noise, normalise, to_units
from stzoo.machine import PRECISIONS, Precision, check_precision
from stzoo.metrics import DEFINITIONS, Definition
from stzoo.models import stride_of
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

Curves = dict[str, np.ndarray]  # metric -> (T, 2): what is summed at each step, and over how much


@dataclass(frozen=True)
class Report:
    """Figures of one model on one protocol.

    Attributes:
        model, protocol, definition: which weights, which clips, which definition of the metrics.
        precision: that the forecasts were computed in.
        clips: how many sequences.
        steps: metric -> value at each step ahead; total: metric -> mean over steps.
        persistence_steps, persistence_total: the same for repeating the last past frame.
    """

    model: str
    protocol: str
    definition: str
    precision: Precision
    clips: int
    steps: dict[str, list[float]]
    total: dict[str, float]
    persistence_steps: dict[str, list[float]]
    persistence_total: dict[str, float]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    def to_csv(self) -> str:
        """One row a step, persistence in columns of its own."""
        names = list(self.steps)
        rows = [",".join(["step", *names, *(f"persistence_{n}" for n in names)])]
        for t in range(len(self.steps[names[0]])):
            values = [self.steps[n][t] for n in names] + [self.persistence_steps[n][t] for n in names]
            rows.append(",".join([str(t + 1), *(f"{v:.6g}" for v in values)]))
        return "\n".join(rows) + "\n"

    def __str__(self) -> str:
        names = list(self.steps)
        header = "step   " + "".join(f"{n:>10}" for n in names) + "".join(f"{'persist. ' + n:>16}" for n in names)

        def row(label: str, model: dict[str, float], persistence: dict[str, float]) -> str:
            return (
                f"{label:<7}"
                + "".join(f"{model[n]:10.4f}" for n in names)
                + "".join(f"{persistence[n]:16.4f}" for n in names)
            )

        lines = [
            f"{self.model} on {self.protocol}: {self.clips:,} sequences, metrics as defined by {self.definition}, "
            f"forecasts in {self.precision}",
            header,
        ]
        for t in range(len(self.steps[names[0]])):
            lines.append(
                row(
                    str(t + 1),
                    {n: v[t] for n, v in self.steps.items()},
                    {n: v[t] for n, v in self.persistence_steps.items()},
                )
            )
        return "\n".join([*lines, row("mean", self.total, self.persistence_total)])


@dataclass(frozen=True)
class CodecReport:
    """Figures of one codec: of what is left of frames that went through its codebook, and how much of that they use.

    Attributes:
        model, protocol, definition: which weights, which frames, which definition of the metrics.
        precision: that the codec ran in.
        frames: how many frames.
        total: metric -> mean over frames.
        codes_used, perplexity: codes that occur at all, and the exponential of the entropy of how often.
    """

    model: str
    protocol: str
    definition: str
    precision: Precision
    frames: int
    total: dict[str, float]
    codes_used: int
    perplexity: float

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

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
) -> Report:
    """Forecast every clip and measure it.

    Forecasting runs in this thread, the metrics of earlier batches in others: they are NumPy on large arrays, which
    lets go of the interpreter, so every core is used. A few batches are held at a time.

    Args:
        name, protocol: written into the report.
        definition: a key of `stzoo.metrics.DEFINITIONS`.
        precision: that forecasts are computed in, see `stzoo.load`; the forecaster's own is not looked at.

    Raises:
        DataError: no clips, clips of another shape than the model's, or a model whose values have no range.
    """
    defined = _definition(definition, precision)
    _check(forecaster.spec, stride_of(forecaster.module), clips)
    sums: list[tuple[Curves, Curves]] = []
    workers = os.cpu_count() or 1
    pending: deque[Future[tuple[Curves, Curves]]] = deque()
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(clips), unit="seq", disable=not progress) as bar:
        for past, future, forecast, valid in _forecasts(forecaster, clips, batch, precision):
            pending.append(pool.submit(_measure, defined, past, future, forecast, valid))
            if len(pending) > 2 * workers:
                sums.append(pending.popleft().result())
            bar.update(len(past))
        sums += [job.result() for job in pending]
    model, persistence = ({m: _ratio(np.sum([s[i][m] for s in sums], axis=0)) for m in sums[0][i]} for i in (0, 1))
    return Report(
        name, protocol, definition, precision, len(clips),
        {m: v.tolist() for m, v in model.items()}, {m: float(np.nanmean(v)) for m, v in model.items()},
        {m: v.tolist() for m, v in persistence.items()}, {m: float(np.nanmean(v)) for m, v in persistence.items()},
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
    """Send every frame of every clip through the codebook and measure what comes back; arguments as in `evaluate`."""
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
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                latents = module.encode(normalise(truth.to(device).flatten(0, 1), spec))
                quantised, codes = module.quantise(latents)
                painted = module.decode(quantised).float()
            painted = denormalise(painted, spec).view_as(truth).cpu()
            counts += torch.bincount(codes.cpu().flatten(), minlength=len(counts))
            frames += truth.shape[0] * truth.shape[1]
            unit = [((x - low) / (high - low)).numpy() for x in (painted, truth)]
            sums = {m: sums[m] + float(f(unit[0], unit[1], None).sum()) for m, f in metrics.items()}
            bar.update(len(truth))
    total = {m: s / frames for m, s in sums.items()}
    return CodecReport(name, protocol, definition, precision, frames, total, *usage(counts))


def golden_codec(codec: Codec, seed: int) -> tuple[float, float]:
    """Like `golden`, of one frame of noise that went through the codebook."""
    frames = noise(codec.spec, 1, seed).to(codec.module.codebook.device)
    with torch.no_grad():
        painted = denormalise(codec.module(normalise(frames[:, 0], codec.spec)), codec.spec).double()
    return painted.mean().item(), painted.std().item()


def golden(forecaster: Forecaster, seed: int) -> tuple[float, float]:
    """Mean and standard deviation of the forecast, in the spec's units and unclipped, from uniform noise of `seed`.

    The manifest keeps them for every checkpoint: whatever changes a forecast's numbers on its way changes these.
    """
    spec = forecaster.spec
    past = noise(spec, 1, seed).to(next(forecaster.module.parameters()).device)
    with torch.no_grad():
        frames = list(unroll(forecaster.module, spec, normalise(past, spec), spec.frames_out))
    forecast = denormalise(torch.stack(frames, 1), spec).double()
    return forecast.mean().item(), forecast.std().item()


@torch.no_grad()
def _forecasts(
    forecaster: Forecaster, clips: ClipSource, batch: int, precision: Precision
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """Past, future, forecast, (B, T, C, H, W) float32 on the CPU, the spec's range as [0, 1], and `valid`; by batch."""
    spec, device = forecaster.spec, next(forecaster.module.parameters()).device
    low, high = spec.value_range or (0.0, 1.0)
    engine = Engine(forecaster.module, spec, precision)
    for start in range(0, len(clips), batch):
        clip = clips.clips(start, min(start + batch, len(clips)))
        past, future = to_units(clip.past, spec), to_units(clip.future, spec)
        window = normalise(past.to(device), spec)
        forecast = denormalise(torch.stack(list(engine.unroll(window, future.shape[1])), 1), spec)
        unit = [(x.cpu() - low) / (high - low) for x in (past, future, forecast)]
        yield unit[0], unit[1], unit[2], clip.valid


def _definition(name: str, precision: str) -> Definition:
    """The metrics of that name. Raises `DataError` where no definition has it, `SpecError` for an unknown precision."""
    check_precision(precision, PRECISIONS)
    if name not in DEFINITIONS:
        raise DataError(f"no definition {name!r} of the metrics; there are {', '.join(DEFINITIONS)}")
    return DEFINITIONS[name]


def _check(spec: ModelSpec, stride: int | None, clips: ClipSource) -> None:
    if spec.value_range is None:
        raise DataError("the metrics are defined on values in [0, 1]; this model's values have no range")
    if len(clips) == 0:
        raise DataError("there are no clips to evaluate on")
    t, c, h, w = clips.clips(0, 1).past.shape[1:]
    fits = (h, w) == (spec.height, spec.width) if stride is None else h % stride == w % stride == 0
    if c != spec.channels or t < spec.frames_in or not fits:
        size = f"{spec.height}x{spec.width}" if stride is None else f"height and width multiples of {stride}"
        raise DataError(
            f"the clips have {t} past frames of {c}x{h}x{w}; this model reads {spec.frames_in} "
            f"of {spec.channels} channels, {size}"
        )


def _measure(
    defined: Definition, past: Tensor, future: Tensor, forecast: Tensor, valid: Tensor | None
) -> tuple[Curves, Curves]:
    """Sums over the batch, for the forecast and for persistence. A frame without a figure (NaN) is not counted."""
    truth, last = future.numpy(), past[:, -1:].expand_as(future).numpy()
    known = None if valid is None else valid.cpu().numpy()

    def curves(frames: np.ndarray) -> Curves:
        values = {m: f(frames, truth, known) for m, f in defined.metrics.items()}
        summed = {m: np.stack([np.nansum(v, 0), (~np.isnan(v)).sum(0)], -1) for m, v in values.items()}
        return summed | {m: f(frames, truth, known).sum(0) for m, f in defined.counts.items()}

    return curves(forecast.numpy()), curves(last)


def _ratio(sums: np.ndarray) -> np.ndarray:
    """(T, 2) -> (T,); NaN where there is nothing to divide by: an event that neither happened nor was forecast."""
    with np.errstate(invalid="ignore"):
        return sums[:, 0] / sums[:, 1]
