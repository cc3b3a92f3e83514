"""Moving MNIST against a plain loop, and against the sha256 of the whole test set."""

import gzip
import hashlib
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from stzoo.data import mmnist
from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import FREE, MovingDigits
from stzoo.errors import DataError


@pytest.fixture
def moving() -> MovingDigits:
    digits = torch.from_numpy(np.random.default_rng(0).integers(1, 256, (7, 28, 28), dtype=np.uint8))
    return MovingDigits(digits, seed=5, count=100)


def by_hand(moving: MovingDigits, number: int) -> np.ndarray:
    """One sequence, in floating point, one digit and one frame at a time."""
    raw = [int(r) >> 32 for r in np.random.PCG64(moving.seed).random_raw(8 * (number + 1))[8 * number :]]
    frames = np.zeros((20, 64, 64), np.uint8)
    for choice, y, x, angle in (raw[:4], raw[4:]):
        digit = moving.digits[choice * len(moving.digits) >> 32].numpy()
        position = np.array([y, x]) / 2**32 * (FREE + 2**-16)
        direction = 2 * np.pi * (angle >> 16) / 2**16
        velocity = 3.6 * np.array([np.sin(direction), np.cos(direction)])
        for t in range(20):
            position += velocity
            for axis in (0, 1):
                if position[axis] <= 0 or position[axis] >= FREE:
                    position[axis] = min(max(position[axis], 0), FREE)
                    velocity[axis] *= -1
            top, left = (int(p) for p in position)
            window = frames[t, top : top + 28, left : left + 28]
            np.maximum(window, digit, out=window)
    return frames


def test_sequences_are_those_of_a_plain_loop(moving: MovingDigits) -> None:
    """Fixed and floating point may put a digit one pixel apart when it sits on a pixel's edge, and do so rarely."""
    drawn = moving.sequences(0, 100).numpy()
    same = [np.array_equal(drawn[i], by_hand(moving, i)) for i in range(100)]
    assert np.mean(same) >= 0.98
    _, corners = moving.trajectories(0, 100)
    assert corners.min() == 0
    assert corners.max() == FREE


def test_a_sequence_does_not_depend_on_its_batch(moving: MovingDigits) -> None:
    whole = moving.sequences(0, 20)
    assert torch.equal(whole[7:9], moving.sequences(7, 9))
    clip = moving.clips(3, 5)
    assert clip.past.shape == clip.future.shape == (2, 10, 1, 64, 64)
    assert torch.equal(torch.cat([clip.past, clip.future], 1)[:, :, 0], whole[3:5])


def test_seeds_and_numbers_give_different_sequences(moving: MovingDigits) -> None:
    other = MovingDigits(moving.digits, seed=6, count=100)
    assert not torch.equal(moving.sequences(0, 1), other.sequences(0, 1))
    assert len({s.numpy().tobytes() for s in moving.sequences(0, 100)}) == 100


def test_beyond_the_end_is_an_index_error(moving: MovingDigits) -> None:
    with pytest.raises(IndexError):
        moving.clips(99, 101)


def test_digits_step_by_a_tenth_of_their_range(moving: MovingDigits) -> None:
    _, corners = moving.trajectories(0, 100)
    steps = np.linalg.norm(np.diff(corners.astype(float), axis=2), axis=-1)
    assert np.median(steps) == pytest.approx(3.6, abs=0.3)


@pytest.mark.slow
def test_the_test_protocol_is_the_pinned_array(mnist: Path) -> None:
    test = mmnist.protocol_set(mnist)
    digest = hashlib.sha256()
    for start in range(0, len(test), 500):
        digest.update(test.sequences(start, start + 500).numpy())
    assert len(test) == 10_000
    assert digest.hexdigest() == mmnist.TEST_SHA256


def test_validation_digits_are_held_out(mnist: Path) -> None:
    training, validation = mmnist.training_set(mnist, 10, 10), mmnist.validation_set(mnist, 10, 10)
    assert (len(training.digits), len(validation.digits)) == (50_000, 10_000)
    assert torch.equal(torch.cat([training.digits, validation.digits]), mmnist.read_digits(mnist, "train"))


def idx(images: np.ndarray) -> bytes:
    return struct.pack(">4i", 0x803, *images.shape) + images.tobytes()


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read(tmp_path: Path, packed: bool) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    name = "t10k-images-idx3-ubyte"
    if packed:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx(images), mtime=0))
    else:
        (tmp_path / name).write_bytes(idx(images))
    np.testing.assert_array_equal(mmnist.read_digits(tmp_path, "test").numpy(), images)


IDX_OF_TWO = idx(np.zeros((2, 28, 28), np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "shorter than an IDX header"),
        (idx(np.zeros((2, 28, 28), np.uint8))[:-1], "expected 2 images"),
        (idx(np.zeros((2, 28, 27), np.uint8)), "28x27"),
        (idx(np.zeros((2, 28, 28), np.uint8)) + b"a", "expected 2 images, found more"),
        (gzip.compress(IDX_OF_TWO + bytes(10**7), mtime=0), "expected 2 images, found more"),
        (
            gzip.compress(struct.pack(">4i", 0x803, 2**31 - 1, 28, 28), mtime=0),
            "states 2,147,483,647 images",
        ),
        (gzip.compress(struct.pack(">4i", 0x803, -1, 28, 28), mtime=0), "states 4,294,967,295 images"),
        (gzip.compress(idx(np.zeros((9, 28, 28), np.uint8)), mtime=0)[:-20], "t10k"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=message):
        mmnist.read_digits(tmp_path, "test")


def test_other_digits_under_mnists_names_are_no_test_protocol(tmp_path: Path) -> None:
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((10_000, 28, 28), np.uint8)))
    with pytest.raises(DataError, match="other test digits than MNIST's"):
        mmnist.protocol_set(tmp_path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no train-images-idx3-ubyte.gz"):
        mmnist.read_digits(tmp_path, "train")


def test_downloads_need_https(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not an https address"):
        mmnist.download_digits(tmp_path, "http://localhost")


def test_a_download_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(DataError, match="cannot fetch https://127.0.0.1:9/train-images.*5 requests in a row failed"):
        mmnist.download_digits(tmp_path, "https://127.0.0.1:9")
    assert [f for f in tmp_path.iterdir() if f.suffix != ".lock"] == []


def test_drawn_digits_look_like_mnist() -> None:
    digits = drawn_digits()
    assert digits.shape == (10, 28, 28)
    ink = digits > 127
    rows, columns = ink.any(2), ink.any(1)
    assert (rows.sum(1) >= 18).all()  # twenty pixels high
    assert (columns.sum(1) <= 22).all()
    assert len({d.numpy().tobytes() for d in digits}) == 10
    assert 10 < digits.float().mean() < 70  # MNIST's own mean is 33
