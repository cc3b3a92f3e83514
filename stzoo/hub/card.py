"""The model card: what a model does, how to load it, and what is known of exactly these weights."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from stzoo import catalog
from stzoo.catalog import Entry, Speed, Training, TrainingFrames
from stzoo.errors import SpecError, WeightsError
from stzoo.figures import FIGURES, Metrics
from stzoo.hashing import file_sha256
from stzoo.models import architecture_of, build
from stzoo.spec import ModelSpec
from stzoo.weights import CODEC_PREFIX, LoadReport, Origin, read_tensors

README = "README.md"
_CHANGED = ", and were changed since"
_UNCHECKED = "; whether they were changed since is not known, because their file is no longer as it was"
# The licences by which a hub lets its users filter. The card of any other licence says "other", with its name beside.
LICENSES = frozenset(
    [
        "afl-3.0",
        "agpl-3.0",
        "apache-2.0",
        "artistic-2.0",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsl-1.0",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "cc-by-nd-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc0-1.0",
        "gpl-2.0",
        "gpl-3.0",
        "isc",
        "lgpl-2.1",
        "lgpl-3.0",
        "mit",
        "mpl-2.0",
        "unlicense",
    ]
)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card says of a model's weights. A field that is None or empty is left out; nothing is guessed.

    Attributes:
        summary: what the weights are, in one sentence.
        unsuited: what the model must not be used for, in a sentence or two.
        license: the licence of the weights, such as "Apache-2.0" or "CC-BY-SA-4.0".
        datasets: the data they were trained on, such as ("mmnist",).
        trained_on: what the frames of that data show.
        data_terms: the terms of that data.
        citation: the papers to cite.
        metrics: figures measured with exactly these weights.
        claimed: figures that others state for these weights, in a sentence that says whose they are.
        training: how they were trained, and how long that took.
        speed: how fast the model runs, where that was measured.

    Raises:
        SpecError: a field has the wrong type, or is text without a word.
    """

    summary: str
    unsuited: str | None = None
    license: str | None = None
    datasets: tuple[str, ...] = ()
    trained_on: TrainingFrames | None = None
    data_terms: str | None = None
    citation: str | None = None
    metrics: tuple[Metrics, ...] = ()
    claimed: str | None = None
    training: Training | None = None
    speed: tuple[Speed, ...] = ()

    def __post_init__(self) -> None:
        for name in ("summary", "unsuited", "license", "data_terms", "citation", "claimed"):
            text = getattr(self, name)
            if text is None and name != "summary":
                continue
            if not isinstance(text, str) or not text.strip():
                raise SpecError(f"card.{name} is {text!r}; it must be text with at least one word")
        for name, kind in (("datasets", str), ("metrics", Metrics), ("speed", Speed)):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not all(isinstance(v, kind) for v in values):
                raise SpecError(f"card.{name} is {values!r}; it must be a tuple of {kind.__name__}")
        for name, record in (("training", Training), ("trained_on", TrainingFrames)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, record):
                raise SpecError(f"card.{name} is {value!r}; it must be a {record.__name__}")


def entry_card(entry: Entry) -> Card:
    """What the catalogue says of an entry's weights."""
    return Card(
        summary=entry.summary, unsuited=entry.unsuited, license=entry.license, datasets=(entry.dataset,),
        data_terms=entry.data_terms, citation=entry.citation, metrics=entry.metrics,
        training=entry.training, trained_on=entry.trained_on, speed=entry.speed,
    )  # fmt: skip


def card_of(spec: ModelSpec, module: nn.Module, report: LoadReport) -> tuple[Card, str | None]:
    """What is known of the weights in `module`, and the name of the catalogue entry that they belong to.

    The entry's figures, licence and training are those of the weights only if every tensor is still that of the entry's
    file. For all other weights the card says only where they come from, and the name is None. It calls them changed
    only if they are: where the file cannot be read again to compare them with, it says so.
    """
    if report.sha256 is None:
        kind = "Random weights, never trained," if report.is_random else report.source.capitalize()
        return Card(summary=f"{kind} of the architecture {spec.arch}"), None
    entry = _entry_of(report)
    pinned = None if entry is None or entry.codec is None else entry.codec.sha256
    state = "changed" if report.adapted else _compared(module, report, pinned)
    if entry is not None and state == "same" and entry.spec == spec:
        return entry_card(entry), entry.name
    origin = _place(report.source)
    if entry is not None:  # the terms of the data hold for weights that were made from these, too
        origin = f"{entry.name} of the stzoo catalogue (trained on {entry.dataset}: {entry.data_terms})"
    if state == "same" and entry is None:
        return Card(summary=f"The weights of {origin}"), None
    since = _UNCHECKED if state == "unknown" else _CHANGED
    return Card(summary=f"Weights that began as those of {origin}{since}"), None


def origin_of(module: nn.Module, report: LoadReport) -> Origin | None:
    """Which file of another publisher the weights in `module` were made of, and whether they were changed since."""
    if report.origin is None or report.origin.changed:
        return report.origin
    state = "changed" if report.adapted else _compared(module, report, None)
    return report.origin if state == "same" else replace(report.origin, changed=True if state == "changed" else None)


def origin_card(origin: Origin) -> Card:
    """What is known of weights that somebody else published: who, where, and on which terms, all as noted when their
    file was converted."""
    file = f"{origin.name}, which {origin.publisher} published ({origin.url}, sha256 {origin.sha256})"
    if origin.changed is not False:
        since = _CHANGED if origin.changed else _UNCHECKED
        return Card(
            summary=f"Weights that began as those of {file}{since}. Licence of the weights that they began as: "
            f"{origin.license or 'not stated'}",
            license=origin.license or None,
        )
    figures = ", ".join(f"{name} {value}" for name, value in origin.figures.items())
    return Card(
        summary=f"The weights of {file}, converted by stzoo",
        license=origin.license or None,
        claimed=f"Its publisher states {figures}. These figures are theirs: nobody measured them with stzoo."
        if figures
        else None,
    )


def readme(card: Card, spec: ModelSpec, name: str, repo: str | None = None) -> str:
    """The README.md of a folder called `name`, or of the repository `repo` ("user/name") that it is sent to.

    Raises:
        SpecError: `card` is not a `Card`.
    """
    if not isinstance(card, Card):
        raise SpecError(f"card is a {type(card).__name__}; it must be a stzoo.Card")
    source = '"path/to/this/folder")  # or "hf://user/repo"' if repo is None else f'"hf://{repo}")'
    body = page(name, sections(card, spec, loading(spec, source)))
    text = f"---\n{_front_matter(card, spec, name)}\n---\n\n{body}"
    return f"{text}\n{_mark(text)}\n"


def written_here(path: Path, *, absent: bool = False) -> bool:
    """Whether this file is one that `readme` returned, and that nobody has edited since; `absent` if nothing is there.

    It looks once, for another process that saves the same model may remove and write the card meanwhile.
    """
    try:
        text, _, mark = path.read_text("utf-8").removesuffix("\n").rpartition("\n")
    except (FileNotFoundError, NotADirectoryError):
        return absent and not path.is_symlink()  # a link that leads nowhere is somebody's
    except (OSError, UnicodeDecodeError):
        return False
    return mark == _mark(text)


def _mark(text: str) -> str:
    """The last line of a card. It tells a card that stzoo wrote from one that somebody wrote or edited."""
    return f"<!-- stzoo card {hashlib.sha256(text.encode()).hexdigest()[:16]} -->"


def _front_matter(card: Card, spec: ModelSpec, name: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData  # imported only here, because it takes a while

    codec = architecture_of(spec).is_codec
    task = "image-reconstruction" if codec else "video-prediction"
    results = [
        EvalResult(
            task_type=task,
            dataset_type=card.datasets[0] if card.datasets else m.protocol,
            dataset_name=m.protocol,
            dataset_config=m.protocol,  # tells the horizons of one dataset apart
            dataset_split="test",
            metric_type=f.name,
            metric_name=_title(f.name),
            metric_value=getattr(m, f.name),
        )
        for m in card.metrics
        for f in fields(Metrics)
        if isinstance(getattr(m, f.name), (int, float))
    ]
    values: dict[str, Any] = {}
    if card.license is not None:
        values["license"] = card.license.lower()
        if values["license"] not in LICENSES:
            slug = re.sub(r"[^a-z0-9.]+", "-", card.license.lower()).strip("-.")
            values |= {"license": "other", "license_name": slug or "other"}
    if results:
        values |= {"eval_results": results, "model_name": name}
    tags = ["stzoo", "pytorch", "safetensors", task, spec.arch]
    tags += [] if codec else ["spatiotemporal-forecasting"]
    data = ModelCardData(library_name="stzoo", tags=tags, datasets=list(card.datasets) or None, **values)
    return str(data.to_yaml())


def page(title: str, said: Mapping[str, str]) -> str:
    """The Markdown of a page: its title, and sections (heading -> text). Sections without text are left out."""
    parts = [f"## {heading}\n\n{text}" if heading else text for heading, text in said.items() if text]
    return "\n\n".join([f"# {title}", *parts]) + "\n"


def sections(card: Card, spec: ModelSpec, usage: str) -> dict[str, str]:
    """What a card says, in order: heading -> text. The first heading is empty. `usage` says how to get the model."""
    training, seen, terms = "", "", []
    if card.trained_on is not None:
        seen = f"The weights have seen {card.trained_on.described(', '.join(card.datasets) or 'data', spec)}. "
        seen += "`model.check(frames)` tells whether the model fits frames of yours."
    measured = _figures(card.metrics, spec) if card.metrics else "No figures have been measured with these weights."
    if card.training is not None:
        t = card.training
        cost = f"{t.sequences_seen:,} sequences in {t.hours:g} h on {t.hardware}"
        training = f"{cost}. How:\n\n```\n{t.recipe}\n```"
    terms += [] if card.license is None else [f"Licence of the weights: {card.license}."]
    terms += [] if not card.datasets else [f"Trained on: {', '.join(card.datasets)}."]
    terms += [] if card.data_terms is None else [f"Terms of the data: {card.data_terms}."]
    return {
        "": f"{card.summary.strip().removesuffix('.')}.\n\n{_what(spec)}\n\n{usage}",
        "What it was trained on": seen,
        "What it is not for": card.unsuited or "",
        "Figures": "\n\n".join([measured, *([] if card.claimed is None else [card.claimed])]),
        "Speed": _speeds(card.speed) if card.speed else "",
        "Training": training,
        "Terms": " ".join(terms),
        "Citation": card.citation or "",
    }


def count_parameters(spec: ModelSpec) -> int:
    """How many parameters the module of a spec has. The module is not allocated."""
    return sum(p.numel() for p in build(spec, "meta").parameters())


def _what(spec: ModelSpec) -> str:
    """What goes into the model and what comes out of it."""
    parameters = count_parameters(spec)
    shape = f"{spec.channels}x{spec.height}x{spec.width}"
    if architecture_of(spec).is_codec:
        does = f"Turns frames of {shape} (channels x height x width) into a small grid of latents, and back."
    else:
        frames = f"{spec.frames_in} frame{'s' if spec.frames_in > 1 else ''} of {shape} (channels x height x width)"
        does = f"Reads {frames} and forecasts the next {spec.frames_out}; `rollout` forecasts any number of frames."
    if spec.value_range is None:
        does += " Values are in the units of the data."
    else:
        does += " Values lie in [{:g}, {:g}]; integers are scaled from the range of their dtype.".format(
            *spec.value_range
        )
    return f"{does} Architecture: `{spec.arch}`, {parameters:,} parameters."


def loading(spec: ModelSpec, source: str) -> str:
    """The lines that load a model and run it. `source` is what follows "stzoo.load(", the closing bracket included."""
    if architecture_of(spec).is_codec:
        return f"```python\nimport stzoo\n\ncodec = stzoo.load_codec({source}\npainted = codec.reconstruct(frames)\n```"
    shape = (spec.frames_in, *([spec.channels] if spec.channels > 1 else []), spec.height, spec.width)
    takes = f"an array {shape}, a list of images, or a path"
    return f"```python\nimport stzoo\n\nmodel = stzoo.load({source}\nfuture = model.predict(frames)  # {takes}\n```"


def _figures(metrics: Sequence[Metrics], spec: ModelSpec) -> str:
    """A table with a row for each metric, persistence beside it, and the commands that print the figures."""
    rows = []
    for m in metrics:
        for figure in FIGURES:
            model, persistence = figure.of(m), figure.of_persistence(m)
            if model is not None:
                shown = ["" if value is None else figure.shown(value) for value in (model, persistence)]
                rows.append([m.protocol.replace("|", "\\|"), figure.title, *shown])
    beside = any(row[3] for row in rows)
    head = ["protocol", "metric", "model", "persistence"]
    lines = [row if beside else row[:3] for row in (head, ["---"] * 4, *rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    if spec.value_range is None:
        says = "Defined as in `stzoo evaluate`: MSE and MAE are those of a cell, in the units of the data."
    else:
        says = (
            "Defined as in `stzoo evaluate`: values are scaled to [0, 1]; MSE and MAE are summed over a frame and "
            "averaged over frames."
        )
    if any(m.bias_1 is not None for m in metrics):
        says += " Where there is a frequency bias, they are those of a cell instead, in mm/h."
    says += " Persistence repeats the last past frame." if beside else ""
    commands = "\n".join(f"- {m.protocol}: `{m.command}`" for m in metrics)
    return f"{table}\n\n{says} These commands print the figures:\n\n{commands}"


def _speeds(speeds: Sequence[Speed]) -> str:
    """A table with a row for each measurement, and the command that prints it."""
    rows = [
        ["device", "precision", "clips", "frames", "ms per pass", "clips/s", "against plain", "measured on"],
        ["---"] * 8,
    ]
    for s in speeds:
        ratio = "" if s.against_plain is None else f"{s.against_plain:.2f} times"
        where = f"{s.hardware.replace('|', chr(92) + '|')}, {s.threads} thread{'s' if s.threads > 1 else ''}"
        figures = [f"{s.latency_median_ms:.1f}", f"{s.clips_per_second:.1f}", ratio]
        rows.append([s.device, s.precision, str(s.batch), str(s.steps), *figures, where])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    says = "One pass forecasts the given number of frames for the given number of clips, from normalised tensors to "
    says += "tensors. Times are medians."
    beside = any(s.against_plain for s in speeds)
    says += " Plain is the float32 module as PyTorch itself runs it, on the same machine." if beside else ""
    return f"{table}\n\n{says} These commands print the figures:\n\n" + "\n".join(f"- `{s.command}`" for s in speeds)


def _title(name: str) -> str:
    """The heading of a field of `Metrics`, such as "MSE of persistence"."""
    titles = {figure.name: figure.title for figure in FIGURES}
    titles |= {figure.persistence: f"{figure.title} of persistence" for figure in FIGURES if figure.persistence}
    return titles[name]


def _entry_of(report: LoadReport) -> Entry | None:
    """The entry whose pinned file was loaded, together with the codec that it pins; None if there is none.

    A codec that cannot be read any more is taken for the pinned one: weights that cannot be compared get no figures.
    """
    for entry in catalog.entries().values():
        if entry.weights is not None and entry.weights.sha256 == report.sha256:
            pinned = None if entry.codec is None else entry.codec.sha256
            found = None if report.codec is None else _sha256(Path(report.codec), pinned)
            return entry if found == pinned else None
    return None


def _compared(module: nn.Module, report: LoadReport, codec_sha256: str | None) -> Literal["same", "changed", "unknown"]:
    """Whether the tensors are still those of the file that was loaded. They are compared as numbers.

    It is unknown if the file is gone or is another one by now, such as what this very model was saved as.
    `codec_sha256` is that of the codec's file, if one is pinned.
    """
    if not report.sha256:
        return "unknown"
    try:
        stored = read_tensors(Path(report.source), report.sha256)
        if report.codec is not None:
            part = read_tensors(Path(report.codec), codec_sha256)
            stored |= {CODEC_PREFIX + name: t for name, t in part.items()}
    except WeightsError:
        return "unknown"
    present = module.state_dict()
    same = stored.keys() == present.keys() and all(
        torch.equal(t.double(), present[name].detach().cpu().double()) for name, t in stored.items()
    )
    return "same" if same else "changed"


def _sha256(path: Path, otherwise: str | None) -> str | None:
    try:
        return file_sha256(path)
    except OSError:
        return otherwise


def _place(source: str) -> str:
    """Where a file came from, without the part of its path that says something about somebody's machine."""
    cached = re.search(r"models--([\w.-]+?)--([\w.-]+)[/\\]snapshots[/\\]([0-9a-f]{40})", source)
    return "hf://{}/{}@{}".format(*cached.groups()) if cached else "/".join(Path(source).parts[-2:])
