"""One model of the catalogue, with all that is stated of it: an `Entry`, whose parts are the keys of the manifest."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from stzoo import html
from stzoo.catalog.describing import described, lines
from stzoo.errors import SpecError
from stzoo.figures import Metrics, check_same_length
from stzoo.machine import Device, Precision
from stzoo.spec import ModelSpec, bounded, required

_FILE = r"[A-Za-z0-9_][\w.-]*\.safetensors"
_SOURCE = r"package|hf://[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*@[0-9a-f]{40}|https://[^\s/?#@]+/[^\s?#]*\.safetensors"


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A pinned file: its sha256 identifies it, wherever it comes from.

    Attributes:
        file: its name, ending in .safetensors.
        size: bytes.
        sha256: 64 hexadecimal digits.
        sources: where it can be had: "package", hf://org/repo@<40 hex>, or an https address.
    """

    file: str
    size: int = required(1, 1 << 40)
    sha256: str
    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch(_FILE, self.file, re.ASCII) or ".." in self.file:
            raise SpecError(f"weights.file is {self.file!r}; it must be a plain name ending in .safetensors")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise SpecError(f"weights.sha256 is {self.sha256!r}; it must be 64 hexadecimal digits")
        for source in self.sources:
            if not re.fullmatch(_SOURCE, source, re.ASCII) or ".." in source:
                raise SpecError(
                    f"weights.sources holds {source!r}; it may be package, hf://org/repo@<40 hex> or "
                    "https://host/path.safetensors"
                )


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast the architecture of an entry ran on one machine, and the command that printed the figures.

    Attributes:
        device, precision: what the model ran on and in.
        batch, steps: one pass forecasts `steps` frames of `batch` clips.
        threads: of the CPU.
        hardware: the machine, in words.
        clips_per_second, latency_median_ms: clips forecast in a second; milliseconds that one pass takes.
        against_plain: how many times as fast as the plain float32 module on the same machine; None if that was not
            measured.
        command: it printed these figures.
    """

    device: Device
    precision: Precision
    batch: int = required(1, 1 << 20)
    steps: int = required(1, 1 << 20)
    threads: int = required(1, 1 << 20)
    hardware: str
    clips_per_second: float = required(1e-9, 1e12)
    latency_median_ms: float = required(1e-9, 1e12)
    against_plain: float | None = bounded(None, 1e-9, 1e12)
    command: str

    def __post_init__(self) -> None:
        for name in ("hardware", "command"):
            if not getattr(self, name).strip():
                raise SpecError(f"speed.{name} is empty; it must be text")

    def __str__(self) -> str:
        ratio = "" if self.against_plain is None else f", {self.against_plain:.2f} times as fast as plain"
        clips = f"{self.batch} clip{'s' if self.batch > 1 else ''} of {self.steps} frames"
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return (
            f"{self.device}, {self.precision}, {clips}: {self.latency_median_ms:.1f} ms, "
            f"{self.clips_per_second:.1f} clips/s{ratio}; {self.hardware}, {threads}"
        )

    @property
    def key(self) -> tuple[str, str, int, int]:
        """An entry has at most one `Speed` of each key."""
        return self.device, self.precision, self.batch, self.steps


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Mean and standard deviation of a forecast from seeded noise. They reveal a loader that changes numbers.

    Attributes:
        input_seed: of the noise.
        output_mean, output_std: of the forecast, in the spec's units.
        tolerance: how far a loaded model's may be from them.
    """

    input_seed: int = bounded(0, 0, 2**31)
    output_mean: float
    output_std: float
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class Training:
    """Where the weights come from.

    Attributes:
        recipe: the commands that train them, or a description.
        sequences_seen: clips that training read.
        hardware: the machine, in words.
        hours: how long training took.
        curve_sequences, curve_mse: the MSE on held-out clips, in the data's units, after so many sequences; an entry
            has both or neither. For weights that were fine-tuned from an earlier run, the curve is that run's.
        curve_quantity: true if the curve is that of the quantity for which decibels stand, such as rates in mm/h.
    """

    recipe: str
    sequences_seen: int = required(0, 1 << 40)
    hardware: str
    hours: float = required(0, 1e7)
    curve_sequences: tuple[int, ...] | None = None
    curve_mse: tuple[float, ...] | None = None
    curve_quantity: bool | None = None

    def __post_init__(self) -> None:
        check_same_length("training", curve_sequences=self.curve_sequences, curve_mse=self.curve_mse)
        seen = self.curve_sequences or (0,)
        if seen[0] < 0 or any(later <= earlier for earlier, later in pairwise(seen)):
            raise SpecError(
                f"training.curve_sequences is {list(seen)}; they must be at least 0, and each larger than the "
                "one before"
            )


@dataclass(frozen=True, kw_only=True)
class TrainingFrames:
    """What the frames show that an entry's weights were trained on. The entry's spec holds their size and range.

    Attributes:
        shows: what is to be seen in them, in a phrase.
        interval: what lies between one frame and the next, such as "1/30 s".
        values: what a value stands for, with its unit, such as "brightness".
    """

    shows: str
    interval: str
    values: str

    def __post_init__(self) -> None:
        for name in ("shows", "interval", "values"):
            if not getattr(self, name).strip():
                raise SpecError(f"trained_on.{name} is empty; it must be text")

    def described(self, dataset: str, spec: ModelSpec) -> str:
        """One phrase with all that a user's own frames can be compared with.

        Args:
            dataset: the name of the data.
            spec: what the model reads.
        """
        channels = f"{spec.channels} channel{'s' if spec.channels > 1 else ''}"
        within = "" if spec.value_range is None else " in [{:g}, {:g}]".format(*spec.value_range)
        return (
            f"{dataset}: {self.shows}; frames of {spec.height}x{spec.width} (height x width) with {channels} of "
            f"{self.values}{within}; from frame to frame: {self.interval}"
        )


@dataclass(frozen=True, kw_only=True)
class CodecReference:
    """The codec of a modular entry. It is stored once, as an entry of its own.

    Attributes:
        entry: the name of the codec's entry.
        sha256: that of the codec's file with which the modular entry was trained; None until the entry has weights.
    """

    entry: str
    sha256: str | None = None

    def __post_init__(self) -> None:
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise SpecError(f"codec.sha256 is {self.sha256!r}; it must be 64 hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model of the catalogue. `print(entry)` shows a readable card.

    Attributes:
        name: lower-case words joined by hyphens, such as "tau-mmnist".
        summary: what the model is, in one line.
        unsuited: what the model must not be used for, in a sentence or two; an entry with weights says it.
        dataset: the name of the data it is for, such as "mmnist".
        spec: how the module is built.
        weights: the file with trained weights; None if there is none yet.
        metrics: figures on test protocols, the main protocol first.
        speed: how fast it runs, where that was measured.
        golden, training: what an entry with weights also has.
        trained_on: what the frames show that the weights were trained on.
        kind: "forecaster" (opened by `stzoo.load`) or "codec" (opened by `stzoo.load_codec`).
        codec: the entry of the codec inside a modular model; None for every other model.
        license: the licence of the weights.
        data_terms: the terms of the data they were trained on.
        citation: what to cite.
    """

    name: str
    summary: str
    unsuited: str | None = None
    dataset: str
    spec: ModelSpec
    weights: WeightsFile | None
    metrics: tuple[Metrics, ...] = ()
    speed: tuple[Speed, ...] = ()
    golden: Golden | None = None
    training: Training | None = None
    trained_on: TrainingFrames | None = None
    kind: Literal["forecaster", "codec"] = "forecaster"
    codec: CodecReference | None = None
    license: str
    data_terms: str
    citation: str = field(repr=False)

    def __str__(self) -> str:
        return self.card(self._none)

    def card(self, absent: str) -> str:
        """A readable card. `absent` says what there is if the entry has no weights."""
        metrics = [pair for m in self.metrics for pair in ((m.protocol, m.shown), ("", m.command))]
        return "\n".join([f"{self.name}: {self.summary}", *lines(self._facts(absent, metrics))])

    def _repr_html_(self) -> str:
        """What a notebook shows: the card, and the figures beside those of persistence."""
        measured = [("measured by", m.command) for m in self.metrics]
        told = html.facts(f"{self.name}: {self.summary}", self._facts(self._none, measured))
        if not self.metrics:
            return told
        rows = [(m.protocol, *figure) for m in self.metrics for figure in m.table()]
        head = ("protocol", "", self.name, "repeating the last frame")
        return told + html.table("Figures on whole test protocols", head, rows)

    @property
    def _none(self) -> str:
        return f"none yet; train them: stzoo train {self.name} --data DIR --out RUN"

    def _facts(self, absent: str, metrics: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The lines of the card as (name, what it says); an empty name goes on with the line before."""
        found = described(self.spec)
        found += [] if self.unsuited is None else [("unsuited", self.unsuited)]
        if self.weights is None:
            found.append(("weights", absent))
        else:
            w = self.weights
            found.append(("weights", f"{w.file}, {w.size / 1e6:.1f} MB, sha256 {w.sha256[:12]}..."))
        if self.trained_on is not None:
            found.append(("trained on", self.trained_on.described(self.dataset, self.spec)))
        if self.codec is not None:
            found.append(("codec", self.codec.entry))
        found += metrics
        for speed in self.speed:
            found += [("speed", str(speed)), ("", speed.command)]
        if self.training is not None:
            t = self.training
            found.append(("training", f"{t.sequences_seen:,} sequences in {t.hours:g} h on {t.hardware}; {t.recipe}"))
        return [*found, ("license", f"{self.license}; data: {self.data_terms}"), ("citation", self.citation)]
