"""Moving Fashion-MNIST: two pieces of clothing drift in a 64x64 frame as the digits of Moving MNIST do.

The pictures are Fashion-MNIST's (Xiao, Rasul and Vollgraf, 2017). The published benchmark draws its sequences anew for
every reader, so these sequences differ from its own; how they are made is the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from stzoo.data import Reading, Split
from stzoo.data.mmnist import (
    HELD_OUT,
    TEST_COUNT,
    TEST_SEED,
    TRAIN_SEED,
    VALIDATION_COUNT,
    VALIDATION_SEED,
    MovingDigits,
    check_frames,
    read_digits,
)
from stzoo.errors import DataError

SHA256 = {
    "train": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "test": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
}  # of the pixels


@dataclass(frozen=True)
class MovingFashionMnist:
    """The dataset: sequences of the pictures in `folder`."""

    folder: Path

    def split(self, name: Split, frames_in: int, frames_out: int) -> MovingDigits:
        """The sequences of one part. Raises `DataError` if the pictures cannot be read, or are not Fashion-MNIST's."""
        if name == "test":
            return MovingDigits(read_clothes(self.folder, "test"), TEST_SEED, TEST_COUNT, frames_in, frames_out)
        clothes = read_clothes(self.folder, "train")
        if name == "validation":
            return MovingDigits(clothes[-HELD_OUT:], VALIDATION_SEED, VALIDATION_COUNT, frames_in, frames_out)
        return MovingDigits(clothes[:-HELD_OUT], TRAIN_SEED, 1 << 40, frames_in, frames_out)

    def describe(self) -> str:
        return (
            f"Moving Fashion-MNIST from the pictures in {self.folder}\n"
            f"  train        endless, of the first {60_000 - HELD_OUT:,} training pictures\n"
            f"  validation   {VALIDATION_COUNT:,} sequences of the other {HELD_OUT:,}\n"
            f"  test         {TEST_COUNT:,} sequences of the test pictures"
        )


def open_folder(folder: Path, reading: Reading) -> MovingFashionMnist:
    """The dataset; its files are read later. Raises `DataError` unless the model reads gray frames of 64x64."""
    check_frames("mfmnist", reading)
    return MovingFashionMnist(folder)


def read_clothes(folder: Path, split: str) -> Tensor:
    """The pictures of Fashion-MNIST in `folder`, (N, 28, 28) uint8; `split` is "train" or "test".

    Raises:
        DataError: the files are absent or damaged, or hold other pictures (MNIST's have the same names).
    """
    clothes = read_digits(folder, split)
    found = hashlib.sha256(clothes.numpy().tobytes()).hexdigest()
    if found != SHA256[split]:
        raise DataError(
            f"{folder} holds other {split} pictures than Fashion-MNIST's: sha256 {found}, expected {SHA256[split]}"
        )
    return clothes
