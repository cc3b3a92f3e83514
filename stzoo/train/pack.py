"""A finished run -> a checkpoint of the catalogue: the packaged file, and its measured entry in the manifest."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

from stzoo.catalog import CHECKPOINTS, info, manifest_path, parse_manifest
from stzoo.data import ClipSource
from stzoo.errors import SpecError, TrainingError
from stzoo.evaluate import Report, evaluate, golden
from stzoo.forecaster import load
from stzoo.hub import file_sha256
from stzoo.weights import half_precision, save_weights, write_atomically

GOLDEN_SEED, GOLDEN_TOLERANCE = 0, 1e-4
_PAUSE = 900.0  # seconds between two log lines that mean the run was not running


def pack(name: str, run: Path, clips: ClipSource, protocol: str, command: str, hardware: str) -> Report:
    """Store the best weights of `run` in float16, measure that very file, enter it in this checkout's manifest.

    Args:
        name: the catalogue entry, whose spec the run must have trained.
        clips, protocol, command: the whole test protocol, its name, and the command that prints its figures.
        hardware: what the run ran on, in words.

    Raises:
        SpecError: the run trained another spec. TrainingError: the entry's present weights are at least as good.
    """
    trained, entry = load(run / "best"), info(name)
    if trained.spec != entry.spec:
        raise SpecError(f"{run} trained another spec than {name}'s")
    candidate = CHECKPOINTS / f".{name}.safetensors"
    CHECKPOINTS.mkdir(exist_ok=True)
    try:
        save_weights(candidate, trained.spec, half_precision(trained.module.state_dict()))
        stored = load(candidate)
        report = evaluate(stored, clips, name=name, protocol=protocol)
        present = [m.mse for m in entry.metrics if m.protocol == protocol]
        if present and report.total["mse"] >= present[0]:
            raise TrainingError(f"MSE {report.total['mse']:.3f} is no better than the present {present[0]}; not packed")
        values = {
            "weights": {
                "file": f"{name}.safetensors",
                "size": candidate.stat().st_size,
                "sha256": file_sha256(candidate),
                "sources": ["package"],
            },
            "metrics": [_metrics(report, command)],
            "golden": _golden(*golden(stored, GOLDEN_SEED)),
            "training": _training(name, run, hardware),
        }
        manifest = json.loads(manifest_path().read_text("utf-8"))
        manifest["models"][name] |= values
        content = (json.dumps(manifest, indent=2) + "\n").encode()
        parse_manifest(content)
        os.replace(candidate, CHECKPOINTS / f"{name}.safetensors")
        write_atomically(manifest_path(), content)
    finally:
        candidate.unlink(missing_ok=True)
    return report


def _metrics(report: Report, command: str) -> dict[str, Any]:
    figures = {name: round(value, 4) for name, value in report.total.items()}
    persistence = round(report.persistence_total["mse"], 4)
    return {"protocol": report.protocol, **figures, "persistence_mse": persistence, "command": command}


def _golden(mean: float, std: float) -> dict[str, Any]:
    return {
        "input_seed": GOLDEN_SEED,
        "output_mean": round(mean, 6),
        "output_std": round(std, 6),
        "tolerance": GOLDEN_TOLERANCE,
    }


def _training(name: str, run: Path, hardware: str) -> dict[str, Any]:
    """From the run's own plan and log; hours are those between neighbouring log lines, pauses left out."""
    steps = json.loads((run / "plan.json").read_text("utf-8"))["steps"]
    log = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    best = min((r for r in log if "validation_mse" in r), key=lambda r: r["validation_mse"])
    gaps = [b["seconds"] - a["seconds"] for a, b in pairwise(log)]
    return {
        "recipe": f"stzoo train {name} --mnist DIR --out RUN --steps {steps}",
        "sequences_seen": best["sequences"],
        "hardware": hardware,
        "hours": round(sum(g for g in gaps if g < _PAUSE) / 3600, 2),
    }
