"""A run folder: plan.json (what the run is, fixed at its start), checkpoint.pt, log.jsonl, samples/, best/.

What a run needs to go on is written whole or not at all, so it may be killed at any moment.
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
from stzoo.spec import ModelSpec
from stzoo.train.recipe import Recipe


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def best(self) -> Path:
        return self.path / "best"

    @property
    def latents(self) -> Path:
        return self.path / "latents"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, hold it for this process, and clear away what a killed one left half-written.

        Raises:
            TrainingError: another process trains in it.
        """
        with locked(self.path, TrainingError(f"another process trains in {self.path}")):
            (self.path / "samples").mkdir(exist_ok=True)
            for file in ("checkpoint.pt", "plan.json", "log.jsonl", f"best/{WEIGHTS_FILE}", f"best/{CONFIG_FILE}"):
                remove_leftovers(self.path / file)
            yield

    def plan(
        self,
        spec: ModelSpec,
        recipe: Recipe,
        steps: int | None,
        choose_steps: Callable[[], int],
        given: Mapping[str, str] | None = None,
    ) -> int:
        """The number of steps of this run: read where the folder has a plan, else `steps` or chosen, and written down.

        `given` are the fingerprints of what the run was handed: a codec, what fine-tuning starts from, clips.

        Raises:
            TrainingError: the folder holds a run with other weights to start from, other
                clips, or another model, recipe, codec or number of steps; or its plan is damaged.
        """
        file = self.path / "plan.json"
        wanted: dict[str, Any] = {"spec": spec.to_dict(), "recipe": json.loads(json.dumps(recipe.to_dict()))}
        wanted |= given or {}
        if file.is_file():
            try:
                plan = json.loads(file.read_text("utf-8"))
                wanted |= {"steps": int(plan["steps"]) if steps is None else steps}
                different = [k for k in wanted if plan.get(k) != wanted[k]]
            except (ValueError, KeyError, TypeError) as error:
                raise TrainingError(f"{file} is damaged: {error!r}") from error
            if different:
                raise TrainingError(
                    f"{self.path} holds a run with another {' and '.join(different)}; "
                    "name another folder or remove this one"
                )
            return int(plan["steps"])
        plan = wanted | {"steps": choose_steps() if steps is None else steps}
        write_atomically(file, json.dumps(plan, indent=2).encode())
        return int(plan["steps"])

    def save(self, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.path / "checkpoint.pt", buffer.getvalue())

    def restore(self) -> dict[str, Any] | None:
        """The last checkpoint, on the CPU, or None. What was logged after it is forgotten: it will happen again."""
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
                except json.JSONDecodeError:  # the line the process was killed in
                    break
            write_atomically(log, "".join(line + "\n" for line in kept).encode())
        return state

    def log(self, record: dict[str, Any]) -> None:
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
