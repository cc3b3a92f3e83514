"""A folder that `save_pretrained` wrote becomes an entry of the catalogue, measured on its packaged file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stzoo import catalog
from stzoo.catalog import CodecReference, Entry, Training, parse_manifest
from stzoo.codec import Codec
from stzoo.errors import SpecError, TrainingError, WeightsError
from stzoo.evaluate import CodecReport, EvaluationReport
from stzoo.forecaster import Forecaster
from stzoo.hub import resolve
from stzoo.machine import Precision
from stzoo.models import architecture_of, config_of
from stzoo.release.candidate import Measurement, codec_file, measure, metrics_of, packaged, weights_values
from stzoo.release.manifest import enter, manifest_text, read_manifest
from stzoo.spec import differences


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the weights themselves do not say. None keeps what the entry already says.

    Attributes:
        summary: what the model is, in one line.
        unsuited: what the model must not be used for, in a sentence or two.
        dataset: the name of the data it was trained on.
        license: the licence of the weights.
        data_terms: the terms of the data.
        citation: what to cite.
    """

    summary: str | None = None
    unsuited: str | None = None
    dataset: str | None = None
    license: str | None = None
    data_terms: str | None = None
    citation: str | None = None


def enter_folder(
    folder: Path,
    name: str,
    description: Description,
    training: Training,
    protocols: Callable[[Entry], Sequence[Measurement]],
    precision: Precision = "float32",
) -> list[EvaluationReport | CodecReport]:
    """Store the weights of `folder` in float16, measure that very file, and enter it in this checkout's manifest.

    The entry is new, or it has the spec of the folder and no weights yet. Of a modular model only the predictor is
    stored; its codec must be that of a codec entry. Everything that can be refused is refused before anything is
    measured, and a failure at any point leaves the manifest and the checkpoints as they were.

    Args:
        folder: what `save_pretrained` wrote.
        name: the entry's name.
        description: what the entry says of the model.
        training: how the weights were trained.
        protocols: opens the test protocols of the entry; called once the entry is known to be possible.
        precision: the precision in which the file is measured.

    Returns:
        A report for each protocol.

    Raises:
        SpecError: the entry has weights, another spec or another description; the description is incomplete; or the
            folder's spec is wrong.
        ManifestError: `name` is no name for a model.
        WeightsError: the folder cannot be loaded, or its weights are too large for the package.
        TrainingError: the codec of a modular model is that of no entry.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder} is no folder that save_pretrained wrote")
    found = resolve(folder)
    spec = found.spec
    config_of(spec)
    kind = architecture_of(spec).kind
    known = catalog.entries().get(name)
    if known is not None and known.weights is not None:
        raise SpecError(f"{name} is in the catalogue, with weights; choose another name")
    if known is not None and known.spec != spec:
        different = ", ".join(differences(spec, known.spec, ignoring=()))
        raise SpecError(f"{folder} has another spec than {name}: {different}")
    described = _described(name, description, known)
    trained: Any = (Codec if kind == "codec" else Forecaster).from_files(found, str(folder))
    reference = CodecReference(entry=_codec_entry(trained, known)) if kind == "modular" else None
    values: dict[str, Any] = {
        "summary": described["summary"], "unsuited": described["unsuited"], "dataset": described["dataset"],
        "spec": spec.to_dict(), "weights": None,
    }  # fmt: skip
    values |= {"kind": kind} if kind == "codec" else {}
    values |= {} if reference is None else {"codec": {"entry": reference.entry}}
    values |= {key: described[key] for key in ("license", "data_terms", "citation")}
    if known is not None:  # its own text, and the order of its keys, stay
        values = read_manifest()["models"][name] | {"unsuited": described["unsuited"]}
    record = {key: value for key, value in dataclasses.asdict(training).items() if value is not None}
    measurements = protocols(_proposed(name, values | {"training": record}))
    codec = None if reference is None else codec_file(reference.entry, trained)
    with packaged(name, trained, codec) as file:
        model = type(trained).from_files(file, name)
        reports = [measure(model, name, m, precision) for m in measurements]
        metrics = [metrics_of(r, m.command) for r, m in zip(reports, measurements, strict=True)]
        if codec is not None and reference is not None:
            reference = dataclasses.replace(reference, sha256=codec.sha256)
        enter(name, file.path, values | weights_values(name, file, model, metrics, record, reference))
    return reports


def _described(name: str, description: Description, known: Entry | None) -> dict[str, str]:
    """Every text of the entry. Raises `SpecError` with the options that are missing, empty, or contradict the entry."""
    given = dataclasses.asdict(description)
    there = {key: None if known is None else getattr(known, key) for key in given}
    other = [key for key, text in given.items() if there[key] is not None and text not in (None, there[key])]
    if other:
        raise SpecError(f"{name} is described in the manifest already; leave out {_options(other)}")
    described = {key: there[key] or text for key, text in given.items()}
    absent = [key for key, text in described.items() if text is None or not text.strip()]
    if absent:
        raise SpecError(f"{'a new entry' if known is None else name} needs {_options(absent)}")
    return described


def _options(keys: Sequence[str]) -> str:
    return ", ".join("--" + key.replace("_", "-") for key in keys)


def _codec_entry(trained: Forecaster, known: Entry | None) -> str:
    """The name of the codec entry whose weights a modular model has inside.

    Raises:
        TrainingError: no entry has these weights.
    """
    if known is not None and known.codec is not None:
        return known.codec.entry
    for entry in catalog.entries().values():
        if entry.kind == "codec" and entry.weights is not None:
            try:
                codec_file(entry.name, trained)
            except TrainingError:
                continue
            return entry.name
    raise TrainingError(
        "the codec inside is that of no entry of the catalogue; add the codec first, and train the predictor on it"
    )


def _proposed(name: str, values: dict[str, Any]) -> Entry:
    """The entry as it would be without weights, checked together with the rest of the manifest."""
    if values["training"]["hours"] < 0 or not values["training"]["recipe"].strip():
        raise SpecError("the training record needs a recipe, and hours that are not negative")
    manifest = read_manifest()
    manifest["models"][name] = values
    return parse_manifest(manifest_text(manifest))[name]
