"""The log of a run is read as far as it is whole, and hours leave pauses out."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stzoo.errors import TrainingError
from stzoo.train.log import Row, hours_trained, planned_steps, read_log


def rows(*gaps: tuple[float, bool], first: int = 20) -> list[Row]:
    """A row of step `first` and one after each gap in seconds, with a validation or without."""
    found, now = [Row(step=first, sequences=8 * first, seconds=1000.0, loss=1.0)], 1000.0
    for number, (gap, validated) in enumerate(gaps, 1):
        now, step = now + gap, first + 20 * number
        error = 9.0 if validated else None
        found.append(Row(step=step, sequences=8 * step, seconds=now, loss=1.0, validation_mse=error))
    return found


def seconds(*gaps: tuple[float, bool], first: int = 20) -> list[float]:
    return [3600 * hour for hour in hours_trained(rows(*gaps, first=first))]


def test_hours_are_those_between_the_lines_of_the_log() -> None:
    assert hours_trained([]) == []
    assert seconds() == [0]
    assert seconds((10, False), (12, False), (40, True), (10, False)) == pytest.approx([10, 20, 32, 72, 82])
    assert seconds((10, False), (12, False), first=0) == pytest.approx([0, 10, 22])  # the log begins with step 0


def test_a_pause_counts_as_much_as_the_steps_after_it() -> None:
    usual = [(10.0, False)] * 5 + [(50.0, True)] + [(10.0, False)] * 5 + [(50.0, True)]
    undisturbed = seconds(*usual)
    for number, (gap, validated) in enumerate(usual):
        paused = [*usual[:number], (gap + 7200, validated), *usual[number + 1 :]]
        assert seconds(*paused) == pytest.approx(undisturbed)
    assert seconds((-500, False)) == [0, 0]
    back = [*usual[:3], (-500.0, False), *usual[4:]]  # a clock that was set back
    assert seconds(*back) == pytest.approx(undisturbed)


def test_what_is_slow_is_no_pause() -> None:
    assert seconds((1, False), (1, False), (1, False), (55, False)) == pytest.approx(
        [1, 2, 3, 4, 59]
    )  # a minute is none
    assert seconds(*[(1000, False)] * 3) == pytest.approx([1000, 2000, 3000, 4000])
    slow_validation = [(1, False)] * 4 + [(300, True)] + [(1, False)] * 4 + [(320, True)]
    assert seconds(*slow_validation)[-1] == pytest.approx(1 + 4 + 300 + 4 + 320)


def log(folder: Path, *lines: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "log.jsonl").write_text(
        "".join(line if isinstance(line, str) else f"{json.dumps(line)}\n" for line in lines)
    )
    return folder


WHOLE = {"step": 20, "loss": 0.5, "seconds": 7.5, "sequences": 160}


def test_every_line_is_read(tmp_path: Path) -> None:
    start = {"step": 0, "validation_mse": 3.0, "seconds": 1.0, "sequences": 0}
    found = read_log(log(tmp_path, start, WHOLE | {"codes_used": 3}, '{"step": 40, "lo'))
    assert found == (
        Row(step=0, sequences=0, seconds=1.0, validation_mse=3.0),
        Row(step=20, sequences=160, seconds=7.5, loss=0.5),
    )


@pytest.mark.parametrize(
    "line",
    ['{"step": 40, "lo\n', "\n", "[1]\n", "null\n", '{"step": 40}\n', "[" * 99_999 + "\n", "\0\0\n", '{"step": "x"}\n'],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(TrainingError, match=r"line 2 of .*log.jsonl is damaged.* takes the log from the checkpoint"):
        read_log(log(tmp_path, WHOLE, line, WHOLE))


def test_what_is_no_run_is_refused_and_a_young_run_is_not(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="log.jsonl does not exist.* name the folder that 'stzoo train --out RUN'"):
        read_log(tmp_path)
    (tmp_path / "plan.json").write_text('{"steps": 40}')
    assert read_log(tmp_path) == ()
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(TrainingError, match="is not the log of a run: Is a directory"):
        read_log(tmp_path)


def test_a_plan_says_how_many_steps_there_will_be(tmp_path: Path) -> None:
    assert planned_steps(tmp_path) is None
    for text, steps in (('{"steps": 40}', 40), ('{"steps": "x"}', None), ("[]", None), ("{", None), ("\0", None)):
        (tmp_path / "plan.json").write_text(text)
        assert planned_steps(tmp_path) == steps


def test_a_log_is_read_without_torch() -> None:
    code = "import sys, stzoo.train.log; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
