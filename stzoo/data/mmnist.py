"""Moving MNIST (Srivastava et al., ICML 2015): two digits drift in a 64x64 frame and bounce off its walls.

A sequence depends on its seed and its number alone. Directions come from a table, and positions are integrated in fixed
point from raw PCG64 integers, so every machine and device gives the same bits. (The sines in the table are rounded to
2^-16 pixel. None of them is so near to a rounding boundary that two mathematical libraries could round it differently.)
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stzoo import environment
from stzoo.data import Clip, Reading, Split
from stzoo.errors import DataError, WeightsError

CANVAS, DIGIT = 64, 28
FREE = CANVAS - DIGIT  # pixels: a digit's top-left corner moves in [0, FREE]
STEP = 0.1 * FREE  # pixels that a digit moves from one frame to the next
DIGITS = 2

_FRACTION = 16  # fractional bits of a position
_ANGLES = 1 << 16
_DRAWS = 4 * DIGITS  # random integers that a sequence takes: number, y, x and angle of each digit

TEST_SEED, TEST_COUNT = 2023, 10_000
TEST_DIGITS_SHA256 = "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161"
TEST_SHA256 = "95440df31830d3cd149d6a6797153a02608740a165f3b729db9125db450a82be"
HELD_OUT = 10_000  # the last of the 60,000 training digits, which validate and are never trained on
TRAIN_SEED, VALIDATION_SEED, VALIDATION_COUNT = 1, 2, 10_000

_MAGIC = b"\0\0\x08\x03"  # how an IDX file of images begins
_SMALL, _RATIO = 2**26, 64  # bytes that any file may unpack to (MNIST has 47 MB), and how many times its own size
IDX_FILES = {
    "train": (
        "train-images-idx3-ubyte.gz",
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "test": (
        "t10k-images-idx3-ubyte.gz",
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
}


@dataclass(frozen=True)
class MovingDigits:
    """Sequences of `DIGITS` moving digits, cut into past and future.

    Attributes:
        digits: (N, 28, 28) uint8, white on black. Sequences are drawn on the device of this tensor.
        seed: chooses one of many endless lists of sequences.
        count: how many sequences of that list there are.
        frames_in, frames_out: numbers of past and future frames.
    """

    digits: Tensor
    seed: int
    count: int
    frames_in: int = 10
    frames_out: int = 10

    def __len__(self) -> int:
        return self.count

    def to(self, device: str | torch.device) -> MovingDigits:
        """The same sequences, drawn on another device."""
        return replace(self, digits=self.digits.to(device))

    def clips(self, start: int, stop: int) -> Clip:
        """The clips start, ... stop - 1: past (n, frames_in, 1, 64, 64), future (n, frames_out, 1, 64, 64), uint8.

        Raises:
            IndexError: there are not so many.
        """
        if not 0 <= start <= stop <= self.count:
            raise IndexError(f"clips {start} to {stop} of {self.count}")
        frames = self.sequences(start, stop)[:, :, None]
        return Clip(frames[:, : self.frames_in], frames[:, self.frames_in :])

    def sequences(self, start: int, stop: int) -> Tensor:
        """The same, uncut: (stop - start, frames_in + frames_out, 64, 64) uint8."""
        which, corners = (torch.from_numpy(a).to(self.digits.device) for a in self.trajectories(start, stop))
        return draw(self.digits, which, corners)

    def trajectories(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of the digits (n, 2), and their top-left corners (n, 2, T, 2) as (y, x) in whole pixels."""
        bits = np.random.PCG64(self.seed)
        bits.advance(start * _DRAWS)
        raw = bits.random_raw((stop - start) * _DRAWS).reshape(-1, DIGITS, 4) >> np.uint64(32)

        def uniform(column: int, below: int) -> np.ndarray:
            return ((raw[..., column] * np.uint64(below)) >> np.uint64(32)).astype(np.int64)

        which = uniform(0, len(self.digits))
        top = FREE << _FRACTION
        position = np.stack([uniform(1, top + 1), uniform(2, top + 1)], axis=-1)
        velocity = _VELOCITIES[uniform(3, _ANGLES)]
        corners = np.empty((*which.shape, self.frames_in + self.frames_out, 2), np.int64)
        for t in range(corners.shape[2]):
            position = position + velocity
            velocity = np.where((position <= 0) | (position >= top), -velocity, velocity)
            position = position.clip(0, top)
            corners[:, :, t] = position >> _FRACTION
        return which, corners


def draw(digits: Tensor, which: Tensor, corners: Tensor) -> Tensor:
    """Draw moving digits; where two overlap, the brighter one shows.

    A digit is laid in the middle of a larger sheet. A frame is the 64x64 window of that sheet which puts the digit in
    its place. All windows are one strided view, so a single indexing reads every frame.

    Args:
        digits: (N, 28, 28) uint8.
        which: (n, 2) integers, the numbers of the two digits of each sequence.
        corners: (n, 2, T, 2) integers, their top-left corners as (y, x).

    Returns:
        (n, T, 64, 64) uint8.
    """
    n, _, t, _ = corners.shape
    side = CANVAS + FREE
    row = torch.arange(n, device=digits.device)[:, None]
    frames = torch.zeros(n, t, CANVAS, CANVAS, dtype=digits.dtype, device=digits.device)
    for k in range(DIGITS):
        sheet = torch.zeros(n, side, side, dtype=digits.dtype, device=digits.device)
        sheet[:, FREE:CANVAS, FREE:CANVAS] = digits[which[:, k]]
        windows = sheet.as_strided((n, FREE + 1, FREE + 1, CANVAS, CANVAS), (side * side, side, 1, side, 1))
        y, x = (FREE - corners[:, k]).unbind(-1)
        frames = torch.maximum(frames, windows[row, y, x])
    return frames


def _velocity_table() -> np.ndarray:
    """(65536, 2) integers: (dy, dx) in fixed point of a move of `STEP` pixels in each direction."""
    angle = np.arange(_ANGLES) * (2 * np.pi / _ANGLES)
    return np.rint(np.stack([np.sin(angle), np.cos(angle)], axis=-1) * STEP * (1 << _FRACTION)).astype(np.int64)


_VELOCITIES = _velocity_table()


@dataclass(frozen=True)
class MovingMnist:
    """The dataset: sequences of the MNIST digits in `folder`."""

    folder: Path

    def split(self, name: Split, frames_in: int, frames_out: int) -> MovingDigits:
        """The sequences of one part. Raises `DataError` if the digits cannot be read."""
        sets = {"train": training_set, "validation": validation_set, "test": protocol_set}
        return sets[name](self.folder, frames_in, frames_out)

    def describe(self) -> str:
        return (
            f"Moving MNIST from the digits in {self.folder}\n"
            f"  train        endless, of the first {60_000 - HELD_OUT:,} training digits\n"
            f"  validation   {VALIDATION_COUNT:,} sequences of the other {HELD_OUT:,}\n"
            f"  test         {TEST_COUNT:,} sequences of the test digits"
        )


def open_folder(folder: Path, reading: Reading) -> MovingMnist:
    """The dataset; its files are read later. Raises `DataError` unless the model reads gray frames of 64x64."""
    check_frames("mmnist", reading)
    return MovingMnist(folder)


def check_frames(dataset: str, reading: Reading) -> None:
    """Raises `DataError`, which names the dataset, unless the model reads gray frames of 64x64, and all of them."""
    wanted = (reading.channels, reading.height, reading.width)
    if wanted != (1, CANVAS, CANVAS) or reading.every != 1:
        raise DataError(
            f"{dataset} is drawn at 1x{CANVAS}x{CANVAS}, with every frame; asked for {wanted}, every {reading.every}"
        )


def training_set(folder: Path, frames_in: int, frames_out: int) -> MovingDigits:
    """Endless sequences of the first 50,000 training digits. Raises `DataError` as `read_digits` does."""
    digits = read_digits(folder, "train")[:-HELD_OUT]
    return MovingDigits(digits, TRAIN_SEED, 1 << 40, frames_in, frames_out)


def validation_set(folder: Path, frames_in: int, frames_out: int) -> MovingDigits:
    """10,000 sequences of the 10,000 training digits that `training_set` never shows. Raises `DataError`, too."""
    digits = read_digits(folder, "train")[-HELD_OUT:]
    return MovingDigits(digits, VALIDATION_SEED, VALIDATION_COUNT, frames_in, frames_out)


def protocol_set(folder: Path, frames_in: int = 10, frames_out: int = 10) -> MovingDigits:
    """The protocol `mmnist-10-10`: 10,000 sequences of the test digits; all of them hash to `TEST_SHA256`.

    Raises:
        DataError: the digits are absent, or are not MNIST's (other datasets use the same file names).
    """
    digits = read_digits(folder, "test")
    found = hashlib.sha256(digits.numpy().tobytes()).hexdigest()
    if found != TEST_DIGITS_SHA256:
        raise DataError(f"{folder} holds other test digits than MNIST's: sha256 {found}, expected {TEST_DIGITS_SHA256}")
    return MovingDigits(digits, TEST_SEED, TEST_COUNT, frames_in, frames_out)


def read_digits(folder: Path, split: str) -> Tensor:
    """The digits of an IDX file in `folder`, gzipped or not: (N, 28, 28) uint8.

    Args:
        folder: where the file lies.
        split: "train" or "test".

    Raises:
        DataError: the file is absent, damaged, or no IDX file of 28x28 images.
    """
    name = IDX_FILES[split][0]
    candidates = [folder / name, folder / name.removesuffix(".gz")]
    path = next((p for p in candidates if p.is_file()), None)
    if path is None:
        raise DataError(f"{folder} holds no {name}; give the folder of the MNIST IDX files, or --download to fill it")
    try:
        return parse_idx(_unpacked(path))
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path}: {error}") from error


def _unpacked(path: Path) -> bytes:
    """An IDX file, gzipped or not: as many bytes as its header states, and one more if there are more.

    Raises:
        ValueError: the header states far more images than a file of this size can hold.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else path.open("rb") as stream:
        header = stream.read(16)
        count = int.from_bytes(header[4:8], "big")
        size, stated = path.stat().st_size, count * DIGIT**2
        if header[:4] != _MAGIC or stated > max(_SMALL, _RATIO * size):
            if header[:4] == _MAGIC:
                raise ValueError(f"its header states {count:,} images, more than a file of {size:,} bytes can hold")
            return header
        body: bytes = stream.read(stated + 1)
        if len(body) > stated:
            raise ValueError(f"expected {count} images, found more")
        return header + body


def parse_idx(raw: bytes) -> Tensor:
    """The images of an IDX file: (N, 28, 28) uint8. Raises ValueError if it is no such file, or has another length."""
    if len(raw) < 16:
        raise ValueError("shorter than an IDX header")
    magic, count, height, width = struct.unpack(">4i", raw[:16])
    if (magic, height, width) != (0x803, DIGIT, DIGIT):
        raise ValueError(f"expected an IDX file of {DIGIT}x{DIGIT} images, found magic {magic:#x}, {height}x{width}")
    if len(raw) - 16 != count * height * width or count < 1:
        raise ValueError(f"expected {count} images, found {(len(raw) - 16) / (height * width):.1f}")
    return torch.frombuffer(bytearray(raw[16:]), dtype=torch.uint8).view(count, height, width)


def download_digits(folder: Path, base: str) -> None:
    """Fetch MNIST's two IDX files into `folder`. A file there that has the right sha256 stays as it is.

    Args:
        folder: created if needed.
        base: an https address; the files are fetched from ``base/NAME``.

    Raises:
        DataError: `base` is not https or cannot be read, the network is off, or a file has another sha256. Such a file
            is not kept.
    """
    from stzoo.download import download
    from stzoo.hashing import file_sha256

    for name, size, sha256 in IDX_FILES.values():
        path = folder / name
        if environment.offline() and not (path.is_file() and file_sha256(path) == sha256):
            raise DataError(f"{folder} holds no {name}, and the network is off")
        try:
            download(f"{base.rstrip('/')}/{name}", path, size, sha256)
        except WeightsError as error:
            raise DataError(str(error)) from error
