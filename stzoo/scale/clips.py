"""The clips of a folder or of a table: in a fixed order, each with the place of its forecast; and how one is read."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stzoo import frames as frames_room
from stzoo.errors import DataError, FramesError, MissingExtraError
from stzoo.forecaster import Forecaster
from stzoo.frames.arrays import ARRAYS, CallerFrames
from stzoo.frames.fields import FIELDS
from stzoo.frames.images import ANIMATED, STILL
from stzoo.frames.video import VIDEO
from stzoo.models import stride_of
from stzoo.scale.plan import ForecastOptions

TABLE = ".parquet"
_BUCKET = 1000  # forecasts of a table in one folder: some file systems are slow with more
_PROBES = 8  # clips that are read before the first forecast


@dataclass(frozen=True)
class ListedClip:
    """One clip of the source, and where its forecast goes.

    Attributes:
        name: its path as the source has it, which is also what errors.jsonl calls it.
        out: the path of its forecast in the folder of forecasts, without the suffix.
        size: in bytes; for a folder of images the number of images; 0 where finding out would cost as much as reading.
    """

    name: str
    out: str
    size: int


@dataclass(frozen=True)
class Survey:
    """What is known of all clips once their names have been seen.

    Attributes:
        count: how many clips there are.
        sha256: hash of all names and sizes in order.
        probes: a few clips, spread over the whole list.
    """

    count: int
    sha256: str
    probes: tuple[ListedClip, ...]


def is_table(source: Path) -> bool:
    return source.suffix.lower() == TABLE and source.is_file()


def list_clips(source: Path, column: str) -> Iterator[ListedClip]:
    """Every clip of a folder, or every row of a table, whose paths stand in `column`.

    Raises:
        DataError: the table cannot be read, has no such column, or holds something else than paths in it.
        MissingExtraError: pyarrow is not installed, which reads tables.
    """
    return _of_table(source, column) if is_table(source) else _of_folder(source)


def place_of(clip: ListedClip, source: Path) -> Path:
    """The path of a clip. Relative paths in a table start at the table's folder."""
    return (source.parent if is_table(source) else source) / clip.name


def read_clip(path: Path, model: Forecaster, every: int, keep_size: bool) -> CallerFrames | FramesError:
    """A clip's last frames, checked; or why they cannot be read, whatever error the reading library raised.

    Args:
        path: of the clip.
        model: the forecaster that will see the frames, which decides how many are read.
        every: frames 0, every, 2 * every, ... are used.
        keep_size: leave images and videos at their own size; else they are resized to the model's.

    Raises:
        MissingExtraError: the package that reads such a file is not installed.
        MemoryError: the frames do not fit in memory.
    """
    resize = frames_room.kind_of(path) == "pictures" and not keep_size
    try:
        return frames_room.read(path, model.spec, stride_of(model.module), resize=resize, every=every)
    except FramesError as error:
        return error
    except (MissingExtraError, MemoryError):
        raise
    except Exception as error:
        return FramesError(f"{path} cannot be read: {error}")


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
    """
    seen = survey(clips)
    if not seen.count:
        raise DataError(f"{source} holds no video, animation, array file, netCDF or Zarr file, or folder of images")
    tried = []
    for clip in seen.probes:
        path = place_of(clip, source)
        tried.append(read_clip(path, model, options.every, options.keep_size))
        if not isinstance(tried[-1], FramesError):
            frames_room.check_writable(beside.parent / f"{path.stem}.{options.format or 'npy'}", path)
            return seen.count, seen.sha256
    last = f"; the last: {tried[-1]}" if len(tried) > 1 else ""
    raise FramesError(f"of {len(tried)} clips that were looked at, none can be read; the first: {tried[0]}{last}")


def survey(clips: Iterable[ListedClip]) -> Survey:
    """See every clip's name once, and keep none but the probes."""
    count, hop, digest, probes = 0, 1, hashlib.sha256(), list[ListedClip]()
    for clip in clips:
        digest.update(json.dumps([clip.name, clip.size]).encode())
        if count % hop == 0:
            probes.append(clip)
        if len(probes) > 2 * _PROBES:
            probes, hop = probes[::2], 2 * hop
        count += 1
    return Survey(count, digest.hexdigest(), tuple(probes[:: 1 + len(probes) // (_PROBES + 1)]))


def write_clip_list(file: BinaryIO, clips: Iterable[ListedClip]) -> None:
    """Write one line of JSON for each clip. Workers find a line by its number without holding the list."""
    for clip in clips:
        file.write(json.dumps(asdict(clip)).encode() + b"\n")


def line_ends(path: Path) -> np.ndarray:
    """(lines,) int64: where in the file each line of a list ends, in bytes."""
    with path.open("rb") as file:
        return np.cumsum(np.fromiter(map(len, file), np.int64))


def read_clip_list(path: Path, ends: np.ndarray, numbers: range) -> list[ListedClip]:
    """The clips with those numbers, of a list whose lines end at `ends`."""
    with path.open("rb") as file:
        file.seek(int(ends[numbers.start - 1]) if numbers.start else 0)
        return [ListedClip(**json.loads(file.readline())) for _ in numbers]


def _of_folder(folder: Path) -> Iterator[ListedClip]:
    """In the order of their names, which are relative, with slashes. A folder that is itself one clip has the name "."
    and its forecast the folder's own name."""
    found = sorted(_walk(folder, ""))
    stems = [_stem(name) or folder.resolve().name for name, _ in found]
    for (name, size), out in zip(found, _distinct(stems), strict=True):
        yield ListedClip(name or ".", out, size)


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    """Name and size of whatever `stzoo.frames.read` reads: files, Zarr stores, and folders that hold only images."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    found, images = list[tuple[str, int]](), 0
    for entry in entries:
        suffix, name = entry.suffix.lower(), prefix + entry.name
        if entry.is_dir():
            found += [(name, 0)] if suffix in FIELDS else [] if _leads_back(entry) else _walk(entry, f"{name}/")
        elif suffix in (*VIDEO, *ARRAYS, *FIELDS, *ANIMATED) and suffix not in STILL:
            found.append((name, _bytes(entry)))
        elif suffix in STILL:
            images += 1
    if images and not found:
        yield prefix.removesuffix("/"), images
        return
    yield from found
    for entry in entries:  # beside other clips, a .png or .webp is not a frame of a clip but an animation
        if entry.suffix.lower() in STILL and entry.suffix.lower() in ANIMATED and entry.is_file():
            yield prefix + entry.name, _bytes(entry)


def _bytes(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0  # a link to nothing fails when its turn comes


def _leads_back(folder: Path) -> bool:
    """Is it a link to a folder that it lies in? Such a link would be followed without end."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _stem(name: str) -> str:
    suffix = Path(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in (*VIDEO, *ARRAYS, *FIELDS, *ANIMATED) else name


def _distinct(stems: list[str]) -> list[str]:
    """A stem that several clips share, such as a.avi and a.mp4, gets each clip's number. Case makes no difference."""
    count = Counter(stem.lower() for stem in stems)
    named = [f"{stem}-{i}" if count[stem.lower()] > 1 else stem for i, stem in enumerate(stems)]
    if len({name.lower() for name in named}) == len(named):
        return named
    return [f"{stem}-{i}" for i, stem in enumerate(stems)]


def _of_table(table: Path, column: str) -> Iterator[ListedClip]:
    """Each row gets a forecast of its own, so that a path may stand in several rows."""
    for number, path in enumerate(_column(table, column)):
        if not isinstance(path, str) or not path or "\0" in path:
            raise DataError(f"{table}: row {number} of {column} is {path!r}; expected the path of a clip")
        out = f"{number // _BUCKET:05d}/{number:08d}-{Path(path).stem[:40]}"
        yield ListedClip(path, out, 0)


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
                raise DataError(f"{table} has no column {column}; it has {', '.join(names)}; choose one with --column")
            for batch in file.iter_batches(columns=[column]):
                yield from batch.column(0).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{table} is damaged, or is no Parquet table: {error}") from error
