"""The folder of a training run.

| file | content |
|---|---|
| plan.json | what the run is about and its number of steps, fixed at its start |
| checkpoint.pt | everything that changes while it trains (`Run.state`), as of the last checkpoint |
| log.jsonl | losses and validation errors, one JSON object a line |
| samples/ | a picture for each validation |
| best/ | the weights with the lowest validation error, which `stzoo.load` reads |
| latents/ | cached latents, see `stzoo.train.latents` |

A run may be killed at any moment: each file that it needs to go on is written whole or not at all.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stzoo.catalog import CONFIG_FILE, WEIGHTS_FILE
from stzoo.errors import TrainingError
from stzoo.files import locked, remove_leftovers, write_atomically


@dataclass(frozen=True)
class RunFolder:
    """The folder of a training run, at `path`; it is made by `locked`."""

    path: Path

    @property
    def best(self) -> Path:
        """The folder of the weights with the lowest validation error."""
        return self.path / "best"

    @property
    def latents(self) -> Path:
        """The folder of cached latents."""
        return self.path / "latents"

    def picture(self, step: int) -> Path:
        """Where the picture of the validation after `step` steps goes."""
        return self.path / "samples" / f"{step:07d}.png"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, hold it for this process, and remove what a killed process left half-written.

        Raises:
            TrainingError: another process trains in it.
        """
        with locked(self.path, TrainingError(f"another process trains in {self.path}")):
            (self.path / "samples").mkdir(exist_ok=True)
            for file in ("checkpoint.pt", "plan.json", "log.jsonl", f"best/{WEIGHTS_FILE}", f"best/{CONFIG_FILE}"):
                remove_leftovers(self.path / file)
            yield

    def plan(self, identity: Mapping[str, Any], steps: int | None, choose_steps: Callable[[], int]) -> int:
        """The number of steps of this run. A folder without a plan gets one.

        Args:
            identity: what the run is about, see `Assignment.identity`.
            steps: the number of steps that was asked for; None for that of the plan or, without one, `choose_steps()`.
            choose_steps: measures how many steps fit into the time there is.

        Raises:
            TrainingError: the folder holds another run, or one with another number of steps; or its plan is damaged.
        """
        file = self.path / "plan.json"
        if not file.is_file():
            plan = {**identity, "steps": choose_steps() if steps is None else steps}
            write_atomically(file, json.dumps(plan, indent=2).encode())
            return int(plan["steps"])
        try:
            plan = json.loads(file.read_text("utf-8"))
            wanted = {**identity, "steps": int(plan["steps"]) if steps is None else steps}
            different = [key for key in wanted if plan.get(key) != wanted[key]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrainingError(f"{file} is damaged: {error!r}") from error
        if different:
            raise TrainingError(
                f"{self.path} holds a run with another {' and '.join(different)}; "
                "name another folder or remove this one"
            )
        return int(plan["steps"])

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint in place of the last one."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.path / "checkpoint.pt", buffer.getvalue())

    def restore(self) -> dict[str, Any] | None:
        """The last checkpoint, its tensors on the CPU, or None without one.

        What was logged after it is removed: it will happen again.
        """
        file = self.path / "checkpoint.pt"
        if not file.is_file():
            (self.path / "log.jsonl").unlink(missing_ok=True)
            return None
        state = torch.load(file, map_location="cpu", weights_only=True)
        log = self.path / "log.jsonl"
        if log.is_file():
            kept = []
            for line in log.read_text("utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= state["step"]:
                        kept.append(line)
                except json.JSONDecodeError:  # the process was killed while it wrote this line
                    break
            write_atomically(log, "".join(line + "\n" for line in kept).encode())
        return state

    def log(self, record: Mapping[str, Any]) -> None:
        """Add a line to log.jsonl."""
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
