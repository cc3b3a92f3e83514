"""A page for each entry of the catalogue: what the manifest says, a curve where it holds one, and two animations.

A page follows from the manifest and from the animations beside it. Those are made where the data is at hand; a later
run without data keeps them, as long as they show the weights that the entry has then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stzoo import catalog
from stzoo.card import count_parameters, entry_card, loading, page, sections
from stzoo.catalog import Entry, Metrics, settings
from stzoo.publishing.pictures import Footage, check_filmed, curve_png, film, learning_png, pictures_of
from stzoo.weights import write_atomically

INDEX = "README.md"
_NOTE = "<!-- Written by `stzoo catalog cards` from weights_manifest.json; what is edited here is lost. -->"


def write_cards(names: Sequence[str], footage: Mapping[str, Footage], out: Path) -> Iterator[Path]:
    """Write NAME.md for each of `names` (all, where there are none), and the index; yield each file as it is there.

    Args:
        footage: of those of them that get new animations, by name.
        out: a folder, which is made.

    Raises:
        UnknownModelError, SpecError, NotPublishedError: an entry that is not there, or that `footage` is not for;
            nothing has been written then. DataError: nothing moves in the clips.
    """
    entries = [catalog.info(name) for name in names] or list(catalog.entries().values())
    for name in footage:
        check_filmed(catalog.info(name))
    out.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        if entry.name in footage:
            yield from film(entry, footage[entry.name], out)
        curve = _longest_curve(entry)
        if curve is not None:
            picture = curve_png(curve.protocol, curve.mse_steps or (), curve.persistence_mse_steps or ())
            yield _written(out / f"{entry.name}-curve.png", picture)
        seen, mse = _learned(entry)
        if seen:
            yield _written(out / f"{entry.name}-learning.png", learning_png(seen, mse))
        yield _written(out / f"{entry.name}.md", card_text(entry, out).encode())
    yield _written(out / INDEX, index_text(out).encode())


def card_text(entry: Entry, folder: Path) -> str:
    """The page of an entry, which links the animations that are in `folder`."""
    card, about = entry_card(entry), f"Dataset: `{entry.dataset}`. Settings: {settings(entry.spec.params)}."
    if entry.weights is None:
        card = dataclasses.replace(card, license=None, datasets=())  # which are those of weights
        said = sections(card, entry.spec, f"{about}\n\n{_untrained(entry)}") | {"Figures": ""}
    else:
        said = sections(card, entry.spec, f"{about}\n\n" + loading(entry.spec, f'"{entry.name}")'))
        said["Figures"] += _curve_text(entry) + _film_text(entry, folder)
        said["Training"] += _learning_text(entry)
    return f"{_NOTE}\n\n{page(entry.name, said)}"


def index_text(folder: Path) -> str:
    """The table of all entries, with links to the pages that are in `folder`, and the animations that are there."""
    lines = ["| name | what | parameters | protocol | MSE | persistence |", "|---|---|---|---|---|---|"]
    for entry in catalog.entries().values():
        link = f"[`{entry.name}`]({entry.name}.md)" if (folder / f"{entry.name}.md").exists() else f"`{entry.name}`"
        figures = ["no weights yet", "", ""]
        if entry.metrics:
            m = entry.metrics[0]
            figures = [m.protocol, f"{m.mse:.2f}", "" if m.persistence_mse is None else f"{m.persistence_mse:.2f}"]
        lines.append(f"| {' | '.join([link, entry.summary, f'{count_parameters(entry.spec):,}', *figures])} |")
    about = "A page for each entry of the catalogue. All figures side by side: [the leaderboard](../leaderboard.md)."
    return f"{_NOTE}\n\n# Models\n\n{about}\n\n" + "\n".join(lines) + "\n" + _gallery(folder)


def _gallery(folder: Path) -> str:
    """The typical clip of every entry that has animations in `folder`."""
    shown = [entry.name for entry in catalog.entries().values() if pictures_of(entry, folder) is not None]
    if not shown:
        return ""
    said = "Of each model the test clip with the median error relative to persistence, and on its page a bad one:"
    rows = [f"| [`{name}`]({name}.md) | ![truth and forecast]({name}-typical.gif) |" for name in shown]
    return f"\n## Truth and forecast\n\n{said}\n\n" + "\n".join(["| name | |", "|---|---|", *rows]) + "\n"


def _untrained(entry: Entry) -> str:
    made = "" if entry.kind == "codec" else f'`stzoo.create("{entry.name}")` builds it with random weights. '
    command = f"stzoo train {entry.name} --data DIR --out RUN"
    return f"There are no trained weights yet. {made}This trains it:\n\n```bash\n{command}\n```"


def _longest_curve(entry: Entry) -> Metrics | None:
    """The metrics that keep the error at each step, those of the most steps; one step is no curve."""
    curves = [m for m in entry.metrics if len(m.mse_steps or ()) > 1]
    return max(curves, key=lambda m: len(m.mse_steps or ()), default=None)


def _curve_text(entry: Entry) -> str:
    metrics = _longest_curve(entry)
    if metrics is None:
        return ""
    picture = f"![MSE over steps ahead]({entry.name}-curve.png)"
    return f"\n\n{picture}\n\nMSE at each step ahead on {metrics.protocol}; in gray that of persistence."


def _learned(entry: Entry) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Sequences seen, and the validation MSE after them; two empty ones where less than two points are known."""
    training = entry.training
    if training is None or training.curve_sequences is None or training.curve_mse is None:
        return (), ()
    return (training.curve_sequences, training.curve_mse) if len(training.curve_mse) > 1 else ((), ())


def _learning_text(entry: Entry) -> str:
    seen, mse = _learned(entry)
    if not seen:
        return ""
    said = f"MSE on held-out clips while it learned, in the data's units: {mse[0]:g} after {seen[0]:,} sequences"
    return f"\n\n![Validation MSE over sequences]({entry.name}-learning.png)\n\n{said}, {mse[-1]:g} after {seen[-1]:,}."


def _film_text(entry: Entry, folder: Path) -> str:
    found = pictures_of(entry, folder)
    if found is None:
        return ""
    among = f"{found.among} test clips, evenly spread over the test part"
    parts = [f"Two of {among}; truth and forecast, ranked by MSE relative to persistence:"]
    for kind, where, shown in (
        ("typical", "the median", found.typical),
        ("worst", "where the worst tenth begins", found.worst),
    ):
        errors = f"MSE {shown.mse:.2f}, persistence {shown.persistence_mse:.2f}"
        parts += [f"![{kind}]({entry.name}-{kind}.gif)", f"Clip {shown.clip}, {where}: {errors}."]
    return "\n\n" + "\n\n".join([*parts, f"Made by `{found.command}`."])


def _written(path: Path, content: bytes) -> Path:
    write_atomically(path, content)
    return path
