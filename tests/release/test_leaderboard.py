"""One table of everything: ours as the manifest has it, theirs as published.toml has it."""

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from release.shared import Checkout, constant, options

import stzoo
from stzoo import catalog
from stzoo.cli import main
from stzoo.errors import SpecError
from stzoo.release import leaderboard
from stzoo.release.leaderboard import markdown, own_rows, read_published, table

DOCS = Path(__file__).parents[2] / "docs"
AGAIN = "the manifest or published.toml says something else by now; run: stzoo catalog leaderboard"
SPEED = {
    "device": "cpu", "precision": "float32", "batch": 1, "steps": 4, "threads": 2, "hardware": "a | b",
    "clips_per_second": 10.0, "latency_median_ms": 100.0, "against_plain": None, "command": "stzoo benchmark one",
}  # fmt: skip


@pytest.mark.slow
def test_the_leaderboard_of_this_checkout_is_that_of_its_manifest() -> None:
    rows, sources = own_rows(), read_published()
    assert (DOCS / "leaderboard.csv").read_text("utf-8") == table(rows, sources), AGAIN
    assert (DOCS / "leaderboard.md").read_text("utf-8") == markdown(rows, sources), AGAIN


def test_every_figure_of_the_manifest_is_there_once() -> None:
    found = list(csv.DictReader(io.StringIO((DOCS / "leaderboard.csv").read_text("utf-8"))))
    ours = [row for row in found if row["kind"] == "measured"]
    expected = [(name, m) for name, entry in catalog.entries().items() for m in entry.metrics]
    assert sorted((r["model"], r["protocol"]) for r in ours) == sorted((name, m.protocol) for name, m in expected)
    for name, m in expected:
        (row,) = [r for r in ours if (r["model"], r["protocol"]) == (name, m.protocol)]
        for field in ("mse", "mae", "ssim", "psnr", "csi_1", "csi_5", "persistence_mse"):
            assert row[field] == ("" if getattr(m, field) is None else str(getattr(m, field)))
        assert row["command"] == m.command
    bare = {name for name, entry in catalog.entries().items() if entry.weights is None}
    assert {r["model"] for r in found if r["kind"] == "untrained"} == bare


def test_what_is_published_names_its_source_and_what_differs() -> None:
    sources = read_published()
    ours = {row.protocol for row in own_rows_without_counting()}
    for source in sources:
        assert len(source.source) > 20
        assert len(source.differs) > 20
        assert source.rows
        assert source.protocol in ours
        assert len({row.model for row in source.rows}) == len(source.rows)
    found = list(csv.DictReader(io.StringIO((DOCS / "leaderboard.csv").read_text("utf-8"))))
    theirs = [row for row in found if row["kind"] == "published"]
    assert [float(row["mse"]) for row in theirs] == [row.mse for source in sources for row in source.rows]
    assert all(row["source"] and row["differs"] for row in theirs)


def own_rows_without_counting() -> list[Any]:
    """Counting takes a while, and is tested where it is needed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaderboard, "_gmac", lambda spec, steps: None)
        return own_rows()


def test_a_protocol_says_how_many_frames_it_asks_for() -> None:
    steps = {"ut-10-20": 20, "ut-10-20-every-2": 20, "radar-fields-6-12-matched": 12, "mmnist-frames": None}
    assert {name: leaderboard._steps(name) for name in steps} == steps


def test_computation_is_that_of_the_protocol() -> None:
    entry = stzoo.info("tau-ut")
    model, past = stzoo.create("tau-ut"), torch.zeros(1, 10, 1, 64, 64)
    counted = FlopCountAnalysis(model.module, past)
    expected = counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total() / 1e9
    for m, blocks in zip(entry.metrics, (1, 2, 4), strict=True):
        assert leaderboard._measured(entry, m).gmac == pytest.approx(blocks * expected, rel=0.02)
    assert leaderboard._measured(entry, entry.metrics[0]).parameters == model.report.parameters
    every_other = dataclasses.replace(entry.metrics[0], protocol="ut-10-20-every-2")
    assert leaderboard._measured(entry, every_other).gmac == pytest.approx(2 * expected, rel=0.02)


def test_the_better_comes_first_and_speed_is_that_of_the_horizon(checkout: Checkout, spec: Any, tmp_path: Path) -> None:
    for name, level in (("bad", 1.0), ("good", 0.5)):
        constant(spec, level).save_pretrained(tmp_path / name)
        assert main([*options(tmp_path / name, name, checkout), "--horizons", "4", "6"]) == 0
    models = checkout.read()
    models["good"]["speed"] = [
        SPEED, SPEED | {"batch": 8, "clips_per_second": 31.0}, SPEED | {"steps": 9, "clips_per_second": 99.0},
    ]  # fmt: skip
    checkout.write(models | {"bare": {k: v for k, v in models["bad"].items() if k != "metrics"} | {"weights": None}})
    assert main(["catalog", "leaderboard", "--out", str(tmp_path / "docs")]) == 0
    found = list(csv.DictReader(io.StringIO((tmp_path / "docs" / "leaderboard.csv").read_text())))
    ours = [(r["protocol"], r["model"], r["clips_per_second"]) for r in found if r["kind"] != "published"]
    assert ours == [
        ("clips-4-4", "good", "31.0"), ("clips-4-4", "bad", ""), ("clips-4-4", "bare", ""),
        ("clips-4-6", "good", ""), ("clips-4-6", "bad", ""),
    ]  # fmt: skip
    text = (tmp_path / "docs" / "leaderboard.md").read_text()
    assert "| 31.0 | cpu, float32, batch 8; a \\| b |" in text
    assert "| 41.07 | 380.6 | 0.9097 |" in text  # no more digits than were published


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("x = [", "cannot be read as TOML"),
        ("x = 3", r"must hold tables \[\[source\]\]"),
        ("source = 3", r"must hold tables \[\[source\]\]"),
        ('[[source]]\nsource = "s"\nprotocol = "p"\nrows = []', r"source\[0\].differs is missing"),
        ('[[source]]\ndiffers = "d"\nprotocol = "p"\nrows = []', r"source\[0\].source is missing"),
        (
            '[[source]]\nsource = "s"\ndiffers = "d"\nprotocol = "p"\nrows = [{ model = "m", mae = 1.0 }]',
            r"rows\[0\].mse is missing",
        ),
        (
            '[[source]]\nsource = "s"\ndiffers = "d"\nprotocol = "p"\n'
            'rows = [{ model = "m", mse = 1.0, mae = 1.0, ssim = 91.0 }]',
            r"ssim is 91.0; it must lie in \[-1, 1\]",
        ),
    ],
)
def test_what_is_no_table_of_others_is_refused(changed: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(changed)
    with pytest.raises(SpecError, match=message):
        read_published(tmp_path / "p.toml")


def test_where_it_cannot_be_written_nothing_changes(
    checkout: Checkout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").write_text("mine")
    assert main(["catalog", "leaderboard", "--out", str(tmp_path / "docs")]) == 2
    assert capsys.readouterr().err.startswith("stzoo: ")
    assert (tmp_path / "docs").read_text() == "mine"
