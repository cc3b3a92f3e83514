"""The gallery of models, and the leaderboard as tables that can be sorted."""

from __future__ import annotations

import csv
from html import escape
from pathlib import Path

import stzoo
from stzoo import catalog
from stzoo.figures import FIGURES
from stzoo.models import build

# The columns of a protocol's table, in order, where any row has them: those of docs/leaderboard.md.
_SHOWN = [figure for figure in FIGURES if not figure.codec_only]
_WAITING = "mse_here"  # beside published figures it is shown without a value, too
COLUMNS = {
    **{figure.name: figure.title for figure in _SHOWN},
    **{figure.persistence: f"persistence {figure.title}" for figure in _SHOWN if figure.persistence},
    "parameters": "parameters", _WAITING: "MSE of the published file, measured with stzoo", "gmac": "GMAC",
    "clips_per_second": "clips/s", "speed": "measured on",
}  # fmt: skip
TASKS = {  # the data set of an entry -> what is forecast
    "mmnist": "digits", "mfmnist": "clothes", "kth": "people", "ut": "people", "people": "people",
    "kitti-caltech": "driving", "taxibj": "traffic", "taxinyc": "traffic",
    "radar-crops": "rain", "radar": "rain",
}  # fmt: skip


def write(sources: Path) -> None:
    """`gallery.md`, the tables of `leaderboard.md`, and the list of cards, from the catalogue and leaderboard.csv."""
    (sources / "gallery.md").write_text(_gallery(sources / "models"), "utf-8")
    with (sources / "models" / "README.md").open("a", encoding="utf-8") as overview:
        overview.write("\n```{toctree}\n:hidden:\n:glob:\n\n*\n```\n")  # so that each card has its place
    page = sources / "leaderboard.md"
    begin = page.read_text("utf-8").split("\n## ", 1)[0]
    with (sources / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    page.write_text(begin + _board(rows), "utf-8")


def _gallery(cards: Path) -> str:
    entries = sorted(
        (catalog.info(name) for name in stzoo.list_models()), key=lambda e: (not _plays(cards, e.name), e.name)
    )
    return "\n".join(
        [
            "# Gallery", "",
            "Truth on the left, forecast on the right. Each card links to the page of its model.", "",
            "```{raw} html", '<form class="filter" data-filters=".card">',
            _choice("task", sorted({_task(e) for e in entries})),
            _choice("data", sorted({e.dataset for e in entries})),
            _choice("size", [label for _, label in _SIZES]),
            '<label><input type="checkbox" name="weights" value="yes"> only with weights in the package</label>',
            '</form>', '<div class="cards">', *(_card(cards, e) for e in entries), "</div>", "```", "",
        ]
    )  # fmt: skip


_SIZES = ((3e6, "below 3 M parameters"), (12e6, "3 M to 12 M parameters"), (float("inf"), "above 12 M parameters"))


def _plays(cards: Path, name: str) -> bool:
    return (cards / f"{name}-typical.gif").exists()


def _task(entry: stzoo.Entry) -> str:
    return TASKS.get(entry.dataset, entry.dataset)


def _choice(name: str, values: list[str]) -> str:
    options = "".join(f'<option value="{escape(v)}">{escape(v)}</option>' for v in values)
    return f'<label>{name} <select name="{name}"><option value="">all</option>{options}</select></label>'


def _card(cards: Path, entry: stzoo.Entry) -> str:
    parameters = _parameters(entry)
    size = next(label for limit, label in _SIZES if parameters < limit)
    name, task, data = escape(entry.name), escape(_task(entry)), escape(entry.dataset)
    picture = '<p class="empty">no weights in the package</p>'
    if _plays(cards, entry.name):  # its card shows the same file, so Sphinx has put it there
        picture = f'<img src="_images/{name}-typical.gif" alt="Truth and forecast by {name}" loading="lazy">'
    weights = "yes" if entry.weights else "no"
    return (
        f'<article class="card" data-task="{task}" data-data="{data}" data-size="{size}" data-weights="{weights}">'
        f'{picture}<h2><a href="models/{name}.html">{name}</a></h2>'
        f"<p>{escape(entry.summary)}</p><p>{parameters / 1e6:.2f} M parameters</p></article>"
    )


def _parameters(entry: stzoo.Entry) -> int:
    return sum(p.numel() for p in build(entry.spec, "meta").parameters())


def _board(rows: list[dict[str, str]]) -> str:
    parts = ["", "", "Click on a column's name to sort by it.", ""]
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        chosen = [row for row in rows if row["protocol"] == protocol]
        theirs = any(row["kind"] == "published" for row in chosen)
        columns = [key for key in COLUMNS if (key == _WAITING and theirs) or any(row[key] for row in chosen)]
        titles = ("model", "figures are", *(COLUMNS[key] for key in columns), "command")
        head = "".join(f"<th>{escape(title)}</th>" for title in titles)
        parts += [
            f"## {protocol}",
            "",
            "```{raw} html",
            '<div class="wide-table"><table class="sortable">',
            f"<thead><tr>{head}</tr></thead>",
            "<tbody>",
        ]
        parts += [_row(row, columns) for row in chosen]
        parts += ["</tbody></table></div>", "```", ""]
        for source, differs in dict.fromkeys((row["source"], row["differs"]) for row in chosen if row["source"]):
            parts += [f"Published: {source}. What differs: {differs}.", ""]
    return "\n".join(parts)


def _row(row: dict[str, str], columns: list[str]) -> str:
    name = escape(row["model"])
    ours = row["kind"] != "published"
    model = f'<a href="models/{name}.html">{name}</a>' if ours else name
    cells = "".join(f"<td>{_figure(row[key])}</td>" for key in columns)
    command = f"<code>{escape(row['command'])}</code>" if row["command"] else ""
    return f'<tr class="{row["kind"]}"><td>{model}</td><td>{row["kind"]}</td>{cells}<td>{command}</td></tr>'


def _figure(text: str) -> str:
    """Counts with commas, everything else as it stands."""
    return f"{int(text):,}" if text.isdigit() else escape(text)
