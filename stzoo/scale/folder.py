"""The folder of a run: plan.json, done/ (a marker for each finished unit), the forecasts, and errors.jsonl.

A unit's marker is written when its forecasts are on disk. It holds the unit's lines of errors.jsonl, so it is mostly
empty. A run may therefore be killed at any moment: a unit with a marker is complete, and one without is made again.

What a run goes on by is kept so that damage shows: done/plan.copy holds plan.json once more, and its sha256;
done/clips.sha256 is that of clips.jsonl; and a damaged marker is as good as none.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stzoo.errors import DataError, StzooError
from stzoo.files import is_leftover, locked, make_way, remove_leftovers, replacing, write_atomically
from stzoo.scale.plan import Plan

_PARTIAL = re.compile(r".+\.[0-9a-f]{32}\.partial")  # a file that Zarr had not finished, in the store
_OWN = re.compile(r"\.[0-9]{8,}\..+")  # what a unit that was not finished leaves in done/
_MARKER = re.compile(r"[0-9]{8,}")
_WRITTEN = ("plan.json", "clips.jsonl", "errors.jsonl", "forecasts.zarr")  # beside them a killed process may leave more
_FOLDERS = ("done", "forecasts", "forecasts.zarr")
_FILES = ("plan.json", "clips.jsonl", "errors.jsonl", "done/plan.copy", "done/clips.sha256")


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
        """`wanted`, with what it leaves open as in the run that the folder holds, if it holds one. Writes nothing.

        Raises:
            DataError: the folder holds something else, a run with another plan, or a damaged plan.
        """
        found = self._found()
        if found is None:
            if self.path.exists() and not (self.path.is_dir() and all(map(_is_beginning, self.path.iterdir()))):
                raise DataError(f"{self.path} exists and holds no run of forecast-archive; name an empty or new folder")
            return wanted
        wanted = wanted.going_on_from(found)
        different = wanted.differences(found)
        if different:
            raise DataError(
                f"{self.path} holds a run with another {' and '.join(different)}; "
                "name another folder, or remove this one"
            )
        return wanted

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and hold it for this process.

        Whatever has the name of a file of the run and is none, such as a folder or a pipe, is renamed, with a warning.

        Raises:
            DataError: another process holds it.
        """
        with locked(self.path, DataError(f"another process is at work in {self.path}; wait until it has finished")):
            for name in (*_FOLDERS, *_FILES):  # folders first, for some of the files are in them
                make_way(self.path / name, folder=name in _FOLDERS)
            yield

    def _found(self) -> Plan | None:
        """The plan of the run that the folder holds, by plan.json or, if that was removed, by its copy."""
        file, copy = self.path / "plan.json", self._copied()
        if not file.is_file():
            return copy
        try:
            found = Plan.from_json(file.read_text("utf-8"))
            if copy is not None and found != copy:
                raise ValueError(f"it differs from its copy, {self._copy}")
        except (ValueError, TypeError, RecursionError) as error:
            remedy = f"remove {self.path}, or name another folder"
            if copy is not None:
                remedy = "remove this file, and the same command goes on with what is finished"
            raise DataError(f"{file} is damaged: {error}; {remedy}") from error
        return found

    @property
    def _copy(self) -> Path:
        return self.done / "plan.copy"

    def _copied(self) -> Plan | None:
        """The plan in done/plan.copy; None if that is damaged, or absent as in runs that older versions began."""
        if not self._copy.is_file():  # to read a pipe would be to wait without end
            return None
        try:
            digest, text = self._copy.read_text("utf-8").split("\n", 1)
            return Plan.from_json(text) if digest == _sha256(text.encode()) else None
        except (OSError, ValueError, TypeError, RecursionError):
            return None

    @contextmanager
    def written(self) -> Iterator[None]:
        """A block that writes here: an `OSError` in it, as of a full disk, becomes a `StzooError`."""
        try:
            yield
        except StzooError:
            raise
        except OSError as error:
            what = str(error) if "cannot be written" in str(error) else f"{self.path} cannot be written: {error}"
            raise StzooError(f"{what}; what is finished stays, and the same command goes on") from error

    def begin(self, plan: Plan) -> None:
        """Write the plan down before anything else: a folder without a plan is taken for someone else's."""
        text = plan.to_json()
        write_atomically(self.path / "plan.json", text.encode())
        self.done.mkdir(exist_ok=True)
        write_atomically(self._copy, f"{_sha256(text.encode())}\n{text}".encode())
        for path in self.done.iterdir():
            if _OWN.fullmatch(path.name) and path.suffix == ".tries":
                _remove(path)

    def list_clips(self, write: Callable[[Path], bool], sound: Callable[[Path], bool]) -> None:
        """Write clips.jsonl, or check the one that is there and, if it is damaged, write it again.

        Args:
            write: writes the list to a path, and returns whether it is of the clips of the plan.
            sound: returns whether the list at a path is of these clips.

        Raises:
            DataError: the source has changed since it was looked at, or the list would not be the one that was written
                first, so that it is unknown which forecast is whose.
        """
        seal = self.done / "clips.sha256"
        written = seal.read_text("utf-8", "replace") if seal.is_file() else None
        if self.clips.is_file():
            if written == _file_sha256(self.clips):
                return
            if written is None and sound(self.clips):  # an older version began the run, or it was killed right here
                write_atomically(seal, _file_sha256(self.clips).encode())
                return
            warnings.warn(f"{self.clips} is damaged, and is written again", stacklevel=2)
        with replacing(self.clips) as partial:
            if not write(partial):
                raise DataError("the source has changed while it was looked at; run the same command again")
            if written is not None and written != _file_sha256(partial):
                raise DataError(f"{self.clips} is damaged, or {seal} is; remove {self.path} and begin anew")
        write_atomically(seal, _file_sha256(self.clips).encode())

    def marker(self, unit: int) -> Path:
        """The file that says that a unit is finished."""
        return self.done / f"{unit:08d}"

    def mark(self, unit: int, lines: list[str]) -> None:
        """Note that a unit is finished: all its forecasts are on disk, except those that `lines` give a reason for.

        Raises:
            OSError: the marker cannot be written.
        """
        marker = self.marker(unit)
        if marker.is_dir():
            raise OSError(f"{marker} cannot be written: a folder has its name; rename or remove that folder")
        write_atomically(marker, "".join(line + "\n" for line in lines).encode())

    def attempt(self, unit: int) -> int:
        """How often this run has begun a unit, including this time: a worker that dies of it cannot say so itself."""
        with (self.done / f".{unit:08d}.tries").open("ab") as file:
            file.write(b".")
            return file.tell()

    def failed(self, unit: int) -> int | None:
        """How many items of a finished unit have no forecast; None if it is not finished, or its marker is damaged."""
        marker = self.marker(unit)
        if not marker.is_file():
            return None
        lines = marker.read_bytes().splitlines(keepends=True)
        return len(lines) if all(map(_is_error, lines)) else None

    def finished(self) -> dict[int, int]:
        """The finished units, each with how many of its items failed. Only the few markers with content are read."""
        with os.scandir(self.done) as entries:
            sizes = {int(e.name): e.stat().st_size for e in entries if _MARKER.fullmatch(e.name) and e.is_file()}
        failed = {unit: self.failed(unit) if size else 0 for unit, size in sorted(sizes.items())}
        return {unit: number for unit, number in failed.items() if number is not None}

    def finish(self) -> None:
        """Gather errors.jsonl, and remove what killed processes left half-written."""
        lines = b"".join(self.marker(unit).read_bytes() for unit, failed in self.finished().items() if failed)
        write_atomically(self.errors, lines)
        for name in _WRITTEN:
            remove_leftovers(self.path / name)
        for path in self.done.iterdir():
            if _OWN.fullmatch(path.name) or is_leftover(path):
                _remove(path)
        for folder, folders, _ in os.walk(self.forecasts):
            stale = [name for name in folders if is_leftover(Path(folder, name))]
            for name in stale:
                _remove(Path(folder, name))
            folders[:] = [name for name in folders if name not in stale]
        for folder, _, files in os.walk(self.store):
            for name in filter(_PARTIAL.fullmatch, files):
                _remove(Path(folder, name))


def _is_beginning(path: Path) -> bool:
    """Is this what a process leaves if it is killed before its plan is written?"""
    return path.name == ".lock" or (path.name.startswith(".plan.json.") and is_leftover(path))


def _is_error(line: bytes) -> bool:
    """Whether this is a whole line of errors.jsonl."""
    try:
        return line.endswith(b"\n") and set(json.loads(line)) == {"item", "index", "error"}
    except (ValueError, TypeError, RecursionError):
        return False


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
