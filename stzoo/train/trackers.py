"""What goes into log.jsonl is sent on to TensorBoard, Weights & Biases and others, through Accelerate's trackers.

A tracker is a guest of the run: if it fails while a model trains, a warning says so, and the run goes on without it.
"""

from __future__ import annotations

import importlib.util
import json
import secrets
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from stzoo.errors import MissingExtraError, SpecError, TrainingError, printable
from stzoo.files import write_atomically
from stzoo.spec import shown

PROJECT = "stzoo"  # what trackers that know several projects file a run under
_NOT_SENT = ("step", "seconds")  # trackers get the step by itself, and note the time themselves


def check_trackers(names: Sequence[str]) -> None:
    """Check that these trackers can be started, as far as can be told without starting them.

    Raises:
        SpecError: Accelerate knows no such tracker, or `names` are no names.
        MissingExtraError: Accelerate or the package of a tracker is not installed; the message holds the pip command.
    """
    several = isinstance(names, Sequence) and not isinstance(names, (str, bytes))
    if not several or not all(isinstance(name, str) for name in names):
        raise SpecError(f"trackers is {shown(names)}; it must be several names, such as ('tensorboard',)")
    if not names:
        return
    if importlib.util.find_spec("accelerate") is None:
        raise MissingExtraError('trackers need an extra: pip install "stzoo[train]"')
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    there = {str(each) for each in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise SpecError(f"there is no tracker {shown(name)}; it may be {known}")
        if name not in there:
            raise MissingExtraError(f"the tracker {name} needs its package: pip install {name}")


class Trackers:
    """The trackers of one run, in a `with` block that ends them. `start` starts them, once it is known where the run
    goes on.

    Args:
        names: of the trackers, which `check_trackers` has checked; none in a process that is not the first.
        folder: where those write that write files; it is made when it is needed.
        about: what the run is about, which they show beside its figures.
    """

    def __init__(self, names: Sequence[str], folder: Path, about: Mapping[str, Any]):
        self._names, self._folder, self._about = tuple(dict.fromkeys(names)), folder, _flat(about)
        self._running: dict[str, Any] = {}
        self._made_state = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def start(self, first: int) -> None:
        """Start them.

        Args:
            first: the first step that will be logged. What an earlier process logged of it and of later ones, after the
                checkpoint from which this one goes on, is replaced where a tracker lets us.

        Raises:
            TrainingError: one of them cannot be started.
        """
        if not self._names:
            return
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        if not PartialState._shared_state:  # without it Accelerate's trackers cannot tell whether they are to write
            PartialState(cpu=True)
            self._made_state = True
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in self._names:
            try:
                tracker = LOGGER_TYPE_TO_CLASS[name](*self._place(name), **self._settings(name, first))
                tracker.start()
                self._running[name] = tracker
                if not self._is_described(name):
                    tracker.store_init_configuration(self._about)
            except Exception as error:  # each package raises errors of its own
                self.finish()
                raise TrainingError(f"the tracker {name} cannot be started: {_reason(error)}") from error

    def log(self, record: Mapping[str, Any]) -> None:
        """Send a record of log.jsonl to each of them. One that fails is warned of, and gets no more."""
        values = {key: value for key, value in record.items() if key not in _NOT_SENT}
        for name, tracker in list(self._running.items()):
            try:
                tracker.log(values, step=record["step"])
            except Exception as error:
                self._lose(name, error)

    def finish(self) -> None:
        """Let them write what they still hold, and end them."""
        for name, tracker in list(self._running.items()):
            try:
                tracker.finish()
            except Exception as error:
                self._lose(name, error)
        self._running.clear()
        if self._made_state:  # or it would decide what an `Accelerator` of the caller computes on
            from accelerate import PartialState

            PartialState._reset_state()
            self._made_state = False

    def _lose(self, name: str, error: Exception) -> None:
        del self._running[name]
        warnings.warn(
            f"the tracker {name} failed, and gets nothing more of this run, which goes on: {_reason(error)}",
            stacklevel=4,
        )

    def _place(self, name: str) -> tuple[str, ...]:
        """The name under which a tracker files the run and, for those that need one, the folder to write to."""
        if name == "tensorboard":
            return name, str(self._folder)
        return (PROJECT, str(self._folder)) if name == "aim" else (PROJECT,)

    def _settings(self, name: str, first: int) -> dict[str, Any]:
        """How a tracker is told which run this is, and that it goes on."""
        run = self._folder.parent.resolve().name
        if name == "tensorboard":
            return {"purge_step": first}
        if name == "wandb":
            return {"dir": str(self._folder), "name": run, "id": self._identifier(), "resume": "allow"}
        if name == "dvclive":
            return {"dir": str(self._folder / name), "resume": first > 0}
        return {"run_name": run} if name == "mlflow" else {}

    def _identifier(self) -> str:
        """The name that tells this run from all others, by which a tracker finds it again."""
        file = self._folder / "id"
        if not file.is_file():
            write_atomically(file, secrets.token_hex(8).encode())
        return file.read_text("utf-8").strip()

    def _is_described(self, name: str) -> bool:
        """Whether a tracker that would write another description beside the first knows what the run is about."""
        return name == "tensorboard" and any((self._folder / name).glob("*/hparams.yml"))


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, bool | int | float | str]:
    """Nested values in one mapping, {"recipe": {"lr": 0.1}} -> {"recipe.lr": 0.1}, as every tracker takes them."""
    found: dict[str, bool | int | float | str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{above}{key}.")
        else:
            found[above + key] = value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
    return found


def _reason(error: Exception) -> str:
    return printable((str(error) or type(error).__name__).strip().splitlines()[0])[:300]
