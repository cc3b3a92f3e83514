from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stzoo.errors import FramesError
from stzoo.forecaster import Forecaster, create
from stzoo.frames.images import read_images, write_images
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
        (tmp_path, "holds no images"),
        ([*pictures(3), Image.new("L", (8, 16))], "image 3 is 8x16, image 0 is 16x16"),
        ([Image.new("F", (16, 16))] * 4, "mode F"),
        ([Image.new("I;16", (16, 16))] * 4, "mode I;16"),
        (pictures(2), "at least 4 past frames, given 2"),
    ]
    for given, message in cases:
        with pytest.raises(FramesError, match=message):
            forecaster.predict(given)


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
