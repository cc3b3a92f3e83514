"""A finished run -> a checkpoint of the catalogue: the packaged file, and its measured entry in the manifest."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from stzoo import catalog
from stzoo.catalog import Entry
from stzoo.codec import load_codec
from stzoo.errors import SpecError, TrainingError
from stzoo.evaluate import CodecReport, Report
from stzoo.forecaster import load
from stzoo.hub import Resolved
from stzoo.machine import Precision
from stzoo.release.candidate import (
    Measurement,
    codec_file,
    enter,
    measure,
    metrics_of,
    opened,
    packaged,
    read_manifest,
    weights_values,
    write_manifest,
)
from stzoo.train.assignment import weights_digest
from stzoo.weights import read_tensors

_PAUSE = 900.0  # seconds between two log lines that mean the run was not running


def pack(
    name: str,
    run: Path,
    measurements: Sequence[Measurement],
    hardware: str,
    precision: Precision = "float32",
    before: Path | None = None,
) -> list[Report | CodecReport]:
    """Store the best weights of `run` in float16, measure that very file, enter it in this checkout's manifest.

    Of a modular model only the predictor is stored; its codec is the codec entry's file. Where the entry has these very
    weights already, its file stays and is measured again, and so do figures of protocols that were not asked for.

    Args:
        name: the catalogue entry, whose spec the run must have trained.
        measurements: among them the first of the entry's present ones, which decides whether the weights are better.
        hardware: what the run ran on, in words.
        precision: that the file is measured in.
        before: the run whose best weights `run` was fine-tuned from, by the recipe NAME-second-stage; None: by none.

    Raises:
        SpecError: the run trained another spec. TrainingError: the entry's present weights are at least as good; a
            modular run had another codec than the entry's; other entries' weights need the codec that is there;
            `run` began from other weights than those of `before`, or from none; or its log is damaged.
        WeightsError: it is too large.
    """
    entry = catalog.info(name)
    trained: Any = (load_codec if entry.kind == "codec" else load)(run / "best")
    if trained.spec != entry.spec:
        raise SpecError(f"{run} trained another spec than {name}'s")
    training = _training(name, run, before, hardware)
    if entry.metrics and entry.metrics[0].protocol not in [m.protocol for m in measurements]:
        raise TrainingError(f"{name} is compared on {entry.metrics[0].protocol}, which was not asked for; not packed")
    codec = None if entry.codec is None else codec_file(entry.codec.entry, trained)
    with packaged(name, trained, codec) as candidate:
        present = _present(entry, candidate)
        dependents = [e.name for e in catalog.entries().values() if e.codec and e.codec.entry == name and e.weights]
        if dependents and present is None:
            raise TrainingError(f"{' and '.join(dependents)} need the codec that {name} has now; not packed")
        file = present or candidate
        model = opened(file, entry.kind, name)
        reports: list[Report | CodecReport] = []
        for measurement in measurements:
            report = measure(model, name, measurement, precision)
            mse = report.total["mse"]
            for old in entry.metrics[:1]:
                if present is None and measurement.protocol == old.protocol and mse >= old.mse:
                    raise TrainingError(f"MSE {mse:.3f} is no better than the present {old.mse}; not packed")
            reports.append(report)
        metrics = [metrics_of(r, m.command) for r, m in zip(reports, measurements, strict=True)]
        if present is not None:
            manifest = read_manifest()
            of_entry = manifest["models"][name]
            of_entry |= {"metrics": _renewed(of_entry["metrics"], metrics), "training": training}
            write_manifest(manifest)
            return reports
        values = weights_values(name, file, model, metrics, training)
        if entry.codec is not None and codec is not None:
            values["codec"] = {"entry": entry.codec.entry, "sha256": codec.sha256}
        enter(name, file.path, values)
    return reports


def _present(entry: Entry, candidate: Resolved) -> Resolved | None:
    """The entry's packaged file, where it holds the candidate's tensors, bit for bit; headers may differ."""
    if entry.weights is None:
        return None
    path = catalog.CHECKPOINTS / entry.weights.file
    if not path.exists():
        return None
    old, new = read_tensors(path), read_tensors(candidate.path)
    same = old.keys() == new.keys() and all(torch.equal(old[key], new[key]) for key in new)
    return dataclasses.replace(candidate, path=path, sha256=entry.weights.sha256) if same else None


def _renewed(present: list[dict[str, Any]], measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An entry's metrics, in their order, those of each protocol that was measured in place of its old ones."""
    new = {m["protocol"]: m for m in measured}
    return [new.pop(m["protocol"], m) for m in present] + list(new.values())


def _training(name: str, run: Path, before: Path | None, hardware: str) -> dict[str, Any]:
    """What the run took, and the run before it; and the commands that repeat them."""
    runs = [run] if before is None else [before, run]
    plans = [json.loads((each / "plan.json").read_text("utf-8")) for each in runs]
    start = None if before is None else weights_digest(load(before / "best").module.state_dict())
    if plans[-1].get("start") != start:
        raise TrainingError(
            f"{run} was not fine-tuned from {before}" if before else f"{run} was fine-tuned; name --after"
        )
    commands = [f"stzoo train {name} --data DIR --out RUN --steps {plans[0]['steps']}"]
    if before is not None:
        tuned = f"--from RUN/best --recipe {name}-second-stage --data DIR --out TUNED --steps {plans[1]['steps']}"
        commands.append(f"stzoo train {tuned}")
    seen, hours = zip(*map(_taken, runs), strict=True)
    curve = {row["sequences"]: row["validation_mse"] for row in _log(runs[0]) if "validation_mse" in row}
    return {
        "recipe": "; ".join(commands),
        "sequences_seen": sum(seen),
        "hardware": hardware,
        "hours": round(sum(hours), 2),
        "curve_sequences": list(curve),
        "curve_mse": [float(f"{mse:.4g}") for mse in curve.values()],
    }


def _taken(run: Path) -> tuple[int, float]:
    """Sequences until the best weights, and hours in all: those between neighbouring log lines, pauses left out."""
    log = _log(run)
    best = min((r for r in log if "validation_mse" in r), key=lambda r: r["validation_mse"])
    gaps = [b["seconds"] - a["seconds"] for a, b in pairwise(log)]
    return best["sequences"], sum(g for g in gaps if g < _PAUSE) / 3600


def _log(run: Path) -> list[dict[str, Any]]:
    """What a run wrote down, without a last line that a kill cut. Raises `TrainingError` where that is no whole log."""
    path = run / "log.jsonl"
    try:
        *lines, _ = path.read_text("utf-8").split("\n")
        rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} is not the log of a run: {error}; not packed") from error
    if not any("validation_mse" in row for row in rows):
        raise TrainingError(f"{run} was never validated; train it to its end. Not packed")
    return rows
