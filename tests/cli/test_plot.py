"""`stzoo plot` draws the logs of runs, once or whenever they grow."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from stzoo import charts
from stzoo.charts import Learned
from stzoo.cli import main, plot


def line(step: int, error: float | None = None) -> str:
    found = {"step": step, "loss": 1.0 / step, "seconds": 1000.0 + 36 * step, "sequences": 8 * step}
    return json.dumps(found | ({} if error is None else {"validation_mse": error})) + "\n"


def a_run(folder: Path, *lines: str, steps: int = 100) -> Path:
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps({"steps": steps}))
    if lines:
        (folder / "log.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Learned], str]]:
    """What every chart was drawn of."""
    found: list[tuple[list[Learned], str]] = []
    usual = charts.learning_chart

    def noted(runs: list[Learned], over: str) -> charts.Chart:
        found.append((runs, over))
        return usual(runs, over)

    monkeypatch.setattr(charts, "learning_chart", noted)
    return found


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_curves_go_over_sequences_steps_or_hours(
    drawn: list[tuple[list[Learned], str]], capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(Path("a"), line(20), line(40, 9.0), line(60), line(80, 8.0))
    a_run(Path("b"), line(20), steps=60)
    assert main(["plot", "a", "b"]) == 0
    assert capsys.readouterr().out == (
        "learning.png\n  a step 80 of 100, lowest validation MSE 8\n  b step 20 of 60, no validation yet\n"
    )
    with Image.open("learning.png") as picture:
        assert picture.format == "PNG"
    for over in ("steps", "hours"):
        assert main(["plot", "a", "b", "--over", over, "--out", f"{over}.svg"]) == 0
        assert Path(f"{over}.svg").read_text().startswith("<?xml")
    places = [(runs[0].validation[0], runs[0].loss[0]) for runs, _ in drawn]
    assert places[:2] == [([320, 640], [160, 320, 480, 640]), ([40, 80], [20, 40, 60, 80])]
    assert places[2][1] == pytest.approx([0.2, 0.4, 0.6, 0.8])  # 36 seconds a step
    (a, b), over = drawn[0]
    assert (a.name, a.validation[1], a.loss[1]) == ("a", [9.0, 8.0], [1 / 20, 1 / 40, 1 / 60, 1 / 80])
    assert (b.name, b.validation) == ("b", ([], []))
    assert over == "sequences seen in training"


def test_a_log_that_grows_is_followed_to_its_end(
    drawn: list[tuple[list[Learned], str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run(Path("a"), steps=60)
    a_run(Path("b"), line(20), line(40, 5.0), steps=40)
    events: list[Callable[[], object]] = [
        lambda: None,
        lambda: Path("a/log.jsonl").write_text(line(20)),
        lambda: Path("a/log.jsonl").write_text(line(20) + '{"step": 40, "lo'),
        lambda: None,
        lambda: Path("a/log.jsonl").write_text(line(20) + line(40, 7.0)),
        lambda: Path("a/log.jsonl").write_text(line(20) + line(40, 7.0) + line(60, 6.0)),
    ]
    monkeypatch.setattr(plot.time, "sleep", lambda _: events.pop(0)())
    assert main(["plot", "a", "b", "--follow"]) == 0
    assert events == []
    said = capsys.readouterr().out.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d learning.png: a ", text) for text in said[:-1])
    assert [text.split(": ", 1)[1].split(";")[0] for text in said[:-1]] == [
        "a has logged nothing yet",
        "a step 20 of 60, no validation yet",
        "a step 20 of 60, no validation yet",  # half a line is there
        "a step 40 of 60, lowest validation MSE 7",
        "a step 60 of 60, lowest validation MSE 6",
    ]
    assert said[-1] == "all runs have ended"
    assert len(drawn) == 5


def test_following_ends_at_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    a_run(Path("a"), line(20))

    def pressed(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(plot.time, "sleep", pressed)
    assert main(["plot", "a", "--follow"]) == 0
    assert capsys.readouterr().out.endswith("no longer followed; the picture stays as it is\n")
    assert Path("learning.png").exists()


def test_a_run_that_has_not_begun_is_waited_for_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(Path("young"), steps=20)
    monkeypatch.setattr(plot.time, "sleep", lambda _: Path("young/log.jsonl").write_text(line(20)))
    assert main(["plot", "young", "--follow"]) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.split(" ", 1)[1] == "young has logged nothing yet"
    assert second.split(" ", 1)[1] == "learning.png: young step 20 of 20, no validation yet"
    assert last == "all runs have ended"


def test_errors_that_are_not_finite_are_not_the_lowest(
    drawn: list[tuple[list[Learned], str]], capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(Path("a"), line(20, float("nan")), line(40, 5.0), line(60, float("inf")))
    a_run(Path("b"), line(20, float("nan")))
    assert main(["plot", "a", "b"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  a step 60 of 100, lowest validation MSE 5",
        "  b step 20 of 100, no finite validation MSE",
    ]


def test_any_name_of_a_folder_is_one_line(
    drawn: list[tuple[list[Learned], str]], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (os.fsdecode(b"\xff"), "a\nb"):
        a_run(Path(name), line(20))
        assert main(["plot", name]) == 0
    assert [text[:8] for text in capsys.readouterr().out.splitlines()] == [
        "learning", r"  \udcff", "learning", r"  a\nb st"[:8],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["young"], "young has logged nothing yet; the first line of a log follows 20 steps: add --follow"),
        (["nowhere"], "nowhere/log.jsonl does not exist, so it is not the log of a run"),
        (["good", "damaged"], "line 2 of damaged/log.jsonl is damaged"),
        (["good", "damaged", "--follow"], "line 2 of damaged/log.jsonl is damaged"),
        (["good", "good"], "good is named twice"),
        (["good", "--out", "a.gif"], "--out is a.gif; it must end in .png, .svg or .pdf"),
        (["good", "--out", "nowhere/a.png"], "--out is nowhere/a.png, which cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_draws_nothing(
    words: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(here / "young")
    a_run(here / "good", line(20))
    a_run(here / "damaged", line(20), "{\n", line(40))
    assert main(["plot", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert {path.name for path in here.iterdir()} == {"young", "good", "damaged"}


def test_without_matplotlib_there_is_one_error(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(here / "good", line(20))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["plot", "good"]) == 2
    assert capsys.readouterr().err == 'stzoo: charts need an extra: pip install "stzoo[plot]"\n'
