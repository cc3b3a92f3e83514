"""A page for each entry of the catalogue: what the manifest says, charts if it holds curves, and two animations.

A page is made from the manifest and from the animations beside it. Animations are made only if the data is given; a
later run without data keeps them as long as they show the weights that the entry has then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stzoo import catalog
from stzoo.catalog import Entry, settings
from stzoo.charts import Learned, errors_chart, learning_chart
from stzoo.charts.curves import PERSISTENCE
from stzoo.charts.style import check_installed
from stzoo.figures import Metrics
from stzoo.files import write_atomically
from stzoo.frames.rain import is_rain
from stzoo.hub.card import count_parameters, entry_card, loading, page, sections
from stzoo.release.pictures import Footage, check_filmed, film, pictures_of

INDEX = "README.md"
_NOTE = "<!-- Written by `stzoo catalog cards` from weights_manifest.json; edits in this file are lost. -->"


def write_cards(names: Sequence[str], footage: Mapping[str, Footage], out: Path) -> Iterator[Path]:
    """Write NAME.md for each of `names`, or for every entry if there are none, and the index.

    Args:
        names: entries of the catalogue.
        footage: the test clips of the entries that get new animations, by name.
        out: a folder; it is made if it does not exist.

    Yields:
        Each file as soon as it is written.

    Raises:
        UnknownModelError, SpecError, NotPublishedError: an entry does not exist, or no animation can be made of it;
            nothing has been written then.
        MissingExtraError: matplotlib, which draws the charts, is not installed; nothing has been written then.
        DataError: nothing moves in the clips of an entry; the pages of earlier entries have been written.
    """
    check_installed()
    entries = [catalog.info(name) for name in names] or list(catalog.entries().values())
    for name in footage:
        check_filmed(catalog.info(name))
    out.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        if entry.name in footage:
            yield from film(entry, footage[entry.name], out)
        for name, picture in charts(entry).items():
            yield _written(out / name, picture)
        yield _written(out / f"{entry.name}.md", card_text(entry, out).encode())
    yield _written(out / INDEX, index_text(out).encode())


def charts(entry: Entry) -> dict[str, bytes]:
    """The PNG files to which the page of an entry links: name -> content.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    found = {}
    curve, (seen, mse) = _longest_curve(entry), _learned(entry)
    if curve is not None:
        curves = {entry.name: curve.mse_steps or (), PERSISTENCE: curve.persistence_mse_steps or ()}
        found[f"{entry.name}-curve.png"] = errors_chart(curves, f"MSE, {curve.protocol}").png()
    if seen:
        learned = Learned("", (seen, mse))
        found[f"{entry.name}-learning.png"] = learning_chart([learned], "sequences seen in training").png()
    return found


def card_text(entry: Entry, folder: Path) -> str:
    """The page of an entry, in Markdown, with the animations that are in `folder`."""
    card, about = entry_card(entry), f"Dataset: `{entry.dataset}`. Settings: {settings(entry.spec.params)}."
    if entry.weights is not None:
        w = entry.weights
        about += f" Weights: {w.size / 1e6:.1f} MB of safetensors, sha256 `{w.sha256[:12]}...`."
    if entry.weights is None:
        card = dataclasses.replace(card, license=None, datasets=())  # they would be those of weights
        said = sections(card, entry.spec, f"{about}\n\n{_untrained(entry)}") | {"Figures": ""}
    else:
        said = sections(card, entry.spec, f"{about}\n\n" + loading(entry.spec, f'"{entry.name}")'))
        said["Figures"] += _curve_text(entry) + _film_text(entry, folder)
        said["Training"] += _learning_text(entry)
    return f"{_NOTE}\n\n{page(entry.name, said)}"


def index_text(folder: Path) -> str:
    """The table of all entries, in Markdown, with links to the pages and animations that are in `folder`."""
    lines = ["| name | what | parameters | protocol | MSE | persistence |", "|---|---|---|---|---|---|"]
    for entry in sorted(catalog.entries().values(), key=lambda entry: entry.weights is None):
        link = f"[`{entry.name}`]({entry.name}.md)" if (folder / f"{entry.name}.md").exists() else f"`{entry.name}`"
        figures = ["no weights yet", "", ""]
        if entry.metrics:
            m = entry.metrics[0]
            figures = [m.protocol, f"{m.mse:.2f}", "" if m.persistence_mse is None else f"{m.persistence_mse:.2f}"]
        lines.append(f"| {' | '.join([link, entry.summary, f'{count_parameters(entry.spec):,}', *figures])} |")
    about = (
        "There is a page for each entry of the catalogue. All figures together: [the leaderboard](../leaderboard.md)."
    )
    return f"{_NOTE}\n\n# Models\n\n{about}\n\n" + "\n".join(lines) + "\n" + _gallery(folder)


def _gallery(folder: Path) -> str:
    """The typical clip of every entry that has animations in `folder`."""
    shown = [entry.name for entry in catalog.entries().values() if pictures_of(entry, folder) is not None]
    if not shown:
        return ""
    said = "For each model, the test clip with the median error relative to persistence. Its page also shows a bad one."
    rows = [f"| [`{name}`]({name}.md) | ![truth and forecast]({name}-typical.gif) |" for name in shown]
    return f"\n## Truth and forecast\n\n{said}\n\n" + "\n".join(["| name | |", "|---|---|", *rows]) + "\n"


def _untrained(entry: Entry) -> str:
    made = "" if entry.kind == "codec" else f'`stzoo.create("{entry.name}")` builds it with random weights. '
    command = f"stzoo train {entry.name} --data DIR --out RUN"
    return f"There are no trained weights yet. {made}This command trains it:\n\n```bash\n{command}\n```"


def _longest_curve(entry: Entry) -> Metrics | None:
    """The metrics with the longest curve of errors over steps ahead; None if no metrics have more than one step."""
    curves = [m for m in entry.metrics if len(m.mse_steps or ()) > 1]
    return max(curves, key=lambda m: len(m.mse_steps or ()), default=None)


def _curve_text(entry: Entry) -> str:
    metrics = _longest_curve(entry)
    if metrics is None:
        return ""
    picture = f"![MSE over steps ahead]({entry.name}-curve.png)"
    return f"\n\n{picture}\n\nMSE at each step ahead on {metrics.protocol}; persistence in gray."


def _learned(entry: Entry) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Sequences seen in training, and the validation MSE after each, for values scaled to [0, 1] as everywhere here.

    That of a quantity, such as rates of rain, is in its own unit. Both are empty if fewer than two points are known.
    """
    training = entry.training
    if training is None or training.curve_sequences is None or training.curve_mse is None:
        return (), ()
    if len(training.curve_mse) < 2:
        return (), ()
    low, high = (0.0, 1.0) if training.curve_quantity else entry.spec.value_range or (0.0, 1.0)
    return training.curve_sequences, tuple(mse / (high - low) ** 2 for mse in training.curve_mse)


def _summed(entry: Entry) -> str:
    """What to say of a clip's MSE where the figures of the entry are those of a cell, in other units perhaps."""
    if entry.spec.value_range is None:
        return " (here summed over a frame)"
    return " (here of values scaled to [0, 1], summed over a frame)" if is_rain(entry.spec.value_range) else ""


def _of_training(entry: Entry) -> str:
    """The same of the MSE in training."""
    quantity = entry.training is not None and entry.training.curve_quantity
    return " (here of rates in mm/h, summed over a frame)" if quantity else _summed(entry)


def _learning_text(entry: Entry) -> str:
    seen, mse = _learned(entry)
    if not seen:
        return ""
    lowest = min(range(len(mse)), key=mse.__getitem__)
    said = f"MSE on held-out clips during training{_of_training(entry)}: {mse[0]:.4g} after {seen[0]:,} sequences"
    said += f", {mse[-1]:.4g} after {seen[-1]:,}"
    said += "." if lowest == len(mse) - 1 else f"; the lowest is {mse[lowest]:.4g}, after {seen[lowest]:,}."
    assert entry.training is not None
    if entry.training.sequences_seen not in seen:  # so a second run followed, for a run's best weights were validated
        said += " The chart shows the first training run only."
    return f"\n\n![Validation MSE over sequences]({entry.name}-learning.png)\n\n{said}"


def _film_text(entry: Entry, folder: Path) -> str:
    found = pictures_of(entry, folder)
    if found is None:
        return ""
    parts = [
        f"{found.among} clips, evenly spread over the test part, were ranked by their MSE{_summed(entry)} relative to "
        f"that of persistence, which is better than the model on {found.worse or 'none'} of them. Here are two, "
        "truth and forecast; the brightest value of a clip is white:"
    ]
    for kind, called, where, shown in (
        ("typical", "a typical forecast", "the median", found.typical),
        ("worst", "a bad forecast", "worse than nine out of ten clips", found.worst),
    ):
        ratio = f"{shown.mse / shown.persistence_mse:.2f} times that of persistence"
        errors = f"MSE {shown.mse:.2f}, {ratio} ({shown.persistence_mse:.2f})"
        parts += [f"![{called}]({entry.name}-{kind}.gif)", f"Clip {shown.clip}, {where}: {errors}."]
    return "\n\n" + "\n\n".join([*parts, f"Made by `{found.command}`."])


def _written(path: Path, content: bytes) -> Path:
    write_atomically(path, content)
    return path
