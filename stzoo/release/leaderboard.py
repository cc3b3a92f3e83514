"""The leaderboard: every figure of the manifest, in one table for each protocol, beside what others published."""

from __future__ import annotations

import csv
import io
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path

from stzoo import catalog
from stzoo.benchmark.counting import macs
from stzoo.catalog import Entry, Speed
from stzoo.data import protocol_name
from stzoo.errors import SpecError
from stzoo.figures import FIGURES, Metrics
from stzoo.files import write_atomically
from stzoo.hub.card import count_parameters
from stzoo.spec import ModelSpec, bounded, from_mapping, required

PUBLISHED = Path(__file__).with_name("published.toml")
_NOTE = "<!-- Written by `stzoo catalog leaderboard` from weights_manifest.json and published.toml. -->"
_ABOUT = """Values are scaled to [0, 1]. MSE and MAE are summed over a frame and averaged over frames; SSIM has a data
range of 1; PSNR is in dB; CSI is the critical success index of rain of 1 and 5 mm/h. On `radar-crops` and
`radar-fields` MSE and MAE are those of a cell, in mm/h; [datasets.md](datasets.md) says how rain is scored there. On
`taxinyc` they are those of a cell, in taxis in an hour.
Persistence repeats the last past frame; a model with a lower MSE than persistence, but also a lower SSIM or CSI, is one
that blurs. GMAC are billions of
multiply-accumulate operations for one clip, counted on the plain module. clips/s is the highest speed that was measured
for that number of frames. Our figures were measured with the packaged weights on the whole test part, in float32 unless
the command says otherwise; [training.md](training.md) names the figures that an earlier version measured. Published
figures are as their source prints them; none was measured here. Beside them is room for what the published files reach
when they are measured with stzoo ([published.md](published.md)); it is empty until somebody has done so. For programs:
[leaderboard.csv](leaderboard.csv)."""


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One model's figures in a table that others published.

    Attributes:
        model: what the table calls it.
        mse, mae, ssim, psnr: as the table prints them.
        parameters: millions.
        gmac: billions of multiply-accumulate operations.
        mse_here: the MSE that `stzoo evaluate NAME --data DIR --definition openstl` gave for the published file on the
            publisher's test sequences; None until somebody has measured it.
    """

    model: str
    mse: float = required(0, 1e9)
    mae: float | None = bounded(None, 0, 1e9)
    ssim: float | None = bounded(None, -1, 1)
    psnr: float | None = bounded(None, 0, 100)
    parameters: float | None = bounded(None, 0, 1e6)
    gmac: float | None = bounded(None, 0, 1e9)
    mse_here: float | None = bounded(None, 0, 1e9)


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """A table that others published.

    Attributes:
        source: where it is.
        differs: how its protocol differs from ours of the same name.
        protocol: the name of our protocol.
        rows: one for each model.
    """

    source: str
    differs: str
    protocol: str
    rows: tuple[PublishedRow, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of leaderboard.csv. What is not known is None.

    Attributes:
        kind: "measured" or "untrained" for a model of the catalogue, "published" for one of others.
        protocol, model: their names.
        figures: field of `Metrics` -> value, for the figures that are known.
        parameters, gmac: how many, and billions of multiply-accumulate operations for one clip.
        clips_per_second, speed: the highest speed that was measured, and on what.
        command: it prints the figures, or trains the model.
        source, differs: of published figures, as in `PublishedTable`.
        mse_here: beside published figures, as in `PublishedRow`.
    """

    kind: str
    protocol: str
    model: str
    figures: Mapping[str, float] = field(default_factory=dict)
    parameters: int | None = None
    gmac: float | None = None
    clips_per_second: float | None = None
    speed: str | None = None
    command: str | None = None
    source: str | None = None
    differs: str | None = None
    mse_here: float | None = None

    def __getitem__(self, column: str) -> float | str | None:
        """The value in a column of the tables."""
        return self.figures.get(column) if column in _FIGURE_COLUMNS else getattr(self, column)


def write_leaderboard(out: Path) -> list[Path]:
    """Write leaderboard.md and leaderboard.csv into the folder `out`, making it if needed, and return their paths."""
    rows, sources = own_rows(), read_published()
    contents = {"leaderboard.md": markdown(rows, sources), "leaderboard.csv": table(rows, sources)}
    out.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        write_atomically(out / name, text.encode())
    return [out / name for name in contents]


def read_published(path: Path = PUBLISHED) -> list[PublishedTable]:
    """The tables that others published, checked key by key.

    Raises:
        SpecError: the file is not TOML, or a key of it is wrong.
    """
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} cannot be read as TOML: {error}") from error
    if set(found) != {"source"} or not isinstance(found["source"], list):
        raise SpecError(f"{path} must hold tables [[source]], and nothing else")
    return [from_mapping(PublishedTable, values, f"source[{i}]") for i, values in enumerate(found["source"])]


def own_rows() -> list[Row]:
    """A row for each entry and protocol: protocols with figures first, and within a protocol the lowest MSE first."""
    rows = []
    for entry in catalog.entries().values():
        rows += [_measured(entry, metrics) for metrics in entry.metrics] or [_untrained(entry)]
    protocols = list(dict.fromkeys(row.protocol for row in sorted(rows, key=lambda row: not row.figures)))

    def rank(row: Row) -> tuple[int, bool, float, str]:
        return protocols.index(row.protocol), not row.figures, row.figures.get("mse", 0.0), row.model

    return sorted(rows, key=rank)


def _measured(entry: Entry, m: Metrics) -> Row:
    steps = _steps(m.protocol)
    speed = _fastest(entry.speed, steps)
    known = {column: getattr(m, column) for column in _FIGURE_COLUMNS}
    return Row(
        kind="measured", protocol=m.protocol, model=entry.name,
        figures={column: value for column, value in known.items() if value is not None},
        parameters=count_parameters(entry.spec), gmac=_gmac(entry.spec, steps),
        clips_per_second=None if speed is None else speed.clips_per_second,
        speed=None if speed is None else f"{speed.device}, {speed.precision}, batch {speed.batch}; {speed.hardware}",
        command=m.command,
    )  # fmt: skip


def _untrained(entry: Entry) -> Row:
    spec, codec = entry.spec, entry.kind == "codec"
    protocol = protocol_name(entry.dataset, spec.frames_in, spec.frames_out, codec=codec)
    return Row(
        kind="untrained", protocol=protocol, model=entry.name, parameters=count_parameters(spec),
        gmac=_gmac(spec, _steps(protocol)), command=f"stzoo train {entry.name} --data DIR --out RUN",
    )  # fmt: skip


def _steps(protocol: str) -> int | None:
    """How many frames a protocol asks for; None if it is one for codecs."""
    found = re.search(r"-(\d+)-(\d+)(-every-\d+)?(-matched)?$", protocol)
    return None if found is None else int(found[2])


@cache
def _gmac(spec: ModelSpec, steps: int | None) -> float | None:
    return None if steps is None else round(macs(spec, steps) / 1e9, 2)


def _fastest(speeds: Sequence[Speed], steps: int | None) -> Speed | None:
    return max((s for s in speeds if s.steps == steps), key=lambda s: s.clips_per_second, default=None)


def table(rows: Sequence[Row], sources: Sequence[PublishedTable]) -> str:
    """leaderboard.csv: what was measured here, then what was published."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for row in [*rows, *(row for source in sources for row in _published(source))]:
        writer.writerow([row[column] for column in _CSV_COLUMNS])
    return text.getvalue()


def _published(source: PublishedTable) -> list[Row]:
    return [
        Row(
            kind="published", protocol=source.protocol, model=row.model,
            figures={n: value for n in ("mse", "mae", "ssim", "psnr") if (value := getattr(row, n)) is not None},
            parameters=None if row.parameters is None else round(row.parameters * 1e6), gmac=row.gmac,
            source=source.source, differs=source.differs, mse_here=row.mse_here,
        )
        for row in source.rows
    ]  # fmt: skip


_SHOWN = [figure for figure in FIGURES if not figure.codec_only]
_OURS = {figure.name: (figure.title, figure.digits) for figure in _SHOWN}  # column -> heading and decimals
_PERSISTENCE = {f.persistence: (f"persistence {f.title}", f.digits) for f in _SHOWN if f.persistence}
_FIGURE_COLUMNS = (*_OURS, *_PERSISTENCE)
_CSV_COLUMNS = [name for f in fields(Row) for name in (_FIGURE_COLUMNS if f.name == "figures" else [f.name])]
_MARKDOWN_COLUMNS = {
    **_OURS,
    **_PERSISTENCE,
    "parameters": ("parameters", 0),
    "mse_here": ("MSE of the published file, measured with stzoo", 2),
    "gmac": ("GMAC", 2),
    "clips_per_second": ("clips/s", 1),
    "speed": ("measured on", 0),
    "command": ("command", 0),
}


def markdown(rows: Sequence[Row], sources: Sequence[PublishedTable]) -> str:
    """leaderboard.md: a chapter for each protocol, with our table and then the tables of others."""
    parts = [_NOTE, "# Leaderboard", _ABOUT]
    for protocol in dict.fromkeys([*(row.protocol for row in rows), *(source.protocol for source in sources)]):
        ours = [row for row in rows if row.protocol == protocol]
        bare = [row for row in ours if not row.figures]
        parts += [f"## {protocol}"]
        parts += [_lines([row for row in ours if row.figures])] if len(bare) < len(ours) else []
        parts += ["Without weights yet; the command trains them:", _lines(bare)] if bare else []
        for source in sources:
            if source.protocol == protocol:
                parts += [f"Published: {source.source}. What differs: {source.differs}.", _lines(_published(source))]
    return "\n\n".join(parts) + "\n"


def _lines(rows: Sequence[Row]) -> str:
    """A table of those columns in which any row has a value, and of the one that waits for measurements of others'."""
    waiting = "mse_here" if any(row.kind == "published" for row in rows) else None
    columns = {
        name: about
        for name, about in _MARKDOWN_COLUMNS.items()
        if name == waiting or any(row[name] is not None for row in rows)
    }
    lines = [["model", *(title for title, _ in columns.values())], ["---"] * (len(columns) + 1)]
    for row in rows:
        theirs = row.kind == "published"
        name = row.model if theirs else f"[`{row.model}`](models/{row.model}.md)"
        lines.append([name, *(_shown(row[c], None if theirs else digits) for c, (_, digits) in columns.items())])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(value: float | str | None, digits: int | None) -> str:
    """A value with that many decimals; with None as it is, because a published figure must not look more exact."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.replace("|", "\\|")
    return f"{value:,}" if digits is None else f"{value:,.{digits}f}"
