"""KITTI and Caltech Pedestrian on small files of their formats, written here byte by byte."""

import io
import os
import struct
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stzoo.data import Reading, open_dataset
from stzoo.data.kitti_caltech import cover
from stzoo.data.seq_file import read_seq
from stzoo.errors import DataError

READING = Reading(channels=3, height=128, width=160)
SKIPPING = Reading(channels=3, height=128, width=160, skip_bad=True)
DRIVE, VALIDATION = "2011_09_26_drive_0001_sync", "2011_09_26_drive_0005_sync"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STZOO_HOME", str(tmp_path / "home"))


@cache
def jpeg(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (640, 480), (level, level, 0)).save(file, "JPEG", quality=95)
    return file.getvalue()


def seq(
    frames: list[bytes], *, stamp: int = 16, promised: int | None = None, image_format: int = 201, magic: int = 0xFEED
) -> bytes:
    """The layout of the toolbox that Caltech Pedestrian comes with; `stamp` bytes follow each frame."""
    header = bytearray(1024)
    struct.pack_into("<I", header, 0, magic)
    header[4:24] = "Norpix seq".encode("utf-16-le")
    struct.pack_into("<ii", header, 28, 3, 1024)
    header[36:54] = "pedestria".encode("utf-16-le")
    count = len(frames) if promised is None else promised
    struct.pack_into("<9I", header, 548, 640, 480, 24, 8, 640 * 480 * 3, image_format, count, 0, 922112)
    struct.pack_into("<d", header, 584, 30.0)
    body = b"".join(
        struct.pack("<I", len(f) + 4) + f + struct.pack("<iH", 1_200_000_000 + i, 33) + bytes(stamp - 6)
        for i, f in enumerate(frames)
    )
    return bytes(header) + body


def write(path: Path, contents: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents)
    return path


def write_drive(folder: Path, name: str, levels: list[int]) -> Path:
    """Frames of one gray level each, in red where 128x160 does not reach."""
    data = folder / name[:10] / name / "image_03" / "data"
    data.mkdir(parents=True)
    for i, level in enumerate(levels):
        image = np.full((375, 1242, 3), level, np.uint8)
        image[:, :380] = image[:, 862:] = (255, 0, 0)
        Image.fromarray(image).save(data / f"{i:010d}.png", compress_level=1)
    return data


def levels_of(path: Path, every: int = 1) -> list[int]:
    return [round(float(np.asarray(image)[:, :, 0].mean())) for image in read_seq(path, every)]


@pytest.mark.parametrize("stamp", [8, 16])
@pytest.mark.parametrize("promised", [None, 0])
def test_seq_frames(tmp_path: Path, stamp: int, promised: int | None) -> None:
    """Zero promised frames are those of a recording that was never closed."""
    path = write(tmp_path / "V000.seq", seq([jpeg(20 * i) for i in range(7)], stamp=stamp, promised=promised))
    assert levels_of(path) == pytest.approx([0, 20, 40, 60, 80, 100, 120], abs=1)
    assert levels_of(path, every=3) == pytest.approx([0, 60, 120], abs=1)
    assert next(read_seq(path)).size == (640, 480)


def test_seq_ignores_what_follows_the_last_frame(tmp_path: Path) -> None:
    path = write(tmp_path / "V000.seq", seq([jpeg(20), jpeg(90)]) + b"an index")
    assert levels_of(path) == pytest.approx([20, 90], abs=1)


def test_seq_without_frames(tmp_path: Path) -> None:
    assert levels_of(write(tmp_path / "V000.seq", seq([]))) == []


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "1024 bytes of header, this one has 0"),
        (seq([])[:600], "this one has 600"),
        (seq([jpeg(9)], magic=0xFEEE), "no Norpix .seq file"),
        (seq([jpeg(9)]).replace("Norpix".encode("utf-16-le"), bytes(12)), "no Norpix .seq file"),
        (seq([jpeg(9)], image_format=200), "image format 200; only JPEG"),
        (seq([jpeg(9)] * 3)[:-1500], "frame 2 of the 3 that its header promises should start at byte"),
        (seq([jpeg(9)] * 3, promised=2**32 - 1), "frame 3 of the 4294967295"),
        (seq([], promised=1) + b"\xff\xff\xff\xff1234", "frame 0 of the 1"),
        (seq([], promised=1) + bytes(64), "frame 0 of the 1"),
        (seq([], promised=1) + b"\x04\0\0\0" + bytes(64), "frame 0 of the 1"),
        (seq([jpeg(9)] * 3, promised=0)[:-1500], "frame 2 should start"),
        (seq([jpeg(9), b"\xff\xd8" + bytes(500)]), "frame 1 is a damaged JPEG"),
        (seq([jpeg(9), jpeg(9)[:-700]]), "frame 1 is a damaged JPEG"),
    ],
)
def test_seq_errors(tmp_path: Path, contents: bytes, message: str) -> None:
    path = write(tmp_path / "V000.seq", contents)
    with pytest.raises(DataError, match=f"V000.seq.*{message}"):
        list(read_seq(path))


def test_seq_absent(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="V000.seq cannot be read"):
        list(read_seq(tmp_path / "V000.seq"))


def test_cover_cuts_about_the_centre() -> None:
    """1242x375 becomes 424x128, of which columns 132 to 291 stay: an edge at half the width stays at half the width."""
    halves = np.full((375, 1242, 3), 40, np.uint8)
    halves[:, 621:] = 200
    array = np.asarray(cover(Image.fromarray(halves), 128, 160))
    assert array.shape == (128, 160, 3)
    assert set(array[:, :79].ravel()) == {40}
    assert set(array[:, 81:].ravel()) == {200}
    assert (array[:, 79] < 120).all()
    assert (array[:, 80] > 120).all()
    tall = np.asarray(cover(Image.fromarray(halves.transpose(1, 0, 2)), 128, 160))
    assert tall.shape == (128, 160, 3)
    assert set(tall[:62].ravel()) == {40}
    assert set(tall[66:].ravel()) == {200}


def test_parts_and_windows(tmp_path: Path) -> None:
    levels = list(range(0, 13 * 9, 9))
    kitti, caltech = tmp_path / "kitti", tmp_path / "caltech"
    write_drive(kitti, DRIVE, levels)
    write_drive(kitti, VALIDATION, levels[:11])
    others = ["2011_09_26_drive_0104_sync", "2011_09_28_drive_0016_sync", "2011_09_28_drive_0225_sync"]
    for name in [*others, "2011_10_03_drive_0058_sync", "2011_09_28_drive_0002_sync"]:
        write_drive(kitti, name, [])
    for i, name in enumerate(("set05/V000", "set06/V000", "set10/V011")):
        write(caltech / f"{name}.seq", seq([jpeg(3 * n) for n in range(3 * 22 + i)]))
    data = open_dataset("kitti-caltech", tmp_path, READING)
    assert "train        2 segments" in data.describe()  # 2011_09_28_drive_0002 is the city's
    (kitti / "2011_09_28/2011_09_28_drive_0002_sync/image_03/data").rmdir()

    data = open_dataset("kitti-caltech", tmp_path, READING)
    train = data.split("train", 10, 1)
    assert (len(train), len(data.split("validation", 10, 1))) == (3, 1)
    clip = train.clips(0, 3)
    assert clip.past.shape == (3, 10, 3, 128, 160)
    assert clip.past.dtype == torch.uint8
    for i in range(3):
        assert [frame.unique().tolist() for frame in clip.past[i]] == [[level] for level in levels[i : i + 10]]
        assert clip.future[i].unique().tolist() == [levels[i + 10]]

    test = data.split("test", 10, 1)
    assert len(test) == 2 + 2  # 22 and 23 frames at 10 a second, a clip every 11
    red = test.clips(1, 2).past[0, :, 0].float().mean((1, 2))
    torch.testing.assert_close(red, 9.0 * torch.arange(11.0, 21.0), atol=1, rtol=0)  # every third of 3, 6, 9, ...
    assert test.clips(1, 2).past[0, :, 2].max() <= 3  # blue is the last channel


def test_half_of_the_data_without_a_folder_around_it(tmp_path: Path) -> None:
    write(tmp_path / "set07/V003.seq", seq([jpeg(50)] * 31))
    data = open_dataset("kitti-caltech", tmp_path, READING)
    assert len(data.split("test", 10, 1)) == 1
    with pytest.raises(DataError, match="the train part is empty"):
        data.split("train", 10, 1)
    write_drive(tmp_path, DRIVE, [5] * 3)
    assert len(open_dataset("kitti-caltech", tmp_path, READING).split("train", 1, 1)) == 2


def test_empty_folder_and_channels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds neither kitti/"):
        open_dataset("kitti-caltech", tmp_path, READING)
    with pytest.raises(DataError, match="2 channels"):
        open_dataset("kitti-caltech", tmp_path, Reading(channels=2, height=128, width=160))


@pytest.mark.parametrize("harm", ["damaged", "missing", "none"])
def test_bad_drive(tmp_path: Path, harm: str) -> None:
    bad = write_drive(tmp_path, DRIVE, [7] * 3)
    write_drive(tmp_path, "2011_09_26_drive_0002_sync", [8] * 3)
    second = bad / "0000000001.png"
    if harm == "damaged":
        second.write_bytes(second.read_bytes()[:200])
    elif harm == "missing":
        second.unlink()
    else:
        for file in bad.iterdir():
            file.unlink()
    message = {
        "damaged": "0000000001.png is damaged",
        "missing": "0000000000.png is followed by 0000000002.png",
        "none": f"{DRIVE}.*holds no frames",
    }[harm]
    with pytest.raises(DataError, match=message):
        open_dataset("kitti-caltech", tmp_path, READING).split("train", 1, 1)
    with pytest.warns(UserWarning, match=f"left out: .*{message}"):
        train = open_dataset("kitti-caltech", tmp_path, SKIPPING).split("train", 1, 1)
    assert train.clips(0, len(train)).past.unique().tolist() == [8]


def test_bad_video_is_left_out(tmp_path: Path) -> None:
    whole = seq([jpeg(60)] * 6)
    write(tmp_path / "set06/V000.seq", whole[:-2000])
    write(tmp_path / "set06/V001.seq", whole)
    with pytest.raises(DataError, match=r"V000.seq is damaged or cut short"):
        open_dataset("kitti-caltech", tmp_path, READING).split("test", 1, 1)
    with pytest.warns(UserWarning, match="left out: .*V000.seq"):
        test = open_dataset("kitti-caltech", tmp_path, SKIPPING).split("test", 1, 1)
    assert len(test) == 1


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "V000.seq")
    with pytest.raises(DataError, match=r"V000\.seq cannot be read: it is no regular file"):
        next(read_seq(tmp_path / "V000.seq"))
    data = tmp_path / "kitti" / "2011_09_26" / DRIVE / "image_03" / "data"
    data.mkdir(parents=True)
    os.mkfifo(data / "0000000000.png")
    with pytest.raises(DataError, match=r"0000000000\.png is no regular file"):
        open_dataset("kitti-caltech", tmp_path, READING).split("train", 1, 1)
