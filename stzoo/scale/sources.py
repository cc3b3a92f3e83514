"""The clips of a folder or of a table: in a fixed order, each with the place of its forecast."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stzoo.errors import DataError, MissingExtraError
from stzoo.frames.arrays import ARRAYS
from stzoo.frames.fields import FIELDS
from stzoo.frames.images import ANIMATED, STILL
from stzoo.frames.video import VIDEO

TABLE = ".parquet"
_BUCKET = 1000  # forecasts of a table in one folder: some file systems are slow with more
_PROBES = 8


@dataclass(frozen=True)
class Clip:
    """One clip, and where its forecast goes.

    Attributes:
        name: its path, as the source has it; errors call it so, too.
        out: the forecast's path below DEST/forecasts, without its suffix.
        size: in bytes, or of a folder how much it holds; 0 where finding out would cost as much as reading.
    """

    name: str
    out: str
    size: int


@dataclass(frozen=True)
class Survey:
    """What is known of clips once all their names were seen.

    Attributes:
        count: how many.
        sha256: of names and sizes in order.
        probes: a few, from everywhere.
    """

    count: int
    sha256: str
    probes: tuple[Clip, ...]


def is_table(source: Path) -> bool:
    return source.suffix.lower() == TABLE and source.is_file()


def clips_of(source: Path, column: str) -> Iterator[Clip]:
    """Every clip of a folder, or every row of a table. Raises `DataError`."""
    return _of_table(source, column) if is_table(source) else _of_folder(source)


def place_of(clip: Clip, source: Path) -> Path:
    """Where a clip of the source lies. Relative paths in a table are relative to where the table is."""
    return (source.parent if is_table(source) else source) / clip.name


def survey(clips: Iterable[Clip]) -> Survey:
    """Sees every clip's name once and keeps none but the probes."""
    count, hop, digest, probes = 0, 1, hashlib.sha256(), list[Clip]()
    for clip in clips:
        digest.update(json.dumps([clip.name, clip.size]).encode())
        if count % hop == 0:
            probes.append(clip)
        if len(probes) > 2 * _PROBES:
            probes, hop = probes[::2], 2 * hop
        count += 1
    return Survey(count, digest.hexdigest(), tuple(probes[:: 1 + len(probes) // (_PROBES + 1)]))


def write_list(file: BinaryIO, clips: Iterable[Clip]) -> None:
    """One line of JSON a clip, which workers find by number without holding all."""
    for clip in clips:
        file.write(json.dumps(asdict(clip)).encode() + b"\n")


def line_ends(path: Path) -> np.ndarray:
    """The byte after each line of a list."""
    with path.open("rb") as file:
        return np.cumsum(np.fromiter(map(len, file), np.int64))


def read_list(path: Path, ends: np.ndarray, numbers: range) -> list[Clip]:
    """The clips of those numbers."""
    with path.open("rb") as file:
        file.seek(int(ends[numbers.start - 1]) if numbers.start else 0)
        return [Clip(**json.loads(file.readline())) for _ in numbers]


def _of_folder(folder: Path) -> Iterator[Clip]:
    """Names are relative, with /, and in their order. A folder that is one clip itself is called by its own name."""
    found = sorted(_walk(folder, ""))
    stems = [_stem(name) or folder.resolve().name for name, _ in found]
    for (name, size), out in zip(found, _distinct(stems), strict=True):
        yield Clip(name or ".", out, size)


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    """Name and size of what `stzoo.frames.read` reads: files, Zarr stores, and folders that hold images alone."""
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
    for entry in entries:  # beside other clips, a .png or .webp is no frame of one, but an animation
        if entry.suffix.lower() in STILL and entry.suffix.lower() in ANIMATED and entry.is_file():
            yield prefix + entry.name, _bytes(entry)


def _bytes(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0  # a link to nothing fails when its turn comes


def _leads_back(folder: Path) -> bool:
    """A link to a folder that this one is in would be followed without end."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _stem(name: str) -> str:
    suffix = Path(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in (*VIDEO, *ARRAYS, *FIELDS, *ANIMATED) else name


def _distinct(stems: list[str]) -> list[str]:
    """Those that several clips share, such as a.avi and a.mp4, get each clip's number; case makes no difference."""
    count = Counter(stem.lower() for stem in stems)
    named = [f"{stem}-{i}" if count[stem.lower()] > 1 else stem for i, stem in enumerate(stems)]
    if len({name.lower() for name in named}) == len(named):
        return named
    return [f"{stem}-{i}" for i, stem in enumerate(stems)]


def _of_table(table: Path, column: str) -> Iterator[Clip]:
    """One row, one forecast: the same path may stand in several. Raises `DataError` where the table cannot be read."""
    for number, path in enumerate(_column(table, column)):
        if not isinstance(path, str) or not path or "\0" in path:
            raise DataError(f"{table}: row {number} of {column} is {path!r}; expected the path of a clip")
        out = f"{number // _BUCKET:05d}/{number:08d}-{Path(path).stem[:40]}"
        yield Clip(path, out, 0)


def _column(table: Path, column: str) -> Iterator[object]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError('.parquet tables need an extra: pip install "stzoo[scale]"') from error
    try:
        with parquet.ParquetFile(table) as file:
            names = file.schema_arrow.names
            if column not in names:
                raise DataError(f"{table} has no column {column}; it has {', '.join(names)}; choose one with --column")
            for batch in file.iter_batches(columns=[column]):
                yield from batch.column(0).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{table} is damaged or no Parquet table: {error}") from error
