"""Measured speed goes from a report into the manifest, and from there onto cards. Reports here are made up."""

import json
from pathlib import Path
from typing import Any

import pytest
from release.shared import Checkout

import stzoo
from stzoo import catalog
from stzoo.catalog import Speed
from stzoo.cli import main

REPORT: dict[str, Any] = {
    "model": "one", "trained": True, "passes": 5, "precision": "bfloat16", "batch": 4, "steps": 4,
    "clips_per_second": 123.45678, "latency_median_ms": 32.40012, "plain": {"ratio_median": 2.34567},
    "machine": {"threads": 2, "device": "cpu"},
    "command": "stzoo benchmark one --precision auto --batch 4 --against plain",
}  # fmt: skip


def entered(folder: Path, hardware: str = "two | cores", **changed: Any) -> int:
    (folder / "report.json").write_text(json.dumps(REPORT | changed))
    return main(["catalog", "speed", "one", str(folder / "report.json"), "--hardware", hardware])


def test_speed_goes_into_the_manifest_and_onto_cards(
    three: Checkout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = three.read()
    assert entered(tmp_path) == 0
    expected: dict[str, Any] = {
        "device": "cpu",
        "precision": "bfloat16", "batch": 4, "steps": 4, "threads": 2, "hardware": "two | cores",
        "clips_per_second": 123.5, "latency_median_ms": 32.4, "against_plain": 2.346, "command": REPORT["command"],
    }  # fmt: skip
    assert three.read() == before | {"one": before["one"] | {"speed": [expected]}}
    assert stzoo.info("one").speed == (Speed(**expected),)
    capsys.readouterr()
    assert main(["info", "one"]) == 0
    figures = "cpu, bfloat16, 4 clips of 4 frames: 32.4 ms, 123.5 clips/s, 2.35 times as fast as plain"
    assert f"{figures}; two | cores, 2 threads\n                {REPORT['command']}" in capsys.readouterr().out
    assert main(["info", "one", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["speed"] == [expected]

    model = stzoo.load("one")
    model.save_pretrained(tmp_path / "same")
    body = (tmp_path / "same" / "README.md").read_text("utf-8")
    assert "| bfloat16 | 4 | 4 | 32.4 | 123.5 | 2.35 times | two \\| cores, 2 threads |\n" in body
    assert f"- `{REPORT['command']}`\n" in body
    next(model.module.parameters()).data.add_(1)
    model.save_pretrained(tmp_path / "other")
    assert "## Speed" not in (tmp_path / "other" / "README.md").read_text("utf-8")


def test_the_same_measurement_is_replaced_and_others_stay(three: Checkout, tmp_path: Path) -> None:
    assert entered(tmp_path) == 0
    assert entered(tmp_path, precision="float32", plain=None) == 0
    assert entered(tmp_path, batch=1) == 0
    assert entered(tmp_path, hardware="three cores", clips_per_second=1, machine={"threads": 3, "device": "cpu"}) == 0
    assert entered(tmp_path, machine={"threads": 3, "device": "cuda"}) == 0
    found = stzoo.info("one").speed
    assert [s.key for s in found] == [
        ("cpu", "bfloat16", 1, 4),
        ("cpu", "bfloat16", 4, 4),
        ("cpu", "float32", 4, 4),
        ("cuda", "bfloat16", 4, 4),
    ]
    assert [s.clips_per_second for s in found] == [123.5, 1.0, 123.5, 123.5]
    assert [s.against_plain for s in found] == [2.346, 2.346, None, 2.346]
    assert found[1].hardware == "three cores"
    assert "times" not in str(found[2])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "two"}, "is a report of 'two', not of one"),
        ({"machine": {}}, "is no report that `stzoo benchmark one --json` printed: KeyError('device')"),
        ({"trained": False}, "was measured with random weights; one has trained ones, measure those"),
        ({"passes": 4}, "is a report of 4 passes; measure at least 5, or leave --repeats out"),
        ({"machine": {"threads": 2, "device": "mps"}}, "speed.device is 'mps'; it may be 'cpu' or 'cuda'"),
        ({"clips_per_second": "fast"}, "is no report that"),
        ({"plain": 3}, "is no report that"),
        ({"clips_per_second": -1}, "speed.clips_per_second is -1.0; it must lie in"),
        ({"latency_median_ms": float("nan")}, "speed.latency_median_ms is nan; it must be finite"),
        ({"precision": "auto"}, "speed.precision is 'auto'; it may be 'float32' or 'bfloat16'"),
        ({"hardware": " "}, "speed.hardware is empty"),
    ],
)
def test_what_is_no_report_changes_nothing(
    three: Checkout, tmp_path: Path, changed: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = three.snapshot()
    assert entered(tmp_path, **changed) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err
    assert three.snapshot() == before


def test_other_files_and_other_entries_are_refused(
    three: Checkout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, file = three.snapshot(), tmp_path / "report.json"
    for name, content, message in (
        ("one", "[1]", "is no report that"),
        ("one", "{", "is no report that"),
        ("nobody", json.dumps(REPORT), "no model 'nobody' in the catalogue"),
        ("squeeze", json.dumps(REPORT | {"model": "squeeze"}), "squeeze is a codec; only a forecaster has a speed"),
    ):
        file.write_text(content)
        assert main(["catalog", "speed", name, str(file), "--hardware", "h"]) == 2
        assert message in capsys.readouterr().err
    assert main(["catalog", "speed", "one", str(tmp_path / "none.json"), "--hardware", "h"]) == 2
    assert "none.json" in capsys.readouterr().err
    assert three.snapshot() == before


def test_a_manifest_holds_each_measurement_once(three: Checkout, tmp_path: Path) -> None:
    assert entered(tmp_path) == 0
    models = three.read()
    models["one"]["speed"] *= 2
    three.write(models)
    with pytest.raises(
        catalog.ManifestError, match="one: speed holds the same device, precision, batch and steps twice"
    ):
        stzoo.info("one")
