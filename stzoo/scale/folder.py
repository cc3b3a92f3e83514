"""The folder of a run: plan.json, done/ (a marker for each finished unit), the forecasts, and errors.jsonl.

A unit's marker is written when its forecasts are on disk. It holds the unit's lines of errors.jsonl, so it is mostly
empty. A run may therefore be killed at any moment: a unit with a marker is complete, and one without is made again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from stzoo.errors import DataError
from stzoo.files import locked, remove_leftovers, write_atomically
from stzoo.scale.plan import Plan

_WRITTEN = ("plan.json", "clips.jsonl", "errors.jsonl", "forecasts.zarr")  # beside them a killed process may leave more


@dataclass(frozen=True)
class ArchiveFolder:
    """The folder that `forecast_archive` writes, or goes on in."""

    path: Path

    @property
    def forecasts(self) -> Path:
        """The folder with one file for each clip."""
        return self.path / "forecasts"

    @property
    def store(self) -> Path:
        """The Zarr store with the forecasts of an archive."""
        return self.path / "forecasts.zarr"

    @property
    def clips(self) -> Path:
        """The list of clips, one line of JSON each."""
        return self.path / "clips.jsonl"

    @property
    def errors(self) -> Path:
        """One line of JSON for each forecast that could not be made; written at the end."""
        return self.path / "errors.jsonl"

    @property
    def done(self) -> Path:
        """The folder of the markers."""
        return self.path / "done"

    def agreed(self, wanted: Plan) -> Plan:
        """`wanted`, with the number of threads of the run that the folder holds, if it holds one. Writes nothing.

        Raises:
            DataError: the folder holds something else, or a run with another plan.
        """
        file = self.path / "plan.json"
        if not file.is_file():
            if self.path.exists() and not (self.path.is_dir() and all(map(_is_beginning, self.path.iterdir()))):
                raise DataError(f"{self.path} exists and holds no run of forecast-archive; name an empty or new folder")
            return wanted
        try:
            found = Plan.from_json(file.read_text("utf-8"))
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{file} is damaged: {error}; remove {self.path}, or name another folder") from error
        if wanted.options.threads is None:
            wanted = replace(wanted, options=replace(wanted.options, threads=found.options.threads))
        different = wanted.differences(found)
        if different:
            raise DataError(
                f"{self.path} holds a run with another {' and '.join(different)}; "
                "name another folder, or remove this one"
            )
        return wanted

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and hold it for this process. Raises `DataError` if another process holds it."""
        with locked(self.path, DataError(f"another process is at work in {self.path}; wait until it has finished")):
            yield

    def begin(self, plan: Plan) -> None:
        """Write the plan down before anything else: a folder without a plan is taken for someone else's."""
        write_atomically(self.path / "plan.json", plan.to_json().encode())
        self.done.mkdir(exist_ok=True)
        for tries in self.done.glob(".*.tries"):
            tries.unlink()

    def marker(self, unit: int) -> Path:
        """The file that says that a unit is finished."""
        return self.done / f"{unit:08d}"

    def mark(self, unit: int, lines: list[str]) -> None:
        """Note that a unit is finished: all its forecasts are on disk, except those that `lines` give a reason for."""
        write_atomically(self.marker(unit), "".join(line + "\n" for line in lines).encode())

    def attempt(self, unit: int) -> int:
        """How often this run has begun a unit, including this time: a worker that dies of it cannot say so itself."""
        with (self.done / f".{unit:08d}.tries").open("ab") as file:
            file.write(b".")
            return file.tell()

    def failed(self, unit: int) -> int | None:
        """How many items of a finished unit have no forecast; None if the unit is not finished."""
        try:
            return self.marker(unit).read_bytes().count(b"\n")
        except FileNotFoundError:
            return None

    def finished(self) -> dict[int, int]:
        """The finished units, each with how many of its items failed. Only the few markers with content are read."""
        with os.scandir(self.done) as entries:
            sizes = {int(e.name): e.stat().st_size for e in entries if e.name.isdecimal()}
        return {unit: (self.failed(unit) or 0) if size else 0 for unit, size in sorted(sizes.items())}

    def finish(self) -> None:
        """Gather errors.jsonl, and remove what killed processes left half-written."""
        lines = b"".join(self.marker(unit).read_bytes() for unit, failed in self.finished().items() if failed)
        write_atomically(self.errors, lines)
        for name in _WRITTEN:
            remove_leftovers(self.path / name)
        for whole in (self.done, self.forecasts, self.store):
            for folder, folders, files in os.walk(whole):
                stale_names = [n for n in (*folders, *files) if n.startswith(".") or n.endswith(".partial")]
                for name in stale_names:
                    _remove(Path(folder, name))
                folders[:] = [n for n in folders if n not in stale_names]


def _is_beginning(path: Path) -> bool:
    """Is this what a process leaves if it is killed before its plan is written?"""
    return path.name.startswith((".lock", ".plan.json."))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
