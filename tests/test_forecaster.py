import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import stzoo
from stzoo.errors import ForecastError, FramesError, SpecError, UnknownModelError, WeightsError
from stzoo.forecaster import Forecaster
from stzoo.opening import create
from stzoo.spec import ModelSpec


def test_predict_is_the_first_block_of_rollout_and_rollout_is_stream(
    forecaster: Forecaster, frames: np.ndarray
) -> None:
    block, long = forecaster.predict(frames), forecaster.rollout(frames, 11)
    assert block.shape == (4, 16, 16)
    assert block.dtype == np.uint8
    np.testing.assert_array_equal(block, long[:4])
    np.testing.assert_array_equal(np.stack(list(forecaster.stream(frames, 11))), long)
    np.testing.assert_array_equal(np.stack(list(islice(forecaster.stream(frames), 11))), long)


def test_what_is_fed_back_is_neither_rounded_nor_clipped(forecaster: Forecaster, frames: np.ndarray) -> None:
    past = torch.from_numpy(frames[-4:].astype(np.float32) / 255)[None, :, None]
    with torch.no_grad():
        first = forecaster.module(past)
        second = forecaster.module(first)
    assert first.min() < 0  # so that clipping would matter
    expected = second[0, :, 0].clamp(0, 1).mul(255).round().numpy().astype(np.uint8)
    np.testing.assert_array_equal(forecaster.rollout(frames, 8)[4:], expected)


def test_more_past_than_needed_means_the_last_frames(forecaster: Forecaster, frames: np.ndarray) -> None:
    np.testing.assert_array_equal(forecaster.predict(frames), forecaster.predict(frames[-4:]))


CONVERTERS: dict[str, Callable[[np.ndarray], Any]] = {
    "uint8": lambda f: f,
    "uint16": lambda f: f.astype(np.uint16) * 257,
    "float16": lambda f: (f / 255).astype(np.float16),
    "float64": lambda f: f / 255.0,
    "big-endian": lambda f: (f / 255).astype(">f4"),
    "strided": lambda f: np.repeat(f, 2, axis=2)[:, ::-1, ::-2][:, ::-1, ::-1],
    "read-only": lambda f: np.broadcast_to(f, f.shape),
    "torch float": lambda f: torch.from_numpy(f / 255).float(),
    "torch bfloat16": lambda f: (torch.from_numpy(f) / 255).bfloat16(),
    "torch uint8": lambda f: torch.from_numpy(f),
}


@pytest.mark.parametrize("kind", CONVERTERS)
def test_the_callers_kind_dtype_and_range_come_back(forecaster: Forecaster, frames: np.ndarray, kind: str) -> None:
    given = CONVERTERS[kind](frames)
    answer = forecaster.rollout(given, 6)
    assert type(answer) is type(given)
    assert answer.dtype == given.dtype
    assert tuple(answer.shape) == (6, 16, 16)
    plain = answer.float().numpy() if isinstance(answer, torch.Tensor) else np.asarray(answer, np.float64)
    scale = {np.dtype("uint8"): 255, torch.uint8: 255, np.dtype("uint16"): 65535}.get(answer.dtype, 1)
    expected = forecaster.rollout(frames / 255.0, 6)
    np.testing.assert_allclose(plain / scale, expected, atol=0.006)


def test_images_come_back_as_images(forecaster: Forecaster, frames: np.ndarray) -> None:
    answer = forecaster.rollout([Image.fromarray(f) for f in frames], 5)
    assert all(isinstance(image, Image.Image) and image.mode == "L" and image.size == (16, 16) for image in answer)
    np.testing.assert_array_equal(np.stack([np.asarray(i) for i in answer]), forecaster.rollout(frames, 5))


def test_a_path_is_read(forecaster: Forecaster, frames: np.ndarray, tmp_path: Path) -> None:
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"frame{i + 7}.png")  # 10 sorts after 9
    answer = forecaster.predict(tmp_path)
    np.testing.assert_array_equal(np.stack([np.asarray(i) for i in answer]), forecaster.predict(frames))


def test_the_answer_is_an_ordinary_tensor_and_the_callers_gradient_mode_is_left_alone(forecaster: Forecaster) -> None:
    past = torch.rand(5, 16, 16)
    stream = forecaster.stream(past, 3)
    frame = next(stream)
    assert torch.is_grad_enabled()  # between two frames
    assert len(list(stream)) == 2
    weight = torch.ones((), requires_grad=True)
    (frame * weight).sum().backward()
    assert weight.grad is not None


def test_two_batches_of_one_clip_are_one_batch_of_two(forecaster: Forecaster) -> None:
    past = torch.rand(2, 4, 1, 16, 16)
    both = forecaster.rollout(past, 7)
    assert both.shape == (2, 7, 1, 16, 16)
    torch.testing.assert_close(both[1], forecaster.rollout(past[1], 7), rtol=1e-5, atol=1e-5)


def test_mean_and_std_are_undone(frames: np.ndarray, spec: ModelSpec) -> None:
    shifted = create(spec.replace(value_range=None, mean=[280.0], std=[10.0]))
    with torch.no_grad():
        for p in shifted.module.parameters():
            p.zero_()  # forecasts zero, which is the mean
    np.testing.assert_allclose(shifted.predict(frames + 200.0), np.full((4, 16, 16), 280.0))


def test_missing_values_are_filled_where_the_spec_says_so(spec: ModelSpec) -> None:
    torch.manual_seed(0)
    model = create(spec.replace(fill=0.25))
    past = np.full((4, 16, 16), 0.25)
    holes = past.copy()
    holes[1, 3] = np.nan
    np.testing.assert_array_equal(model.predict(holes), model.predict(past))


def test_neither_the_frames_given_nor_those_handed_out_are_the_models_own(spec: ModelSpec) -> None:
    torch.manual_seed(0)
    model = create(spec.replace(value_range=None))
    past = torch.rand(4, 16, 16)
    expected = model.rollout(past, 8)
    stream = model.stream(past, 8)
    past.zero_()  # before the first frame is asked for
    kept = []
    for frame in stream:
        kept.append(frame.clone())
        frame.zero_()
    assert torch.equal(torch.stack(kept), expected)
    assert frame.untyped_storage().nbytes() == 16 * 16 * 4  # a kept frame keeps nothing else alive


def test_a_forecaster_pickles_and_copies(forecaster: Forecaster, frames: np.ndarray) -> None:
    for twin in (copy.deepcopy(forecaster), pickle.loads(pickle.dumps(forecaster))):
        assert twin.spec == forecaster.spec
        np.testing.assert_array_equal(twin.predict(frames), forecaster.predict(frames))


@pytest.mark.parametrize("steps", [0, -1, 2.5, True, "3"])
def test_steps_are_whole_and_positive(forecaster: Forecaster, frames: np.ndarray, steps: Any) -> None:
    with pytest.raises(FramesError, match="steps is"):
        forecaster.rollout(frames, steps)
    with pytest.raises(FramesError, match="steps is"):
        forecaster.stream(frames, 0)  # at once, not at the first frame


def test_created_models_say_that_their_weights_are_random(forecaster: Forecaster) -> None:
    assert "random weights" in repr(forecaster)
    with pytest.raises(UnknownModelError, match="did you mean tau-mmnist"):
        create("tau-mnist")


def test_save_and_load_are_bit_equal(forecaster: Forecaster, frames: np.ndarray, tmp_path: Path) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    for source in (tmp_path / "model", str(tmp_path / "model"), tmp_path / "model" / "model.safetensors"):
        loaded = stzoo.load(source)
        assert loaded.spec == forecaster.spec
        np.testing.assert_array_equal(loaded.rollout(frames / 255, 9), forecaster.rollout(frames / 255, 9))
    assert json.loads((tmp_path / "model" / "config.json").read_text()) == forecaster.spec.to_dict()


STREAM = """
import resource, sys, torch
from stzoo.opening import create
from stzoo.spec import ModelSpec
model = create(ModelSpec(arch="tau", frames_in=4, frames_out=4, channels=1, height=32, width=32,
                         params=dict(hid_s=4, hid_t=8, n_s=2, n_t=2, mlp_ratio=2)))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
for i, frame in enumerate(model.stream(torch.rand(4, 32, 32))):
    if i == 200: early = peak()
    if i == 10_000: break
print(peak() - early)
"""


@pytest.mark.slow
def test_ten_thousand_streamed_frames_take_no_more_memory_than_two_hundred() -> None:
    grown = subprocess.run([sys.executable, "-c", STREAM], check=True, capture_output=True, text=True).stdout
    assert float(grown) < 10  # MiB; ten thousand frames kept would be 40


@pytest.mark.parametrize("load", [stzoo.load, stzoo.load_codec])
@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("source", [b"tau-ut", None, 3])
def test_a_source_is_text_or_a_path(load: Any, pretrained: bool, source: Any) -> None:
    with pytest.raises(WeightsError, match=f"the source is {source!r}; it may be a name in the catalogue, a folder"):
        load(source, pretrained=pretrained)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 1.5])
def test_a_device_that_is_not_there_is_refused(forecaster: Forecaster, device: Any) -> None:
    for load, name in ((stzoo.load, "tau-ut"), (stzoo.load_codec, "vqvae-mmnist")):
        with pytest.raises(SpecError, match="device is "):
            load(name, device=device)
    with pytest.raises(SpecError, match="device is "):
        forecaster.to(device)


@pytest.mark.parametrize(("value", "what"), [(float("nan"), "NaN"), (float("inf"), "infinite values"), (3e38, "")])
def test_numbers_that_are_not_finite_never_become_frames(
    forecaster: Forecaster, frames: np.ndarray, value: float, what: str
) -> None:
    """They would be black pictures, or white ones."""
    with torch.no_grad():
        forecaster.module.decoder.readout.bias.fill_(value)  # of which the largest overflows where it is fed back
    steps = 1 if what else 9
    for forecast in (
        lambda: forecaster.rollout(frames, steps),
        lambda: list(forecaster.stream(frames, steps)),
        lambda: forecaster.rollout([Image.fromarray(f) for f in frames], steps),
    ):
        with pytest.raises(ForecastError, match=f"frame [15] that the model made holds {what}"):
            forecast()


def test_the_frames_before_an_overflow_are_streamed(forecaster: Forecaster, frames: np.ndarray) -> None:
    with torch.no_grad():
        forecaster.module.decoder.readout.bias.fill_(3e38)
    stream = forecaster.stream(frames)
    assert len(list(islice(stream, 4))) == 4
    with pytest.raises(ForecastError, match="frame 5"):
        next(stream)


def test_a_predictor_of_nan_is_not_painted_with_some_code(frames: np.ndarray) -> None:
    codec = {"arch": "vqvae", "params": {"width": 8, "residual_width": 4, "codes": 16, "dim": 4}}
    predictor = {"arch": "conv", "params": {"hid_s": 4, "hid_t": 8, "n_s": 1, "n_t": 2}}
    params = {"codec": codec, "predictor": predictor, "paints": "quantised"}
    spec = ModelSpec(arch="modular", frames_in=2, frames_out=2, channels=1, height=16, width=16, params=params)
    model = create(spec)
    assert model.predict(frames).shape == (2, 16, 16)
    with torch.no_grad():
        for parameter in model.module.predictor.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(ForecastError, match="NaN"):
        model.predict(frames)
