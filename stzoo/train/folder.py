"""The folder of a training run.

| file | content |
|---|---|
| plan.json | what the run is about and its number of steps, fixed at its start, with a sha256 sum of itself |
| checkpoint.pt | what changes while it trains (`Run.state`), with copies of the plan and the log |
| checkpoint.previous.pt | the checkpoint before that one |
| log.jsonl | losses and validation errors, one JSON object a line |
| samples/ | a picture for each validation |
| best/ | the weights with the lowest validation error, which `stzoo.load` reads |
| best.sha256 | the sha256 sum of those weights, as `sha256sum -c` reads it, and a comment that names the run |
| latents/ | cached latents, see `stzoo.train.latents` |
| trackers/ | what trackers such as TensorBoard write, see `stzoo.train.trackers` |

A run may be killed at any moment: each file that it needs to go on is written whole or not at all. A file that is
damaged later is noticed by its sum, and the run goes on from what is left.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from stzoo.catalog import CONFIG_FILE, WEIGHTS_FILE
from stzoo.errors import StzooError, TrainingError
from stzoo.files import locked, make_way, remove_leftovers, replacing, write_atomically
from stzoo.hashing import file_sha256
from stzoo.spec import ModelSpec
from stzoo.train.checkpoint import read_checkpoint, write_checkpoint
from stzoo.train.recipe import Recipe
from stzoo.weights import NEXT_CONFIG_FILE, Origin, load_module, save_folder

_FILES = (
    "checkpoint.pt", "checkpoint.previous.pt", "plan.json", "log.jsonl", "best.sha256",
    f"best/{WEIGHTS_FILE}", f"best/{CONFIG_FILE}",
)  # fmt: skip
_FOLDERS = ("best", "samples", "latents", "trackers")
_OF_MODEL = (WEIGHTS_FILE, CONFIG_FILE, NEXT_CONFIG_FILE)
_ANOTHER = {  # what is said of a part of a plan that is not the one that was asked for
    "spec": "another spec", "recipe": "another recipe", "steps": "another number of steps", "clips": "other clips",
    "codec": "another codec", "start": "other weights to begin from", "perceptual": "other weights of LPIPS",
}  # fmt: skip
_OF_RUN = "# of the run "  # how the line of best.sha256 begins that `sha256sum -c` does not read


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

    @property
    def trackers(self) -> Path:
        """The folder of what trackers write."""
        return self.path / "trackers"

    def picture(self, step: int) -> Path:
        """Where the picture of the validation after `step` steps goes."""
        return self.path / "samples" / f"{step:07d}.png"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, hold it for this process, and clear away what a killed process left half-written.

        Whatever has the name of a file of the run and is none, such as a folder, is renamed, with a warning.

        Raises:
            TrainingError: another process trains in it.
        """
        with locked(self.path, TrainingError(f"another process trains in {self.path}")):
            for name in (*_FOLDERS, *_FILES):  # folders first, for some of the files are in them
                make_way(self.path / name, folder=name in _FOLDERS)
                # of best/, earlier versions wrote the files into the hidden folder itself
                remove_leftovers(self.path / name, _OF_MODEL if name == "best" else ())
            (self.path / "samples").mkdir(exist_ok=True)
            yield

    def plan(self, identity: Mapping[str, Any], steps: int | None, choose_steps: Callable[[], int]) -> int:
        """The number of steps of this run. A folder without a plan gets one.

        Args:
            identity: what the run is about, see `Assignment.identity`.
            steps: the number of steps that was asked for; None for that of the plan or, without one, `choose_steps()`.
            choose_steps: measures how many steps fit into the time there is.

        Raises:
            TrainingError: the folder holds another run, or one with another number of steps; or its plan is damaged,
                and no checkpoint has a copy.
        """
        plan = self._plan(identity)
        if plan is None:
            plan = {**identity, "steps": choose_steps() if steps is None else steps}
            self._write_plan(plan)
            return int(plan["steps"])
        wanted = {**identity, "steps": plan["steps"] if steps is None else steps}
        different = _differences(plan, wanted)
        if different:
            raise TrainingError(
                f"{self.path} holds a run with {' and '.join(different)}; name another folder or remove this one"
            )
        return int(plan["steps"])

    def _plan(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """The plan, or the copy of it in a checkpoint if the file is damaged or missing; None for a new run."""
        file = self.path / "plan.json"
        reason = "it is missing"
        if there := file.is_file():
            try:
                return _read_plan(file)
            except ValueError as error:
                reason = f"it is damaged ({error})"
        saved = self._last_checkpoint(identity)
        if saved is None:
            if there:
                _warn(f"{file}: {reason}. There is no checkpoint yet, so the run begins anew")
            return None
        if "plan" in saved:
            _warn(f"{file}: {reason}. The plan in the checkpoint takes its place")
            self._write_plan(saved["plan"])
            return dict(saved["plan"])
        if there:
            raise TrainingError(f"{file}: {reason}. Put it back from a copy, or name another folder")
        return None

    def _write_plan(self, plan: Mapping[str, Any]) -> None:
        write_atomically(self.path / "plan.json", json.dumps({**plan, "sha256": _digest(plan)}, indent=2).encode())

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint. The last one becomes the previous one.

        Raises:
            OSError: it cannot be written; both checkpoints stay as they were.
        """
        log, kept = self.path / "log.jsonl", self.path / "best.sha256"
        state = state | {
            "plan": _read_plan(self.path / "plan.json"),
            "log": log.read_text("utf-8", errors="replace") if log.is_file() else "",
            "kept": kept.read_text("utf-8", errors="replace")[:64] if kept.is_file() else None,
        }
        newest = self.path / "checkpoint.pt"
        with replacing(newest) as partial:
            write_checkpoint(partial, state)
            if newest.is_file():
                os.replace(newest, self.path / "checkpoint.previous.pt")

    def restore(self) -> dict[str, Any] | None:
        """The state in the last checkpoint that is whole, its tensors on the CPU; None without a checkpoint.

        `kept` is in it as well, which `best_is_whole` asks for. What was logged after the checkpoint is removed from
        log.jsonl: it will happen again.

        Raises:
            TrainingError: there are checkpoints, and all of them are damaged or of another run.
        """
        saved, log = self._last_checkpoint(_read_plan(self.path / "plan.json")), self.path / "log.jsonl"
        if saved is None:
            log.unlink(missing_ok=True)
            return None
        there = log.read_bytes() if log.is_file() else b""
        kept = saved["log"].encode() if "log" in saved else _lines_until(saved["step"], there)
        if "log" in saved and not there.startswith(kept):
            _warn(f"{log} was damaged; the log in the checkpoint takes its place")
        if kept != there:
            write_atomically(log, kept)
        return {name: value for name, value in saved.items() if name not in ("plan", "log")}

    def _last_checkpoint(self, about: Mapping[str, Any]) -> dict[str, Any] | None:
        """All that the last whole checkpoint of this run holds; None if there is none. See `restore` for the error.

        Args:
            about: what the plan in a checkpoint must say. Earlier versions kept no plan in it.
        """
        newest, previous = self.path / "checkpoint.pt", self.path / "checkpoint.previous.pt"
        damaged: list[str] = []
        for file in (newest, previous):
            if not file.is_file():
                continue
            try:
                saved = read_checkpoint(file)
                different = _differences(saved.get("plan", about), about)
                if different:
                    raise TrainingError(f"{file} is damaged: it is of a run with {' and '.join(different)}")
            except TrainingError as error:
                damaged.append(str(error))
                continue
            if damaged:
                _warn(f"{damaged[0]}. Training goes on from the checkpoint before it, of step {saved['step']:,}")
            if file == previous:
                os.replace(previous, newest)
            return saved
        if damaged:
            raise TrainingError(
                f"{'; '.join(damaged)}. There is no other checkpoint to go on from: put one back from a copy, or "
                f"remove {self.path} to begin from step 0"
            )
        return None

    def log(self, record: Mapping[str, Any]) -> None:
        """Add a line to log.jsonl."""
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def keep(self, spec: ModelSpec, weights: Mapping[str, Tensor], origin: Origin | None = None) -> None:
        """Write these weights to best/, in place of those that are there. `origin` is noted in the file.

        Their sum is written before them, so that after a kill best/ is either what this sum says or what the last
        checkpoint says.
        """
        self.best.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".best.") as hidden:
            made = Path(hidden, "best")  # by this name `remove_leftovers` knows it
            save_folder(made, spec, weights, origin)
            digest = file_sha256(made / WEIGHTS_FILE)
            said = f"{digest}  best/{WEIGHTS_FILE}\n{_OF_RUN}{self._run_digest()}\n"
            write_atomically(self.path / "best.sha256", said.encode())
            for name in (CONFIG_FILE, WEIGHTS_FILE):
                os.replace(made / name, self.best / name)

    def mend_best(self, spec: ModelSpec, kept: str | None, origin: Origin | None = None) -> bool:
        """Whether best/ holds weights of this model, the same bytes that `keep` wrote; its config.json is mended.

        Args:
            spec: the model.
            kept: the sha256 sum of the weights that were there at the last checkpoint; None if it has no such entry.
            origin: as in `keep`.
        """
        weights = self.best / WEIGHTS_FILE
        sums = {kept, self._sum_of_best()} - {None}
        try:
            digest = file_sha256(weights)
            if sums and digest not in sums:
                return False
            module, _ = load_module(spec, weights, digest)  # the only check of a run of an earlier version
        except (OSError, StzooError):
            return False
        try:
            whole = json.loads((self.best / CONFIG_FILE).read_bytes()) == spec.to_dict()
        except (OSError, ValueError, RecursionError):
            whole = False
        if not whole:
            self.keep(spec, module.state_dict(), origin)
        return True

    def _sum_of_best(self) -> str | None:
        """The sum in best.sha256; None if there is none, or if it is of another run."""
        file = self.path / "best.sha256"
        text = file.read_text("utf-8", errors="replace") if file.is_file() else ""
        of_run = text.partition(_OF_RUN)[2].strip()  # earlier versions did not name the run
        return text[:64] if text and of_run in ("", self._run_digest()) else None

    def _run_digest(self) -> str:
        return _digest(_read_plan(self.path / "plan.json"))


def _read_plan(file: Path) -> dict[str, Any]:
    """The plan without its sum. Raises ValueError if the file is damaged; earlier versions wrote no sum."""
    try:
        plan = json.loads(file.read_text("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(plan, dict) or not isinstance(plan.get("steps"), int):
        raise ValueError("it names no number of steps")
    if plan.pop("sha256", None) not in (None, _digest(plan)):
        raise ValueError("its sha256 sum is not the one that was written with it")
    return plan


def _differences(plan: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What a plan has otherwise than wanted, in words. One with weights to begin from is never one without.

    A setting of recipes that is newer than the plan has its default there, which is what the run was trained with.
    """
    there, asked = _complete(plan), _complete(wanted)
    keys = dict.fromkeys([*asked, *(key for key in ("start",) if key in there)])
    return [_ANOTHER.get(key, f"another {key}") for key in keys if there.get(key) != asked.get(key)]


def _complete(plan: Mapping[str, Any]) -> Mapping[str, Any]:
    recipe = plan.get("recipe")
    return {**plan, "recipe": {**_defaults(), **recipe}} if isinstance(recipe, Mapping) else plan


def _defaults() -> dict[str, Any]:
    """The defaults of a recipe, in types that JSON has, as a plan keeps them."""
    known = {setting.name: setting.default for setting in fields(Recipe) if setting.default is not MISSING}
    return dict(json.loads(json.dumps(known)))


def _digest(plan: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


def _lines_until(step: int, log: bytes) -> bytes:
    """The lines of a log up to this step. What is no record is left out: a line that a kill cut short, or damage."""
    kept = []
    for line in log.splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + b"\n")
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return b"".join(kept)


def _warn(what: str) -> None:
    warnings.warn(what, stacklevel=3)
