"""The tables of models in README and docs/checkpoints.md say what the manifest says, and leave out no trained entry."""

import re
from decimal import Decimal
from pathlib import Path

import pytest

from stzoo import catalog
from stzoo.hub.card import count_parameters

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "checkpoints.md").read_text("utf-8")
TRAINED = {name: entry for name, entry in catalog.entries().items() if entry.weights is not None}


def rows_of(page: str, header: str) -> list[list[str]]:
    """The cells of the one table with that header, without backticks."""
    table = page.split(header)[1].partition("\n\n")[0]
    return [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


SHORT = rows_of(
    (REPOSITORY / "README.md").read_text("utf-8"),
    "| name | what it forecasts | size | error | repeating the last frame |",
)
ROWS = rows_of(
    PAGE,
    "| name | what | parameters | MB | protocol | MSE | persistence | MAE | SSIM | PSNR | measured by |",
)
MEASURED = {m.command: (entry, m) for entry in catalog.entries().values() for m in entry.metrics}


def agrees(shown: str, value: float | None) -> bool:
    """Is a figure the value, to the digits that are shown?"""
    if value is None:
        return shown == ""
    unit = Decimal(1).scaleb(int(Decimal(shown).as_tuple().exponent))
    return abs(Decimal(shown) - Decimal(str(value))) <= unit / 2


def is_size(entry: catalog.Entry, parameters: str, megabytes: str) -> bool:
    """Do "6.59 M + 2.17 M" and "13.2" say how large an entry is, its codec's parameters included?"""
    assert entry.weights is not None
    counted, shown = count_parameters(entry.spec) / 1e6, re.findall(r"([\d.]+) M", parameters)
    return abs(sum(map(float, shown)) - counted) < 0.011 and agrees(megabytes, entry.weights.size / 1e6)


def test_the_readme_shows_every_trained_entry_once() -> None:
    assert sorted(row[0] for row in SHORT) == sorted(TRAINED)


@pytest.mark.parametrize("row", SHORT, ids=lambda row: row[0])
def test_a_row_of_the_readme_is_that_of_the_manifest(row: list[str]) -> None:
    name, what, size, error, persistence = row
    entry = TRAINED[name]
    own = entry.metrics[0]  # at the horizon of its own block
    assert what
    assert agrees(error, own.mse)
    assert agrees(persistence, own.persistence_mse)
    parameters, _, megabytes = size.removesuffix(" MB").rpartition(", ")
    assert is_size(entry, parameters, megabytes)


def test_all_that_was_measured_is_shown_once() -> None:
    assert sorted(row[-1] for row in ROWS) == sorted(MEASURED)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[-1])
def test_a_row_is_that_of_the_manifest(row: list[str]) -> None:
    name, _, parameters, megabytes, protocol, *figures, command = row
    entry, m = MEASURED[command]
    assert entry.weights is not None
    assert protocol == m.protocol
    values = (m.mse, m.persistence_mse, m.mae, m.ssim, m.psnr)
    assert [agrees(*pair) for pair in zip(figures, values, strict=True)] == [True] * 5
    if name:
        assert name == entry.name
        assert is_size(entry, parameters, megabytes)


def test_what_has_no_weights_is_not_said_to_have_them() -> None:
    bare = {name for name, entry in catalog.entries().items() if entry.weights is None}
    paragraph = PAGE.partition("Entries without weights yet:")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([a-z0-9-]+)`", paragraph)) - {"-paper", "-large"}
    assert named <= bare
    assert {n for n in bare if not re.search(r"-paper$|-large-|-kth$", n)} <= named
