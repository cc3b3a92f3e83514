"""What was not observed along the path of the rain is NaN in a forecast. Rain is shifted here, so paths are known."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from stzoo.data import Clip
from stzoo.engine.observing import _without_edges, carried_along, observed_motion, where_observed
from stzoo.errors import FramesError
from stzoo.evaluate.measuring import forecast as measured
from stzoo.forecaster import Forecaster
from stzoo.frames.rain import DBR
from stzoo.models.motion import estimate_motion, inside, moved, trajectories
from stzoo.opening import create
from stzoo.spec import ModelSpec

SIZE, STEP = 96, (2, -3)  # of a frame; rows and columns that the rain moves in each


@pytest.fixture
def model(spec: ModelSpec) -> Forecaster:
    torch.manual_seed(1)
    return create(spec.replace(value_range=DBR, mean=[-10.2], std=[16.0], fill=-10.2, height=SIZE, width=SIZE))


def shifted(field: np.ndarray, frames: int) -> np.ndarray:
    """A field as it is at the times -3, -2, ..., each a step further."""
    return np.stack([np.roll(field, (STEP[0] * t, STEP[1] * t), (0, 1)) for t in range(-3, frames - 3)])


@pytest.fixture
def rain() -> np.ndarray:
    """(4, SIZE, SIZE) float32 in mm/h: showers that drift."""
    noise = np.random.default_rng(3).normal(size=(SIZE, SIZE))
    smooth = ndimage.gaussian_filter(noise, 3, mode="wrap")
    return shifted(np.exp(12 * smooth), 4).astype(np.float32)


def sure(mask: np.ndarray) -> np.ndarray:
    """Where a mask is the same in all cells at most two cells away, so that estimated motion may be that wrong."""
    around = np.ones((5, 5), bool)
    return ndimage.binary_erosion(mask, around, border_value=1) | ~ndimage.binary_dilation(mask, around)


def came_from(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns where what is at each cell after `step` frames was in the last past frame."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return rows - STEP[0] * step, columns - STEP[1] * step


def expected(seen: Callable[[int, np.ndarray, np.ndarray], np.ndarray], step: int) -> np.ndarray:
    """Which cells of a frame of the forecast nobody observed; `seen` tells of frame -k, at rows and columns."""
    found = np.zeros((SIZE, SIZE), bool)
    for k in range(4):
        rows, columns = came_from(step + k)
        within = (rows >= 0) & (rows < SIZE) & (columns >= 0) & (columns < SIZE)
        found |= within & seen(k, rows.clip(0, SIZE - 1), columns.clip(0, SIZE - 1))
    rows, columns = came_from(step)
    return ~(found & (rows >= 0) & (rows < SIZE) & (columns >= 0) & (columns < SIZE))


@pytest.mark.parametrize("moves", [True, False], ids=["a hole that moves with the rain", "a hole that stays"])
def test_the_hole_moves_with_the_rain_and_nothing_comes_in_from_beyond_the_edge(
    model: Forecaster, rain: np.ndarray, moves: bool
) -> None:
    hole = np.zeros((SIZE, SIZE), bool)
    hole[40:56, 50:66] = True
    holes = shifted(hole, 4) if moves else np.repeat(hole[None], 4, 0)
    given = np.where(holes, np.nan, rain).astype(np.float32)
    future = model.rollout(given, 8, units="mm/h")
    filled = model.rollout(given, 8, units="mm/h", missing="fill")
    assert not np.isnan(filled).any()
    inner = (slice(30, 80), slice(10, 66))  # which nothing from beyond the edge reaches
    for step in range(1, 9):
        unseen = np.isnan(future[step - 1])
        np.testing.assert_array_equal(future[step - 1][~unseen], filled[step - 1][~unseen])
        wanted = expected(lambda k, rows, columns: ~holes[3 - k, rows, columns], step)
        agreed = unseen == wanted
        assert agreed[sure(wanted)].mean() > (0.995 if step < 4 else 0.97)
        # the parcels in a hole that stays were seen before they came there, but for those that were in it all along
        assert wanted[inner].sum() == (16 * 16 if moves else 10 * 7)
        assert unseen[inner].sum() == pytest.approx(wanted[inner].sum(), rel=0.2)
        centres = [np.argwhere(mask[inner]).mean(0) for mask in (unseen, wanted)]
        np.testing.assert_allclose(*centres, atol=0.5 + 0.1 * step)


def test_a_parcel_that_any_frame_observed_is_observed(model: Forecaster) -> None:
    still = np.repeat(np.random.default_rng(0).gamma(1, 2, (1, SIZE, SIZE)), 4, 0)  # nothing moves
    assert not np.isnan(model.predict(still, units="mm/h")).any()
    at_last = still.copy()
    at_last[-1, 10:20, 10:20] = np.nan
    never = at_last.copy()
    never[:, 50:60, 30:50] = np.nan
    dry = np.zeros_like(still)
    dry[:, 50:60, 30:50] = np.nan
    for given in (never, dry):
        unseen = np.isnan(model.predict(given, units="mm/h"))
        wanted = np.zeros_like(unseen)
        wanted[:, 50:60, 30:50] = True
        if given is dry:
            np.testing.assert_array_equal(unseen, wanted)
        assert (unseen == wanted)[:, sure(wanted[0])].mean() > 0.97  # what is filled in looks like a little motion
    assert np.isnan(model.predict(np.full_like(still, np.nan), units="mm/h")).all()


@pytest.mark.parametrize("matched", [False, True])
def test_what_is_measured_is_what_a_user_gets(model: Forecaster, rain: np.ndarray, matched: bool) -> None:
    """An evaluation tells the model where the past was observed, as NaN tells `rollout`."""
    given = (10 * np.log10(rain.clip(0.1))).clip(-10.2, 40).astype(np.float32)
    seen = np.ones_like(given, bool)
    seen[:, 40:56, 50:66] = False
    past = torch.from_numpy(np.where(seen, given, np.float32(-10.2)))[None, :, None]
    clip = Clip(past, past[:, :3], seen=torch.from_numpy(seen)[None, :, None])
    wanted = model.rollout(np.where(seen, given, np.nan), 3, missing="fill", matched=matched)
    made = measured(model.engine, model.spec, clip, matched)[2].clip(*DBR)
    np.testing.assert_allclose(made[0, :, 0], wanted, atol=1e-4)
    blind = measured(model.engine, model.spec, dataclasses.replace(clip, seen=None), matched)[2].clip(*DBR)
    assert np.abs(blind[0, :, 0].numpy() - wanted).max() > 1


def test_the_mask_is_for_floats_and_for_models_of_rain(model: Forecaster, rain: np.ndarray, spec: ModelSpec) -> None:
    assert model.predict(rain.round().astype(np.int16), units="mm/h").min() >= 0  # -32768 would be a cast NaN
    codes = np.clip(rain * 10, 0, 255).astype(np.uint8)
    codes[:, :9] = 0
    floats = codes.astype(np.float32) / 255 * 51 - 10.4
    as_codes = model.predict(codes).astype(float) / 255 * 51 - 10.4
    np.testing.assert_allclose(as_codes, model.predict(floats, missing="fill"), atol=0.11)
    other = create(spec.replace(value_range=None, mean=[280.0], std=[10.0], fill=280.0))
    kelvin = np.random.default_rng(0).normal(280, 5, (4, 16, 16)).astype(np.float32)
    kelvin[:, 3] = np.nan
    assert np.isfinite(other.predict(kelvin)).all()
    for bad in ("drop", None, True):
        with pytest.raises(FramesError, match=r"missing is .*; it may be 'keep' or 'fill'"):
            model.predict(rain, units="mm/h", missing=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(("height", "width"), [(355, 320), (50, 41)])
def test_whole_fields_of_any_size_with_holes(model: Forecaster, height: int, width: int) -> None:
    """A radar's circle in a field whose sides its stride does not divide; the corners were never observed."""
    rows, columns = np.mgrid[:height, :width]
    circle = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (min(height, width) / 2) ** 2
    field = np.where(circle, np.zeros((4, height, width)), np.nan).astype(np.float32)
    for given in (field, np.stack([field, field])[:, :, None], torch.from_numpy(field)):
        future = np.asarray(model.predict(given, units="mm/h"))
        assert future.shape[-2:] == (height, width)
        np.testing.assert_array_equal(np.isnan(future), np.broadcast_to(~circle, future.shape))
    small = model.predict(field, units="mm/h", resize=True)
    assert small.shape == (4, SIZE, SIZE)
    assert np.isnan(small).mean() == pytest.approx((~circle).mean(), abs=0.02)


def test_a_mask_after_many_frames_is_that_of_the_whole_trajectory() -> None:
    """Frame by frame, so that memory stays flat, and all at once: the same, also where the motion turns."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    past = torch.stack([((x - 30 + 0.7 * t).square() + (y - 33).square()).div(-90).exp() for t in range(-3, 1)])
    past = past[None, :, None]
    observed = torch.ones(1, 4, 1, 64, 64, dtype=torch.bool)
    observed[..., 20:40, 10:30] = False
    frames = [torch.zeros(1, 1, 64, 64)] * 24
    motion = observed_motion(past, observed)
    torch.testing.assert_close(motion, estimate_motion(_without_edges(past, observed)))
    known = carried_along(past, observed, motion)[1]
    unseen = [frame.isnan() for frame in where_observed(iter(frames), motion, known)]
    now = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    for k, displacement in enumerate(trajectories(motion, range(4)).unbind(1)):
        now |= (moved(observed[:, 3 - k].float(), displacement) > 0.5) & inside(displacement)
    for step in (1, 2, 12, 24):
        displacement = trajectories(motion, [step])[:, 0]
        wanted = ~((moved(now.float(), displacement) > 0.5) & inside(displacement))
        assert (unseen[step - 1] == wanted).float().mean() > 0.995, step


def test_a_check_leaves_out_what_was_not_observed(model: Forecaster, rain: np.ndarray) -> None:
    """The errors are those of the cells that the forecast, the truth and the last past frame all have, in dBR."""
    known = np.concatenate([rain, rain[::-1]])
    known[:, 70:] = np.nan
    known[5:, :8] = np.nan
    known[3, :, 60:] = np.nan
    low, high = DBR
    dbr = np.where(known < 0.1, -10.2, 10 * np.log10(np.maximum(known, 0.1, dtype=np.float64)))
    dbr[np.isnan(known)] = np.nan
    with torch.no_grad():
        future = model.predict(dbr[:4])
    found = model.check(known, units="mm/h")
    for step in range(4):
        errors = [np.nanmean(np.square((a - dbr[4 + step] + 0 * b) / (high - low))) for a, b in
                  ((future[step], dbr[3]), (dbr[3], future[step]))]  # fmt: skip
        assert found.mse_steps[step] == pytest.approx(errors[0], rel=1e-4)
        assert found.persistence_mse_steps[step] == pytest.approx(errors[1], rel=1e-4)
    with pytest.raises(FramesError, match="no cell was observed both in the past and in the frames that followed"):
        model.check(np.where(np.arange(8)[:, None, None] < 4, known, np.nan), units="mm/h")
    # where too little was observed to try the model, the forecast is made all the same
    assert model.rollout(np.full_like(known, np.nan), 2, units="mm/h", check=True).shape == (2, SIZE, SIZE)


def test_a_live_source_has_the_same_holes(model: Forecaster, rain: np.ndarray) -> None:
    given = rain.copy()
    given[:, 40:56, 50:66] = np.nan
    live = model.live(units="mm/h")
    for frame in given:
        future = live.push(frame)
    np.testing.assert_array_equal(np.isnan(future), np.isnan(model.predict(given, units="mm/h")))
    np.testing.assert_allclose(future, model.predict(given, units="mm/h"), rtol=1e-4)
    assert np.isfinite(model.live(units="mm/h", missing="fill").push(given[0]) is None)
    after = live.push(None)  # what is forecast in place of a missing frame was not observed
    assert np.isnan(after).sum() >= np.isnan(future).sum() - 10
    lacking = np.concatenate([given[1:], np.full_like(given[:1], np.nan)])
    np.testing.assert_array_equal(np.isnan(after), np.isnan(model.predict(lacking, units="mm/h")))


def test_a_live_source_of_a_recurrent_model_fills_holes_as_predict_does(rain: np.ndarray) -> None:
    params = {"layers": 1, "hidden": 4, "kernel": 3, "patch": 4}
    spec = ModelSpec(
        arch="convlstm", frames_in=len(rain), frames_out=2, channels=1, height=SIZE, width=SIZE, params=params,
        value_range=DBR, mean=[-10.2], std=[16.0], fill=-10.2,
    )  # fmt: skip
    model, given = create(spec), rain.copy()
    given[:, 40:56, 50:66] = np.nan
    live = model.live(units="mm/h", carry=1)
    for frame in given:
        future = live.push(frame)
    np.testing.assert_allclose(future, model.predict(given, units="mm/h"), rtol=1e-4)


def test_a_batch_has_a_mask_for_each_clip(model: Forecaster, rain: np.ndarray, tmp_path: Path) -> None:
    hole = rain.copy()
    hole[:, 40:56, 50:66] = np.nan
    clips = np.stack([rain, hole])[:, :, None]
    both = model.predict(clips, units="mm/h")
    for one, alone in zip(both, (rain, hole), strict=True):
        np.testing.assert_array_equal(np.isnan(one[:, 0]), np.isnan(model.predict(alone, units="mm/h")))


@pytest.mark.parametrize("lost", [[3], [1], [0, 2, 3]], ids=["the last frame", "one within", "all but one"])
def test_a_frame_that_is_missing_as_a_whole_tells_nothing_of_the_motion(rain: np.ndarray, lost: list[int]) -> None:
    """Beside a clip of which nothing is missing, which is as it is by itself."""
    past = torch.from_numpy(np.stack([rain, rain]))[:, :, None].log10()
    observed = torch.ones_like(past, dtype=torch.bool)
    observed[1, lost] = False
    whole, lacking = observed_motion(torch.where(observed, past, -1.0), observed)
    torch.testing.assert_close(whole, estimate_motion(past[:1])[0])
    if len(lost) == 3:
        assert not lacking.any()  # one frame does not tell
    else:
        inner = lacking[:, 16:-16, 16:-16].mean((1, 2))
        torch.testing.assert_close(inner, torch.tensor([STEP[1], STEP[0]]).float(), atol=0.2, rtol=0)


def test_what_a_frame_lacks_is_carried_to_it_from_the_nearest_one(rain: np.ndarray) -> None:
    """The motion is known, and whole cells a frame, so that what is carried is exact."""
    past = torch.from_numpy(rain)[None, :, None]
    observed = torch.ones_like(past, dtype=torch.bool)
    observed[:, 3, :, 30:50, 30:50] = observed[:, 0] = False
    observed[:, :, :, 60:64, 60:64] = False  # smaller than what the rain moves in two frames
    motion = torch.tensor([STEP[1], STEP[0]]).float()[None, :, None, None].expand(1, 2, SIZE, SIZE)
    completed, known = carried_along(torch.where(observed, past, 99.0), observed, motion)
    inner = (..., slice(10, 80), slice(10, 80))
    torch.testing.assert_close(completed[inner], past[inner], rtol=1e-3, atol=1e-3)
    assert known[inner].all()
    nothing = torch.zeros_like(observed)
    completed, known = carried_along(past, nothing, motion)
    assert torch.equal(completed, past)
    assert not known.any()


@pytest.mark.parametrize("matched", [False, True])
def test_without_the_last_field_the_rain_goes_on(model: Forecaster, rain: np.ndarray, matched: bool) -> None:
    """In a model that repeats its last frame, which would be dry, and in the values that a matched forecast gets."""
    model = create(model.spec.replace(params=dict(model.spec.params) | {"from_last": True}))
    for parameter in model.module.parameters():
        parameter.data.zero_()
    still = np.repeat(rain[:1], 4, 0)
    for missing in ("keep", "fill"):
        whole = model.predict(still, units="mm/h", missing=missing, matched=matched)
        lacking = model.predict(
            np.concatenate([still[:3], np.full_like(still[:1], np.nan)]), units="mm/h", missing=missing, matched=matched
        )
        np.testing.assert_allclose(lacking, whole, rtol=1e-4)
