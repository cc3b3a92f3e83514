"""KITTI (Geiger et al., 2013) to train on, Caltech Pedestrian (Dollar et al., 2009) to test on: the view from a car.

The folder holds ``kitti/<date>/<date>_drive_NNNN_sync/image_03/data/*.png`` and ``caltech/setNN/VNNN.seq``, as both are
published. One of the two may be absent, or may lie in the folder directly, without ``kitti`` or ``caltech`` around it.

The data is prepared as by PredNet (Lotter et al., ICLR 2017) and later work: KITTI's right colour camera, 10 frames a
second, categories city, residential and road; Caltech's sets 06 to 10, 30 frames a second, of which every third is
kept. A frame is resized bilinearly to the wanted height, and what is then too wide is cut off evenly on both sides. One
drive validates. The three drives that PredNet tests on are left out, so that figures on KITTI can be compared.

The raw layout does not name categories. All drives of 2011_09_28 except the first two are of the categories campus or
person, and the last drive of each day is for calibration. Without them 61 drives remain, 57 of them to train on, as
many as PredNet counts.

Clips of the test start every 11 frames, so for 10 -> 1 they share no frames, as in the public code. That code counts
from the end of a recording, keeps the frames 2, 5, 8, ... (stzoo keeps 0, 3, 6, ...), and reads Caltech's colours as
blue, green, red after training on red, green, blue. So figures are near the published ones, but not the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from PIL import Image

from stzoo.data import Reading, Split
from stzoo.data.recordings import RecordedDataset, Segment
from stzoo.data.seq_file import read_seq
from stzoo.errors import DataError, printable

VALIDATION = "2011_09_26_drive_0005_sync"
LEFT_OUT = frozenset(
    {
        "2011_09_26_drive_0104_sync",  # PredNet tests on these: city, residential, road
        "2011_09_26_drive_0079_sync",
        "2011_09_26_drive_0070_sync",
        "2011_09_26_drive_0119_sync",  # calibration
        "2011_09_29_drive_0108_sync",
        "2011_09_30_drive_0072_sync",
        "2011_10_03_drive_0058_sync",
    }
)
TEST_SETS = ("set06", "set07", "set08", "set09", "set10")
EVERY = 3  # brings 30 frames a second to 10
HOP = 11  # frames between the starts of two clips of the test

_DRIVE = re.compile(
    r"(?!2011_09_28_drive_(?!000[12]_))\d{4}_\d\d_\d\d_drive_\d{4}_sync"
)  # of 2011_09_28 only the first two


def open_folder(folder: Path, reading: Reading) -> RecordedDataset:
    """The drives and videos below `folder`. If KITTI or Caltech is absent, its parts are empty.

    Raises:
        DataError: both are absent, or the model's frames are neither gray nor RGB.
    """
    if reading.channels not in (1, 3):
        raise DataError(
            f"frames of KITTI and Caltech are read in RGB or gray; this model reads {reading.channels} channels"
        )
    kitti, caltech = (inner if (inner := folder / name).is_dir() else folder for name in ("kitti", "caltech"))
    drives = [p for p in sorted(kitti.glob("*/*_sync/image_03/data")) if _DRIVE.fullmatch(_name(p))]
    videos = [p for name in TEST_SETS for p in sorted((caltech / name).glob("V*.seq"))]
    if not drives and not videos:
        raise DataError(
            f"{folder} holds neither kitti/<date>/<drive>_sync/image_03/data nor caltech/set06 to set10 with .seq files"
        )
    parts: dict[Split, tuple[Segment, ...]] = {
        "train": tuple(Segment(p) for p in drives if _name(p) != VALIDATION and _name(p) not in LEFT_OUT),
        "validation": tuple(Segment(p) for p in drives if _name(p) == VALIDATION),
        "test": tuple(Segment(p) for p in videos),
    }
    return RecordedDataset(
        f"KITTI and Caltech Pedestrian in {folder}, 10 frames a second",
        MappingProxyType(parts),
        reading,
        MappingProxyType({"train": 1, "validation": 1, "test": HOP}),
        partial(_decode, height=reading.height, width=reading.width),
    )


def _name(drive: Path) -> str:
    """The name of the drive whose images lie in that folder."""
    return drive.parent.parent.name


def _decode(path: Path, height: int, width: int) -> Iterator[Image.Image]:
    """A drive's folder of images, or a video -> RGB images of exactly that size, 10 a second."""
    for image in read_seq(path, EVERY) if path.suffix == ".seq" else _read_drive(path):
        yield cover(image, height, width)


def cover(image: Image.Image, height: int, width: int) -> Image.Image:
    """The image in RGB, resized without distortion until it covers the wanted size, and cut to it in the middle."""
    scale = max(height / image.height, width / image.width)
    wide, high = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    left, top = (wide - width) // 2, (high - height) // 2
    resized = image.convert("RGB").resize((wide, high), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + width, top + height))


def _read_drive(folder: Path) -> Iterator[Image.Image]:
    """The numbered PNGs of a folder in order. Raises `DataError` if one is damaged or a number is missing."""
    files = sorted((p for p in folder.glob("*.png") if p.stem.isdecimal()), key=lambda p: int(p.stem))
    for one, other in pairwise(files):
        if int(other.stem) != int(one.stem) + 1:
            raise DataError(f"{folder}: {one.name} is followed by {other.name}; extract the drive's archive again")
    for file in files:
        if not file.is_file():  # reading a FIFO would wait for ever
            raise DataError(f"{file} is no regular file")
        try:
            with Image.open(file, formats=["PNG"]) as image:
                image.load()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{file} is damaged: {printable(str(error))}") from error
        yield image
