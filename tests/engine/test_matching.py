"""Matched forecasts: the order of the forecast's own cells, and the values of the last past frame, carried along."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stzoo.cli.main import main
from stzoo.engine import in_units
from stzoo.engine.matching import match_rollout, matched
from stzoo.errors import DataError
from stzoo.forecaster import Forecaster
from stzoo.frames.values import normalise
from stzoo.models.motion import estimate_motion
from stzoo.opening import create
from stzoo.scale import forecast_archive
from stzoo.spec import ModelSpec

# python -c "
# import numpy as np
# from pysteps.postprocessing.probmatching import nonparam_match_empirical_cdf as match  # pysteps 1.21.5
# rng = np.random.default_rng(0)
# a = np.round(rng.gamma(0.5, 2, (4, 6)), 2); a[a < 1] = 0
# b = np.round(rng.gamma(0.3, 4, (4, 6)), 2); b[b < 0.5] = 0
# print(a.tolist(), b.tolist(), match(a, b).tolist(), match(b, a).tolist())"
A = [
    [0.0, 0.0, 1.97, 0.0, 0.0, 2.0],
    [2.54, 1.3, 2.64, 0.0, 0.0, 1.0],
    [0.0, 1.07, 1.08, 0.0, 0.0, 0.0],
    [0.0, 0.0, 0.0, 0.0, 0.0, 1.72],
]
B = [
    [3.57, 0.0, 0.0, 0.0, 0.0, 0.0],
    [0.0, 0.0, 0.0, 0.85, 0.0, 0.0],
    [0.81, 1.63, 0.0, 0.0, 1.29, 0.0],
    [5.94, 0.0, 16.54, 0.0, 4.01, 0.0],
]
A_LIKE_B = [
    [0.0, 0.0, 3.57, 0.0, 0.0, 4.01],
    [5.94, 1.29, 16.54, 0.0, 0.0, 0.0],
    [0.0, 0.81, 0.85, 0.0, 0.0, 0.0],
    [0.0, 0.0, 0.0, 0.0, 0.0, 1.63],
]
B_LIKE_A = [
    [1.97, 0.0, 0.0, 0.0, 0.0, 0.0],
    [0.0, 0.0, 0.0, 1.08, 0.0, 0.0],
    [1.07, 1.72, 0.0, 0.0, 1.3, 0.0],
    [2.54, 0.0, 2.64, 0.0, 2.0, 0.0],
]


def plane(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)[None, None]


def test_the_numbers_are_those_of_pysteps() -> None:
    """Nine cells are wet in A and eight in B: one wet area is larger than the reference's, the other one smaller."""
    both, like = torch.cat([plane(A), plane(B)]), torch.cat([plane(A_LIKE_B), plane(B_LIKE_A)])
    torch.testing.assert_close(matched(both, both.flip(0)), like, rtol=0, atol=0)


def by_definition(forecast: np.ndarray, reference: np.ndarray, known: np.ndarray) -> np.ndarray:
    """As the docstring of `matched` says it, cell by cell, in float64."""
    values = np.sort(reference[known].astype(np.float64))
    result = forecast.astype(np.float64)
    if known.any():
        for place, value in np.ndenumerate(forecast):
            result[place] = values[min(len(values) - 1, int((forecast[known] < value).sum()))]
    return result


@pytest.mark.parametrize("share", [0.0, 0.1, 0.7, 1.0])
def test_each_clip_and_channel_is_matched_by_itself_where_it_is_known(share: float) -> None:
    rng = np.random.default_rng(1)
    forecast, reference = (rng.normal(size=(2, 3, 7, 5)).round(1).astype(np.float32) for _ in range(2))  # with ties
    known = rng.random((2, 1, 7, 5)) < share
    found = matched(*map(torch.from_numpy, (forecast, reference, known)))
    for b in range(2):
        for c in range(3):
            expected = by_definition(forecast[b, c], reference[b, c], known[b, 0])
            np.testing.assert_array_equal(found[b, c].double().numpy(), expected)


def test_what_is_dry_stays_dry_and_a_dry_reference_dries_everything() -> None:
    rain = torch.tensor([0.0, 0.0, 0.0, 2.0]).view(1, 1, 2, 2)
    storm = torch.tensor([9.0, 0.0, 7.0, 8.0]).view(1, 1, 2, 2)
    assert matched(rain, storm).flatten().tolist() == [0, 0, 0, 9]
    assert matched(storm, torch.zeros_like(storm)).flatten().tolist() == [0, 0, 0, 0]


def blob(x: float, y: float, size: int = 48) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return 10 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18).astype(np.float32)


def last_and_motion(past: Tensor) -> tuple[Tensor, Tensor]:
    return past[:, -1], estimate_motion(past)


def test_the_reference_is_the_last_frame_where_its_parcels_are_by_then() -> None:
    """Two showers move four columns a frame. When the stronger one has left, the other one must not get its values."""
    past = np.stack([np.maximum(blob(4 + 4 * t, 12), 2 * blob(20 + 4 * t, 34)) for t in range(5)])[None, :, None]
    coming = [plane(blob(20 + 4 * t, 12)) for t in range(1, 5)]
    found = [round(frame.max().item()) for frame in match_rollout(coming, *last_and_motion(torch.from_numpy(past)))]
    assert found[0] == 20
    assert found[-1] == 10


def test_what_was_not_observed_does_not_count() -> None:
    last, motion = torch.full((1, 1, 16, 16), 5.0), torch.zeros(1, 2, 16, 16)
    last[..., :8] = 90.0
    (found,) = match_rollout([torch.rand(1, 1, 16, 16)], last, motion, last < 90)
    assert found.unique().tolist() == [5.0]


SPEC = ModelSpec(
    arch="tau", frames_in=4, frames_out=4, channels=1, height=16, width=16, mean=(0.2,),
    params={"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2},
)  # fmt: skip


def model() -> Forecaster:
    torch.manual_seed(0)
    return create(SPEC)


def clip(seed: int = 0, channels: int = 0) -> np.ndarray:
    """Showers that stay where they are, so that each parcel is known for ever."""
    values = np.random.default_rng(seed).gamma(0.3, 0.1, ([channels] if channels else []) + [16, 16])
    return np.repeat(values.clip(0, 1)[None], 4, 0).astype(np.float32)


def test_every_method_gives_the_same_and_goes_on_from_plain_frames() -> None:
    """Beyond the first block, too."""
    forecaster, frames = model(), clip()
    past = torch.from_numpy(frames)[None, :, None]
    plain = [in_units(made, SPEC, 1).clamp(0, 1) for made in forecaster.engine.unroll(normalise(past, SPEC), 10)]
    expected = torch.cat(list(match_rollout(plain, *last_and_motion(past))))[:, 0].numpy()
    assert set(np.unique(expected)) <= set(np.unique(frames[-1]))
    np.testing.assert_array_equal(forecaster.rollout(frames, 10, matched=True), expected)
    np.testing.assert_array_equal(forecaster.predict(frames, matched=True), expected[:4])
    np.testing.assert_array_equal(np.stack(list(forecaster.stream(frames, 10, matched=True))), expected)
    live = forecaster.live(matched=True)
    pushed = [live.push(frame, 10) for frame in frames]
    np.testing.assert_allclose(pushed[-1], expected, atol=1e-6)


def test_integers_and_channels_of_colour_get_the_values_of_their_own_last_frame() -> None:
    counts = (255 * clip(channels=3) * np.array([1, 0.5, 0.1])[:, None, None]).astype(np.uint8)
    with pytest.warns(UserWarning, match="channel"):
        found = model().predict(counts, matched=True)
    assert found.dtype == np.uint8
    for channel in range(3):
        assert set(np.unique(found[:, channel])) <= set(np.unique(counts[-1, channel]))


def test_commands_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forecaster, clips, at = model(), tmp_path / "clips" / "test", str(tmp_path / "model")
    forecaster.save_pretrained(at)
    for part in ("train", "validation", "test"):
        (tmp_path / "clips" / part).mkdir(parents=True)
        np.save(tmp_path / "clips" / part / "0.npy", np.concatenate([clip(0), clip(9)]))
    expected = forecaster.rollout(np.concatenate([clip(0), clip(9)]), 6, matched=True)
    words = ["rollout", str(clips / "0.npy"), "--model", at, "--steps", "6", "--no-check", "--matched"]
    assert main([*words, "-o", str(tmp_path / "out.npy")]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)

    forecast_archive(clips, at, 6, tmp_path / "many", matched=True, in_process=True)
    np.testing.assert_allclose(np.load(tmp_path / "many" / "forecasts" / "0.npy"), expected, atol=1e-6)
    with pytest.raises(DataError, match="matched"):
        forecast_archive(clips, at, 6, tmp_path / "many", in_process=True)
    forecast_archive(clips, at, 6, tmp_path / "plain", in_process=True)
    assert "matched" not in (tmp_path / "plain" / "plan.json").read_text()  # as in plans of versions that had no such

    capsys.readouterr()
    assert main(["evaluate", at, "--dataset", "clips", "--data", str(clips.parent), "--matched"]) == 0
    assert "matched forecasts" in capsys.readouterr().out
