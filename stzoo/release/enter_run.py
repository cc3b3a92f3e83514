"""The best weights of a training run become an entry's checkpoint, measured on its packaged file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from stzoo import catalog
from stzoo.catalog import CodecReference, Entry
from stzoo.codec import load_codec
from stzoo.errors import SpecError, TrainingError
from stzoo.evaluate import CodecReport, EvaluationReport
from stzoo.hub import Resolved
from stzoo.machine import Precision
from stzoo.opening import load
from stzoo.release.candidate import Measurement, codec_file, measure, metrics_of, packaged, weights_values
from stzoo.release.manifest import enter, read_manifest, write_manifest
from stzoo.train.assignment import weights_digest
from stzoo.train.log import Row, hours_trained, read_log
from stzoo.weights import read_tensors


def enter_run(
    name: str,
    run: Path,
    measurements: Sequence[Measurement],
    hardware: str,
    precision: Precision = "float32",
    before: Path | None = None,
) -> list[EvaluationReport | CodecReport]:
    """Store the best weights of `run` in float16, measure that very file, and enter it in this checkout's manifest.

    Of a modular model only the predictor is stored; its codec is the file of the codec's entry. If the entry has these
    very weights already, its file stays and is measured again; figures on other protocols than those stay too.

    Args:
        name: the catalogue entry; the run must have trained its spec.
        run: the run folder.
        measurements: they must include the first protocol that the entry has figures on, which decides whether the
            weights are better.
        hardware: what the run ran on, in words.
        precision: the precision in which the file is measured.
        before: the run from whose best weights `run` was fine-tuned, by the recipe NAME-second-stage; None if `run`
            began from random weights.

    Returns:
        A report for each measurement.

    Raises:
        SpecError: the run trained another spec.
        TrainingError: the entry's present weights are at least as good; a modular run had another codec than the
            entry's; the weights of other entries need the present codec; `run` did not begin from the weights of
            `before`; or its log is damaged.
        WeightsError: the weights are too large for the package.
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
        model = type(trained).from_files(file, name)
        reports: list[EvaluationReport | CodecReport] = []
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
        reference = None
        if entry.codec is not None and codec is not None:
            reference = CodecReference(entry=entry.codec.entry, sha256=codec.sha256)
        enter(name, file.path, weights_values(name, file, model, metrics, training, reference))
    return reports


def _present(entry: Entry, candidate: Resolved) -> Resolved | None:
    """The entry's packaged file if it holds the candidate's tensors, bit for bit (headers may differ); else None."""
    if entry.weights is None:
        return None
    path = catalog.CHECKPOINTS / entry.weights.file
    if not path.exists():
        return None
    old, new = read_tensors(path), read_tensors(candidate.path)
    same = old.keys() == new.keys() and all(torch.equal(old[key], new[key]) for key in new)
    return dataclasses.replace(candidate, path=path, sha256=entry.weights.sha256) if same else None


def _renewed(present: list[dict[str, Any]], measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An entry's metrics, in their order; new figures take the place of old ones on the same protocol."""
    new = {m["protocol"]: m for m in measured}
    return [new.pop(m["protocol"], m) for m in present] + list(new.values())


def _training(name: str, run: Path, before: Path | None, hardware: str) -> dict[str, Any]:
    """What this run and the run before it took, and the commands that repeat them."""
    runs = [run] if before is None else [before, run]
    plans = [json.loads((each / "plan.json").read_text("utf-8")) for each in runs]
    start = None if before is None else weights_digest(load(before / "best").module.state_dict())
    if plans[-1].get("start") != start:
        raise TrainingError(
            f"{run} was not fine-tuned from {before}" if before else f"{run} was fine-tuned; name --after RUN0"
        )
    commands = [f"stzoo train {name} --data DIR --out RUN --steps {plans[0]['steps']}"]
    if before is not None:
        tuned = f"--from RUN/best --recipe {name}-second-stage --data DIR --out TUNED --steps {plans[1]['steps']}"
        commands.append(f"stzoo train {tuned}")
    seen, hours = zip(*map(_taken, runs), strict=True)
    curve = {row.sequences: mse for row, mse in _validations(runs[0])}
    return {
        "recipe": "; ".join(commands),
        "sequences_seen": sum(seen),
        "hardware": hardware,
        "hours": round(sum(hours), 2),
        "curve_sequences": list(curve),
        "curve_mse": [float(f"{mse:.4g}") for mse in curve.values()],
        **({"curve_quantity": True} if plans[0].get("recipe", {}).get("quantity") else {}),
    }


def _taken(run: Path) -> tuple[int, float]:
    """Sequences seen until the best weights, and hours of training in all, without the pauses."""
    best, _ = min(_validations(run), key=lambda found: found[1])
    return best.sequences, hours_trained(read_log(run))[-1]


def _validations(run: Path) -> list[tuple[Row, float]]:
    """The validations in a run's log, each with its error.

    Raises:
        TrainingError: the log is absent or damaged, or the run was never validated.
    """
    found = [(row, row.validation_mse) for row in read_log(run) if row.validation_mse is not None]
    if not found:
        raise TrainingError(f"{run} was never validated; train it to its end. Not packed")
    return found
