import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stzoo import frames as room
from stzoo.errors import FramesError
from stzoo.forecaster import Forecaster
from stzoo.frames.arrays import open_array, write_array
from stzoo.frames.images import read_images
from stzoo.spec import ModelSpec


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", ">f4"])
def test_npy_files_give_arrays(forecaster: Forecaster, frames: np.ndarray, dtype: str, tmp_path: Path) -> None:
    given = (frames / 255).astype(dtype) if dtype.endswith("4") or "float" in dtype else frames.astype(dtype)
    np.save(tmp_path / "a.npy", given)
    answer = forecaster.rollout(tmp_path / "a.npy", 6)
    assert type(answer) is np.ndarray
    assert answer.dtype == given.dtype
    np.testing.assert_array_equal(answer, forecaster.rollout(given, 6))


def test_npy_files_are_mapped_not_read(spec: ModelSpec, tmp_path: Path) -> None:
    """A file of 4 TB with holes: reading it whole is impossible."""
    with (tmp_path / "a.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (2**34, 16, 16)}
        np.lib.format.write_array_header_1_0(file, header)
        try:
            file.truncate(file.tell() + 2**42)
        except OSError:
            pytest.skip("this file system has no files of such a size")
        file.seek(-4 * 256, io.SEEK_END)
        file.write(np.arange(4, dtype=np.uint8).repeat(256).tobytes())
    past = room.read(tmp_path / "a.npy", spec, 4).past
    np.testing.assert_allclose(past[0, :, 0, 5, 5].numpy() * 255, range(4), atol=1e-5)


def test_an_npz_file_holds_one_array_of_frames(forecaster: Forecaster, frames: np.ndarray, tmp_path: Path) -> None:
    path, expected = tmp_path / "a.npz", forecaster.predict(frames)
    contents: list[dict[str, Any]] = [
        {"anything": frames},
        {"frames": frames, "other": frames[::-1]},
        {"x": frames, "step_minutes": np.array(5), "files": np.array(["a", "b"]), "pickled": np.array([{}] * 9)},
    ]
    for content in contents:
        np.savez(path, **content)
        np.testing.assert_array_equal(forecaster.predict(path), expected)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"past": frames, "future": frames}, "there are several, past, future"),
        ({"labels": np.arange(3)}, "there are none among labels"),
        ({"frames": np.array([{}] * 9).reshape(1, 3, 3)}, "none among frames"),
        ({}, "none among no arrays"),
    ]
    for content, message in bad:
        np.savez(path, **content)
        with pytest.raises(FramesError, match=rf"a\.npz: .*{message}"):
            forecaster.predict(path)


class Trap:
    """Leaves a folder behind where its pickle is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickles_are_never_loaded(forecaster: Forecaster, tmp_path: Path) -> None:
    trap = np.array([Trap(tmp_path / "sprung")] * 8).reshape(2, 2, 2)
    np.save(tmp_path / "a.npy", trap)
    np.savez(tmp_path / "a.npz", frames=trap)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(FramesError, match=name):
            forecaster.predict(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_damaged_files_are_named(forecaster: Forecaster, frames: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", frames)
    np.savez_compressed(tmp_path / "whole.npz", frames=frames)
    for suffix in (".npy", ".npz"):
        whole = (tmp_path / f"whole{suffix}").read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 255
        damages = [b"", b"no array", whole[: len(whole) // 2], whole[:40]] + [bytes(flipped)] * (suffix == ".npz")
        for content in damages:
            (tmp_path / f"bad{suffix}").write_bytes(content)
            with pytest.raises(FramesError, match=rf"bad{suffix} is damaged or no array file"):
                forecaster.predict(tmp_path / f"bad{suffix}")
        with pytest.raises(FramesError, match="does not exist"):
            forecaster.predict(tmp_path / f"none{suffix}")
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as file:
        file.writestr("frames.npy", "text")
    with pytest.raises(FramesError, match=r"bad\.npz"):
        forecaster.predict(tmp_path / "bad.npz")


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_what_is_written_is_read_back(name: str, frames: np.ndarray, tmp_path: Path) -> None:
    write_array(tmp_path / name, frames)
    np.testing.assert_array_equal(open_array(tmp_path / name), frames)
    room.write(tmp_path / name, [Image.fromarray(f) for f in frames[::-1]])
    np.testing.assert_array_equal(open_array(tmp_path / name), frames[::-1])
    assert [p.name for p in tmp_path.iterdir()] == [name]
    with pytest.raises(FramesError, match="object is no dtype of frames"):
        write_array(tmp_path / name, np.array([{}]))
    np.testing.assert_array_equal(open_array(tmp_path / name), frames[::-1])
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_every_kth_frame_of_anything_in_memory(forecaster: Forecaster, frames: np.ndarray) -> None:
    long = np.concatenate([frames, frames[::-1], frames])  # 18
    expected = forecaster.predict(long[[4, 8, 12, 16]])
    np.testing.assert_array_equal(forecaster.predict(long, every=4), expected)
    images = forecaster.predict([Image.fromarray(f) for f in long], every=4)
    np.testing.assert_array_equal(np.stack([np.asarray(i) for i in images]), expected)
    np.testing.assert_array_equal(forecaster.predict(long[None, :, None], every=4)[0, :, 0], expected)
    with pytest.raises(FramesError, match="every=6 leaves 3 of 18 frames; the model reads 4"):
        forecaster.predict(long, every=6)


def test_arrays_that_are_pictures_can_be_written_as_such(frames: np.ndarray, tmp_path: Path) -> None:
    colour = np.stack([frames, frames[::-1], 255 - frames], 1)
    for array, plain in ((frames, frames), (colour, colour.transpose(0, 2, 3, 1)), (frames[..., None], frames)):
        room.write(tmp_path / "a.png", array)
        back = read_images(tmp_path / "a.png")
        np.testing.assert_array_equal(np.stack([np.asarray(i) for i in back]), plain)
    for array in (frames / 255, frames[:, None].repeat(2, 1), frames[None, :, None]):
        with pytest.raises(FramesError, match="are no pictures"):
            room.write(tmp_path / "b.png", array)
    assert not (tmp_path / "b.png").exists()


def header(shape: object, dtype: object = "|u1") -> bytes:
    """The start of a .npy file."""
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\2\0" + len(text).to_bytes(4, "little") + text


HEADERS = {
    "more bytes than there are": header((10**6, 16, 16)),
    "more bytes than 64 bits count": header((2**40, 2**40, 16)),
    "a side beyond 64 bits": header((2**80, 16, 16)),
    "a side below nothing": header((-4, 16, 16)),
    "objects": header((4, 16, 16), "|O"),
    "structures": header((4, 16, 16), [("a", "|u1")]),
    "dates": header((32, 2, 2), "<M8[ns]"),
    "text": header((4, 16, 16), "|S1"),
    "sides that are no numbers": header(("a", None, 16)),
    "no mapping": b"\x93NUMPY\1\0\x02\0[]",
    "what Python cannot parse": b"\x93NUMPY\1\0\x10\x27" + b"(" * 10_000,
    "another version": b"\x93NUMPY\x09\0\x02\0{}",
    "an endless header": b"\x93NUMPY\2\0\xff\xff\xff\xff",
}


@pytest.mark.parametrize("what", HEADERS)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_adversarial_headers_are_refused(what: str, suffix: str, forecaster: Forecaster, tmp_path: Path) -> None:
    path, content = tmp_path / f"a{suffix}", HEADERS[what] + bytes(1024)
    path.write_bytes(content)
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("frames.npy", content)
    with pytest.raises(FramesError, match=rf"a\{suffix}"):
        forecaster.predict(path)


def test_an_npz_file_that_would_unpack_to_more_than_fits_is_refused(forecaster: Forecaster, tmp_path: Path) -> None:
    """The claim is of 100 GB; what follows is looked at no more."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("frames.npy", header((400_000_000, 16, 16)) + bytes(10**7))
    with pytest.raises(
        FramesError, match=r"a\.npz: '?frames'? unpacks to 102,400,000,000 bytes, .*save it as a \.npy file"
    ):
        forecaster.predict(tmp_path / "a.npz")


def test_arrays_that_are_not_meant_are_not_unpacked(forecaster: Forecaster, frames: np.ndarray, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("other.npy", header((10**15,)) + bytes(10))
        file.writestr("mine.npy", header(frames.shape) + frames.tobytes())
    np.testing.assert_array_equal(forecaster.predict(tmp_path / "a.npz"), forecaster.predict(frames))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        for i in range(1001):
            file.writestr(f"{i}.npy", b"")
    with pytest.raises(FramesError, match="there are 1001 arrays"):
        forecaster.predict(tmp_path / "a.npz")


def test_what_is_no_file_is_not_opened(forecaster: Forecaster, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npy")
    (tmp_path / "b.npz").mkdir()
    for name in ("a.npy", "b.npz"):
        with pytest.raises(FramesError, match=rf"{name} is no file"):
            forecaster.predict(tmp_path / name)


def test_frames_of_absurd_size_are_not_read(forecaster: Forecaster, tmp_path: Path) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        file.write(header((4, 65536, 65536)))
        try:
            file.truncate(file.tell() + 2**34)  # a hole
        except OSError:
            pytest.skip("this file system has no files of such a size")
    with pytest.raises(FramesError, match=r"a\.npy: a frame may have 33,554,432 pixels, given 65536x65536"):
        forecaster.predict(tmp_path / "a.npy")


def test_a_file_of_another_kind_is_named_in_our_words(
    forecaster: Forecaster, frames: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NumPy advises to load objects, which could run code; and it reads a whole .npy file that is called .npz."""
    np.save(tmp_path / "a.npy", frames)
    whole = (tmp_path / "a.npy").read_bytes()
    np.savez(tmp_path / "b.npz", frames)
    objects = header((4, 16, 16), "|O") + bytes(99)
    cases = (
        ("x.npz", whole, r"it is a \.npy file, so name it so"),
        ("x.npz", b"\x80\x04N.", "it is no zip file of arrays"),
        ("x.npy", (tmp_path / "b.npz").read_bytes(), r"it does not begin as a \.npy file does"),
        ("x.npy", b"\x80\x04N.", r"it does not begin as a \.npy file does"),
        ("x.npy", objects, "it holds Python objects, which are not read; save plain numbers"),
        ("x.npy", b"\x93NUMPY\1\0\x10\x27" + b" " * 10_000, "it holds Python objects, or no array|header"),
    )
    for name, content, message in cases:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FramesError, match=message) as caught:
            forecaster.predict(tmp_path / name)
        assert "allow_pickle" not in str(caught.value)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_that_unpack_without_a_bound_are_refused(
    how: int, forecaster: Forecaster, frames: np.ndarray, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", how) as file:
        file.writestr("frames.npy", header(frames.shape) + frames.tobytes())
    with pytest.raises(FramesError, match="packed in a way that NumPy does not write"):
        forecaster.predict(tmp_path / "a.npz")
