"""What objects show in a notebook: the figures that their text holds, and no text that becomes HTML."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from showing.parsed import Parsed

import stzoo
from stzoo import html
from stzoo.benchmark.report import BenchmarkReport, Machine
from stzoo.catalog import entries
from stzoo.evaluate import CodecReport, EvaluationReport
from stzoo.forecaster import Forecaster
from stzoo.hindcast import Hindcast
from stzoo.published import published

HOSTILE = "<b onclick=alert(1)>\"'&</td><script src=//x></script>\x1b[2J\ud800"


def test_text_stays_text_and_lines_stay_lines() -> None:
    found = Parsed(html.facts(HOSTILE, [(HOSTILE, f"one\ntwo {HOSTILE}")]))
    assert found.text.count("<b onclick=alert(1)>\"'&</td><script src=//x></script>") == 3
    assert found.rows[0][1].startswith("one")
    assert "<br>two" in html.text("one\ntwo")
    assert "\x1b" not in found.text
    html.facts(HOSTILE, []).encode()  # what is no UTF-8 would end the kernel's message
    Parsed(html.table(HOSTILE, (HOSTILE,) * 2, [(HOSTILE,) * 2]))
    Parsed(html.picture(b"", "gif", HOSTILE, (1, 1), HOSTILE))


@pytest.mark.parametrize("name", entries())
def test_an_entry_shows_its_card_and_its_figures_beside_persistence(name: str) -> None:
    entry = stzoo.info(name)
    found = Parsed(entry._repr_html_())
    cells = {cell for row in found.rows for cell in row}
    assert entry.citation in cells
    assert entry.name in found.text
    for metrics in entry.metrics:
        beside = f"{metrics.persistence_mse:.2f}" if metrics.persistence_mse is not None else ""
        assert [metrics.protocol, "MSE", f"{metrics.mse:.2f}", beside] in found.rows


def test_a_published_checkpoint_shows_its_card() -> None:
    for record in published().values():
        found = Parsed(record._repr_html_())
        shown = [f"  {name:<13} {said}" for name, said in found.rows]
        assert "\n".join(shown) == str(record).partition("\n")[2]
        assert str(record).partition("\n")[0] in found.text


def report(**changes: object) -> EvaluationReport:
    steps = {"mse": [1.0, 2.0], "ssim": [0.5, 0.25]}
    total = {"mse": 1.5, "ssim": 0.375}
    worse = {"mse": [4.0, 8.0], "ssim": [0.1, 0.05]}, {"mse": 6.0, "ssim": 0.075}
    found = EvaluationReport("model", "protocol", "stzoo", "float32", 3, steps, total, *worse)
    return dataclasses.replace(found, **changes)  # type: ignore[arg-type]


def test_an_evaluation_shows_the_figures_of_its_text() -> None:
    whole = report(parts={HOSTILE: report(model=HOSTILE, step_minutes=5.0)}, model=HOSTILE)
    found = Parsed(whole._repr_html_())
    assert found.rows[:4] == [
        ["step", "mse", "ssim", "persist. mse", "persist. ssim", "skill"],
        ["1", "1.0000", "0.5000", "4.0000", "0.1000", "0.7500"],
        ["2", "2.0000", "0.2500", "8.0000", "0.0500", "0.7500"],
        ["mean", "1.5000", "0.3750", "6.0000", "0.0750", "0.7500"],
    ]
    assert found.rows[5][0] == "1 (5 min)"
    text = [line.split() for line in str(report()).splitlines()]
    for row in found.rows[1:4]:
        assert row in text


def test_a_codecs_report_shows_the_figures_of_its_text() -> None:
    found = CodecReport("model", HOSTILE, "stzoo", "float32", 3, {"mse": 1.25}, 500, 123.45)
    rows = Parsed(found._repr_html_()).rows
    assert rows == [["", "reconstruction"], ["mse", "1.2500"], ["codes in use", "500"], ["perplexity", "123.5"]]
    assert "codes" not in dataclasses.replace(found, codes_used=None, perplexity=None)._repr_html_()


def test_a_benchmark_shows_the_lines_of_its_text() -> None:
    machine = Machine(
        processor=HOSTILE, device="cpu", threads=2, waiting="sleeping", system="", python="", torch="2", stzoo="0",
        peak_tflops={"float32": 0.1}, peak_size={"float32": 512}, copy_gb_per_second=9.0,
    )  # fmt: skip
    numbers = {f.name: 2 for f in dataclasses.fields(BenchmarkReport) if f.type in ("int", "float")}
    optional = {f.name: None for f in dataclasses.fields(BenchmarkReport) if "None" in str(f.type)}
    found = BenchmarkReport(
        **numbers,
        **optional,
        model="m",
        trained=False,
        precision="float32",
        backend="torch",
        machine=machine,
        command="",
    )  # type: ignore[arg-type]
    rows = Parsed(found._repr_html_()).rows
    assert [f"  {name:<28}{said}" for name, said in rows] == str(found).splitlines()[2:]


def test_a_hindcast_shows_the_errors_of_each_step() -> None:
    found = Parsed(Hindcast((0.5, float("nan")), (1.0, float("nan")), True)._repr_html_())
    assert found.rows == [
        ["step", "MSE", "persistence", "skill"],
        ["1", "0.5", "1", "0.50"],
        ["2", "nan", "nan", "-"],
        ["mean", "0.5", "1", "0.50"],
    ]


def test_a_real_hindcast_has_a_table(forecaster: Forecaster, frames: np.ndarray) -> None:
    assert len(Parsed(forecaster.check(frames)._repr_html_()).rows) == 1 + 2 + 1


def test_bars_are_those_of_a_terminal_outside_a_notebook_and_cost_no_import() -> None:
    code = (
        "import json, sys, warnings; warnings.simplefilter('error'); import torch; before = set(sys.modules); "
        "import stzoo.forecaster, stzoo.evaluate; from stzoo.progress import tqdm; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "new &= {'IPython', 'ipywidgets', 'ipykernel'}; "
        "print(json.dumps([[c.__module__ for c in tqdm.__mro__], sorted(new)]))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    modules, imported = json.loads(out.stdout)
    assert "tqdm.notebook" not in modules
    assert imported == []
    assert out.stderr == ""


def test_every_bar_is_one_that_a_notebook_may_choose() -> None:
    for path in Path(stzoo.__file__).parent.rglob("*.py"):
        if path.name != "progress.py":
            assert not re.search(r"^\s*(from|import) tqdm", path.read_text("utf-8"), re.M), path
