"""One model on a test protocol -> its report."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import reduce
from operator import add

import torch
from torch import Tensor

from stzoo.charts.style import shortened
from stzoo.codec import Codec, usage
from stzoo.data import Clip, ClipSource
from stzoo.data.joined import Part, parts_of
from stzoo.engine import Engine, in_units
from stzoo.engine.forking import use_one_thread_if_forked
from stzoo.engine.handing_out import future as future_of
from stzoo.engine.padding import Padding
from stzoo.errors import DataError
from stzoo.evaluate.report import CodecReport, EvaluationReport
from stzoo.forecaster import Forecaster
from stzoo.frames.rain import is_rain
from stzoo.frames.values import denormalise, noise, normalise, to_units
from stzoo.machine import BACKENDS, PRECISIONS, Backend, Precision, check_backend, check_precision
from stzoo.metrics import DEFINITIONS, Definition, Totals
from stzoo.models import stride_of
from stzoo.progress import tqdm
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

_CELLS_AT_ONCE = 2**18  # of the clips that are measured together: 16 of 128x128
_NUMBERS_THAT_WAIT = 2**27  # in batches that are forecast and not yet measured: half a gigabyte


def evaluate(
    forecaster: Forecaster,
    clips: ClipSource,
    *,
    name: str,
    protocol: str,
    definition: str = "stzoo",
    precision: Precision = "float32",
    backend: Backend = "torch",
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
        backend: what computes the forecasts, "torch" or "onnxruntime", whatever the forecaster's own is.
        batch: how many clips are forecast together.
        progress: show a bar.
        matched: forecasts get the values of the last past frame, as in `Forecaster.rollout`.

    Raises:
        DataError: there are no clips, their shape is not the model's, the model's values have no range and the metrics
            need one, or there is no such definition.
        SpecError: there is no such precision or backend, or the backend does not compute such a model.
        MissingExtraError: the backend is not installed.
        ForecastError: the model makes NaN or infinite values of a clip.
    """
    use_one_thread_if_forked()
    defined = check_definition(definition, precision)
    check_backend(backend, BACKENDS)
    engine = Engine(forecaster.module, forecaster.spec, precision, backend)
    check_clips(forecaster, clips, definition)
    scale = (0.0, 1.0) if defined.in_units else _range(forecaster.spec)
    found: list[tuple[Part, tuple[Totals, Totals]]] = []  # of the model and of persistence
    workers = torch.get_num_threads()  # as many as this process may use
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(clips), desc=shortened(name), unit="seq", disable=not progress) as bar,
    ):
        for part in parts_of(clips):
            pending: deque[Future[tuple[Totals, Totals]]] = deque()
            totals: list[tuple[Totals, Totals]] = []
            for clip in _batches(part.source, batch):
                past, future, made = (scaled(x, scale) for x in forecast(engine, forecaster.spec, clip, matched))
                pending.append(pool.submit(_measure, defined, past, future, made, clip.valid))
                held = past.numel() + future.numel() + made.numel()  # by each batch that waits
                while len(pending) > max(1, min(2 * workers, _NUMBERS_THAT_WAIT // held)):
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
    """Send every frame of every clip through the codec, and its codebook if it has one; measure what comes back.

    The arguments and errors are those of `evaluate`. Both the past and the future frames of a clip are measured.
    """
    use_one_thread_if_forked()
    metrics = check_definition(definition, precision).metrics
    if not metrics:
        raise DataError(
            f"the metrics {definition} are those of forecasts; those of a codec may be stzoo, stzoo-lpips or openstl"
        )
    spec, module, device = codec.spec, codec.module, next(codec.module.parameters()).device
    check_clips(codec, clips, definition)
    low, high = _range(spec)
    sums, frames = dict.fromkeys(metrics, 0.0), 0
    counts = torch.zeros(len(module.codebook), dtype=torch.int64) if codec.quantises else None
    with tqdm(total=len(clips), unit="seq", disable=not progress) as bar:
        for clip in (clip for part in parts_of(clips) for clip in _batches(part.source, batch)):
            truth = to_units(torch.cat([clip.past, clip.future], 1), spec)
            padding = Padding.of((truth.shape[-2], truth.shape[-1]), stride_of(module))
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                latents = module.encode(padding.add(normalise(truth.to(device).flatten(0, 1), spec)))
                if counts is not None:
                    latents, codes = module.quantise(latents)
                    counts += torch.bincount(codes.cpu().flatten(), minlength=len(counts))
                painted = module.decode(latents).float()
            painted = in_units(padding.remove(painted), spec, 1).reshape(truth.shape).cpu()
            frames += truth.shape[0] * truth.shape[1]
            unit = [((x - low) / (high - low)).numpy() for x in (painted, truth)]
            sums = {m: sums[m] + float(f(unit[0], unit[1], None).sum()) for m, f in metrics.items()}
            bar.update(len(truth))
    total = {m: s / frames for m, s in sums.items()}
    used, perplexity = (None, None) if counts is None else usage(counts)
    return CodecReport(name, protocol, definition, precision, frames, total, used, perplexity)


@torch.no_grad()
def golden(model: Forecaster | Codec, seed: int) -> tuple[float, float]:
    """Mean and standard deviation of what the model makes of uniform noise from `seed`, in the spec's units, unclipped.

    A forecaster forecasts `spec.frames_out` frames; a codec makes one frame again. The manifest keeps
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
def forecast(engine: Engine, spec: ModelSpec, clip: Clip, matched: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Past, future and forecast of a batch of clips, (B, T, C, H, W) float32 on the CPU, in the spec's units.

    A forecast has a number everywhere, so that all models are measured on the same cells.
    """
    past, future = to_units(clip.past, spec), to_units(clip.future, spec)
    seen = clip.seen if is_rain(spec.value_range) else None  # others read what stands for it, as `predict` has them do
    coming = future_of(engine, spec, past, future.shape[1], observed=seen, keeps=False, matched=matched)
    made = torch.stack(list(coming), 1)
    return past.cpu(), future.cpu(), made.cpu()


def scaled(values: Tensor, scale: tuple[float, float]) -> Tensor:
    """Values of which `scale` names the two that become 0 and 1."""
    low, high = scale
    return (values - low) / (high - low)


def _range(spec: ModelSpec) -> tuple[float, float]:
    """The range of values, which metrics need unless they are in units: `check_clips` has seen to it."""
    assert spec.value_range is not None
    return spec.value_range


def _batches(clips: ClipSource, batch: int) -> Iterator[Clip]:
    """All clips of one size, at most `batch` at a time, and fewer if they are large."""
    height, width = clips.clips(0, 1).past.shape[-2:]
    together = max(1, min(batch, _CELLS_AT_ONCE // (height * width)))
    for start in range(0, len(clips), together):
        yield clips.clips(start, min(start + together, len(clips)))


def check_definition(name: str, precision: str) -> Definition:
    """The definition of that name.

    Raises:
        DataError: there is no such definition. SpecError: there is no such precision.
    """
    check_precision(precision, PRECISIONS)
    if name not in DEFINITIONS:
        raise DataError(f"metrics have no definition {name!r}; it may be {', '.join(DEFINITIONS)}")
    return DEFINITIONS[name]


def check_clips(model: Forecaster | Codec, clips: ClipSource, definition: str, *, name: str = "this model") -> None:
    """Check whether the model can be measured on the clips, before it is; `name` is what the error calls it.

    Raises `DataError` if the metrics are not defined for the model, or the clips do not fit it.
    """
    if model.spec.value_range is None and not DEFINITIONS[definition].in_units:
        raise DataError(
            f"the metrics {definition} are defined for values in [0, 1], and the values of {name} have no range; use "
            "the metrics stzoo-units, which are in the units of the data (in commands --definition stzoo-units)"
        )
    if len(clips) == 0:
        raise DataError("there are no clips to measure")
    for part in parts_of(clips):
        clip = part.source.clips(0, 1)
        if clip.future.shape[1] == 0 and isinstance(model, Forecaster):
            raise DataError("the clips have no future frames, so there is nothing to measure forecasts by")
        _check_size(name, model.spec, stride_of(model.module), *clip.past.shape[1:])
        prepare = DEFINITIONS[definition].prepare
        if prepare is not None:
            prepare(*clip.past.shape[2:])


def _check_size(name: str, spec: ModelSpec, stride: int | None, t: int, c: int, h: int, w: int) -> None:
    if c != spec.channels or t < spec.frames_in:
        raise DataError(
            f"the clips have {t} past frames of {c}x{h}x{w}; {name} reads {spec.frames_in} of {spec.channels} channels"
        )
    if stride is None and (h, w) != (spec.height, spec.width):
        raise DataError(
            f"the clips have frames of {h}x{w}; {spec.height}x{spec.width} is the only size that {name} takes, because "
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
