import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from stzoo.errors import FramesError
from stzoo.forecaster import Forecaster
from stzoo.frames import images as room
from stzoo.frames.images import iterate_images, read_images, write_images
from stzoo.frames.order import in_order
from stzoo.opening import create
from stzoo.spec import ModelSpec


def pictures(count: int = 6, mode: str = "L") -> list[Image.Image]:
    rng = np.random.default_rng(0)
    shape = (16, 16) if mode == "L" else (16, 16, 3)
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "folder"])
def test_gray_frames_survive_a_file(name: str, tmp_path: Path) -> None:
    images = pictures()
    write_images(tmp_path / name, images)
    back = read_images(tmp_path / name)
    assert len(back) == len(images)
    for a, b in zip(images, back, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b.convert("L")))


def test_a_gif_is_forecast_like_its_frames(forecaster: Forecaster, tmp_path: Path) -> None:
    images = pictures()
    write_images(tmp_path / "a.gif", images)
    for a, b in zip(forecaster.predict(tmp_path / "a.gif"), forecaster.predict(images), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_colour_models_take_and_give_rgb() -> None:
    params = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2}
    model = create(ModelSpec(arch="tau", frames_in=4, frames_out=2, channels=3, height=16, width=16, params=params))
    answer = model.predict(pictures(mode="RGB"))
    assert [i.mode for i in answer] == ["RGB", "RGB"]


def test_bad_images_are_named(forecaster: Forecaster, tmp_path: Path) -> None:
    cases: list[tuple[object, str]] = [
        (tmp_path / "nothing.gif", "does not exist"),
        ("x" * 300 + ".gif", "File name too long|does not exist"),
        ("~nobody-of-this-name/a.gif", "does not exist"),
        (tmp_path, "holds no images"),
        ([*pictures(3), Image.new("L", (8, 16))], "image 3 is 8x16 but image 0 is 16x16"),
        ([Image.new("F", (16, 16)) for _ in range(4)], "mode F"),
        ([Image.new("I", (16, 16)) for _ in range(4)], "mode I,"),
        (pictures(2), "at least 4 past frames, given 2"),
    ]
    for given, message in cases:
        with pytest.raises(FramesError, match=message):
            forecaster.predict(given)


def test_images_of_two_sizes_are_named_as_the_caller_knows_them(forecaster: Forecaster, tmp_path: Path) -> None:
    images = [*pictures(6), Image.new("L", (8, 12)), *pictures(2)]
    with pytest.raises(FramesError, match="^image 6 is 8x12 but image 5 is 16x16; bring all"):
        forecaster.predict(images)
    with pytest.raises(FramesError, match="^image 6 is 8x12 but image 2 is 16x16; bring all"):
        forecaster.predict(images, every=2)
    with pytest.raises(FramesError, match="^an image is 8x12 but another is 16x16; bring all"):
        forecaster.predict(iter(images))
    for i, image in enumerate(images):
        image.save(tmp_path / f"img{i}.png")
    with pytest.raises(FramesError, match=r"img6\.png is 8x12 but img2\.png is 16x16; bring all"):
        forecaster.predict(tmp_path, every=2)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"not an image"])
def test_damaged_files_are_named(forecaster: Forecaster, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.gif").write_bytes(content)
    with pytest.raises(FramesError, match=r"bad.gif is (damaged|no image)"):
        forecaster.predict(tmp_path / "bad.gif")


def test_a_truncated_animation_is_named(forecaster: Forecaster, tmp_path: Path) -> None:
    write_images(tmp_path / "a.png", pictures())
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FramesError, match=r"a.png is damaged"):
        forecaster.predict(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
def test_a_still_moment_counts_as_often_as_it_lasts(name: str, tmp_path: Path) -> None:
    """Writers merge equal neighbours into one longer frame."""
    a, b = pictures(2)
    write_images(tmp_path / name, [a, a, a, b, b, a])
    back = [np.asarray(i.convert("L")) for i in read_images(tmp_path / name)]
    for ours, theirs in zip(back, [a, a, a, b, b, a], strict=True):
        np.testing.assert_array_equal(ours, np.asarray(theirs))


@pytest.mark.parametrize(("every", "last"), [(1, 1), (1, 4), (2, 3), (3, 2), (1, 50), (5, 1)])
@pytest.mark.parametrize("held", [0, room._KEPT_PIXELS])
def test_the_last_frames_are_the_same_however_they_are_found(
    every: int, last: int, held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one pass over the file or in two."""
    shown = pictures(7)
    times = np.random.default_rng(1).integers(1, 4, 7)
    write_images(tmp_path / "a.gif", [image for image, n in zip(shown, times, strict=True) for _ in range(n)])
    expected = read_images(tmp_path / "a.gif")[::every][-last:]
    monkeypatch.setattr(room, "_KEPT_PIXELS", held)
    found = read_images(tmp_path / "a.gif", every, last)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(ours.convert("L")), np.asarray(theirs.convert("L")))


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    write_images(tmp_path / "f", pictures(3))
    with pytest.raises(FramesError, match="exists; name an empty or a new folder"):
        write_images(tmp_path / "f", pictures(2))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FramesError, match="exists"):
        write_images(tmp_path / "file", pictures(2))
    assert (tmp_path / "file").read_text() == "mine"


def test_unknown_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FramesError, match=r"cannot write a.xyz"):
        write_images(tmp_path / "a.xyz", pictures())


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A gray PNG of that size, as far as its header goes, and some chunks after it."""
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in (header, *chunks, (b"IEND", b""))
    )


def gif(width: int, height: int, frames: int) -> bytes:
    """Frames of one pixel, 15 bytes each, on a canvas of that size."""
    header = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return header + (b"\x2c\0\0\0\0\1\0\1\0\0\x02\x02\x44\x01\x00" * frames) + b"\x3b"


PIXELS = (b"IDAT", zlib.compress(bytes(17 * 16)))
BOMBS = {
    "a claim of 900 million pixels": (png(30_000, 30_000, PIXELS), "900000000 pixels"),
    "a claim of 36 million pixels": (
        png(6_000, 6_000, PIXELS),
        "frames of 6000x6000 pixels; one may have 1 to 33,554,432",
    ),
    "an empty image": (png(0, 0, PIXELS), "no image that can be read"),
    "a gigabyte of text": (png(16, 16, (b"zTXt", b"k\0\0" + zlib.compress(bytes(2**30), 9)), PIXELS), "too large"),
    "a gigabyte in a hundred texts": (
        png(16, 16, *((b"zTXt", b"k%d\0\0" % i + zlib.compress(bytes(10**6), 9)) for i in range(100)), PIXELS),
        "Too much memory",
    ),
    "half a gigabyte of a colour profile": (
        png(16, 16, (b"iCCP", b"k\0\0" + zlib.compress(bytes(2**29), 9)), PIXELS),
        "too large",
    ),
    "a million frames": (gif(16, 16, 1_000_000), "more than 65,536 frames or 1,073,741,824 pixels; make it a video"),
    "a thousand frames of 25 million pixels": (gif(5000, 5000, 1000), "more than 65,536 frames or 1,073,741,824"),
    "a canvas of 4 thousand million pixels": (gif(65535, 65535, 3), "pixels"),
    "a program for Ghostscript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\nshowpage\n",
        "no image that can",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", BOMBS)
def test_bombs_are_refused(what: str, forecaster: Forecaster, tmp_path: Path) -> None:
    content, message = BOMBS[what]
    (tmp_path / "a.png").write_bytes(content)  # Pillow looks at what is inside
    with pytest.raises(FramesError, match=rf"a\.png\b.*{message}"):
        forecaster.predict(tmp_path / "a.png", resize=True)


def test_what_is_no_file_is_not_opened(forecaster: Forecaster, tmp_path: Path) -> None:
    """Opening a FIFO would block, and a device has no end."""
    (tmp_path / "folder").mkdir()
    for fifo in ("a.gif", "folder/a.png"):
        os.mkfifo(tmp_path / fifo)
    for path in (tmp_path / "a.gif", tmp_path / "folder", Path("/dev/zero")):
        with pytest.raises(FramesError, match=f"{path}.* is no file"):
            forecaster.predict(path)


@pytest.mark.parametrize("key", ["duration", "transparency", "loop", "gamma", "exif"])
def test_words_in_a_png_mean_nothing(key: str, forecaster: Forecaster, tmp_path: Path) -> None:
    """Pillow keeps them where it keeps its own settings."""
    text = PngImagePlugin.PngInfo()
    text.add_text(key, "soon")
    images = [image.convert("P") for image in pictures()]
    images[0].save(tmp_path / "a.png", save_all=True, append_images=images[1:], pnginfo=text)
    assert len(forecaster.predict(tmp_path / "a.png")) == 4
    images[0].save(tmp_path / "b.png", pnginfo=text)
    with pytest.raises(FramesError, match="at least 4 past frames, given 1"):
        forecaster.predict(tmp_path / "b.png")


def test_an_image_of_the_caller_that_cannot_be_read_is_a_frames_error(forecaster: Forecaster, tmp_path: Path) -> None:
    pictures()[0].save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:80])
    images = [Image.open(tmp_path / "a.png") for _ in range(4)]
    with pytest.raises(FramesError, match="an image cannot be read: "):
        forecaster.predict(images)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_any_part_of_an_animation_is_what_it_is_of_the_whole(suffix: str, tmp_path: Path) -> None:
    a, b, c = pictures(3)
    write_images(tmp_path / f"a{suffix}", [a, a, b, c, c, c, a, b])
    whole = [np.asarray(i.convert("L")) for i in read_images(tmp_path / f"a{suffix}")]
    assert len(whole) == 8
    for every in (1, 2, 3, 9):
        for last in (1, 2, 5, None):
            part = [np.asarray(i.convert("L")) for i in iterate_images(tmp_path / f"a{suffix}", every, last)]
            np.testing.assert_array_equal(part, whole[::every] if last is None else whole[::every][-last:])


def test_frames_that_last_for_ever_are_refused_where_all_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures(3)
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=[10, 60_000, 60_000])
    assert len(list(iterate_images(tmp_path / "a.gif", last=4))) == 4
    monkeypatch.setattr(room, "MAX_FRAMES", 1000)
    with pytest.raises(FramesError, match=r"a\.gif: its 3 frames last for 2001 of the shortest, too many"):
        list(iterate_images(tmp_path / "a.gif"))


def test_numbers_of_any_script_are_sorted() -> None:
    names = ["a\u00b2.png", "1\u00b22.png", "a10.png", "a9.png", "\u0663.png"]
    assert [p.name for p in in_order(map(Path, names))][-3:] == ["a9.png", "a10.png", "a\u00b2.png"]
