"""The log of a run: what it holds, and how long the run has trained. Importing this imports no torch."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from stzoo.errors import TrainingError

_SHORTEST_PAUSE = 60.0  # seconds: between two lines of a log, and not less than so many times what is usual
_TIMES_USUAL = 10


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a log.

    Attributes:
        step: how many steps had been taken.
        sequences: how many clips had been seen.
        seconds: when it was written, in seconds since 1970.
        loss: of the batch of this step; None before the first step.
        validation_mse: the error on held-out clips; None where there was no validation.
    """

    step: int
    sequences: int
    seconds: float
    loss: float | None = None
    validation_mse: float | None = None


def read_log(run: Path) -> tuple[Row, ...]:
    """The lines of a run's log.jsonl. A last line that is still being written, or that a kill cut short, is left out.

    Args:
        run: the run folder. It may hold a plan and no log yet, which is then empty.

    Raises:
        TrainingError: it is no run folder, or the log is damaged. The message says where, and what to do.
    """
    path = run / "log.jsonl"
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        if (run / "plan.json").is_file():
            return ()
        raise TrainingError(
            f"{path} does not exist, so it is not the log of a run; name the folder that 'stzoo train --out RUN' wrote"
        ) from None
    except OSError as error:
        raise TrainingError(f"{path} is not the log of a run: {error.strerror}") from error
    return tuple(_row(line, number, path) for number, line in enumerate(lines, 1))


def _row(line: bytes, number: int, path: Path) -> Row:
    try:
        found = json.loads(line)
        loss, error = found.get("loss"), found.get("validation_mse")
        return Row(
            step=int(found["step"]),
            sequences=int(found["sequences"]),
            seconds=float(found["seconds"]),
            loss=None if loss is None else float(loss),
            validation_mse=None if error is None else float(error),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise TrainingError(
            f"line {number} of {path} is damaged, so it is not the log of a run; the command that trains the run, "
            "started again, takes the log from the checkpoint"
        ) from None


def hours_trained(rows: Sequence[Row]) -> list[float]:
    """How long a run had trained at each row of its log, in hours, without the pauses between stopping and resuming.

    The log says when a line was written, but not when training stopped. So a time between two lines is taken for a
    pause if it is longer than a minute, and more than ten times the median of the times before lines of the same kind:
    with a validation, or without. It then counts as much as this median, because a few steps were taken in it as well.
    And so does the time before the first line, unless that is one of step 0: nothing says when the run began.
    """
    if not rows:
        return []
    gaps = [row.seconds - before.seconds for before, row in pairwise(rows)]
    kinds = [_validated(row) for row in rows]
    usual = {kind: _usual([g for g, k in zip(gaps, kinds[1:], strict=True) if k is kind]) for kind in (False, True)}
    total = 0.0 if rows[0].step == 0 else usual[kinds[0]] or max(usual.values())
    found = [total / 3600]
    for gap, kind in zip(gaps, kinds[1:], strict=True):
        total += gap if 0 <= gap <= max(_SHORTEST_PAUSE, _TIMES_USUAL * usual[kind]) else usual[kind]
        found.append(total / 3600)
    return found


def _usual(gaps: Sequence[float]) -> float:
    """The median of times in seconds; 0 if there are none. A clock that was set back makes negative ones."""
    return max(0.0, statistics.median_low(gaps)) if gaps else 0.0


def _validated(row: Row) -> bool:
    return row.validation_mse is not None


def planned_steps(run: Path) -> int | None:
    """The number of steps that the plan of a run names; None if there is no plan, or no number in it."""
    try:
        plan: Any = json.loads((run / "plan.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    steps = plan.get("steps") if isinstance(plan, Mapping) else None
    return steps if isinstance(steps, int) else None
