"""The README's table of models says what the manifest says, and leaves out no entry that has weights."""

import re
from decimal import Decimal
from pathlib import Path

import pytest

from stzoo import catalog
from stzoo.hub.card import count_parameters

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
ROWS = [
    [cell.strip(" `") for cell in line.split("|")[1:-1]]
    for line in README.splitlines()
    if line.startswith("|") and "`stzoo evaluate" in line
]
MEASURED = {m.command: (entry, m) for entry in catalog.entries().values() for m in entry.metrics}


def agrees(shown: str, value: float | None) -> bool:
    """Is a figure the value, to the digits that are shown?"""
    if value is None:
        return shown == ""
    unit = Decimal(1).scaleb(int(Decimal(shown).as_tuple().exponent))
    return abs(Decimal(shown) - Decimal(str(value))) <= unit / 2


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
        assert agrees(megabytes, entry.weights.size / 1e6)
        counted = count_parameters(entry.spec) / 1e6
        assert abs(sum(map(float, re.findall(r"([\d.]+) M", parameters))) - counted) < 0.011


def test_what_has_no_weights_is_not_said_to_have_them() -> None:
    bare = {name for name, entry in catalog.entries().items() if entry.weights is None}
    paragraph = README.partition("Entries without weights yet:")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([a-z0-9-]+)`", paragraph)) - {"-paper", "-large"}
    assert named <= bare
    assert {n for n in bare if not re.search(r"-paper$|-large-|-kth$", n)} <= named
