"""UCSD Ped2 (Mahadevan et al., CVPR 2010): people on a walkway, seen by a fixed camera, ten frames a second.

The published folders of gray frames are read as videos, ``training_01.mp4`` to ``training_16.mp4`` and
``testing_01.mp4`` to ``testing_12.mp4`` (any suffix of a video will do). What was published for testing tests, among it
the bicycles and carts that make Ped2 a benchmark of the unusual. The last two of training validate.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from stzoo.data import Reading, Split
from stzoo.data.recordings import RecordedDataset, Segment, video_dataset
from stzoo.errors import DataError

VALIDATION = frozenset({15, 16})
HOP = 5  # frames from the start of one measured clip to the next
_NAME = re.compile(r"(training|testing)_(\d\d)\.(mp4|avi|mkv|webm|mov)")


def open_folder(folder: Path, reading: Reading) -> RecordedDataset:
    """The clips in `folder`. Raises `DataError` if no file there is named as above."""
    named = (
        sorted((p, match) for p in folder.iterdir() if (match := _NAME.fullmatch(p.name))) if folder.is_dir() else []
    )
    if not named:
        raise DataError(f"{folder} holds no videos named training_01.mp4, ... testing_12.mp4")

    def segments() -> Iterator[tuple[Split, Segment]]:
        for file, match in named:
            if match[1] == "testing":
                yield "test", Segment(file)
            else:
                yield "validation" if int(match[2]) in VALIDATION else "train", Segment(file)

    return video_dataset(f"UCSD Ped2 in {folder}", segments(), reading, HOP)
