"""The figures of one model on one protocol, as text, JSON and CSV."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from stzoo import html
from stzoo.errors import printable
from stzoo.figures import of_persistence
from stzoo.hindcast import skill
from stzoo.machine import Precision

_COLUMNS = 6  # figures that stand side by side in a table


def side_by_side(names: list[str]) -> list[list[str]]:
    """The names of figures, as many together as stand side by side in a table."""
    return [few.tolist() for few in np.array_split(names, -(-len(names) // _COLUMNS))]


@dataclass(frozen=True)
class _Heading:
    """What every report begins with.

    Attributes:
        model: the name of the weights.
        protocol: the name of the test protocol, which says which clips were measured.
        definition: how the metrics are defined, a key of `stzoo.metrics.DEFINITIONS`.
        precision: the precision in which the model ran.
    """

    model: str
    protocol: str
    definition: str
    precision: Precision

    def to_json(self) -> str:
        """A JSON object with every field."""
        return as_json(asdict(self))


@dataclass(frozen=True)
class EvaluationReport(_Heading):
    """Figures of one forecaster on one protocol, after the fields of the heading.

    Attributes:
        clips: how many sequences were forecast.
        steps: metric -> its value at each step ahead.
        total: metric -> its mean over steps.
        persistence_steps, persistence_total: the same for persistence, which repeats the last past frame.
        files: how many files of one's own the sequences are from; None for a dataset, whose files its protocol says.
        matched: whether forecasts got the values of the last past frame, as in `Forecaster.rollout`.
        step_minutes: from one step to the next; None if the clips do not say it, or differ in it.
        parts: name -> the report of one of several sources that the clips are from, such as radars. The figures of the
            whole are of the clips of all parts, not means over parts.
    """

    clips: int
    steps: dict[str, list[float]]
    total: dict[str, float]
    persistence_steps: dict[str, list[float]]
    persistence_total: dict[str, float]
    files: int | None = None
    matched: bool = False
    step_minutes: float | None = None
    parts: dict[str, EvaluationReport] = field(default_factory=dict)

    @property
    def skill_steps(self) -> list[float | None]:
        """1 - MSE / MSE of persistence at each step: below 0 the model does worse. None if persistence has no error."""
        return list(map(skill, self.steps["mse"], self.persistence_steps["mse"]))

    @property
    def skill(self) -> float | None:
        """1 - MSE / MSE of persistence, both means over steps."""
        return skill(self.total["mse"], self.persistence_total["mse"])

    def to_json(self) -> str:
        """A JSON object with every field, and the two skills."""
        return as_json(self._values())

    def _values(self) -> dict[str, Any]:
        inner = {name: part._values() for name, part in self.parts.items()}
        return asdict(self) | {"parts": inner, "skill_steps": self.skill_steps, "skill": self.skill}

    def to_csv(self) -> str:
        """A row for each step; the figures of persistence are in columns of their own.

        If there are parts, the first column names the part, and is empty in the rows of the whole.
        """
        names, named = list(self.steps), ["part", "minutes"] if self.parts else []
        rows = [",".join([*named[:1], "step", *named[1:], *names, *map(of_persistence, names)])]
        for part, report in {"": self, **self.parts}.items():
            for t in range(len(report.steps[names[0]])):
                figures = [x[n][t] for x in (report.steps, report.persistence_steps) for n in names]
                minutes = "" if report.step_minutes is None else f"{(t + 1) * report.step_minutes:g}"
                heading = [part, str(t + 1), minutes] if self.parts else [str(t + 1)]
                rows.append(",".join([*heading, *(f"{v:.6g}" for v in figures)]))
        return "\n".join(rows) + "\n"

    @property
    def about(self) -> str:
        """What was measured, and how, in words."""
        sequences = "1 sequence" if self.clips == 1 else f"{self.clips:,} sequences"
        sequences += "" if self.files is None else f" of {self.files} file{'s' if self.files > 1 else ''}"
        return (
            f"{self.protocol}: {sequences}, metrics as defined by {self.definition}, "
            f"{'matched ' if self.matched else ''}forecasts in {self.precision}"
        )

    def __str__(self) -> str:
        lines = [printable(f"{self.model} on {self.about}")]
        for few in side_by_side(list(self.steps)):
            lines += aligned(self._table(few), 7)
        return "\n\n".join(["\n".join(lines), *map(str, self.parts.values())])

    def _repr_html_(self) -> str:
        """What a notebook shows: the figures at each step, and those of every part."""
        head, *rows = self._table(list(self.steps))
        whole = html.table(f"{self.model} on {self.about}", head, rows)
        return f"<div>{whole}{''.join(part._repr_html_() for part in self.parts.values())}</div>"

    def _table(self, names: list[str]) -> list[list[str]]:
        """A heading, a row for each step and one for their mean; the skill is beside the MSE."""
        labels = [str(t + 1) for t in range(len(self.steps[names[0]]))]
        if self.step_minutes is not None:
            labels = [f"{label} ({int(label) * self.step_minutes:g} min)" for label in labels]
        rows = [["step", *names, *(f"persist. {name}" for name in names), "skill"]]
        for t, label in enumerate(labels):
            found = [curves[name][t] for curves in (self.steps, self.persistence_steps) for name in names]
            rows.append([label, *(f"{value:.4f}" for value in found), skill_text(self.skill_steps[t])])
        means = [total[name] for total in (self.total, self.persistence_total) for name in names]
        rows.append(["mean", *(f"{value:.4f}" for value in means), skill_text(self.skill)])
        return rows if "mse" in names else [row[:-1] for row in rows]


def as_json(values: Any) -> str:
    """Values as JSON, in which a figure that is not defined, or infinite, is null: JSON has no number for it."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return list(map(plain, value))
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(values), indent=2, allow_nan=False)


def aligned(rows: list[list[str]], start: int) -> list[str]:
    """The rows of a table as lines.

    Args:
        rows: of cells, as many in each. Those of the first column begin it, and the others end theirs. Names in them
            may be any text.
        start: how wide the first column is at least.
    """
    rows = [list(map(printable, row)) for row in rows]
    first, *others = zip(*rows, strict=True)
    start = max(start, *map(len, first))
    widths = [max(10, *(len(cell) + 2 for cell in column)) for column in others]
    return [
        row[0].ljust(start) + "".join(cell.rjust(width) for cell, width in zip(row[1:], widths, strict=True))
        for row in rows
    ]


def skill_text(skill: float | None) -> str:
    """A skill as tables show it."""
    return "-" if skill is None else f"{skill:.4f}"


@dataclass(frozen=True)
class CodecReport(_Heading):
    """Figures of one codec, after the fields of the heading: of frames that were encoded, quantised and painted again.

    Attributes:
        frames: how many frames were measured.
        total: metric -> its mean over frames.
        codes_used: how many codes occur at all; None for a codec without a codebook.
        perplexity: the exponential of the entropy of how often each code occurs; None as well.
    """

    frames: int
    total: dict[str, float]
    codes_used: int | None
    perplexity: float | None

    def to_csv(self) -> str:
        """One row."""
        values: dict[str, float] = dict(self.total)
        if self.codes_used is not None and self.perplexity is not None:
            values |= {"codes_used": self.codes_used, "perplexity": self.perplexity}
        return ",".join(values) + "\n" + ",".join(f"{v:.6g}" for v in values.values()) + "\n"

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in self.total.items())
        codes = "" if self.codes_used is None else f"\n{self.codes_used} codes in use, perplexity {self.perplexity:.1f}"
        return f"{printable(self._title)}\nreconstruction {figures}{codes}"

    def _repr_html_(self) -> str:
        """What a notebook shows: the figures of the frames that were painted again."""
        rows = [(name, f"{value:.4f}") for name, value in self.total.items()]
        if self.codes_used is not None and self.perplexity is not None:
            rows += [("codes in use", str(self.codes_used)), ("perplexity", f"{self.perplexity:.1f}")]
        return html.table(self._title, ("", "reconstruction"), rows)

    @property
    def _title(self) -> str:
        return (
            f"{self.model} on {self.protocol}: {self.frames:,} frames, metrics as defined by {self.definition}, "
            f"in {self.precision}"
        )
