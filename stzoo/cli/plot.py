"""`stzoo plot`: the learning curves of training runs, once or as long as they grow."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stzoo.cli.shared import PICTURE, Arguments, Commands, add_command, check_picture
from stzoo.errors import SpecError, TrainingError, printable

if TYPE_CHECKING:
    from stzoo.charts import Learned
    from stzoo.train.log import Row

_OVER = {"sequences": "sequences seen in training", "steps": "steps", "hours": "hours of training, without pauses"}
_LOOK_EVERY = 2.0  # seconds between two looks at the logs


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "plot",
        _run,
        help="draw the learning curves of training runs, also while they train",
        description="Draw the learning curves of runs of 'stzoo train': the MSE on held-out clips at each validation, "
        "and below it the training loss. A run without a validation yet is drawn with the loss alone.",
        example="stzoo plot RUN --over hours --follow",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="one or more run folders, which 'stzoo train --out RUN' wrote"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("learning.png"),
        metavar="OUT.png",
        help=f"file to draw the picture to: {PICTURE} (default: %(default)s)",
    )
    parser.add_argument(
        "--over",
        choices=tuple(_OVER),
        default="sequences",
        help="what the curves go over: sequences seen in training, steps, or hours of training, without the time "
        "between stopping and resuming (default: %(default)s)",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="draw again whenever a log has grown, until all runs have taken the steps of their plans, or until Ctrl-C",
    )


@dataclass(frozen=True)
class _Run:
    """A run as its log shows it.

    Attributes:
        name: what the picture and the command line call it, on one line.
        rows: of its log.
        planned: the number of steps in the end; None if the plan does not say it.
    """

    name: str
    rows: tuple[Row, ...]
    planned: int | None

    @property
    def ended(self) -> bool:
        return self.planned is not None and bool(self.rows) and self.rows[-1].step >= self.planned

    def __str__(self) -> str:
        if not self.rows:
            return f"{self.name} has logged nothing yet"
        of = "" if self.planned is None else f" of {self.planned:,}"
        errors = [row.validation_mse for row in self.rows if row.validation_mse is not None]
        finite = list(filter(math.isfinite, errors))
        validated = "no finite validation MSE" if errors else "no validation yet"
        if finite:
            validated = f"lowest validation MSE {min(finite):.4g}"
        return f"{self.name} step {self.rows[-1].step:,}{of}, {validated}"

    def learned(self, over: str) -> Learned:
        """Its curves, over one of `_OVER`."""
        from stzoo.charts import Learned
        from stzoo.train.log import hours_trained

        of: dict[str, Sequence[float]] = {
            "sequences": [row.sequences for row in self.rows],
            "steps": [row.step for row in self.rows],
            "hours": hours_trained(self.rows),
        }
        errors, losses = ([row.validation_mse for row in self.rows], [row.loss for row in self.rows])
        return Learned(self.name, _known(of[over], errors), _known(of[over], losses))


def _known(places: Sequence[float], values: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """The values that are there, with their places before them."""
    found = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
    return [place for place, _ in found], [value for _, value in found]


def _run(arguments: Arguments) -> None:
    runs: list[Path] = arguments.runs
    twice = next((run for number, run in enumerate(runs) if run in runs[:number]), None)
    if twice is not None:
        raise SpecError(f"{twice} is named twice; name each run once")
    check_picture("--out", arguments.out)
    if arguments.follow:
        _follow(runs, arguments.over, arguments.out)
        return
    read = _read(runs)
    if not any(run.rows for run in read):
        raise TrainingError(f"{'; '.join(map(str, read))}; the first line of a log follows 20 steps: add --follow")
    _draw(read, arguments.over, arguments.out)
    print("\n".join([printable(str(arguments.out)), *(f"  {run}" for run in read)]))


def _follow(runs: Sequence[Path], over: str, out: Path) -> None:
    """Draw when a log has changed, and say in a line what the runs have logged, until all have ended or Ctrl-C."""
    seen: list[tuple[int, int] | None] | None = None
    try:
        while True:
            if seen != (found := [_state(run / "log.jsonl") for run in runs]):
                seen, read = found, _read(runs)
                drawn = any(run.rows for run in read)
                if drawn:
                    _draw(read, over, out)
                said = f"{printable(str(out))}: " if drawn else ""
                print(f"{time.strftime('%H:%M:%S')} {said}{'; '.join(map(str, read))}", flush=True)
                if all(run.ended for run in read):
                    print("all runs have ended")
                    return
            time.sleep(_LOOK_EVERY)
    except KeyboardInterrupt:
        print("no longer followed; the picture stays as it is")


def _state(log: Path) -> tuple[int, int] | None:
    """What changes whenever a log does; None if there is none."""
    try:
        found = log.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _read(runs: Sequence[Path]) -> list[_Run]:
    from stzoo.train.log import planned_steps, read_log

    return [_Run(printable(str(run)), read_log(run), planned_steps(run)) for run in runs]


def _draw(runs: Sequence[_Run], over: str, out: Path) -> None:
    from stzoo.charts import learning_chart

    learning_chart([run.learned(over) for run in runs], _OVER[over]).save(out)
