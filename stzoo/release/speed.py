"""From what `stzoo benchmark NAME --json` printed to the `speed` of a catalogue entry."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from stzoo import catalog
from stzoo.benchmark.timing import LEAST
from stzoo.catalog import Entry, Speed
from stzoo.errors import SpecError
from stzoo.release.manifest import read_manifest, write_manifest
from stzoo.spec import from_mapping


def enter_speed(name: str, report: Path, hardware: str) -> Speed:
    """Put a report's figures into this checkout's manifest; they replace figures with the same `Speed.key`.

    Args:
        name: the entry that was measured.
        report: a file with the JSON that was printed.
        hardware: the machine on which it was measured, in words, for the card.

    Raises:
        UnknownModelError: the catalogue has no such entry. SpecError: `speed_of` refuses the report.
        ManifestError: the entry is a codec.
    """
    speed = speed_of(catalog.info(name), report, hardware)
    manifest = read_manifest()
    entry = manifest["models"][name]
    old = [from_mapping(Speed, values, "speed") for values in entry.get("speed", [])]
    kept = [other for other in old if other.key != speed.key]
    entry["speed"] = [dataclasses.asdict(one) for one in sorted([*kept, speed], key=lambda one: one.key)]
    write_manifest(manifest)
    return speed


def speed_of(entry: Entry, report: Path, hardware: str) -> Speed:
    """A report's figures as a card shows them, rounded to four digits.

    Raises:
        SpecError: the file is no such report; it is a report of another model, or of random weights although the entry
            has trained ones; another backend than torch was measured; or there are too few passes for a median.
    """
    name = entry.name
    try:
        found: Any = json.loads(report.read_text("utf-8"))
        plain = found["plain"]
        model, trained, passes = found["model"], bool(found["trained"]), int(found["passes"])
        values = {
            "device": found["machine"]["device"],
            "precision": found["precision"],
            "batch": found["batch"],
            "steps": found["steps"],
            "threads": found["machine"]["threads"],
            "hardware": hardware,
            "clips_per_second": float(f"{found['clips_per_second']:.4g}"),
            "latency_median_ms": float(f"{found['latency_median_ms']:.4g}"),
            "against_plain": None if plain is None else float(f"{plain['ratio_median']:.4g}"),
            "command": found["command"],
        }  # fmt: skip
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise SpecError(f"{report} is no report that `stzoo benchmark {name} --json` printed: {error!r}") from error
    if model != name:
        raise SpecError(f"{report} is a report of {model!r}, not of {name}")
    if entry.weights is not None and not trained:
        raise SpecError(f"{report} was measured with random weights; {name} has trained ones, measure those")
    if found.get("backend", "torch") != "torch":
        raise SpecError(f"{report} was measured with --backend {found['backend']}; a card shows what torch does")
    if passes < LEAST:
        raise SpecError(f"{report} is a report of {passes} passes; measure at least {LEAST}, or leave --repeats out")
    return from_mapping(Speed, values, "speed")
