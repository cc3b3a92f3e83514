"""Frames of any size: padded once, forecast, and cropped back."""

import numpy as np
import pytest
import torch
from PIL import Image

from stzoo.engine.padding import Padding
from stzoo.errors import MemoryNeededError
from stzoo.forecaster import Forecaster
from stzoo.models import stride_of
from stzoo.opening import create
from stzoo.spec import ModelSpec

SPECS = {
    "tau": {"hid_s": 4, "hid_t": 8, "n_s": 4, "n_t": 2, "mlp_ratio": 2},
    "convlstm": {"hidden": 8, "layers": 1, "patch": 4},
}


def model_of(arch: str) -> Forecaster:
    torch.manual_seed(0)
    spec = ModelSpec(
        arch=arch, frames_in=4, frames_out=4, channels=1, height=16, width=16, params=SPECS[arch], mean=(0.2,)
    )
    model = create(spec)
    assert stride_of(model.module) == 4
    return model


@pytest.mark.parametrize("arch", SPECS)
@pytest.mark.parametrize("size", [(17, 22), (16, 18), (19, 16)])
def test_the_forecast_is_that_of_the_padded_frames_cropped(arch: str, size: tuple[int, int]) -> None:
    """Also of the frames after the first block, which the model makes of its own."""
    model = model_of(arch)
    frames = np.random.default_rng(0).random((5, *size), dtype=np.float32)
    added = [(-side % 4 // 2, -side % 4 - -side % 4 // 2) for side in size]
    padded = np.pad(frames, ((0, 0), *added), mode="reflect")
    assert padded.shape[1] % 4 == padded.shape[2] % 4 == 0
    inside = tuple(slice(before, before + side) for (before, _), side in zip(added, size, strict=True))
    future = model.rollout(frames, 9)
    assert future.shape == (9, *size)
    np.testing.assert_array_equal(future, model.rollout(padded, 9)[:, *inside])
    streamed = [frame for _, frame in zip(range(9), model.stream(frames), strict=False)]
    np.testing.assert_array_equal(np.stack(streamed), future)


def test_a_side_shorter_than_its_padding_is_continued_by_its_edge() -> None:
    model = model_of("tau")
    frames = np.random.default_rng(0).random((4, 1, 5), dtype=np.float32)
    padded = np.pad(np.pad(frames, ((0, 0), (1, 2), (0, 0)), mode="edge"), ((0, 0), (0, 0), (1, 2)), mode="reflect")
    np.testing.assert_array_equal(model.predict(frames), model.predict(padded)[:, 1:2, 1:6])


@pytest.mark.parametrize(("size", "stride"), [((16, 24), 8), ((7, 9), None), ((7, 9), 1)])
def test_what_fits_is_not_touched(size: tuple[int, int], stride: int | None) -> None:
    padding, frames = Padding.of(size, stride), torch.rand(2, 3, 1, *size)
    assert padding.is_none
    assert padding.add(frames) is frames
    assert padding.remove(frames) is frames


@pytest.mark.parametrize("lead", [(2, 3), (2,), ()])
def test_what_is_added_is_removed(lead: tuple[int, ...]) -> None:
    padding, frames = Padding.of((13, 18), 16), torch.rand(*lead, 2, 13, 18)
    padded = padding.add(frames)
    assert padded.shape == (*lead, 2, 16, 32)
    assert torch.equal(padding.remove(padded), frames)


def test_the_memory_of_padded_frames_is_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("stzoo.engine.check_forecast", lambda module, spec, past, at_once: seen.append(past.shape))
    model_of("tau").predict(np.zeros((4, 17, 22), np.uint8))
    model_of("tau").predict(np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8))
    assert seen == [(1, 4, 1, 20, 24), (3, 4, 1, 16, 16)]


def test_frames_that_come_back_larger_are_counted_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forecast of large pictures at the model's size keeps large pictures."""
    monkeypatch.setenv("STZOO_MEMORY", "0.05")
    images = [Image.new("L", (2000, 1000))] * 4
    assert model_of("tau").rollout([image.copy() for image in images], 20)[0].size == (2000, 1000)
    with pytest.raises(MemoryNeededError, match=r"1 x 40 frames of 1000x2000 need at least 0\.1 GB"):
        model_of("tau").rollout([image.copy() for image in images], 40)
