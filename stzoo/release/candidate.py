"""A trained model -> an entry of the catalogue: the packaged file, its measured figures, and the manifest."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from stzoo import catalog
from stzoo import codec as codec_room
from stzoo import forecaster as forecaster_room
from stzoo.catalog import MAX_FILE, Entry
from stzoo.codec import Codec, load_codec
from stzoo.data import DATASETS, ClipSource, Dataset, protocol_name
from stzoo.errors import TrainingError, WeightsError
from stzoo.evaluate import CodecReport, Report, evaluate, evaluate_codec, golden, golden_codec
from stzoo.files import write_atomically
from stzoo.forecaster import Forecaster
from stzoo.hub import Resolved, file_sha256, resolve
from stzoo.machine import Precision
from stzoo.weights import CODEC_PREFIX, half_precision, save_weights

SEED, GOLDEN_TOLERANCE = 0, 1e-4  # of the noise whose forecast the manifest keeps
MAX_TOGETHER = 90_000_000  # bytes that all packaged checkpoints may have


@dataclass(frozen=True)
class Measurement:
    """A whole test protocol: its name, its clips, how metrics are defined, and the command that prints the figures."""

    protocol: str
    clips: ClipSource
    definition: str
    command: str


def measurements_of(
    entry: Entry, dataset: str, data: Dataset, *, horizons: Sequence[int], every: int = 1, precision: str = "float32"
) -> list[Measurement]:
    """The whole test protocol of an entry, once for each horizon; of a codec, which has no horizons, once.

    Args:
        dataset: the name of `data`, a key of `stzoo.data.DATASETS`.
        horizons: numbers of frames to forecast; a codec's are not looked at.
        every: the frames 0, every, 2 * every, ... of the recordings that `data` reads.
        precision: what the figures will be measured in; like `every` it is named in the commands that repeat them.

    Raises:
        DataError: `data` has no test part with clips of that length.
    """
    spec, codec = entry.spec, entry.kind == "codec"
    found = []
    for steps in [1] if codec else horizons:
        protocol = protocol_name(dataset, spec.frames_in, steps, codec=codec, every=every)
        command = f"stzoo evaluate {entry.name} --data DIR"
        command += "" if codec or steps == spec.frames_out else f" --steps {steps}"
        command += "" if dataset == entry.dataset else f" --dataset {dataset}"
        command += "" if every == 1 else f" --every {every}"
        command += "" if precision == "float32" else f" --precision {precision}"
        clips = data.split("test", spec.frames_in, steps)
        found.append(Measurement(protocol, clips, DATASETS[dataset].definition, command))
    return found


@contextmanager
def packaged(name: str, trained: Forecaster | Codec, codec: Resolved | None) -> Iterator[Resolved]:
    """The float16 file of `trained`, under a hidden name among the checkpoints; gone afterwards where nobody moved it.

    Of a modular model only the predictor is stored; `codec` is the file of its codec's entry.

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
        yield Resolved(file, trained.spec, file_sha256(file), None if codec is None else codec.path)
    finally:
        file.unlink(missing_ok=True)


def opened(file: Resolved, kind: Literal["forecaster", "codec"], name: str) -> Forecaster | Codec:
    """What is in a file, as it will be loaded; `name` is what errors call it."""
    return codec_room.opened(file, name) if kind == "codec" else forecaster_room.opened(file, name)


def measure(
    model: Forecaster | Codec, name: str, measurement: Measurement, precision: Precision
) -> Report | CodecReport:
    """The model's figures on a whole protocol."""
    clips, protocol, definition = measurement.clips, measurement.protocol, measurement.definition
    run: Any = evaluate_codec if isinstance(model, Codec) else evaluate
    report: Report | CodecReport = run(
        model, clips, name=name, protocol=protocol, definition=definition, precision=precision
    )
    return report


def metrics_of(report: Report | CodecReport, command: str) -> dict[str, Any]:
    """One of an entry's `metrics`."""
    figures: dict[str, Any] = {name: round(value, 4) for name, value in report.total.items()}
    if isinstance(report, CodecReport):
        figures |= {"codes_used": report.codes_used, "perplexity": round(report.perplexity, 4)}
    else:
        figures |= {
            f"persistence_{name}": round(report.persistence_total[name], 4)
            for name in ("mse", "psnr", "ssim", "csi_1", "csi_5")
            if name in report.persistence_total
        }
        curves = {"mse_steps": report.steps["mse"], "persistence_mse_steps": report.persistence_steps["mse"]}
        if all(math.isfinite(value) for curve in curves.values() for value in curve):  # every step was observed
            figures |= {name: [round(value, 4) for value in curve] for name, curve in curves.items()}
    return {"protocol": report.protocol, **figures, "command": command}


def golden_of(model: Forecaster | Codec, seed: int = SEED) -> tuple[float, float]:
    """Mean and standard deviation of the forecast, or of the reconstruction, from seeded noise."""
    return golden_codec(model, seed) if isinstance(model, Codec) else golden(model, seed)


def weights_values(
    name: str, file: Resolved, model: Forecaster | Codec, metrics: list[dict[str, Any]], training: Mapping[str, Any]
) -> dict[str, Any]:
    """The part of an entry that comes with weights."""
    mean, std = golden_of(model)
    return {
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


def codec_file(name: str, trained: Forecaster) -> Resolved:
    """The file of the codec entry `name`. Raises `TrainingError` where `trained` has other tensors inside."""
    inside, stored = trained.module.codec.state_dict(), load_codec(name).module.state_dict()  # type: ignore[union-attr]
    if inside.keys() != stored.keys() or not all(torch.equal(inside[n], stored[n]) for n in stored):
        raise TrainingError(f"the run was trained on another codec than the weights of {name}; train it again on those")
    return resolve(name)


def read_manifest() -> dict[str, Any]:
    """The manifest's JSON as it is now, keys in the file's order."""
    manifest: dict[str, Any] = json.loads(catalog.manifest_path().read_text("utf-8"))
    return manifest


def manifest_text(manifest: Mapping[str, Any]) -> bytes:
    """As the file is written. Raises `ManifestError` where an entry would be wrong."""
    content = (json.dumps(manifest, indent=2) + "\n").encode()
    catalog.parse_manifest(content)
    return content


def write_manifest(manifest: Mapping[str, Any]) -> None:
    """Replace the manifest, whole or not at all; the catalogue of this process follows."""
    write_atomically(catalog.manifest_path(), manifest_text(manifest))
    catalog.entries.cache_clear()


def enter(name: str, candidate: Path, values: Mapping[str, Any]) -> None:
    """Move the candidate to its place and put `values` into the entry `name`: both, or neither.

    Raises:
        ManifestError: the entry would be wrong. OSError: a file cannot be written.
    """
    manifest = read_manifest()
    manifest["models"][name] = manifest["models"].get(name, {}) | dict(values)
    manifest_text(manifest)  # before anything is moved
    final = catalog.CHECKPOINTS / f"{name}.safetensors"
    before, new = final.with_name(f".{final.name}.before"), not final.exists()
    try:
        if not new:
            shutil.copyfile(final, before)  # a kill at any point leaves the entry a file
        os.replace(candidate, final)
        write_manifest(manifest)
    except BaseException:
        if new:
            final.unlink(missing_ok=True)
        elif before.exists():
            os.replace(before, final)
        raise
    before.unlink(missing_ok=True)
