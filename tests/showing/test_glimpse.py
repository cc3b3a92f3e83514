"""What a forecaster shows of itself in a notebook: what it is, and its last forecast, of which it keeps little."""

import copy
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from showing.parsed import Parsed, panels, played

from stzoo.errors import ForecastError
from stzoo.forecaster import Forecaster
from stzoo.opening import create, load
from stzoo.spec import ModelSpec


def shown(model: Forecaster) -> Parsed:
    return Parsed(model._repr_html_())


def kept_bytes(model: Forecaster) -> int:
    assert model._last is not None
    return model._last.past.nbytes + model._last.future.nbytes


def test_a_forecaster_shows_what_it_is(forecaster: Forecaster) -> None:
    found = shown(forecaster)
    assert found.pictures == []
    assert ["frames", "4 in, 4 out, 1x16x16, values in (0.0, 1.0)"] in found.rows
    assert any("random weights" in said for name, said in found.rows if name == "weights")
    assert ["runs on", "cpu, float32, torch"] in found.rows


def test_weights_that_travel_in_the_package_are_named_wherever_that_lies() -> None:
    rows = shown(load("tau-radar")).rows
    (said,) = (said for name, said in rows if name == "weights")
    assert said.startswith("stzoo/checkpoints/tau-radar.safetensors: ")


def test_the_last_forecast_is_played_value_for_value(forecaster: Forecaster, frames: np.ndarray) -> None:
    forecaster.predict(frames[::-1])
    future = forecaster.rollout(frames, 7)
    (content,) = shown(forecaster).pictures
    images = played(content)
    assert len(images) == 4 + 7
    left, right = panels(images, 16, 16)
    assert np.array_equal(left[:4], frames[-4:])
    assert np.array_equal(right, np.concatenate([frames[-4:], future]))
    assert np.array_equal(left[4:], frames[-1:].repeat(7, 0))  # the last that is known


def test_floats_are_played_as_the_bytes_that_they_stand_for(forecaster: Forecaster, frames: np.ndarray) -> None:
    future = forecaster.predict(torch.from_numpy(frames / np.float32(255)))
    _, right = panels(played(shown(forecaster).pictures[0]), 16, 16)
    assert np.array_equal(right[4:], np.rint(future.numpy() * 255))


def test_the_first_of_several_clips_is_played(forecaster: Forecaster, frames: np.ndarray) -> None:
    clips = np.stack([frames, 255 - frames, frames[::-1]])[:, :, None]
    future = forecaster.predict(clips)
    found = shown(forecaster)
    _, right = panels(played(found.pictures[0]), 16, 16)
    assert np.array_equal(right[4:], future[0, :, 0])
    assert "the last forecast: 4 frames, of the first of 3 clips" in found.text


def test_colour_of_which_a_model_of_gray_forecasts_each_channel(forecaster: Forecaster) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    with pytest.warns(UserWarning, match="clip of its own"):
        future = forecaster.predict(frames)
    found = shown(forecaster)
    assert "clips" not in found.text
    images = played(found.pictures[0])
    assert images.shape[3] == 3
    _, right = panels(images, 16, 16)
    assert np.array_equal(right, np.concatenate([frames, future]))


@pytest.mark.parametrize("channels", [1, 2])
def test_physical_values_are_drawn_in_the_range_of_the_past(channels: int) -> None:
    spec = ModelSpec(
        arch="tau", frames_in=4, frames_out=4, channels=channels, height=16, width=16, value_range=None,
        mean=(280.0,) * channels, std=(10.0,) * channels, params={"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2},
    )  # fmt: skip
    model = create(spec)
    past = np.random.default_rng(0).normal(280, 10, (4, channels, 16, 16)).astype(np.float32)
    future = model.predict(past)
    low, high = past[:, 0].min(), past[:, 0].max()
    _, right = panels(played(shown(model).pictures[0]), 16, 16)
    wanted = ((np.concatenate([past, future])[:, 0] - low) / (high - low)).clip(0, 1) * 255
    assert np.abs(right - wanted).max() <= 0.51


def test_pictures_keep_their_shape_and_not_their_size(forecaster: Forecaster) -> None:
    clip = [Image.new("L", (600, 200), 10 * t) for t in range(4)]
    forecaster.predict(clip)
    assert forecaster._last is not None
    assert forecaster._last.future.shape == (4, 16, 16)
    left, _ = panels(played(shown(forecaster).pictures[0]), 43, 128)  # 200 / 600 * 128
    assert (left[:4] == np.array([0, 10, 20, 30]).reshape(4, 1, 1)).all()


def test_little_is_kept_however_long_and_large_the_forecast_is(forecaster: Forecaster) -> None:
    past = np.random.default_rng(0).integers(0, 256, (50, 16, 16), dtype=np.uint8)
    forecaster.rollout(past, 1000)
    assert kept_bytes(forecaster) == (4 + 40) * 16 * 16
    found = shown(forecaster)
    assert len(played(found.pictures[0])) == 4 + 40
    assert "the last forecast: 1,000 frames, of which 40 are shown" in found.text
    forecaster.predict(np.zeros((2, 4, 1, 260, 300), np.uint8))
    assert kept_bytes(forecaster) == (4 + 4) * 87 * 100
    before = forecaster._last
    for _ in zip(range(30), forecaster.stream(past), strict=False):
        pass
    live = forecaster.live()
    for frame in past:
        live.push(frame)
    assert forecaster._last is before


def test_a_long_past_is_bounded() -> None:
    params = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2}
    model = create(ModelSpec(arch="tau", frames_in=50, frames_out=50, channels=1, height=16, width=16, params=params))
    past = np.random.default_rng(0).integers(0, 256, (50, 16, 16), dtype=np.uint8)
    model.predict(past)
    assert model._last is not None
    assert np.array_equal(model._last.past, past[-40:])
    assert len(model._last.future) == 40


def test_it_is_neither_pickled_nor_copied_nor_saved(forecaster: Forecaster, frames: np.ndarray, tmp_path: Path) -> None:
    before = len(pickle.dumps(forecaster))
    forecaster.rollout(frames, 40)
    assert len(pickle.dumps(forecaster)) == before
    for twin in (pickle.loads(pickle.dumps(forecaster)), copy.deepcopy(forecaster), copy.copy(forecaster)):
        assert shown(twin).pictures == []
        assert np.array_equal(twin.predict(frames), forecaster.predict(frames))
    forecaster.save_pretrained(tmp_path)
    assert shown(load(tmp_path)).pictures == []


def test_nothing_of_the_caller_is_held(forecaster: Forecaster, frames: np.ndarray) -> None:
    past = torch.from_numpy(np.repeat(frames, 40, 1).repeat(40, 2))  # 640x640
    past = past.clone()
    counted = sys.getrefcount(past)
    future = forecaster.predict(past)
    assert forecaster._last is not None
    assert sys.getrefcount(past) == counted
    assert forecaster._last.future.base is None or forecaster._last.future.base.nbytes < 10 * 4 * 128 * 128
    future.zero_()
    assert forecaster._last.future.any()


def test_a_forecast_that_fails_leaves_the_one_before(forecaster: Forecaster, frames: np.ndarray) -> None:
    forecaster.predict(frames)
    before = forecaster._last
    with torch.no_grad():
        forecaster.module.decoder.readout.bias.fill_(float("nan"))
    with pytest.raises(ForecastError):
        forecaster.predict(frames)
    assert forecaster._last is before


def test_the_name_of_a_folder_cannot_become_html(forecaster: Forecaster, tmp_path: Path) -> None:
    folder = tmp_path / "<script>alert('1')<img src=x onerror=alert(2)>&amp;\"\n\x1b[31m"
    folder.mkdir()
    forecaster.save_pretrained(folder)
    found = shown(load(folder))
    assert "<script>alert('1')<img src=x onerror=alert(2)>&amp;\"" in found.text
    assert "\x1b" not in found.text
