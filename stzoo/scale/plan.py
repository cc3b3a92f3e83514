"""A run's folder: plan.json (what the run is), done/ (the units that are finished), the forecasts, and errors.jsonl.

A unit's marker is written when its forecasts are on disk, and holds its lines of errors.jsonl: it is mostly empty. So a
run may be killed at any moment: what has a marker is whole, and what has none is made again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from stzoo.errors import DataError
from stzoo.files import locked, remove_leftovers, write_atomically

_SAID = {  # what a difference is called; else by the option
    "kind": "source", "source_sha256": "source", "model_sha256": "model", "codec_sha256": "model",
    "spec": "model",
}  # fmt: skip
_WRITTEN = ("plan.json", "clips.jsonl", "errors.jsonl", "forecasts.zarr")  # a killed process may leave .NAME.xyz


@dataclass(frozen=True)
class Plan:
    """Everything that decides what a run writes, but for the machine and the versions of what is installed.

    Attributes:
        kind: of the source.
        items: forecasts in all.
        source_sha256: of the clips' names and sizes, or of an archive's names, sizes and times.
        model_sha256, codec_sha256, spec: the model's.
        threads: of torch, in every worker: sums are ordered by their number. None: not yet chosen.
        stride: between starts; None for clips.
        format: suffix of a clip's forecast; None for an archive.
    """

    kind: Literal["folder", "table", "archive"]
    items: int
    source_sha256: str
    model_sha256: str
    codec_sha256: str | None
    spec: dict[str, Any]
    steps: int
    every: int
    stride: int | None
    keep_size: bool
    format: str | None
    unit: int
    precision: str
    device: str
    threads: int | None

    @property
    def units(self) -> int:
        return -(-self.items // self.unit)

    def numbers(self, unit: int) -> range:
        """The items of a unit."""
        return range(unit * self.unit, min(self.items, (unit + 1) * self.unit))


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def forecasts(self) -> Path:
        return self.path / "forecasts"

    @property
    def store(self) -> Path:
        return self.path / "forecasts.zarr"

    @property
    def clips(self) -> Path:
        return self.path / "clips.jsonl"

    @property
    def errors(self) -> Path:
        return self.path / "errors.jsonl"

    def settled(self, wanted: Plan) -> Plan:
        """`wanted`, with the threads of the run that the folder holds, where it holds one. Nothing is written.

        Raises:
            DataError: the folder holds something else, or another run.
        """
        file = self.path / "plan.json"
        if not file.is_file():
            if self.path.exists() and not (self.path.is_dir() and all(map(_is_beginning, self.path.iterdir()))):
                raise DataError(f"{self.path} exists and holds no run of forecast-archive; name an empty or new folder")
            return wanted
        try:
            found = Plan(**json.loads(file.read_text("utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{file} is damaged: {error}; remove {self.path}, or name another folder") from error
        if wanted.threads is None:
            wanted = replace(wanted, threads=found.threads)
        ours, theirs = json.loads(json.dumps(asdict(wanted))), asdict(found)
        different = dict.fromkeys(_SAID.get(key, key) for key in ours if key != "items" and ours[key] != theirs[key])
        if different:
            raise DataError(
                f"{self.path} holds a run with another {' and '.join(different)}; "
                "name another folder or remove this one"
            )
        return wanted

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and hold it for this process. Raises `DataError` where another one has it."""
        with locked(self.path, DataError(f"another process is at work in {self.path}")):
            yield

    def begin(self, plan: Plan) -> None:
        """Write the plan down, first of all: a folder without one is nobody's."""
        write_atomically(self.path / "plan.json", json.dumps(asdict(plan), indent=2).encode())
        (self.path / "done").mkdir(exist_ok=True)
        for tries in self.path.glob("done/.*.tries"):
            tries.unlink()

    def marker(self, unit: int) -> Path:
        return self.path / "done" / f"{unit:08d}"

    def mark(self, unit: int, lines: list[str]) -> None:
        """All forecasts of a unit are on disk, but for those that these lines say why not."""
        write_atomically(self.marker(unit), "".join(line + "\n" for line in lines).encode())

    def attempt(self, unit: int) -> int:
        """How often a unit was begun in this run, this time included: a worker that dies of it cannot say so."""
        with (self.path / "done" / f".{unit:08d}.tries").open("ab") as file:
            file.write(b".")
            return file.tell()

    def failed(self, unit: int) -> int | None:
        """How many items of a finished unit have no forecast; None where it is not finished."""
        try:
            return self.marker(unit).read_bytes().count(b"\n")
        except FileNotFoundError:
            return None

    def done(self) -> dict[int, int]:
        """The finished units, each with how many items failed. Few have any: only these are read."""
        with os.scandir(self.path / "done") as entries:
            sizes = {int(e.name): e.stat().st_size for e in entries if e.name.isdecimal()}
        return {unit: (self.failed(unit) or 0) if size else 0 for unit, size in sorted(sizes.items())}

    def finish(self) -> None:
        """Gather errors.jsonl, and clear away what killed processes left half-written."""
        lines = b"".join(self.marker(unit).read_bytes() for unit, failed in self.done().items() if failed)
        write_atomically(self.errors, lines)
        for name in _WRITTEN:
            remove_leftovers(self.path / name)
        for whole in (self.path / "done", self.forecasts, self.store):
            for folder, folders, files in os.walk(whole):
                stale_names = [n for n in (*folders, *files) if n.startswith(".") or n.endswith(".partial")]
                for name in stale_names:
                    _remove(Path(folder, name))
                folders[:] = [n for n in folders if n not in stale_names]


def _is_beginning(path: Path) -> bool:
    """What a process leaves that is killed before its plan is written."""
    return path.name.startswith((".lock", ".plan.json."))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
