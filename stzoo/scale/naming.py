"""Which file holds the forecast of which clip: no two of a run share one, on any file system."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import PurePosixPath

from stzoo.frames.arrays import ARRAYS
from stzoo.frames.fields import FIELDS
from stzoo.frames.images import ANIMATED, PAGED
from stzoo.frames.video import VIDEO

_LONGEST = 240  # bytes of a name without its suffix; file systems take 255 with it
_KEPT = 200  # bytes that are kept of a longer one, which then gets the clip's number


def forecast_names(clips: Sequence[str], suffix: str, alone: str) -> list[str]:
    """The path of each clip's forecast in the folder of forecasts, without the suffix.

    A clip's forecast has its path, less its own suffix. It gets the clip's number as well if that name is another
    clip's, or that of a folder of forecasts, as of b.gif beside a folder b.npy; or if it is too long. Names that differ
    only in case, or in how Unicode writes an accent, count as the same: some file systems think so.

    Args:
        clips: paths below the source, with slashes; "" where the source itself is one clip.
        suffix: of the files of forecasts, with its dot.
        alone: the name of the source, which the forecast of the clip "" takes.
    """
    stems = [_stem(clip) or alone.lstrip(".") or "clip" for clip in clips]
    folders = {stem.rpartition("/")[0] for stem in stems}
    taken = {_same(str(each)) for folder in folders for each in (folder, *PurePosixPath(folder).parents)}
    shared = Counter(map(_same, stems))

    def numbered(stem: str, number: int, dashes: int) -> str:
        folder, slash, name = stem.rpartition("/")
        return f"{folder}{slash}{_cut(name)}{'-' * dashes}{number}"

    def free(names: list[str]) -> bool:
        files = {_same(name + suffix) for name in names}
        return len(files) == len(names) and files.isdisjoint(taken)

    def alone_in_place(stem: str) -> bool:
        name = stem.rpartition("/")[2]
        return shared[_same(stem)] == 1 and _same(stem + suffix) not in taken and _cut(name) == name

    names = [stem if alone_in_place(stem) else numbered(stem, i, 1) for i, stem in enumerate(stems)]
    for dashes in count(1):
        if free(names):
            break
        names = [numbered(stem, i, dashes) for i, stem in enumerate(stems)]
    return names


def row_name(number: int, path: str, folder_size: int) -> str:
    """The same for a row of a table: the row's number decides, and what the path is called is only a help.

    Args:
        number: of the row.
        path: what the row names.
        folder_size: how many forecasts lie in one folder.
    """
    return f"{number // folder_size:05d}/{number:08d}-{PurePosixPath(path).stem[:40]}"


def _stem(clip: str) -> str:
    suffix = PurePosixPath(clip).suffix
    return clip.removesuffix(suffix) if suffix.lower() in (*VIDEO, *ARRAYS, *FIELDS, *ANIMATED, *PAGED) else clip


def _same(path: str) -> str:
    """Equal for paths that some file system takes for the same."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _cut(name: str) -> str:
    if len(os.fsencode(name)) <= _LONGEST:
        return name
    return os.fsencode(name)[:_KEPT].decode("utf-8", "ignore")
