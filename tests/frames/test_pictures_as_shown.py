"""Pictures as a viewer shows them: upright, without covers, hidden files and pauses, in their own scale."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, ImageSequence

from stzoo.errors import FramesError
from stzoo.forecaster import Forecaster
from stzoo.frames import write
from stzoo.frames.images import as_shown, fit, holds_pages, iterate_images, read_images, write_images

SUFFIXES = (".png", ".jpg", ".tif", ".webp")


def pictures(count: int = 4, size: tuple[int, int] = (16, 16)) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)) for _ in range(count)]


def stacked(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image.convert("L")) for image in images])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_files_and_images(suffix: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    image = pictures(1, (8, 12))[0]
    stored = image.convert("RGB") if suffix == ".webp" else image
    stored.save(tmp_path / f"a{suffix}", exif=exif, quality=95, lossless=True)
    (tmp_path / "other").mkdir()
    image.save(tmp_path / "other" / "a.png", exif=exif)
    right = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "other" / "a.png")))
    assert right.shape == ((8, 12) if orientation < 5 else (12, 8))
    near = 40 if suffix == ".jpg" else 0  # noise is the worst that JPEG can be given
    np.testing.assert_allclose(stacked(read_images(tmp_path))[0].astype(int), right, atol=near)
    with (tmp_path / f"a{suffix}").open("rb") as file, Image.open(file) as opened:
        np.testing.assert_allclose(np.asarray(as_shown(opened).convert("L"), int), right, atol=near)
        np.testing.assert_allclose(np.asarray(as_shown(opened.convert("L")), int), right, atol=near)


def test_exif_turns_the_frames_of_an_animation_and_the_images_of_a_caller(
    forecaster: Forecaster, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x112] = 6  # shown after a quarter turn clockwise
    images = pictures()
    images[0].save(tmp_path / "a.png", save_all=True, append_images=images[1:], exif=exif)
    turned = np.rot90(stacked(images), -1, (1, 2))
    np.testing.assert_array_equal(stacked(read_images(tmp_path / "a.png")), turned)
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.png", exif=exif)
    opened = [Image.open(tmp_path / f"{i}.png") for i in range(4)]
    np.testing.assert_array_equal(stacked(forecaster.predict(opened)), forecaster.predict(np.ascontiguousarray(turned)))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_turns_nothing(tmp_path: Path) -> None:
    image = pictures(1)[0]
    image.save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    np.testing.assert_array_equal(stacked(read_images(tmp_path / "a.png"))[0], np.asarray(image))


def test_the_cover_of_an_animation_is_no_frame(tmp_path: Path) -> None:
    cover, *frames = pictures(5)
    cover.save(tmp_path / "a.png", save_all=True, append_images=frames, default_image=True)
    np.testing.assert_array_equal(stacked(read_images(tmp_path / "a.png")), stacked(frames))


@pytest.mark.parametrize(
    ("durations", "counts"),
    [
        ([100] * 4 + [1000], [1] * 5),
        ([1000] + [100] * 4, [1] * 5),
        ([2000, 100, 200, 100, 2000], [1, 1, 2, 1, 1]),
        ([100] * 4 + [1050], [1] * 5),  # no multiple of the others
        ([100, 100, 200, 100, 1050], [1, 1, 2, 1, 1]),
        ([300, 100, 100, 100, 300], [3, 1, 1, 1, 3]),  # still moments, which writers store as one frame
        ([100, 1000, 100, 100, 1000], [1, 10, 1, 1, 10]),
    ],
)
def test_a_loop_that_rests_on_its_first_or_last_image_pauses(
    durations: list[int], counts: list[int], tmp_path: Path
) -> None:
    images = pictures(5)
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=durations, loop=0)
    expected = np.repeat(stacked(images), counts, 0)
    np.testing.assert_array_equal(stacked(read_images(tmp_path / "a.gif")), expected)
    np.testing.assert_array_equal(stacked(read_images(tmp_path / "a.gif", last=3)), expected[-3:])


def test_hidden_files_are_no_frames(tmp_path: Path) -> None:
    images = pictures()
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.png")
        (tmp_path / f"._{i}.png").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    images[0].save(tmp_path / ".9.png")
    (tmp_path / "Thumbs.db").write_bytes(b"")
    np.testing.assert_array_equal(stacked(read_images(tmp_path)), stacked(images))


def test_a_frame_that_is_there_twice_is_refused_with_both_names(tmp_path: Path) -> None:
    for i, image in enumerate(pictures()):
        image.save(tmp_path / f"img{i}.png")
    pictures(1)[0].save(tmp_path / "IMG1.jpg")
    with pytest.raises(
        FramesError, match=r"holds a frame twice, as (IMG1\.jpg and as img1\.png|img1\.png .*IMG1\.jpg)"
    ):
        read_images(tmp_path)


def test_a_number_that_is_there_with_and_without_zeros_is_refused(tmp_path: Path) -> None:
    for i, name in enumerate(("0.05", "0.5", "1", "10", "100")):
        pictures(5)[i].save(tmp_path / f"{name}.png")
    assert len(read_images(tmp_path)) == 5
    pictures(1)[0].save(tmp_path / "01.png")
    with pytest.raises(FramesError, match=r"holds a frame twice, as 01\.png and as 1\.png; remove one"):
        read_images(tmp_path)


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    for name in ("b10", "b9"):
        (tmp_path / name).mkdir()
    with pytest.raises(FramesError, match=r"holds no images .*, but b9, b10; forecast one .* stzoo forecast-archive"):
        read_images(tmp_path)


def test_one_image_object_for_all_frames_is_refused(forecaster: Forecaster, tmp_path: Path) -> None:
    images = pictures()
    with pytest.raises(FramesError, match=r"the 4 frames are one and the same image object.*image\.copy\(\)"):
        forecaster.predict([images[0]] * 4)
    write_images(tmp_path / "a.gif", images)
    with Image.open(tmp_path / "a.gif") as file:
        with pytest.raises(FramesError, match="one and the same image object"):
            forecaster.predict(list(ImageSequence.Iterator(file)))
        copies = [frame.copy() for frame in ImageSequence.Iterator(file)]
    np.testing.assert_array_equal(stacked(forecaster.predict(copies)), stacked(forecaster.predict(images)))
    assert len(forecaster.predict([images[0], images[0], images[1], images[1]])) == 4
    for given in ([images[1]] + [images[0]] * 11, images[:2] + [images[2]] * 4):  # the model reads the last four
        for check in (False, True):
            with pytest.raises(FramesError, match="the 4 frames that are read are one and the same image object"):
                forecaster.rollout(given, 2, check=check)
    assert len(forecaster.predict(images[:3] + [images[3]] * 3)) == 4


def test_a_tiff_of_several_pages_is_a_sequence(tmp_path: Path) -> None:
    images = pictures()
    images[0].save(tmp_path / "a.tif", save_all=True, append_images=images[1:])
    assert holds_pages(tmp_path / "a.tif")
    np.testing.assert_array_equal(stacked(read_images(tmp_path / "a.tif", last=3)), stacked(images[1:]))
    with pytest.raises(FramesError, match=r"a\.tif holds several images, .*give the path of this file alone"):
        read_images(tmp_path)
    images[0].save(tmp_path / "b.tif")
    assert not holds_pages(tmp_path / "b.tif")
    assert not holds_pages(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("resize", [False, True])
def test_sixteen_bits_are_read_in_their_scale_and_come_back(
    suffix: str, resize: bool, forecaster: Forecaster, frames: np.ndarray, tmp_path: Path
) -> None:
    deep = frames.astype(np.uint16) * 256 + 7
    (tmp_path / "deep").mkdir()
    for i, frame in enumerate(deep):
        Image.fromarray(frame).save(tmp_path / "deep" / f"{i}{suffix}")
    answer = forecaster.predict(tmp_path / "deep", resize=resize)
    assert {image.mode for image in answer} == {"I;16"}
    np.testing.assert_array_equal(np.stack([np.asarray(image) for image in answer]), forecaster.predict(deep))
    for name in ("out", "out.png", "out.npy", "out.gif"):
        write(tmp_path / name, answer)
    back = np.stack([np.asarray(image) for image in read_images(tmp_path / "out")])
    np.testing.assert_array_equal(back, forecaster.predict(deep))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), forecaster.predict(deep))
    for name in ("out.png", "out.gif"):
        expected = np.rint(forecaster.predict(deep) / 257)
        np.testing.assert_array_equal(stacked(read_images(tmp_path / name)), expected)


def test_twelve_bits_of_images_are_scaled_as_the_caller_says(forecaster: Forecaster, frames: np.ndarray) -> None:
    deep = frames.astype(np.uint16) * 16
    answer = forecaster.predict([Image.fromarray(frame) for frame in deep], bits=12)
    np.testing.assert_array_equal(np.stack([np.asarray(image) for image in answer]), forecaster.predict(deep, bits=12))
    with pytest.raises(FramesError, match="bits is 12; for uint8 it may be 1 to 8"):
        forecaster.predict(pictures(), bits=12)


def test_images_of_eight_and_sixteen_bits_go_together(forecaster: Forecaster, frames: np.ndarray) -> None:
    mixed = [Image.fromarray(frames[0].astype(np.uint16) * 257), *map(Image.fromarray, frames[1:4])]
    answer = [np.asarray(image) for image in forecaster.predict(mixed)]
    np.testing.assert_array_equal(np.stack(answer), forecaster.predict(frames[:4].astype(np.uint16) * 257))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_every_mode_of_eight_bits_becomes_gray_or_colour(mode: str) -> None:
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8))
    image = colours.convert("P" if mode == "PA" else "RGB").convert(mode)
    for channels in (1, 3):
        shown = fit(as_shown(image), channels, 8, 12)
        assert shown.shape == (channels, 8, 12)
        reference = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(8, 12, channels)
        np.testing.assert_array_equal(shown.transpose(1, 2, 0), reference)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "L"])
def test_transparent_parts_are_black(mode: str, tmp_path: Path) -> None:
    ink = np.zeros((8, 8), np.uint8)
    ink[2:6, 2:6] = 255
    if mode in ("P", "L"):
        image = Image.fromarray(np.where(ink, 200, 90).astype(np.uint8)).convert(mode)
        image.save(tmp_path / "a.png", transparency=90 if mode == "L" else image.getpixel((0, 0)))
        expected = np.where(ink, 200, 0)
    else:
        image = Image.merge("LA", (Image.new("L", (8, 8), 200), Image.fromarray(ink // 3 * 2))).convert(mode)
        image.save(tmp_path / "a.png")
        expected = np.where(ink, round(200 * 170 / 255), 0)
    np.testing.assert_allclose(stacked(list(iterate_images(tmp_path / "a.png")))[0], expected, atol=1)


def test_links_in_a_circle_end(forecaster: Forecaster, tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("b.png")
    (tmp_path / "b.png").symlink_to("a.png")
    (tmp_path / "folder").symlink_to("folder")
    for path in (tmp_path / "a.png", tmp_path, tmp_path / "folder"):
        with pytest.raises(FramesError, match="does not exist"):
            forecaster.predict(path)


@pytest.mark.parametrize("scheme", ["http", "https", "s3", "rtsp"])
def test_addresses_are_told_from_paths(scheme: str, forecaster: Forecaster) -> None:
    address = f"{scheme}://example.org/a.mp4"
    for given in (address, Path(address)):  # a path has lost a slash
        with pytest.raises(FramesError, match=f"{scheme}://example.org/a.mp4 is an address, .* curl -LO '{scheme}://"):
            forecaster.predict(given)
    with pytest.raises(FramesError, match="leave out file://, and give its path"):
        forecaster.predict("file:///tmp/a.mp4")
