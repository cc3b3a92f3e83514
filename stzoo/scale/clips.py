"""The clips of a folder or of a table: in a fixed order, each with the place of its forecast; and how one is read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import BinaryIO

import numpy as np

from stzoo import frames as frames_room
from stzoo.engine.memory import check_kept
from stzoo.errors import DataError, FramesError, MissingExtraError, SpecError, printable
from stzoo.forecaster import Forecaster
from stzoo.frames.arrays import ARRAYS, CallerFrames
from stzoo.frames.fields import FIELDS
from stzoo.frames.images import ANIMATED, PAGED, STILL, holds_pages
from stzoo.frames.order import is_hidden
from stzoo.frames.video import VIDEO
from stzoo.models import stride_of
from stzoo.scale.naming import forecast_names, row_name
from stzoo.scale.plan import ForecastOptions
from stzoo.spec import shown

TABLE = ".parquet"
_CLIPS = (*VIDEO, *ARRAYS, *FIELDS, *ANIMATED)
_BUCKET = 1000  # forecasts of a table in one folder: some file systems are slow with more
_PROBES = 8  # clips that are read before the first forecast
_DEPTH = 300  # folders within each other that are looked into; Python itself stops at some hundred more
_TIMES = 100  # how often links may lead to one folder: links to links could multiply it without end
_LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # of a link


@dataclass(frozen=True)
class ListedClip:
    """One clip of the source, and where its forecast goes.

    Attributes:
        name: its path as the source has it, which is also what errors.jsonl calls it.
        out: the path of its forecast in the folder of forecasts, without the suffix.
        size: in bytes; for a folder of images the number of images; 0 where finding out would cost as much as reading.
        fault: why it cannot be read, if that was seen at once, as of a pipe or of a folder without permission to look
            into it; else "".
    """

    name: str
    out: str
    size: int
    fault: str = ""

    def refused(self, path: Path) -> FramesError | None:
        """The error of a clip with a fault, which lies at `path`; None if it has none."""
        return FramesError(f"{path} {self.fault}") if self.fault else None


@dataclass(frozen=True)
class Survey:
    """What is known of all clips once their names have been seen.

    Attributes:
        count: how many clips there are.
        sha256: hash of all names and sizes in order.
        probes: a few clips without a fault, spread over the whole list.
    """

    count: int
    sha256: str
    probes: tuple[ListedClip, ...]


def is_table(source: Path) -> bool:
    """Whether the source is a table of paths, judged by its suffix."""
    return source.suffix.lower() == TABLE and source.is_file()


def list_clips(source: Path, column: str, suffix: str = "npy", out: Path | None = None) -> Iterator[ListedClip]:
    """Every clip of a folder, or every row of a table.

    Args:
        source: the folder or the table.
        column: the column of a table that holds the paths.
        suffix: of the files that hold the forecasts, without the dot.
        out: the folder of the run, which is never a part of the source.

    Raises:
        DataError: the folder or the table cannot be read, or the table has no such column or no paths in it.
        MissingExtraError: pyarrow is not installed, which reads tables.
    """
    return _of_table(source, column) if is_table(source) else _of_folder(source, suffix, out)


def place_of(clip: ListedClip, source: Path) -> Path:
    """The path of a clip. Relative paths in a table start at the table's folder."""
    return (source.parent if is_table(source) else source) / clip.name


def read_clip(path: Path, model: Forecaster, options: ForecastOptions) -> CallerFrames | FramesError:
    """A clip's last frames, checked; or why they cannot be read, whatever error the reading library raised.

    Args:
        path: of the clip.
        model: the forecaster that will see the frames, which decides how many are read.
        options: say which frames are read, in which size and colour, and of a map which variable and along which time.

    Raises:
        MissingExtraError: the package that reads such a file is not installed.
        MemoryError: the frames do not fit in memory.
    """
    kind = frames_room.kind_of(path)
    resize = options.resize if kind == "pictures" else None
    color = options.color if kind != "field" else None
    variable = options.variable if kind == "field" or path.suffix.lower() == ".npz" else None
    time = options.time if kind == "field" else None
    facts = _facts(path)
    if isinstance(facts, os.stat_result) and not S_ISDIR(facts.st_mode) and not S_ISREG(facts.st_mode):
        return FramesError(f"{path} {_size_and_fault(facts)[1]}")
    try:
        chosen = frames_room.ReadingOptions(
            resize=resize,
            color=color,
            every=options.every,
            variable=variable,
            time=time,
            units=options.units,
            missing=options.missing,
        )
        return frames_room.read(path, model.spec, stride_of(model.module), chosen)
    except FramesError as error:
        return error
    except (MissingExtraError, MemoryError):
        raise
    except Exception as error:
        return FramesError(f"{path} cannot be read: {printable(str(error))}")


def check_clips(
    clips: Iterable[ListedClip], source: Path, model: Forecaster, options: ForecastOptions, *, beside: Path
) -> tuple[int, str]:
    """Read a few clips, of which at least one must be sound.

    Args:
        clips: what `list_clips` yields for `source`.
        source: the folder or the table.
        model: the forecaster that must be able to read them.
        options: how they are read, and in which format their forecasts are written.
        beside: the folder of the run, which need not exist yet; the folder above it does.

    Returns:
        How many clips there are, and the hash of all their names and sizes.

    Raises:
        DataError: there is no clip.
        FramesError: none of the clips that were read is sound, or its forecast cannot be written in that format.
        MemoryNeededError: there is no memory for the frames of one forecast.
        SpecError: the options choose a variable or a time, and no clip has any.
    """
    suffixes = set[str]()
    seen = survey(_noting(clips, suffixes))
    if options.variable is not None and not suffixes & {*FIELDS, ".npz"}:
        raise SpecError("--variable is for netCDF, Zarr and .npz files, and the source holds none; leave it out")
    if options.time is not None and not suffixes & {*FIELDS}:
        raise SpecError("--time is for netCDF and Zarr files, and the source holds none; leave it out")
    if not seen.count:
        raise DataError(f"{source} holds no video, animation, array file, netCDF or Zarr file, or folder of images")
    if not seen.probes:
        raise FramesError(f"{source} holds {seen.count} clips, of which none is a file or folder that may be read")
    tried = []
    for clip in seen.probes:
        path = place_of(clip, source)
        found = read_clip(path, model, options)
        tried.append(found)
        if not isinstance(found, FramesError):
            forecast = beside.parent / f"{path.stem}.{options.format or 'npy'}"
            while os.path.lexists(forecast):  # only its kind and its folder count
                forecast = forecast.with_stem(f"{forecast.stem[:100]}-")
            frames_room.check_writable(forecast, path)
            if isinstance(found, CallerFrames):
                check_kept(len(found.past), options.steps, found.frame_shape, found.past.device)
            return seen.count, seen.sha256
    last = f"; the last: {tried[-1]}" if len(tried) > 1 else ""
    raise FramesError(f"of {len(tried)} clips that were looked at, none can be read; the first: {tried[0]}{last}")


def _noting(clips: Iterable[ListedClip], suffixes: set[str]) -> Iterator[ListedClip]:
    """The same clips; the suffixes of their names are added to the set."""
    for clip in clips:
        suffixes.add(os.path.splitext(clip.name)[1].lower())
        yield clip


def survey(clips: Iterable[ListedClip]) -> Survey:
    """See every clip's name once, and keep none but the probes."""
    count, hopeful, hop, digest, probes = 0, 0, 1, hashlib.sha256(), list[ListedClip]()
    for clip in clips:
        digest.update(_told(clip))
        count += 1
        if clip.fault:
            continue
        if hopeful % hop == 0:
            probes.append(clip)
        if len(probes) > 2 * _PROBES:
            probes, hop = probes[::2], 2 * hop
        hopeful += 1
    return Survey(count, digest.hexdigest(), tuple(probes[:: 1 + len(probes) // (_PROBES + 1)]))


def _told(clip: ListedClip) -> bytes:
    """What the hash of a list is made of."""
    return json.dumps([clip.name, clip.size]).encode()


def write_clip_list(file: BinaryIO, clips: Iterable[ListedClip]) -> str:
    """Write one line of JSON for each clip. Workers find a line by its number without holding the list.

    Returns:
        The hash of all names and sizes, as in `Survey`.
    """
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(_told(clip))
        values = {name: value for name, value in asdict(clip).items() if name != "fault" or value}
        file.write(json.dumps(values).encode() + b"\n")
    return digest.hexdigest()


def lists(path: Path, sha256: str) -> bool:
    """Whether the list at `path` is of the clips whose `Survey` has this hash, and names only places in its folder."""
    try:
        with path.open("rb") as file:
            clips = [ListedClip(**json.loads(line)) for line in file]
        inside = all(not clip.out.startswith("/") and ".." not in clip.out.split("/") for clip in clips)
        return inside and survey(clips).sha256 == sha256
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False


def line_ends(path: Path) -> np.ndarray:
    """(lines,) int64: where in the file each line of a list ends, in bytes."""
    with path.open("rb") as file:
        return np.cumsum(np.fromiter(map(len, file), np.int64))


def read_clip_list(path: Path, ends: np.ndarray, numbers: range) -> list[ListedClip]:
    """The clips with those numbers, of a list whose lines end at `ends`."""
    with path.open("rb") as file:
        file.seek(int(ends[numbers.start - 1]) if numbers.start else 0)
        return [ListedClip(**json.loads(file.readline())) for _ in numbers]


def _of_folder(folder: Path, suffix: str, out: Path | None) -> Iterator[ListedClip]:
    """In the order of their names, which are relative, with slashes. A folder that is itself one clip has the name "."
    and its forecast the folder's own name."""
    found = sorted(_Walk(None if out is None else os.path.realpath(out)).below(folder, os.path.realpath(folder)))
    names = forecast_names([name for name, _, _ in found], f".{suffix}", folder.resolve().name)
    for (name, size, fault), out_name in zip(found, names, strict=True):
        if not name and fault:
            raise DataError(f"{folder} {fault}")
        yield ListedClip(name or ".", out_name, size, fault)


class _Walk:
    """A walk through a folder of clips. What is in the way costs itself only: it is listed with its fault.

    Links to folders are followed, except to one that the walk is inside of: what that holds is listed in its own place.
    """

    def __init__(self, out: str | None):
        self._out = out  # the folder of the run, which a link may bring into its own source
        self._followed = Counter[str]()  # how often links were followed to a folder, by its real path

    def below(
        self, folder: Path, real: str, prefix: str = "", inside: tuple[str, ...] = ()
    ) -> Iterator[tuple[str, int, str]]:
        """Name, size and fault of whatever `stzoo.frames.read` reads: a file, a Zarr store, a folder of images alone.

        Args:
            folder: the folder to walk through.
            real: its path without links.
            prefix: its path below the source, with a slash at the end; "" for the source itself.
            inside: the real paths of the folders that it lies in, as the walk came.
        """
        name = prefix.removesuffix("/")
        if len(inside) == _DEPTH:
            yield name, 0, f"is not looked into: it lies in more than {_DEPTH} folders"
            return
        try:
            entries = [(entry, _facts(entry)) for entry in folder.iterdir() if not is_hidden(entry.name)]
        except OSError as error:
            yield name, 0, f"cannot be looked into: {error.strerror}"
            return
        found, images, paged = list[tuple[str, int, str]](), 0, _holds_stacks(entries)
        for entry, facts in entries:
            suffix, path = entry.suffix.lower(), prefix + entry.name
            if isinstance(facts, os.stat_result) and S_ISDIR(facts.st_mode):
                if suffix in FIELDS:
                    found.append((path, 0, ""))
                else:
                    found += self._entered_from(real, entry, path, (*inside, real))
            elif (suffix in _CLIPS and suffix not in STILL) or (paged and suffix in PAGED and holds_pages(entry)):
                found.append((path, *_size_and_fault(facts)))
            elif suffix in STILL:
                images += 1
            elif isinstance(facts, OSError) and facts.errno not in _LEADS_NOWHERE:
                found.append((path, *_size_and_fault(facts)))  # perhaps a folder of clips
        if images and all(fault for _, _, fault in found):
            yield name, images, ""
            yield from found
            return
        yield from found
        for entry, facts in entries:  # beside other clips, a .png or .webp is not a frame of a clip but an animation
            animated = entry.suffix.lower() in STILL and entry.suffix.lower() in ANIMATED
            if animated and isinstance(facts, os.stat_result) and S_ISREG(facts.st_mode):
                yield prefix + entry.name, facts.st_size, ""

    def _entered_from(
        self, real: str, folder: Path, path: str, inside: tuple[str, ...]
    ) -> Iterator[tuple[str, int, str]]:
        link = folder.is_symlink()
        target = os.path.realpath(folder) if link else os.path.join(real, folder.name)
        leads_back = target in inside or (link and Path(real).is_relative_to(target))
        if leads_back or target == self._out:
            return
        if link:
            self._followed[target] += 1
        if link and self._followed[target] > _TIMES:
            yield path, 0, f"is not looked into: more than {_TIMES} links lead to the same folder"
            return
        yield from self.below(folder, target, f"{path}/", inside)


def _holds_stacks(entries: Iterable[tuple[Path, object]]) -> bool:
    """Whether TIFF files of these are clips, each of several pages, by the first one: to open all may take long."""
    first = min((path for path, _ in entries if path.suffix.lower() in PAGED), default=None)
    return first is not None and holds_pages(first)


def _facts(path: Path) -> os.stat_result | OSError:
    try:
        return path.stat()
    except OSError as error:
        return error


def _size_and_fault(facts: os.stat_result | OSError) -> tuple[int, str]:
    """Of a clip: its bytes, and what is wrong with it. A link to nothing fails when its turn comes."""
    if isinstance(facts, OSError):
        return 0, "" if facts.errno in _LEADS_NOWHERE else f"cannot be read: {facts.strerror}"
    return facts.st_size, "" if S_ISREG(facts.st_mode) else "is a pipe, a socket or a device; expected a file"


def _of_table(table: Path, column: str) -> Iterator[ListedClip]:
    """Each row gets a forecast of its own, so that a path may stand in several rows."""
    for number, path in enumerate(_column(table, column)):
        if not isinstance(path, str) or not path or "\0" in path:
            raise DataError(f"{table}: row {number} of {column} is {shown(path)}; expected the path of a clip")
        yield ListedClip(path, row_name(number, path, _BUCKET), 0)


def _column(table: Path, column: str) -> Iterator[object]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError('reading .parquet tables needs an extra: pip install "stzoo[scale]"') from error
    try:
        with parquet.ParquetFile(table) as file:
            names = file.schema_arrow.names
            if column not in names:
                raise DataError(
                    f"{table} has no column {column}; it has {printable(', '.join(names))}; choose one with --column"
                )
            for batch in file.iter_batches(columns=[column]):
                yield from batch.column(0).to_pylist()
    except UnicodeDecodeError as error:
        raise DataError(f"{table} holds text that is not UTF-8; write it again with paths or names that are") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{table} is damaged, or is no Parquet table: {printable(str(error))}") from error
