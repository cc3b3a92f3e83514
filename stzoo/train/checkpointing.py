"""A run folder: plan.json (what the run is, fixed at its start), checkpoint.pt, log.jsonl, samples/, best/.

Everything is written whole or not at all, so a run may be killed at any moment.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stzoo.errors import TrainingError
from stzoo.spec import ModelSpec
from stzoo.train.recipe import Recipe
from stzoo.weights import write_atomically


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def best(self) -> Path:
        return self.path / "best"

    def plan(self, spec: ModelSpec, recipe: Recipe, choose_steps: Callable[[], int]) -> int:
        """The number of steps of this run: read where the folder has a plan, else chosen and written down.

        Raises:
            TrainingError: the folder holds a run of another model or recipe.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "samples").mkdir(exist_ok=True)
        file = self.path / "plan.json"
        wanted = {"spec": spec.to_dict(), "recipe": json.loads(json.dumps(recipe.to_dict()))}
        if file.is_file():
            plan = json.loads(file.read_text("utf-8"))
            different = [k for k in wanted if plan[k] != wanted[k]]
            if different:
                raise TrainingError(
                    f"{self.path} holds a run with another {' and '.join(different)}; "
                    "name another folder or remove this one"
                )
            return int(plan["steps"])
        plan = wanted | {"steps": choose_steps()}
        write_atomically(file, json.dumps(plan, indent=2).encode())
        return int(plan["steps"])

    def save(self, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.path / "checkpoint.pt", buffer.getvalue())

    def restore(self, device: torch.device) -> dict[str, Any] | None:
        """The last checkpoint, or None; what was logged after it is forgotten, since it will happen again."""
        file = self.path / "checkpoint.pt"
        if not file.is_file():
            (self.path / "log.jsonl").unlink(missing_ok=True)
            return None
        state = torch.load(file, map_location=device, weights_only=True)
        log = self.path / "log.jsonl"
        if log.is_file():
            kept = []
            for line in log.read_text("utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= state["step"]:
                        kept.append(line)
                except json.JSONDecodeError:  # the line the process was killed in
                    break
            write_atomically(log, "".join(line + "\n" for line in kept).encode())
        return state

    def log(self, record: dict[str, Any]) -> None:
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
