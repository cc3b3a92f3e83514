"""A finished run -> a checkpoint of the catalogue: the packaged file, and its measured entry in the manifest."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch

from stzoo.catalog import CHECKPOINTS, Entry, entries, info, manifest_path, parse_manifest
from stzoo.codec import Codec, load_codec
from stzoo.data import ClipSource
from stzoo.errors import SpecError, TrainingError
from stzoo.evaluate import CodecReport, Precision, Report, evaluate, evaluate_codec, golden, golden_codec
from stzoo.forecaster import Forecaster, load
from stzoo.hub import Resolved, file_sha256, resolve
from stzoo.models.vqvae import VqVae
from stzoo.train.loop import fingerprint
from stzoo.weights import CODEC_PREFIX, half_precision, load_module, save_weights, write_atomically

SEED, GOLDEN_TOLERANCE = 0, 1e-4  # of the noise whose forecast the manifest keeps
_PAUSE = 900.0  # seconds between two log lines that mean the run was not running


@dataclass(frozen=True)
class Measurement:
    """A whole test protocol: its name, its clips, how metrics are defined, and the command that prints the figures."""

    protocol: str
    clips: ClipSource
    definition: str
    command: str


def pack(
    name: str,
    run: Path,
    measurements: Sequence[Measurement],
    hardware: str,
    precision: Precision = "float32",
    before: Path | None = None,
) -> list[Report | CodecReport]:
    """Store the best weights of `run` in float16, measure that very file, enter it in this checkout's manifest.

    Of a modular model only the predictor is stored; its codec is the codec entry's file.

    Args:
        name: the catalogue entry, whose spec the run must have trained.
        measurements: among them the first of the entry's present ones, which decides whether the weights are better.
        hardware: what the run ran on, in words.
        precision: that the file is measured in.
        before: the run whose best weights `run` was fine-tuned from, by the recipe NAME-second-stage; None: by none.

    Raises:
        SpecError: the run trained another spec. TrainingError: the entry's present weights are at least as good; a
            modular run had another codec than the entry's; other entries' weights need the codec that is there; or
            `run` began from other weights than those of `before`, or from none.
    """
    entry = info(name)
    trained: Any = (load_codec if entry.kind == "codec" else load)(run / "best")
    if trained.spec != entry.spec:
        raise SpecError(f"{run} trained another spec than {name}'s")
    dependents = [e.name for e in entries().values() if e.codec and e.codec.entry == name and e.weights]
    if dependents:
        raise TrainingError(f"{' and '.join(dependents)} need the codec that {name} has now; not packed")
    training = _training(name, run, before, hardware)
    if entry.metrics and entry.metrics[0].protocol not in [m.protocol for m in measurements]:
        raise TrainingError(f"{name} is compared on {entry.metrics[0].protocol}, which was not asked for; not packed")
    candidate = CHECKPOINTS / f".{name}.safetensors"
    CHECKPOINTS.mkdir(exist_ok=True)
    try:
        codec = None if entry.codec is None else _codec_file(entry.codec.entry, trained)
        kept = {n: t for n, t in trained.module.state_dict().items() if codec is None or not n.startswith(CODEC_PREFIX)}
        save_weights(candidate, trained.spec, half_precision(kept))
        file = Resolved(candidate, trained.spec, file_sha256(candidate), None if codec is None else codec.path)
        reports: list[Report | CodecReport] = []
        for measurement in measurements:
            report, sample = _measured(entry, file, measurement, precision)
            mse = report.total["mse"]
            for present in entry.metrics[:1]:
                if measurement.protocol == present.protocol and mse >= present.mse:
                    raise TrainingError(f"MSE {mse:.3f} is no better than the present {present.mse}; not packed")
            reports.append(report)
        values = {
            "weights": {
                "file": f"{name}.safetensors",
                "size": candidate.stat().st_size,
                "sha256": file.sha256,
                "sources": ["package"],
            },
            "metrics": [_metrics(r, m.command) for r, m in zip(reports, measurements, strict=True)],
            "golden": _golden(*sample),
            "training": training,
        }
        manifest = json.loads(manifest_path().read_text("utf-8"))
        if codec is not None:
            values["codec"] = {"entry": entry.codec.entry, "sha256": codec.sha256}  # type: ignore[union-attr]
        manifest["models"][name] |= values
        content = (json.dumps(manifest, indent=2) + "\n").encode()
        parse_manifest(content)
        os.replace(candidate, CHECKPOINTS / f"{name}.safetensors")
        write_atomically(manifest_path(), content)
    finally:
        candidate.unlink(missing_ok=True)
    return reports


def _measured(
    entry: Entry, file: Resolved, measurement: Measurement, precision: Precision
) -> tuple[Report | CodecReport, tuple[float, float]]:
    """The file's figures on the protocol, and its golden forecast."""
    clips, protocol, definition = measurement.clips, measurement.protocol, measurement.definition
    module, report = load_module(file.spec, file.path, file.sha256, file.codec)
    if entry.kind == "codec":
        codec = Codec(file.spec, cast(VqVae, module), report)
        figures = evaluate_codec(
            codec, clips, name=entry.name, protocol=protocol, definition=definition, precision=precision
        )
        return figures, golden_codec(codec, SEED)
    model = Forecaster(file.spec, module, report)
    measured = evaluate(model, clips, name=entry.name, protocol=protocol, definition=definition, precision=precision)
    return measured, golden(model, SEED)


def _codec_file(name: str, trained: Forecaster) -> Resolved:
    """The file of the entry `name`, whose tensors are the very ones that `trained` has inside."""
    inside, stored = trained.module.codec.state_dict(), load_codec(name).module.state_dict()  # type: ignore[union-attr]
    if not all(torch.equal(inside[n], stored[n]) for n in stored):
        raise TrainingError(f"the run was trained on another codec than the weights of {name}; train it again on those")
    return resolve(name)


def _metrics(report: Report | CodecReport, command: str) -> dict[str, Any]:
    figures: dict[str, Any] = {name: round(value, 4) for name, value in report.total.items()}
    if isinstance(report, CodecReport):
        figures |= {"codes_used": report.codes_used, "perplexity": round(report.perplexity, 4)}
    else:
        figures |= {
            f"persistence_{name}": round(report.persistence_total[name], 4)
            for name in ("mse", "psnr", "ssim", "csi_1", "csi_5")
            if name in report.persistence_total
        }
    return {"protocol": report.protocol, **figures, "command": command}


def _golden(mean: float, std: float) -> dict[str, Any]:
    return {
        "input_seed": SEED,
        "output_mean": round(mean, 6),
        "output_std": round(std, 6),
        "tolerance": GOLDEN_TOLERANCE,
    }


def _training(name: str, run: Path, before: Path | None, hardware: str) -> dict[str, Any]:
    """What the run took, and the run before it; and the commands that repeat them."""
    runs = [run] if before is None else [before, run]
    plans = [json.loads((each / "plan.json").read_text("utf-8")) for each in runs]
    start = None if before is None else fingerprint(load(before / "best").module.state_dict())
    if plans[-1].get("start") != start:
        raise TrainingError(
            f"{run} was not fine-tuned from {before}" if before else f"{run} was fine-tuned; name --after"
        )
    commands = [f"stzoo train {name} --data DIR --out RUN --steps {plans[0]['steps']}"]
    if before is not None:
        tuned = f"--from RUN/best --recipe {name}-second-stage --data DIR --out TUNED --steps {plans[1]['steps']}"
        commands.append(f"stzoo train {tuned}")
    seen, hours = zip(*map(_taken, runs), strict=True)
    return {
        "recipe": "; ".join(commands),
        "sequences_seen": sum(seen),
        "hardware": hardware,
        "hours": round(sum(hours), 2),
    }


def _taken(run: Path) -> tuple[int, float]:
    """Sequences until the best weights, and hours in all: those between neighbouring log lines, pauses left out."""
    log = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    best = min((r for r in log if "validation_mse" in r), key=lambda r: r["validation_mse"])
    gaps = [b["seconds"] - a["seconds"] for a, b in pairwise(log)]
    return best["sequences"], sum(g for g in gaps if g < _PAUSE) / 3600
