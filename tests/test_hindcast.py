"""`model.check`, the warning of `rollout`, and the figures behind both."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stzoo import cli
from stzoo.errors import FramesError
from stzoo.forecaster import Forecaster
from stzoo.hindcast import Hindcast
from stzoo.opening import create
from stzoo.spec import ModelSpec


def answering(spec: ModelSpec, value: float) -> Forecaster:
    """A model whose every frame is `value` everywhere."""
    model = create(spec)
    with torch.no_grad():
        for parameter in model.module.decoder.readout.parameters():
            parameter.zero_()
        model.module.decoder.readout.bias.fill_(value)
    return model


def levels(*gray: int) -> np.ndarray:
    """(T, 16, 16) uint8: each frame has one gray level."""
    return np.stack([np.full((16, 16), level, np.uint8) for level in gray])


def test_the_figures_are_those_of_a_calculation_by_hand(spec: ModelSpec) -> None:
    """4 past frames end in 0; the truth is 51, 102 and the model always says 51, which is 0.2."""
    found = answering(spec, 0.2).check(levels(9, 9, 9, 0, 51, 102))
    assert found.steps == 2
    assert found.mse_steps == pytest.approx([0, 0.04], abs=1e-6)
    assert found.persistence_mse_steps == pytest.approx([0.04, 0.16])
    assert found.mse == pytest.approx(0.02, abs=1e-6)
    assert found.persistence_mse == pytest.approx(0.1)
    assert found.skill == pytest.approx(0.8, abs=1e-5)
    assert found.skill_steps == pytest.approx([1, 0.75], abs=1e-5)
    assert found.fits
    assert repr(found) == "Hindcast(2 frames: MSE 0.02, persistence 0.1, skill 0.80; fits)"


def test_the_last_frames_are_forecast_and_as_many_as_asked_for(spec: ModelSpec) -> None:
    frames = levels(*[255] * 9, 0, 0, 0, 0, 51)  # whatever is older than 4 frames before the last is not read
    found = answering(spec, 0.2).check(frames, 1)
    assert (found.steps, found.mse, found.persistence_mse) == pytest.approx((1, 0, 0.04), abs=1e-6)
    assert answering(spec, 0.2).check(frames).steps == spec.frames_out


def test_a_forecast_counts_as_it_would_be_given_out_within_the_range(spec: ModelSpec) -> None:
    assert answering(spec, 7.0).check(levels(0, 0, 0, 0, 255)).mse == pytest.approx(0, abs=1e-9)


def test_a_still_scene_has_no_skill_and_fits_if_no_error_can_be_seen(spec: ModelSpec) -> None:
    still = levels(*[51] * 5)
    for value, fits in ((0.2, True), (0.2 + 0.9 / 255, True), (0.2 + 2 / 255, False)):
        found = answering(spec, value).check(still)
        assert found.persistence_mse == 0
        assert found.skill is None
        assert found.skill_steps == (None,)
        assert found.fits is fits
    assert "skill undefined: nothing changes; worse than persistence" in repr(found)


def test_values_without_a_range_are_compared_in_their_own_units() -> None:
    found = Hindcast((4.0, 0.0), (1.0, 3.0), has_range=False)
    assert (found.mse, found.persistence_mse, found.skill, found.fits) == (2.0, 2.0, 0.0, True)
    assert not Hindcast((1e-9,), (0.0,), has_range=False).fits


@pytest.mark.parametrize(
    ("count", "steps", "says"),
    [
        (4, None, "needs at least 5 frames; given are 4"),
        (6, 3, "the last 3 frames from 4 before them takes 7 frames; given are 6, so use fewer steps"),
        (4, 1, "the last 1 frames from 4 before them takes 5 frames; given are 4$"),
        (3, None, "4"),
        (6, 0, "steps is 0; it must be a whole number"),
    ],
)
def test_too_few_frames_for_a_check(spec: ModelSpec, count: int, steps: int | None, says: str) -> None:
    with pytest.raises(FramesError, match=says):
        create(spec).check(levels(*range(count)), steps)


def test_a_rollout_warns_in_one_line_if_the_model_does_worse(spec: ModelSpec) -> None:
    frames = levels(0, 0, 0, 0, 10, 10, 10, 10)
    model = answering(spec, 1.0)
    with pytest.warns(
        UserWarning, match="does worse than repeating the last one: of the last 4 known frames"
    ) as raised:
        future = model.rollout(frames, 2, check=True)
    assert np.array_equal(future, model.rollout(frames, 2))
    assert len(raised) == 1
    assert "\n" not in str(raised[0].message)
    assert raised[0].filename == __file__


@pytest.mark.parametrize(
    ("frames", "value"),
    [
        (levels(0, 0, 0, 0, 51, 51, 51, 51), 0.2),  # the model is better
        (levels(0, 0, 0, 10), 1.0),  # there are too few frames
    ],
)
def test_a_rollout_is_silent_if_there_is_nothing_to_say(spec: ModelSpec, frames: np.ndarray, value: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answering(spec, value).rollout(frames, 3, check=True)


def test_a_short_input_is_tried_on_the_frames_that_there_are(spec: ModelSpec) -> None:
    with pytest.warns(UserWarning, match="of the last known frame, forecast from those before"):
        answering(spec, 1.0).rollout(levels(0, 0, 0, 10, 10), 3, check=True)


def test_bad_frames_that_the_forecast_does_not_read_do_not_matter_to_it(spec: ModelSpec) -> None:
    frames = np.full((8, 16, 16), 0.5, np.float32)
    frames[0] = np.nan
    model = answering(spec, 0.5)
    assert np.array_equal(model.rollout(frames, 2, check=True), model.rollout(frames, 2))


def test_the_command_line_warns_and_prints_what_it_always_did(
    spec: ModelSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answering(spec, 1.0).save_pretrained(tmp_path / "model")
    pictures = [Image.fromarray(frame) for frame in levels(0, 1, 2, 3, 4, 5, 6, 7)]
    pictures[0].save(tmp_path / "in.gif", save_all=True, append_images=pictures[1:], duration=100)
    words = ["rollout", str(tmp_path / "in.gif"), "--model", str(tmp_path / "model"), "--steps", "2"]
    with pytest.warns(UserWarning, match="does worse than repeating") as raised:
        assert cli.main([*words, "-o", str(tmp_path / "out.npy")]) == 0
    assert len(raised) == 1
    assert capsys.readouterr().out == f"2 frames -> {tmp_path / 'out.npy'}\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cli.main([*words, "-o", str(tmp_path / "again.npy"), "--no-check"]) == 0
    assert np.array_equal(np.load(tmp_path / "out.npy"), np.load(tmp_path / "again.npy"))


def test_an_evaluation_tells_the_skill(spec: ModelSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answering(spec, 0.2).save_pretrained(tmp_path / "model")
    (tmp_path / "clips" / "test").mkdir(parents=True)
    for part in ("train", "validation", "test"):
        (tmp_path / "clips" / part).mkdir(exist_ok=True)
        np.save(tmp_path / "clips" / part / "a.npy", levels(9, 9, 9, 0, 51, 102))
    words = [
        "evaluate",
        str(tmp_path / "model"),
        "--dataset",
        "clips",
        "--data",
        str(tmp_path / "clips"),
        "--steps",
        "2",
    ]
    assert cli.main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["skill_steps"] == pytest.approx([1, 0.75], abs=1e-5)
    assert report["skill"] == pytest.approx(0.8, abs=1e-5)
    assert cli.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "1 sequence of 1 file," in lines[0]
    assert lines[1].split()[-1] == "skill"
    assert [line.split()[-1] for line in lines[2:5]] == ["1.0000", "0.7500", "0.8000"]
