"""KTH Actions (Schuldt et al., ICPR 2004): 25 people box, clap, wave, jog, run and walk; 160x120, 25 frames a second.

A folder holds ``personNN_action_dN_uncomp.avi`` (sub-folders are searched too) and the list ``00sequences.txt``, which
names the parts of each recording that show the action. Persons 1 to 16 train, 17 to 25 test; of the former the last two
validate here, which the published protocol leaves open.

The list is read as it is: four ranges a recording, but for some that have three; tabs or blanks between; no entry for
the one recording that does not exist; ranges that overlap or touch; and ranges beyond the end of a recording, which are
cut there.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from types import MappingProxyType

from stzoo.data import Reading, Split
from stzoo.data.recordings import RecordedDataset, Segment
from stzoo.errors import DataError
from stzoo.frames.video import VIDEO, read_video

LIST = "00sequences.txt"
TEST, VALIDATION = range(17, 26), range(15, 17)
HOP = 20  # frames between the starts of two clips that are measured
_RECORDING = re.compile(r"(person(\d\d)_(boxing|handclapping|handwaving|jogging|running|walking)_d[1-4])")
_LINE = re.compile(_RECORDING.pattern + r"\s+frames\s+([\d\s,-]+?)\s*")


def open_folder(
    folder: Path, reading: Reading, test: Collection[int] = TEST, validation: Collection[int] = VALIDATION
) -> RecordedDataset:
    """The recordings below `folder` that its list names; `test` and `validation` are the persons of those parts.

    Raises:
        DataError: the list is absent or unreadable, no recording is there, or one is not in the list.
    """
    listed = read_list(folder / LIST)
    parts: dict[Split, list[Segment]] = {"train": [], "validation": [], "test": []}
    files = sorted(p for p in folder.rglob("person*") if p.suffix.lower() in VIDEO and _RECORDING.match(p.name))
    if not files:
        raise DataError(f"{folder} holds no recordings named personNN_action_dN")
    for file in files:
        name, person = _RECORDING.match(file.name).group(1, 2)  # type: ignore[union-attr]
        if name not in listed:
            raise DataError(f"{file} is not in {folder / LIST}")
        part: Split = "test" if int(person) in test else "validation" if int(person) in validation else "train"
        parts[part] += [Segment(file, first - 1, last) for first, last in listed[name]]
    return RecordedDataset(
        f"KTH Actions in {folder}",
        MappingProxyType({name: tuple(found) for name, found in parts.items()}),
        reading,
        MappingProxyType({"train": 1, "validation": HOP, "test": HOP}),
        read_video,
    )


def read_list(file: Path) -> dict[str, tuple[tuple[int, int], ...]]:
    """Recording -> ranges of frames, counted from 1, both ends included.

    Raises:
        DataError: the file is absent, or a line that names a recording cannot be read.
    """
    try:
        lines = file.read_text("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{file} cannot be read; KTH's list of sequences belongs beside its recordings") from error
    found = {}
    for number, line in enumerate(lines, 1):
        if not _RECORDING.match(line):
            continue  # blank lines, and what the authors wrote above
        match = _LINE.fullmatch(line)
        ranges = [re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", part) for part in match[4].split(",")] if match else []
        pairs = [(int(r[1]), int(r[2])) for r in ranges if r]
        if not match or len(pairs) != len(ranges) or any(not 1 <= a <= b for a, b in pairs):
            raise DataError(f"{file}, line {number}: expected 'personNN_action_dN frames a-b, c-d', found {line!r}")
        found[match[1]] = tuple(pairs)
    if not found:
        raise DataError(f"{file} names no recording")
    return found
