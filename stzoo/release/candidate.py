"""A trained model on its way into the catalogue: the file that is packaged, and what is measured on that very file."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from stzoo import catalog
from stzoo.catalog import MAX_FILE, CodecReference, Entry
from stzoo.codec import Codec
from stzoo.data import DATASETS, ClipSource, Dataset, protocol_name
from stzoo.errors import TrainingError, WeightsError
from stzoo.evaluate import CodecReport, EvaluationReport, evaluate, evaluate_codec, golden
from stzoo.figures import FIGURES
from stzoo.forecaster import Forecaster
from stzoo.hub import Resolved, file_sha256, resolve
from stzoo.machine import Precision
from stzoo.weights import CODEC_PREFIX, half_precision, save_weights

SEED, GOLDEN_TOLERANCE = 0, 1e-4  # the manifest keeps numbers of what a model makes of the noise from this seed
MAX_TOGETHER = 90_000_000  # bytes that all packaged checkpoints together may have


@dataclass(frozen=True)
class Measurement:
    """A whole test protocol that a model is measured on.

    Attributes:
        protocol: its name.
        clips: all its clips.
        definition: how the metrics are defined, a key of `stzoo.metrics.DEFINITIONS`.
        command: it prints the same figures.
        matched: whether forecasts get the values of the last past frame.
    """

    protocol: str
    clips: ClipSource
    definition: str
    command: str
    matched: bool = False


def measurements_of(
    entry: Entry,
    dataset: str,
    data: Dataset,
    *,
    horizons: Sequence[int],
    every: int = 1,
    units: str | None = None,
    precision: str = "float32",
) -> list[Measurement]:
    """The whole test protocol of an entry, once for each horizon; of a codec, which has no horizons, once.

    Args:
        dataset: the name of `data`, a key of `stzoo.data.DATASETS`.
        horizons: numbers of frames to forecast; a codec's are not looked at.
        every: the frames 0, every, 2 * every, ... of the recordings that `data` reads.
        units: in which `data` reads numbers of rain; None if nobody named any.
        precision: what the figures will be measured in; like `every` and `units` it is named in the commands that
            repeat them.

    Raises:
        DataError: `data` has no test part with clips of that length.
    """
    spec, codec = entry.spec, entry.kind == "codec"
    found = []
    for steps in [1] if codec else horizons:
        command = f"stzoo evaluate {entry.name} --data DIR"
        command += "" if codec or steps == spec.frames_out else f" --steps {steps}"
        command += "" if dataset == entry.dataset else f" --dataset {dataset}"
        command += "" if every == 1 else f" --every {every}"
        command += "" if units is None else f" --units {shlex.quote(units)}"
        command += "" if precision == "float32" else f" --precision {precision}"
        clips = data.split("test", spec.frames_in, steps)
        for matched in (False, True) if DATASETS[dataset].matched and not codec else (False,):
            protocol = protocol_name(dataset, spec.frames_in, steps, codec=codec, every=every, matched=matched)
            own = command + (" --matched" if matched else "")
            found.append(Measurement(protocol, clips, DATASETS[dataset].definition, own, matched))
    return found


@contextmanager
def packaged(name: str, trained: Forecaster | Codec, codec: Resolved | None) -> Iterator[Resolved]:
    """Write the float16 file of `trained`, under a hidden name among the checkpoints.

    It is removed at the end of the block unless it was moved. Of a modular model only the predictor is stored; `codec`
    is then the file of its codec's entry, and None for every other model.

    Raises:
        WeightsError: a value does not fit into float16, or the file is too large for the package.
    """
    folder = catalog.CHECKPOINTS
    file = folder / f".{name}.safetensors"
    folder.mkdir(exist_ok=True)
    state: Mapping[str, torch.Tensor] = trained.module.state_dict()
    kept = {n: t for n, t in state.items() if codec is None or not n.startswith(CODEC_PREFIX)}
    try:
        save_weights(file, trained.spec, half_precision(kept))
        size = file.stat().st_size
        if size > MAX_FILE:
            raise WeightsError(f"{name} takes {size} bytes in float16; a packaged checkpoint may have {MAX_FILE}")
        others = [f for f in folder.glob("*.safetensors") if not f.name.startswith(".") and f.stem != name]
        together = size + sum(f.stat().st_size for f in others)
        if together > MAX_TOGETHER:
            raise WeightsError(f"with {name} the checkpoints take {together} bytes; they may have {MAX_TOGETHER}")
        sha256 = file_sha256(file)
        yield Resolved(file, trained.spec, sha256, *((None, None) if codec is None else (codec.path, codec.sha256)))
    finally:
        file.unlink(missing_ok=True)


def measure(
    model: Forecaster | Codec, name: str, measurement: Measurement, precision: Precision
) -> EvaluationReport | CodecReport:
    """The report of the model called `name` on a whole protocol."""
    run: Any = evaluate_codec if isinstance(model, Codec) else partial(evaluate, matched=measurement.matched)
    report: EvaluationReport | CodecReport = run(
        model,
        measurement.clips,
        name=name,
        protocol=measurement.protocol,
        definition=measurement.definition,
        precision=precision,
    )
    return report


def metrics_of(report: EvaluationReport | CodecReport, command: str) -> dict[str, Any]:
    """A report as one of an entry's `metrics`; `command` printed it."""
    kept = {figure.name for figure in FIGURES}
    figures: dict[str, Any] = {name: round(value, 4) for name, value in report.total.items() if name in kept}
    if isinstance(report, CodecReport):
        if report.codes_used is not None and report.perplexity is not None:
            figures |= {"codes_used": report.codes_used, "perplexity": round(report.perplexity, 4)}
    else:
        figures |= {
            figure.persistence: round(report.persistence_total[figure.name], 4)
            for figure in FIGURES
            if figure.persistence is not None and figure.name in report.persistence_total
        }
        curves = {"mse_steps": report.steps["mse"], "persistence_mse_steps": report.persistence_steps["mse"]}
        if all(math.isfinite(value) for curve in curves.values() for value in curve):  # every step was observed
            figures |= {name: [round(value, 4) for value in curve] for name, curve in curves.items()}
    return {"protocol": report.protocol, **figures, "command": command}


def weights_values(
    name: str,
    file: Resolved,
    model: Forecaster | Codec,
    metrics: list[dict[str, Any]],
    training: Mapping[str, Any],
    codec: CodecReference | None,
) -> dict[str, Any]:
    """The part of an entry that comes with weights. `codec` is that of a modular model, None for every other."""
    mean, std = golden(model, SEED)
    values = {
        "weights": {
            "file": f"{name}.safetensors",
            "size": file.path.stat().st_size,
            "sha256": file.sha256,
            "sources": ["package"],
        },
        "metrics": metrics,
        "golden": {
            "input_seed": SEED,
            "output_mean": round(mean, 6),
            "output_std": round(std, 6),
            "tolerance": GOLDEN_TOLERANCE,
        },
        "training": dict(training),
    }
    return values if codec is None else values | {"codec": dataclasses.asdict(codec)}


def codec_file(name: str, trained: Forecaster) -> Resolved:
    """The file of the codec entry `name`. Raises `TrainingError` if `trained` has another codec inside."""
    found = resolve(name)
    stored = Codec.from_files(found, name).module.state_dict()
    inside = trained.module.codec.state_dict()  # type: ignore[union-attr]
    if inside.keys() != stored.keys() or not all(torch.equal(inside[n], stored[n]) for n in stored):
        raise TrainingError(f"the run was trained on another codec than the weights of {name}; train it again on those")
    return found
