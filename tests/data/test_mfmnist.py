"""Moving Fashion-MNIST: the sequences are those that other pictures would make; other pictures are refused."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from stzoo.cli import main
from stzoo.data import Reading, mfmnist, mmnist, open_dataset
from stzoo.data.mmnist import IDX_FILES, MovingDigits
from stzoo.errors import DataError

READING = Reading(channels=1, height=64, width=64)
REAL = Path(os.environ.get("STZOO_DATA", "/nowhere"))


def write(folder: Path, pictures: dict[str, np.ndarray]) -> None:
    for split, images in pictures.items():
        header = struct.pack(">4i", 0x803, len(images), 28, 28)
        (folder / IDX_FILES[split][0]).write_bytes(gzip.compress(header + images.tobytes()))


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Files of random pictures in `tmp_path`, taken for the real ones: 10,040 to train on and validate, 30 to test."""
    rng = np.random.default_rng(0)
    made = {
        "train": rng.integers(0, 256, (10_040, 28, 28), np.uint8),
        "test": rng.integers(0, 256, (30, 28, 28), np.uint8),
    }
    write(tmp_path, made)
    for split in made:
        with pytest.raises(DataError, match="other .* pictures than Fashion-MNIST's") as refused:
            mfmnist.read_clothes(tmp_path, split)
        sum_of_these = str(refused.value).split("sha256 ")[1].split(",")[0]
        monkeypatch.setitem(mfmnist.SHA256, split, sum_of_these)
    return made


def test_clothes_move_as_digits_do(tmp_path: Path, pictures: dict[str, np.ndarray]) -> None:
    data = open_dataset("mfmnist", tmp_path, READING)
    for part, shown, seed in (
        ("train", pictures["train"][:40], mmnist.TRAIN_SEED),
        ("validation", pictures["train"][40:], mmnist.VALIDATION_SEED),
        ("test", pictures["test"], mmnist.TEST_SEED),
    ):
        found = data.split(part, 10, 10).clips(5, 8)  # type: ignore[arg-type]
        wanted = MovingDigits(torch.from_numpy(shown), seed, 100).clips(5, 8)
        assert torch.equal(found.past, wanted.past)
        assert torch.equal(found.future, wanted.future)
    assert len(data.split("validation", 10, 10)) == len(data.split("test", 10, 10)) == 10_000
    assert "the first 50,000 training pictures" in data.describe()


def test_other_frames_are_refused(tmp_path: Path) -> None:
    for reading in (Reading(channels=3, height=64, width=64), Reading(channels=1, height=64, width=64, every=2)):
        with pytest.raises(DataError, match="mfmnist is drawn at 1x64x64"):
            open_dataset("mfmnist", tmp_path, reading)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no t10k-images-idx3-ubyte\.gz"):
        open_dataset("mfmnist", tmp_path, READING).split("test", 10, 10)


@pytest.mark.skipif(not (REAL / "fashion_mnist").is_dir(), reason="Fashion-MNIST is not at hand: set STZOO_DATA")
def test_the_real_files(capsys: pytest.CaptureFixture[str]) -> None:
    data = open_dataset("mfmnist", REAL / "fashion_mnist", READING)
    clip = data.split("test", 10, 10).clips(0, 50)
    assert clip.past.float().mean() > 1.2 * mmnist.protocol_set(REAL / "mnist").clips(0, 50).past.float().mean()
    command = ["evaluate", "tau-mmnist", "--dataset", "mfmnist", "--limit", "2", "--data"]
    assert main([*command, str(REAL / "fashion_mnist")]) == 0
    assert "mfmnist-10-10" in capsys.readouterr().out
    assert main([*command, str(REAL / "mnist")]) == 2
    assert "other test pictures than Fashion-MNIST's" in capsys.readouterr().err
