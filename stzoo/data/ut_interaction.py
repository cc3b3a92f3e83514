"""UT-Interaction, segmented (Ryoo and Aggarwal, 2010): two people shake hands, hug, kick, point, punch or push.

Files are named ``clip_sequence_class.avi`` and lie in the folders ``set1`` (a parking lot) and ``set2`` (grass); they
have 30 frames a second. The split is stzoo's own, by sequence, so that nobody appears in two parts: 8, 9, 18 and 19 are
for testing, 7 and 17 for validation, and all others for training.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from stzoo.data import Reading, Split
from stzoo.data.recordings import RecordedDataset, Segment, video_dataset
from stzoo.errors import DataError

TEST, VALIDATION = frozenset({8, 9, 18, 19}), frozenset({7, 17})
HOP = 5  # frames from the start of one measured clip to the next
_NAME = re.compile(r"\d+_(\d+)_[0-5]\.avi")


def open_folder(folder: Path, reading: Reading, sets: tuple[str, ...] = ("set1", "set2")) -> RecordedDataset:
    """The recordings in the folders `sets` of `folder`.

    Raises:
        DataError: no file in these folders is named as UT-Interaction's files are.
    """
    files = sorted(p for name in sets for p in (folder / name).glob("*.avi") if _NAME.fullmatch(p.name))
    if not files:
        raise DataError(f"{folder} holds no {' or '.join(sets)} with files named clip_sequence_class.avi")

    def segments() -> Iterator[tuple[Split, Segment]]:
        for file in files:
            sequence = int(_NAME.fullmatch(file.name)[1])  # type: ignore[index]
            yield "test" if sequence in TEST else "validation" if sequence in VALIDATION else "train", Segment(file)

    return video_dataset(f"UT-Interaction in {folder}, {' and '.join(sets)}", segments(), reading, HOP)
