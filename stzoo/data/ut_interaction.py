"""UT-Interaction, segmented (Ryoo and Aggarwal, 2010): two people shake hands, hug, kick, point, punch or push.

Files are ``clip_sequence_class.avi`` in the folders ``set1`` (a parking lot) and ``set2`` (grass), 30 frames a second.
The split is ours, by sequence, so that nobody is in two parts: test 8, 9, 18, 19; validation 7, 17; the rest trains.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType

from stzoo.data import Reading, Split
from stzoo.data.recordings import RecordedDataset, Segment
from stzoo.errors import DataError
from stzoo.frames.video import read_video

TEST, VALIDATION = frozenset({8, 9, 18, 19}), frozenset({7, 17})
HOP = 5  # frames between the starts of two clips that are measured
_NAME = re.compile(r"\d+_(\d+)_[0-5]\.avi")


def open_folder(folder: Path, reading: Reading, sets: tuple[str, ...] = ("set1", "set2")) -> RecordedDataset:
    """The recordings below ``folder/set1`` and ``folder/set2``, or one of them.

    Raises:
        DataError: no file there has such a name.
    """
    files = sorted(p for name in sets for p in (folder / name).glob("*.avi") if _NAME.fullmatch(p.name))
    if not files:
        raise DataError(f"{folder} holds no {' or '.join(sets)} with files named clip_sequence_class.avi")
    parts: dict[Split, list[Segment]] = {"train": [], "validation": [], "test": []}
    for file in files:
        sequence = int(_NAME.fullmatch(file.name)[1])  # type: ignore[index]
        part: Split = "test" if sequence in TEST else "validation" if sequence in VALIDATION else "train"
        parts[part].append(Segment(file))
    return RecordedDataset(
        f"UT-Interaction in {folder}, {' and '.join(sets)}",
        MappingProxyType({name: tuple(found) for name, found in parts.items()}),
        reading,
        MappingProxyType({"train": 1, "validation": HOP, "test": HOP}),
        read_video,
    )
