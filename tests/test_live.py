"""`Forecaster.live`, and `stream` from an iterator: the right forecast after every push, and nothing that grows."""

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stzoo.errors import ForecastError, FramesError, MemoryNeededError
from stzoo.forecaster import Forecaster
from stzoo.models import architectures
from stzoo.opening import create
from stzoo.spec import ModelSpec

LAYERED = {"layers": 2, "hidden": 4, "kernel": 3, "patch": 4}
TINY = {
    "convlstm": LAYERED,
    "convttlstm": {
        "hidden": [4, 4],
        "layers": 1,
        "skip": 1,
        "order": 2,
        "steps": 2,
        "ranks": 2,
        "kernel": 3,
        "patch": 4,
    },
    "predrnn": LAYERED,
    "predrnnpp": LAYERED,
    "mim": LAYERED,
    "prednet": {"widths": [4, 6]},
    "crevnet": {"blocks": [1, 1], "layers": 2},
    "mau": {"layers": 2, "hidden": 4, "kernel": 3, "tau": 3},
    "e3dlstm": LAYERED | {"history": 3},
    "phydnet": {"width": 16, "lstm": [4], "kernel": 3},
    "swinlstm": {"dim": 8, "down": [2], "up": [2], "heads": [2], "window": 2},
    "tctn": {"layers": 1, "hidden": 8, "heads": 2, "patch": 4, "window": 3},
}
SEQUENTIAL = sorted(name for name, each in architectures().items() if each.kind == "sequential")


def recurrent(arch: str = "convlstm") -> Forecaster:
    torch.manual_seed(0)
    spec = ModelSpec(arch=arch, frames_in=4, frames_out=3, channels=1, height=16, width=16, params=TINY[arch])
    return create(spec)


def clip(length: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (length, *(shape or (16, 16))), dtype=np.uint8)


def test_a_window_is_forecast_as_predict_does(forecaster: Forecaster) -> None:
    live, frames = forecaster.live(), clip(9)
    for number, frame in enumerate(frames, 1):
        forecast = live.push(frame)
        if number < 4:
            assert forecast is None
            assert live.needed == 4 - number
        else:
            np.testing.assert_array_equal(forecast, forecaster.predict(frames[:number]))


@pytest.mark.parametrize("arch", SEQUENTIAL)
def test_a_state_is_carried_and_forecasts_leave_it_alone(arch: str) -> None:
    """The truth: the plain module, stepped through all frames, then through its own."""
    model, frames = recurrent(arch), torch.rand(9, 1, 16, 16)
    live = model.live()
    forecasts = [live.push(frame) for frame in frames]
    assert forecasts[:3] == [None] * 3
    module: Any = model.module
    with torch.no_grad():
        state = module.initial_state(1, (16, 16), torch.device("cpu"), torch.float32)
        for number, frame in enumerate(frames):
            coming, state = module.step(frame[None], state)
            if number < 3:
                continue
            here, own = coming, state
            for step in range(3):
                torch.testing.assert_close(forecasts[number][step], here[0].clamp(0, 1), rtol=0, atol=1e-5)
                here, own = module.step(here, own)


def test_each_frame_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = recurrent(), []
    usual = model.engine.read_on
    monkeypatch.setattr(
        model.engine, "read_on", lambda frames, before=None: (read.append(frames.shape[1]), usual(frames, before))[1]
    )
    live = model.live()
    for frame in clip(8):
        live.push(frame)
    assert read == [4, 1, 1, 1, 1]


@pytest.mark.parametrize(("carry", "exact"), [(1, [4, 5, 6, 7, 8, 9]), (4, [4, 5, 6, 7, 8, 9]), (6, [4, 7])])
def test_a_state_begins_anew_with_the_window(carry: int, exact: list[int]) -> None:
    model, frames = recurrent(), torch.rand(9, 16, 16)
    live = model.live(carry=carry)
    found = []
    for number, frame in enumerate(frames, 1):
        forecast = live.push(frame)
        if forecast is not None and torch.equal(forecast, model.predict(frames[:number])):
            found.append(number)
    assert found == exact


@pytest.mark.parametrize("carry", [None, 1, 4, 5, 7])
def test_frames_that_were_only_read_count_as_if_pushed(forecaster: Forecaster, carry: int | None) -> None:
    for model in (forecaster, recurrent()):
        frames = torch.rand(20, 16, 16)
        for forecasts in ([19], [3, 19], [5, 6, 19]):  # after which frames; more than a window goes by in between
            pushed, live = model.live(carry=carry), model.live(carry=carry)
            expected = [pushed.push(frame, 2) for frame in frames]
            for number, frame in enumerate(frames):
                assert live.read(frame) is (number > 2)
                if number in forecasts:
                    torch.testing.assert_close(live.forecast(2), expected[number], rtol=0, atol=1e-6)
                    assert torch.equal(live.forecast(2), live.forecast(2))


@pytest.mark.filterwarnings("ignore:this model reads gray")
def test_colour_that_begins_while_frames_are_only_read(forecaster: Forecaster) -> None:
    gray, colour = np.repeat(clip(14)[..., None], 3, -1), clip(6, 16, 16, 3)
    frames = [*gray, *colour]
    for model in (forecaster, recurrent()):
        pushed, live = model.live(), model.live()
        for frame in frames:
            expected = pushed.push(frame, 2)
            live.read(frame)
        assert np.abs(live.forecast(2).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["window", "recurrent"])
@pytest.mark.parametrize("before", [3, 4, 6])
def test_a_push_that_fails_leaves_everything_as_it_was(kind: str, before: int, forecaster: Forecaster) -> None:
    model = forecaster if kind == "window" else recurrent()
    frames = torch.rand(10, 16, 16)
    live, clean = model.live(every=2), model.live(every=2)
    for frame in frames[:before].repeat_interleave(2, 0):
        live.push(frame)
        clean.push(frame)
    failures: list[tuple[Any, Any, float, type[Exception]]] = [
        (frames[before], 10**9, 0.0, MemoryNeededError),
        (frames[before], None, float("nan"), ForecastError),
        (None, 10**9, 0.0, MemoryNeededError),
    ]
    for frame, steps, change, error in failures:
        if frame is None and before == 3:
            continue  # repeats the frame before
        with torch.no_grad():
            bias = next(p for name, p in model.module.named_parameters() if "readout" in name)
            kept = bias.clone()
            bias += change
            with pytest.raises(error):
                live.push(frame, steps)
            bias.copy_(kept)
    assert live.needed == clean.needed
    for frame in frames[before:].repeat_interleave(2, 0):
        here, there = live.push(frame), clean.push(frame)
        assert (here is None and there is None) or torch.equal(here, there)


@pytest.mark.parametrize("shape", [(16, 16), (1, 16, 16), (16, 16, 1)])
def test_arrays_keep_their_axes(forecaster: Forecaster, shape: tuple[int, ...]) -> None:
    frames = clip(4, *shape)
    for given in (frames, torch.from_numpy(frames), frames.astype(np.float64) / 255):
        live = forecaster.live()
        forecast = [live.push(frame) for frame in given][-1]
        expected = forecaster.predict(given)
        assert type(forecast) is type(given)
        assert (forecast.shape, forecast.dtype) == (expected.shape, expected.dtype)
        assert bool((forecast == expected).all())


def test_images_come_back_as_images(forecaster: Forecaster) -> None:
    images = [Image.fromarray(frame).resize((24, 20)) for frame in clip(5)]
    live = forecaster.live(resize=True)
    forecast = [live.push(image) for image in images][-1]
    expected = forecaster.predict(images, resize=True)
    assert [np.asarray(image).tolist() for image in forecast] == [np.asarray(image).tolist() for image in expected]


def test_a_layout_is_that_of_a_frame(forecaster: Forecaster) -> None:
    wide = create(forecaster.spec.replace(channels=2, n_s=2))
    live, frames = wide.live(layout="HWC"), torch.rand(4, 16, 16, 2)
    forecast = [live.push(frame) for frame in frames][-1]
    assert torch.equal(forecast, wide.predict(frames, layout="THWC"))


def test_every_uses_some_pushes_and_says_nothing_at_others(forecaster: Forecaster) -> None:
    live, frames = forecaster.live(every=3), clip(16)
    forecasts = [live.push(frame) for frame in frames]
    assert [n for n, forecast in enumerate(forecasts) if forecast is not None] == [9, 12, 15]
    np.testing.assert_array_equal(forecasts[15], forecaster.predict(frames, every=3))
    with pytest.raises(FramesError, match="every is 0"):
        forecaster.live(every=0)


def test_a_missing_frame_is_what_the_model_expected(forecaster: Forecaster) -> None:
    """The model's forecast takes its place, unrounded, as in a rollout."""
    frames = torch.rand(4, 16, 16) * 1e-3 + 0.5
    model = recurrent()
    live = model.live()
    for frame in frames:
        live.read(frame)
    torch.testing.assert_close(live.push(None, 3), model.rollout(frames, 4)[1:], rtol=0, atol=1e-6)

    live = forecaster.live()
    for frame in frames:
        live.read(frame)
    expected = next(forecaster.engine.unroll(frames[None, :, None], 1))  # not clipped, as that of `predict` is
    window = torch.cat([frames[None, 1:, None], expected[None]], 1)
    future = torch.cat(list(forecaster.engine.unroll(window, 4)))[:, 0]
    torch.testing.assert_close(live.push(None), future.clamp(0, 1), rtol=0, atol=1e-5)


def test_before_the_first_forecast_a_missing_frame_repeats_the_last_one(forecaster: Forecaster) -> None:
    live, frames = forecaster.live(), torch.rand(3, 16, 16)
    assert live.push(None) is None
    assert live.needed == 4  # there is nothing to repeat
    forecast = [live.push(frame) for frame in (frames[0], None, frames[1], frames[2])][-1]
    assert torch.equal(forecast, forecaster.predict(frames[[0, 0, 1, 2]]))


def test_after_as_many_missing_frames_as_the_model_reads_it_begins_anew(forecaster: Forecaster) -> None:
    live, frames = forecaster.live(), torch.rand(8, 16, 16)
    for frame in frames[:4]:
        live.push(frame)
    assert all(live.push(None) is not None for _ in range(3))
    assert live.push(None) is None
    assert live.needed == 4
    forecasts = [live.push(frame) for frame in frames[4:].numpy()]  # of another kind: nothing is left of the first
    np.testing.assert_array_equal(forecasts[-1], forecaster.predict(frames[4:].numpy()))


@pytest.mark.parametrize("kind", ["window", "recurrent"])
def test_a_bad_frame_is_refused_and_leaves_no_trace(kind: str, forecaster: Forecaster) -> None:
    model = forecaster if kind == "window" else recurrent()
    live, frames = model.live(), np.random.default_rng(2).random((6, 16, 16), np.float32)
    nan = frames[0].copy()
    nan[3, 3] = np.nan
    bad: list[tuple[Any, str]] = [
        (nan, "NaN"),
        (frames[0] * 300, "expected values in"),
        (np.zeros((16, 20), np.float32), r"\(16, 20\).*those before it are NumPy arrays \(16, 16\).*reset\(\)"),
        (np.zeros((16, 16), np.uint8), "of uint8, but those before it are"),
        (torch.zeros(16, 16), "this frame is torch tensors"),
        (Image.new("L", (16, 16)), "this frame is PIL images of 16x16 pixels in mode L"),
        (np.zeros((1, 1, 16, 16), np.float32), "one frame at a time"),
        ([1, 2], "given a list"),
    ]
    for frame in frames[:5]:
        live.push(frame)
    for frame, message in bad:
        with pytest.raises(FramesError, match=message):
            live.push(frame)
    with pytest.raises(FramesError, match="steps is 0"):
        live.push(frames[5], 0)
    clean = model.live()
    assert np.array_equal(live.push(frames[5]), [clean.push(frame) for frame in frames][-1])
    live.reset()
    assert live.needed == 4
    live.push(np.zeros((16, 20), np.float32))


def test_messages_speak_of_a_frame(forecaster: Forecaster) -> None:
    gray, nan = np.zeros((16, 16), np.float32), np.full((16, 16), np.nan, np.float32)
    hidden = np.ma.masked_array(gray, mask=gray == 0)
    wrong: list[tuple[dict[str, Any], Any, str]] = [
        ({}, nan, "^the frame holds NaN; "),
        ({}, torch.full((16, 16), torch.inf), "^the frame holds an infinite value; "),
        ({}, hidden, r"^the frame has masked values; .* frame\.filled\(0\)"),
        ({}, np.zeros((5, 16, 16)), r"^expected \(H, W\) or \(1 or 3, H, W\) or \(H, W, 1 or 3\), given \(5, 16"),
        ({"layout": "CHW"}, np.zeros((16, 16, 3), np.uint8), r"^expected \(H, W\) .*, given \(16, 16, 3\): the"),
        ({"layout": "HW"}, np.zeros((16, 16, 3), np.uint8), r"^layout HW has 2 axes, the frame \(16, 16, 3\) has 3$"),
        ({}, np.zeros((3, 16, 3), np.uint8), r"^\(3, 16, 3\) can be read as CHW or as HWC; say which: layout='CHW' or"),
    ]  # fmt: skip
    for options, frame, message in wrong:
        with pytest.raises(FramesError, match=message):
            forecaster.live(**options).push(frame)
    live, plain = forecaster.live(), forecaster.live()
    for frame in clip(4):
        forecast = live.push(np.ma.masked_array(frame, mask=False))
    np.testing.assert_array_equal(forecast, [plain.push(frame) for frame in clip(4)][-1])


def test_wrong_arguments_are_refused_before_the_first_frame(forecaster: Forecaster) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"layout": "WHC"}, "^layout is 'WHC'; it may be HW, CHW, HWC$"),
        ({"layout": 5}, "^layout is 5; it may be HW, CHW, HWC$"),
        ({"resize": "model"}, "^resize is 'model'; it may be True, for the model's size, False, for the frames' own, "),
        ({"color": "rgb"}, "^color is 'rgb'"),
        ({"carry": 0}, "^carry is 0"),
    ]
    for options, message in wrong:
        with pytest.raises(FramesError, match=message):
            forecaster.live(**options)


def test_resize_is_none_true_or_false(forecaster: Forecaster) -> None:
    for method in (forecaster.predict, forecaster.check, forecaster.stream):
        for resize in ("model", 1, 0):
            with pytest.raises(FramesError, match=f"resize is {resize!r}; it may be"):
                method(clip(8), resize=resize)  # type: ignore[operator]


def test_too_few_frames_are_told(forecaster: Forecaster) -> None:
    live = forecaster.live()
    live.push(np.zeros((16, 16), np.uint8))
    with pytest.raises(FramesError, match="push 3 more frames first: the model reads 4"):
        live.forecast()


def test_a_forecast_that_is_not_finite_is_an_error(forecaster: Forecaster) -> None:
    live = forecaster.live()
    with torch.no_grad():
        forecaster.module.decoder.readout.bias.fill_(float("nan"))
    for frame in clip(3):
        live.push(frame)
    for frame in (clip(1)[0], None):
        with pytest.raises(ForecastError, match="frame 1 that the model made holds NaN"):
            live.push(frame)


@pytest.mark.parametrize("kind", ["window", "recurrent"])
def test_memory_stays_flat(kind: str, forecaster: Forecaster) -> None:
    """docs/experiments/live.py memory does so over many thousands of pushes."""
    live, frames = (forecaster if kind == "window" else recurrent()).live(), clip(20)
    held = []
    for number in range(61):
        live.push(frames[number % 20])
        if number in (30, 60):
            gc.collect()
            objects = gc.get_objects()
            tensors = [each for each in objects if type(each) is torch.Tensor and each.layout == torch.strided]
            held.append((len(objects), len(tensors), sum(each.nbytes for each in tensors)))
            del objects, tensors
    assert held[1][1:] == held[0][1:]
    assert held[1][0] - held[0][0] < 30  # fewer than pushes in between


def test_a_stream_takes_an_iterator_of_past_frames(forecaster: Forecaster) -> None:
    frames = clip(11)
    buffer = np.empty_like(frames[0])

    def reader() -> Iterator[np.ndarray]:
        """As readers of videos do, into the same memory each time."""
        for frame in frames:
            buffer[:] = frame
            yield buffer

    for model in (forecaster, recurrent()):
        np.testing.assert_array_equal(list(model.stream(reader(), 5)), model.rollout(frames, 5))
    np.testing.assert_array_equal(forecaster.predict(reader(), every=3), forecaster.predict(frames, every=3))
    tensors = forecaster.predict(frame for frame in torch.from_numpy(frames))
    np.testing.assert_array_equal(tensors.numpy(), forecaster.predict(frames))
    hidden = np.ma.masked_array(frames, mask=frames == frames[6, 5, 5])
    with pytest.raises(FramesError, match="masked values among uint8 frames"):
        forecaster.predict(iter(hidden))
    images = [Image.fromarray(frame) for frame in frames]
    assert np.array_equal(forecaster.predict(iter(images))[0], forecaster.predict(images)[0])


def test_wrong_iterators_and_lists_are_refused(forecaster: Forecaster) -> None:
    frames = clip(6)
    wrong: list[tuple[Any, str]] = [
        (iter(()), "yields no frame"),
        (iter(frames[:2]), "at least 4 past frames, given 2"),
        (iter([*frames[:4], "a.png"]), "frame 4 that the iterator yields is a str"),
        (iter([*frames[:4], frames[0][:8]]), r"frame 4 .* \(8, 16\) of uint8, but frame 0 is .*\(16, 16\) of uint8"),
        (list(frames), r"a list of ndarray; make one array of them with numpy.stack\(frames\)"),
        (list(torch.from_numpy(frames)), r"a list of Tensor; make one array of them with torch.stack\(frames\)"),
        (["0900.nc", "0905.nc"], r"a list of str; netCDF files .* one map with xarray.open_mfdataset\(paths\)"),
    ]
    for given, message in wrong:
        with pytest.raises(FramesError, match=message):
            forecaster.stream(given, 2)
