"""KTH Actions (Schuldt et al., ICPR 2004): 25 people box, clap, wave, jog, run and walk; 160x120, 25 frames a second.

The folder holds ``personNN_action_dN_uncomp.avi`` (sub-folders are searched too) and the list ``00sequences.txt``. The
list names the parts of each recording that show the action. Persons 1 to 16 are for training and 17 to 25 for testing.
The published protocol does not say who validates; here persons 15 and 16 do.

The list is read as it is: most recordings have four ranges, some have three; tabs or blanks separate them; the one
recording that does not exist has no entry; ranges may overlap or touch, or exceed their recording, and are cut there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from stzoo.data import Reading, Split
from stzoo.data.recordings import RecordedDataset, Segment, video_dataset
from stzoo.errors import DataError
from stzoo.frames.video import VIDEO

LIST = "00sequences.txt"
TEST, VALIDATION = range(17, 26), range(15, 17)
HOP = 20  # frames from the start of one measured clip to the next
_RECORDING = re.compile(r"(person(\d\d)_(boxing|handclapping|handwaving|jogging|running|walking)_d[1-4])")
_LINE = re.compile(_RECORDING.pattern + r"\s+frames\s+([\d\s,-]+?)\s*")


def open_folder(
    folder: Path, reading: Reading, test: Collection[int] = TEST, validation: Collection[int] = VALIDATION
) -> RecordedDataset:
    """The recordings below `folder`, cut to the ranges that its list names.

    Args:
        folder: holds the recordings and the list.
        reading: what the frames shall be like.
        test, validation: the persons, by number, who are in these parts. All others are in the training part.

    Raises:
        DataError: the list is absent or unreadable, there is no recording, or a recording is not in the list.
    """
    listed = read_sequences(folder / LIST)
    files = sorted(p for p in folder.rglob("person*") if p.suffix.lower() in VIDEO and _RECORDING.match(p.name))
    if not files:
        raise DataError(f"{folder} holds no recordings named personNN_action_dN")

    def segments() -> Iterator[tuple[Split, Segment]]:
        for file in files:
            name, person = _RECORDING.match(file.name).group(1, 2)  # type: ignore[union-attr]
            if name not in listed:
                raise DataError(f"{file} is not in {folder / LIST}; remove it, or use the list that belongs to it")
            part: Split = "test" if int(person) in test else "validation" if int(person) in validation else "train"
            for first, last in listed[name]:
                yield part, Segment(file, first - 1, last)

    return video_dataset(f"KTH Actions in {folder}", segments(), reading, HOP)


def read_sequences(file: Path) -> dict[str, tuple[tuple[int, int], ...]]:
    """KTH's list: name of a recording -> ranges (first, last) of its frames, counted from 1, both ends included.

    Raises:
        DataError: the file is absent or names no recording, or a line that names one cannot be read.
    """
    try:
        if not file.is_file():  # reading a FIFO would wait for ever
            raise FileNotFoundError(file)
        lines = file.read_text("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{file} cannot be read; KTH's list of sequences belongs beside its recordings") from error
    found = {}
    for number, line in enumerate(lines, 1):
        if not _RECORDING.match(line):
            continue  # blank lines, and the text of the authors at the top
        match = _LINE.fullmatch(line)
        ranges = [re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", part) for part in match[4].split(",")] if match else []
        pairs = [(int(r[1]), int(r[2])) for r in ranges if r]
        if not match or len(pairs) != len(ranges) or any(not 1 <= a <= b for a, b in pairs):
            raise DataError(f"{file}, line {number}: expected 'personNN_action_dN frames a-b, c-d', found {line!r}")
        found[match[1]] = tuple(pairs)
    if not found:
        raise DataError(f"{file} names no recording")
    return found
