"""Colour for a model that reads gray, and gray for one that reads colour."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stzoo.codec import Codec, load_codec
from stzoo.errors import FramesError
from stzoo.forecaster import Forecaster
from stzoo.frames.images import eight_bit
from stzoo.opening import create
from stzoo.spec import ModelSpec


@pytest.fixture
def colour_model(spec: ModelSpec) -> Forecaster:
    torch.manual_seed(0)
    return create(spec.replace(channels=3))


@pytest.fixture
def colour() -> np.ndarray:
    """(5, 3, 16, 16) uint8."""
    return np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _told() -> Iterator[None]:
    """The warning that each channel is forecast is tested where it belongs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "this model reads gray")
        yield


def as_images(frames: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]


def by_channel(model: Forecaster, frames: np.ndarray, steps: int) -> np.ndarray:
    """The forecast of each channel of (T, 3, H, W) as a clip of a batch: (steps, 3, H, W)."""
    return model.rollout(frames.transpose(1, 0, 2, 3)[:, :, None], steps)[:, :, 0].transpose(1, 0, 2, 3)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_gray_model_forecasts_each_channel(forecaster: Forecaster, colour: np.ndarray, dtype: str) -> None:
    frames = colour if dtype == "uint8" else (colour / 255).astype(dtype)
    expected = by_channel(forecaster, frames, 6)
    tolerance = 1 if dtype == "uint8" else 1e-5  # a batch of three is summed in another order than one clip alone
    for channel in range(3):
        alone = forecaster.rollout(frames[:, channel], 6)
        np.testing.assert_allclose(expected[:, channel].astype(float), alone.astype(float), atol=tolerance)
    np.testing.assert_array_equal(forecaster.rollout(frames, 6), expected)
    last = forecaster.rollout(frames.transpose(0, 2, 3, 1), 6)
    np.testing.assert_array_equal(last, expected.transpose(0, 2, 3, 1))
    two = forecaster.rollout(torch.from_numpy(np.stack([frames, frames[:, ::-1].copy()])), 6)
    assert two.shape == (2, 6, 3, 16, 16)
    np.testing.assert_allclose(two[1].numpy()[:, ::-1].astype(float), expected, atol=tolerance)


def test_pictures_in_colour_are_forecast_in_colour(forecaster: Forecaster, colour: np.ndarray) -> None:
    expected = by_channel(forecaster, colour, 4).transpose(0, 2, 3, 1)
    images = as_images(colour.transpose(0, 2, 3, 1))
    for given in (images, [image.convert("RGBA") for image in images]):
        future = forecaster.predict(given)
        assert [image.mode for image in future] == ["RGB"] * 4
        np.testing.assert_array_equal(np.stack([np.asarray(image) for image in future]), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_gray_pictures_among_those_in_colour_are_colours(
    forecaster: Forecaster, colour_model: Forecaster, colour: np.ndarray, channels: int
) -> None:
    model = forecaster if channels == 1 else colour_model
    given = as_images(colour.transpose(0, 2, 3, 1))
    for gray in (lambda image: image.convert("L"), lambda image: image.convert("1"), deep):
        mixed = [gray(image) if i in (0, 3) else image for i, image in enumerate(given)]
        seen = [np.asarray(image.convert("RGB")) for image in map(eight_bit, mixed)]
        wanted = model.predict(np.stack(seen))
        future = model.predict(mixed)
        assert [image.mode for image in future] == ["RGB"] * 4
        np.testing.assert_array_equal(np.stack(future), wanted)
        assert [image.mode for image in model.predict(mixed, color="gray")] == ["I;16" if gray is deep else "L"] * 4


def deep(image: Image.Image) -> Image.Image:
    """The image in gray, with 16 bits a value."""
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def test_a_gray_picture_stored_as_colour_leaves_others_their_depth(forecaster: Forecaster, colour: np.ndarray) -> None:
    images = as_images(colour[:, 0])
    mixed = [deep(image) if i < 3 else image.convert("RGB") for i, image in enumerate(images)]
    future = forecaster.predict(mixed)
    assert [image.mode for image in future] == ["I;16"] * 4
    np.testing.assert_array_equal(np.stack(future), np.stack(forecaster.predict(list(map(deep, images)))))


def test_gray_clips_in_a_batch_with_colour(forecaster: Forecaster, colour: np.ndarray) -> None:
    gray = colour[:, :1].repeat(3, 1)
    both = forecaster.predict(np.stack([gray, colour]))
    for clip, future in zip((gray, colour), both, strict=True):
        np.testing.assert_allclose(future.astype(int), forecaster.predict(clip), atol=1)


def test_one_gray_forecast_where_that_is_asked_for(forecaster: Forecaster, colour: np.ndarray) -> None:
    images = as_images(colour.transpose(0, 2, 3, 1))
    gray = [image.convert("L") for image in images]
    future = forecaster.predict(images, color="gray")
    for ours, theirs in zip(future, forecaster.predict(gray), strict=True):
        assert ours.mode == "L"
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    of_array = forecaster.predict(colour, color="gray")
    assert of_array.shape == (4, 1, 16, 16)
    luma = np.tensordot(colour.astype(np.float32) / 255, np.float32([0.299, 0.587, 0.114]), (1, 0))
    np.testing.assert_allclose(of_array[:, 0], forecaster.predict(luma) * 255, atol=0.51)
    assert forecaster.predict(colour.transpose(0, 2, 3, 1), color="gray").shape == (4, 16, 16, 1)
    with pytest.raises(FramesError, match="color is 'grey'; it may be 'gray'"):
        forecaster.predict(colour, color="grey")


def test_gray_stored_as_colour_is_forecast_once(
    forecaster: Forecaster, colour: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    gray = colour[:, 0]
    expected = forecaster.predict(gray)
    sizes = []
    unroll = forecaster.engine.unroll
    monkeypatch.setattr(forecaster.engine, "unroll", lambda past, steps: sizes.append(len(past)) or unroll(past, steps))
    as_rgb = forecaster.predict(np.stack([gray] * 3, 1))
    np.testing.assert_array_equal(as_rgb, np.stack([expected] * 3, 1))
    pictures = forecaster.predict(as_images(np.stack([gray] * 3, -1)))
    assert [image.mode for image in pictures] == ["L"] * 4
    np.testing.assert_array_equal(np.stack([np.asarray(image) for image in pictures]), expected)
    assert sizes == [1, 1]


def test_alpha_is_dropped(forecaster: Forecaster, colour_model: Forecaster, colour: np.ndarray) -> None:
    last = colour.transpose(0, 2, 3, 1)
    rgba = np.concatenate([last, np.full((5, 16, 16, 1), 77, np.uint8)], -1)
    for model in (forecaster, colour_model):
        np.testing.assert_array_equal(model.predict(rgba), model.predict(last))


def test_a_colour_model_gets_three_equal_channels_of_gray(colour_model: Forecaster, colour: np.ndarray) -> None:
    gray = (colour[:, 0] / 255).astype(np.float32)
    expected = colour_model.rollout(np.stack([gray] * 3, 1), 6).mean(1)
    np.testing.assert_allclose(colour_model.rollout(gray, 6), expected, atol=1e-6)
    np.testing.assert_allclose(colour_model.rollout(gray[:, None], 6)[:, 0], expected, atol=1e-6)
    np.testing.assert_allclose(colour_model.rollout(gray[None, ..., None], 6)[0, ..., 0], expected, atol=1e-6)
    pictures = colour_model.predict(as_images(colour[:, 0]))
    assert [image.mode for image in pictures] == ["L"] * 4
    np.testing.assert_array_equal(np.stack([np.asarray(i) for i in pictures]), colour_model.predict(colour[:, 0]))


def test_each_channel_is_said_once_and_only_where_it_is_so(forecaster: Forecaster, colour: np.ndarray) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        forecaster.predict(colour)
        assert len(seen) == 1
        assert "each of their three channels is forecast" in str(seen[0].message)
        assert "--color gray" in str(seen[0].message)
        forecaster.predict(colour, color="gray")
        forecaster.predict(colour[:, 0])
        forecaster.predict(np.stack([colour[:, 0]] * 3, 1))
    assert len(seen) == 1


def test_physical_units_have_no_colour(spec: ModelSpec, colour: np.ndarray) -> None:
    model = create(spec.replace(value_range=None))
    with pytest.raises(FramesError, match="expected"):
        model.predict(colour.astype(np.float32))
    pictures = model.predict(as_images(colour.transpose(0, 2, 3, 1)))
    assert [image.mode for image in pictures] == ["L"] * 4


def test_a_map_with_three_channels(forecaster: Forecaster, colour: np.ndarray) -> None:
    xr = pytest.importorskip("xarray")
    frames = (colour / 255).astype(np.float32)
    given = xr.DataArray(frames, dims=("time", "band", "y", "x"), coords={"band": ["r", "g", "b"]})
    future = forecaster.predict(given)
    assert future.band.values.tolist() == ["r", "g", "b"]
    np.testing.assert_array_equal(future.values, forecaster.predict(frames))


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load_codec("vqvae-mmnist", pretrained=False)


def test_a_codec_reconstructs_any_size_and_colour(codec: Any) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 15, 18), dtype=np.uint8)
    back = codec.reconstruct(frames)
    padded = np.pad(frames, ((0, 0), (0, 0), (0, 1), (1, 1)), mode="reflect")
    for channel in range(3):
        alone = codec.reconstruct(padded[:, channel])[:, :15, 1:19].astype(int)
        assert np.abs(back[:, channel].astype(int) - alone).max() <= 1
    images = as_images(frames.transpose(0, 2, 3, 1))
    assert [(image.mode, image.size) for image in codec.reconstruct(images)] == [("RGB", (18, 15))] * 2
    with pytest.raises(
        FramesError, match="with H and W multiples of 4, given .* takes 1 channel; .* `reconstruct` alone"
    ):
        codec.encode(np.zeros((2, 3, 16, 16), np.uint8))
    with pytest.raises(FramesError, match=r"given 15x18 .* that works is 16x16; .* are for `reconstruct` alone"):
        codec.encode(frames[:, 0])


def test_a_codec_makes_one_gray_clip_of_colour(codec: Any) -> None:
    images = as_images(np.random.default_rng(0).integers(0, 256, (2, 15, 18, 3), dtype=np.uint8))
    gray = codec.reconstruct(images, color="gray")
    wanted = codec.reconstruct([image.convert("L") for image in images])
    assert [image.mode for image in gray] == ["L"] * 2
    np.testing.assert_array_equal(np.stack(gray), np.stack(wanted))


def test_the_warning_of_colour_names_the_line_of_the_caller(forecaster: Forecaster) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    with pytest.warns(UserWarning, match="the frames are in colour") as raised:
        forecaster.predict(colour, layout="THWC")
    assert [warning.filename for warning in raised] == [__file__]
