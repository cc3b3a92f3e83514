"""Every figure of the manifest in one table a protocol, beside what papers and benchmarks published."""

from __future__ import annotations

import csv
import io
import re
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

from stzoo import catalog
from stzoo.benchmark.counting import macs
from stzoo.catalog import Entry, Metrics, Speed
from stzoo.data import protocol_name
from stzoo.errors import SpecError
from stzoo.files import write_atomically
from stzoo.hub.card import count_parameters
from stzoo.spec import ModelSpec, bounded, from_mapping, required

PUBLISHED = Path(__file__).with_name("published.toml")
_NOTE = "<!-- Written by `stzoo catalog leaderboard` from weights_manifest.json and published.toml. -->"
_ABOUT = """MSE and MAE are summed over a frame and averaged over frames, of values scaled to [0, 1]; SSIM has a data
range of 1, PSNR is in dB; CSI is that of rain of 1 and 5 mm/h. Persistence repeats the last past frame; a model that
has a lower MSE but also a lower SSIM or CSI than it is one that blurs. GMAC are billions of multiply-accumulates of one
clip, counted on the plain module; clips/s is the fastest that was measured at that horizon. Each figure of ours is
that of the packaged weights on the whole test part, in float32 where its command does not say otherwise;
[training.md](training.md) names those that an earlier version measured. Published figures are as their source
prints them, and none was measured here. The same for programs: [leaderboard.csv](leaderboard.csv)."""


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One model's figures in somebody's table; `parameters` are millions."""

    model: str
    mse: float = required(0, 1e9)
    mae: float | None = bounded(None, 0, 1e9)
    ssim: float | None = bounded(None, -1, 1)
    psnr: float | None = bounded(None, 0, 100)
    parameters: float | None = bounded(None, 0, 1e6)
    gmac: float | None = bounded(None, 0, 1e9)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A published table: where it is, and in what its protocol differs from ours of that name."""

    source: str
    differs: str
    protocol: str
    rows: tuple[PublishedRow, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of leaderboard.csv. `kind` is "measured", "untrained" or "published"; what is not known is None."""

    kind: str
    protocol: str
    model: str
    mse: float | None = None
    mae: float | None = None
    ssim: float | None = None
    psnr: float | None = None
    csi_1: float | None = None
    csi_5: float | None = None
    persistence_mse: float | None = None
    persistence_ssim: float | None = None
    persistence_psnr: float | None = None
    persistence_csi_1: float | None = None
    persistence_csi_5: float | None = None
    parameters: int | None = None
    gmac: float | None = None
    clips_per_second: float | None = None
    speed: str | None = None
    command: str | None = None
    source: str | None = None
    differs: str | None = None


def write_leaderboard(out: Path) -> list[Path]:
    """leaderboard.md and leaderboard.csv in the folder `out`, which is made. Returns their paths."""
    rows, sources = own_rows(), read_published()
    contents = {"leaderboard.md": markdown(rows, sources), "leaderboard.csv": table(rows, sources)}
    out.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        write_atomically(out / name, text.encode())
    return [out / name for name in contents]


def read_published(path: Path = PUBLISHED) -> list[Source]:
    """The tables of others, checked key by key.

    Raises:
        SpecError: the file is no such TOML.
    """
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} cannot be read as TOML: {error}") from error
    if set(found) != {"source"} or not isinstance(found["source"], list):
        raise SpecError(f"{path} must hold tables [[source]], and nothing else")
    return [from_mapping(Source, values, f"source[{i}]") for i, values in enumerate(found["source"])]


def own_rows() -> list[Row]:
    """Every protocol of every entry: those with figures first, of each the best first."""
    rows = []
    for entry in catalog.entries().values():
        rows += [_measured(entry, metrics) for metrics in entry.metrics] or [_untrained(entry)]
    protocols = list(dict.fromkeys(row.protocol for row in sorted(rows, key=lambda row: row.mse is None)))
    return sorted(rows, key=lambda row: (protocols.index(row.protocol), row.mse is None, row.mse or 0.0, row.model))


def _measured(entry: Entry, m: Metrics) -> Row:
    steps = _steps(m.protocol)
    speed = _fastest(entry.speed, steps)
    return Row(
        kind="measured", protocol=m.protocol, model=entry.name, mse=m.mse, mae=m.mae, ssim=m.ssim, psnr=m.psnr,
        csi_1=m.csi_1, csi_5=m.csi_5,
        persistence_mse=m.persistence_mse, persistence_ssim=m.persistence_ssim, persistence_psnr=m.persistence_psnr,
        persistence_csi_1=m.persistence_csi_1, persistence_csi_5=m.persistence_csi_5,
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
    """How many frames a protocol asks for; None for those of codecs."""
    found = re.search(r"-(\d+)-(\d+)(-every-\d+)?$", protocol)
    return None if found is None else int(found[2])


@cache
def _gmac(spec: ModelSpec, steps: int | None) -> float | None:
    return None if steps is None else round(macs(spec, steps) / 1e9, 2)


def _fastest(speeds: Sequence[Speed], steps: int | None) -> Speed | None:
    return max((s for s in speeds if s.steps == steps), key=lambda s: s.clips_per_second, default=None)


def table(rows: Sequence[Row], sources: Sequence[Source]) -> str:
    """leaderboard.csv: what was measured here, then what was published."""
    names = [f.name for f in fields(Row)]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in [*rows, *(row for source in sources for row in _published(source))])
    return text.getvalue()


def _published(source: Source) -> list[Row]:
    return [
        Row(
            kind="published", protocol=source.protocol, model=row.model, mse=row.mse, mae=row.mae, ssim=row.ssim,
            psnr=row.psnr, parameters=None if row.parameters is None else round(row.parameters * 1e6), gmac=row.gmac,
            source=source.source, differs=source.differs,
        )
        for row in source.rows
    ]  # fmt: skip


_COLUMNS = (  # field of Row, heading, decimals
    ("mse", "MSE", 2), ("mae", "MAE", 2), ("ssim", "SSIM", 4), ("psnr", "PSNR", 2), ("csi_1", "CSI 1 mm/h", 4),
    ("csi_5", "CSI 5 mm/h", 4), ("persistence_mse", "persistence MSE", 2), ("persistence_ssim", "its SSIM", 4),
    ("persistence_csi_1", "its CSI 1", 4), ("persistence_csi_5", "its CSI 5", 4), ("parameters", "parameters", 0),
    ("gmac", "GMAC", 2), ("clips_per_second", "clips/s", 1), ("speed", "measured on", 0), ("command", "command", 0),
)  # fmt: skip


def markdown(rows: Sequence[Row], sources: Sequence[Source]) -> str:
    """leaderboard.md: a chapter a protocol, our table and then those of others."""
    parts = [_NOTE, "# Leaderboard", _ABOUT]
    for protocol in dict.fromkeys([*(row.protocol for row in rows), *(source.protocol for source in sources)]):
        ours = [row for row in rows if row.protocol == protocol]
        bare = [row for row in ours if row.mse is None]
        parts += [f"## {protocol}"]
        parts += [_lines([row for row in ours if row.mse is not None])] if len(bare) < len(ours) else []
        parts += ["Without weights yet; the command trains them:", _lines(bare)] if bare else []
        for source in sources:
            if source.protocol == protocol:
                parts += [f"Published: {source.source}. What differs: {source.differs}.", _lines(_published(source))]
    return "\n\n".join(parts) + "\n"


def _lines(rows: Sequence[Row]) -> str:
    """A table of the columns in which any row has something."""
    columns = [column for column in _COLUMNS if any(getattr(row, column[0]) is not None for row in rows)]
    lines = [["model", *(title for _, title, _ in columns)], ["---"] * (len(columns) + 1)]
    for row in rows:
        theirs = row.kind == "published"
        name = row.model if theirs else f"[`{row.model}`](models/{row.model}.md)"
        lines.append([name, *(_shown(getattr(row, field), None if theirs else digits) for field, _, digits in columns)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(value: float | str | None, digits: int | None) -> str:
    """With so many decimals, or as it is: a published figure is not made more exact than it was printed."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.replace("|", "\\|")
    return f"{value:,}" if digits is None else f"{value:,.{digits}f}"
