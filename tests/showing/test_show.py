"""`stzoo.show`: frames of every kind that `predict` takes and gives, drawn value for value beside each other."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from showing.parsed import Parsed, panels, played

import stzoo
from stzoo.errors import FramesError, MissingExtraError
from stzoo.forecaster import Forecaster
from stzoo.frames import write
from stzoo.frames.images import read_images
from stzoo.frames.rain import rain_unit
from stzoo.showing import Animation

RNG = np.random.default_rng(0)
PAST, FUTURE, TRUTH = (RNG.integers(0, 256, (count, 16, 24), dtype=np.uint8) for count in (4, 3, 2))
COLOURS = RNG.integers(0, 256, (4, 16, 24, 3), dtype=np.uint8)


def drawn(animation: Animation) -> tuple[np.ndarray, np.ndarray]:
    """Both panels of what a notebook plays."""
    (content,) = Parsed(animation._repr_html_()).pictures
    return panels(played(content), *PAST.shape[1:])


def images(frames: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in frames]


def grid(frames: np.ndarray, **attributes: str) -> Any:
    xarray = pytest.importorskip("xarray")
    return xarray.DataArray(frames, dims=("time", "y", "x"), attrs=attributes)


def batch(frames: np.ndarray) -> np.ndarray:
    return np.stack([frames, 255 - frames])[:, :, None]


KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "THW": lambda x: x,
    "TCHW": lambda x: x[:, None],
    "THWC": lambda x: x[..., None],
    "BTCHW": batch,
    "BTHWC": lambda x: np.moveaxis(batch(x), 2, 4),
    "tensor": torch.from_numpy,
    "tensor of clips": lambda x: torch.from_numpy(batch(x)),
    "images": images,
    "map": grid,
    "floats": lambda x: x / np.float32(255),
    "halves": lambda x: torch.from_numpy(x).double().div(255).to(torch.float32).requires_grad_(),
    "doubles, other order": lambda x: (x / 255.0).astype(">f8"),
    "single frames": list,
    "single tensors": lambda x: iter(torch.from_numpy(x)),
    "single frames of clips": lambda x: list(batch(x).swapaxes(0, 1)),
    "single images": lambda x: iter(images(x)),
    "masked": lambda x: np.ma.masked_array(x / 255.0, False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_value_for_value(kind: str) -> None:
    past, future, truth = (KINDS[kind](frames) for frames in (PAST, FUTURE, TRUTH))
    left, right = drawn(stzoo.show(past, future, truth))
    assert np.array_equal(right, np.concatenate([PAST, FUTURE]))
    assert np.array_equal(left[:6], np.concatenate([PAST, TRUTH]))
    assert (left[6] == 96).all()  # not recorded


@pytest.mark.parametrize("axis", [1, 3])
def test_colour_is_drawn_value_for_value(axis: int) -> None:
    frames = np.moveaxis(COLOURS, 3, axis)
    for given in (frames, torch.from_numpy(frames.copy()), images(COLOURS)):
        _, right = drawn(stzoo.show(given, given))
        assert np.array_equal(right, np.concatenate([COLOURS, COLOURS]))


def test_alpha_is_left_out() -> None:
    frames = np.concatenate([COLOURS, np.full((4, 16, 24, 1), 9, np.uint8)], 3)
    assert np.array_equal(drawn(stzoo.show(frames, frames))[1][:4], COLOURS)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "folder", "a.npy", "a.npz", "a.nc"])
def test_paths_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    frames: Any = grid(PAST).assign_coords(time=np.arange(4.0)) if name.endswith(".nc") else PAST
    write(path, images(PAST) if path.suffix in (".gif", ".png", ".webp", "") else frames, 0.25)
    animation = stzoo.show(path, str(path))
    assert np.array_equal(drawn(animation)[1], np.concatenate([PAST, PAST]))
    assert animation.seconds == (0.25 if path.suffix in (".gif", ".png", ".webp") else 0.1)


def test_what_predict_takes_and_gives_can_be_shown(forecaster: Forecaster, frames: np.ndarray) -> None:
    for given in (frames, torch.from_numpy(frames), images(frames), batch(frames), grid(frames)):
        future = forecaster.predict(given)
        _, right = panels(played(Parsed(stzoo.show(given, future)._repr_html_()).pictures[0]), 16, 16)
        first = np.stack([np.asarray(frame) for frame in (future[0, :, 0] if np.ndim(given) == 5 else future)])
        assert np.array_equal(right[6:], first)
    steps = list(forecaster.stream(batch(frames), 5))
    _, right = panels(played(Parsed(stzoo.show(batch(frames), steps)._repr_html_()).pictures[0]), 16, 16)
    assert np.array_equal(right[6:], forecaster.rollout(batch(frames), 5)[0, :, 0])


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "int64", "uint32", "float64"])
def test_other_numbers_are_drawn_in_the_range_of_the_past(dtype: str) -> None:
    past = (PAST.astype(np.int64) * 40 + 7).astype(dtype)
    future = past[::-1].copy()
    future[0, 0, 0], future[0, 0, 1] = 0, 12000  # beyond that range
    animation = stzoo.show(past, future)
    low, high = int(past.min()), int(past.max())
    wanted = ((future.astype(np.float64) - low) / (high - low)).clip(0, 1) * 255
    assert np.array_equal(drawn(animation)[1][4:], np.rint(wanted))
    assert animation.note == (f"values from {low} to {high}, the range of these frames, are drawn from black to white")


def test_shades_can_be_chosen() -> None:
    animation = stzoo.show(PAST.astype(np.uint16), FUTURE.astype(np.uint16), shades=(255, 0))
    assert np.array_equal(drawn(animation)[1], 255 - np.concatenate([PAST, FUTURE]))
    assert "as asked for" in animation.note


def test_booleans_and_constant_frames_are_drawn() -> None:
    assert np.array_equal(np.unique(drawn(stzoo.show(PAST > 99, FUTURE > 99))[1]), [0, 255])
    assert not drawn(stzoo.show(np.full((2, 16, 24), 300.0), np.full((2, 16, 24), 300.0)))[1].any()
    assert not drawn(stzoo.show(np.full((2, 16, 24), np.nan), np.full((2, 16, 24), np.nan)))[1].any()


def test_numbers_as_large_as_floats_are_are_drawn() -> None:
    """The distance of the least and the largest is beyond all floats; and 1 is nothing beside a number of 17 digits."""
    large = 1.7e308 * np.linspace(-1, 1, 256).reshape(1, 16, 16)
    panel = panels(np.stack([np.asarray(image) for image in stzoo.show(large, large).images]), 16, 16)[0]
    assert np.array_equal(panel[0], np.arange(256).reshape(16, 16))
    constant = np.full((1, 16, 16), 1e17)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = stzoo.show(constant, constant).images
    assert panels(np.stack([np.asarray(image) for image in images]), 16, 16)[0].max() == 0


def test_tensors_that_numpy_does_not_know_are_drawn() -> None:
    grays = torch.from_numpy(PAST) / 255
    negated = torch.complex(grays, -grays).conj().imag  # its sign is not applied yet
    assert negated.is_neg()
    assert np.array_equal(drawn(stzoo.show(negated, grays[:3]))[0][:4], PAST)
    halves = torch.full((3, 16, 24), 0.5)
    small = stzoo.show(halves.to(torch.float8_e4m3fn), halves)
    assert (drawn(small)[0] == 128).all()


def test_small_fractions_are_not_taken_for_gray_levels() -> None:
    moisture = PAST / 255 * 0.02
    assert np.array_equal(
        drawn(stzoo.show(moisture, moisture))[1][:4], np.rint((PAST - PAST.min()) / np.ptp(PAST) * 255)
    )


@pytest.mark.parametrize("unit", ["mm/h", "dBZ", "dBR"])
def test_rain_is_drawn_in_dbr_whatever_its_unit(unit: str) -> None:
    rates = np.where(PAST < 100, 0, PAST / 5.0).astype(np.float32)
    rates[0, 0, 0] = np.nan
    found = rain_unit(unit)
    assert found is not None
    dbr = np.where(rates < 0.1, -10.2, 10 * np.log10(np.maximum(rates, 1e-9)))
    wanted = np.nan_to_num(np.rint((dbr + 10.4) / 51 * 255), nan=0.0)
    wanted[0, 0, 0] = 0  # not observed
    numbers = found.from_dbr(torch.from_numpy(dbr)).numpy().astype(np.float32)
    for animation in (
        stzoo.show(numbers, numbers, units=unit),
        stzoo.show(grid(numbers, units=unit), numbers[::-1], units=unit),
    ):
        _, right = drawn(animation)
        assert np.abs(right[:4] - wanted).max() <= 1
        assert "in dBR" in animation.note
    by_attribute = stzoo.show(grid(numbers, units=unit), grid(numbers, units=unit))
    assert np.array_equal(drawn(by_attribute)[1][:4], right[:4])
    plain = stzoo.show(numbers, numbers, units=unit, shades=(0, 50))
    assert np.array_equal(drawn(plain)[1][:4], np.rint(np.nan_to_num((numbers / 50.0).clip(0, 1)) * 255))


def test_a_speed_is_no_rain_and_neither_is_what_is_negative() -> None:
    for unit in ("m s-1", "mm/day"):
        field = grid(PAST / 10.0 - 12, units=unit)
        assert "the range of these frames" in stzoo.show(field, field).note


def test_north_is_up() -> None:
    xarray = pytest.importorskip("xarray")
    field = xarray.DataArray(PAST, dims=("time", "lat", "lon"), coords={"lat": np.linspace(40, 50, 16)})
    assert np.array_equal(drawn(stzoo.show(field, field))[1][:4], PAST[:, ::-1])


def test_one_variable_of_a_dataset_is_drawn(tmp_path: Path) -> None:
    both = grid(PAST).to_dataset(name="a").assign(b=grid(255 - PAST))
    both.to_netcdf(tmp_path / "both.nc")
    for given in (both, tmp_path / "both.nc"):
        assert np.array_equal(drawn(stzoo.show(given, given, variable="b"))[1][:4], 255 - PAST)


def test_of_a_long_past_the_last_frames_are_shown() -> None:
    past = np.arange(100, dtype=np.uint8)[:, None, None] * np.ones((1, 16, 24), np.uint8)
    for given in (past, iter(past), images(past)):
        _, right = drawn(stzoo.show(given, FUTURE))
        assert right[:40, 0, 0].tolist() == list(range(60, 100))
        assert len(right) == 43


def test_without_truth_the_left_panel_keeps_the_last_frame() -> None:
    left, _ = drawn(stzoo.show(PAST, FUTURE))
    assert np.array_equal(left, np.concatenate([PAST, PAST[-1:].repeat(3, 0)]))
    longer = stzoo.show(PAST, FUTURE, PAST)
    assert len(longer.images) == 7


@pytest.mark.parametrize("suffix", [".gif", ".png", ".apng", ".webp"])
def test_it_is_written_to_a_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    stzoo.show(PAST, FUTURE, seconds=0.05).save(path)
    back = np.stack([np.asarray(image.convert("L")) for image in read_images(path)])
    assert np.array_equal(panels(back, 16, 24)[1], np.concatenate([PAST, FUTURE]))
    with Image.open(path) as file:
        file.load()
        assert file.info["duration"] == 50


def test_it_is_written_to_a_video(tmp_path: Path) -> None:
    pytest.importorskip("av")
    stzoo.show(PAST, FUTURE).save(str(tmp_path / "a.mp4"))
    assert len(stzoo.show(tmp_path / "a.mp4", tmp_path / "a.mp4").images) == 14


def test_a_video_without_its_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtraError, match="pip install"):
        stzoo.show(PAST, FUTURE).save(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.jpg", "a", "none/a.gif", "folder.gif"])
def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.gif").mkdir()
    with pytest.raises(FramesError, match="cannot write|does not exist|is a folder"):
        stzoo.show(PAST, FUTURE).save(tmp_path / name)


def test_scale_and_seconds_are_those_that_are_asked_for() -> None:
    animation = stzoo.show(PAST, FUTURE, scale=3, seconds=1.5)
    assert animation.images[0].size == (2 * (3 * 24 + 2) + 2, 3 * 16 + 22)
    assert animation.seconds == 1.5
    assert repr(animation) == "Animation(7 images of 150x70, 1.5 s each)"


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "sizes": (lambda: stzoo.show(PAST, FUTURE[:, :8]), "forecast are 8x24 .* those of past 16x24; bring all to one"),
    "size of the truth": (lambda: stzoo.show(PAST, FUTURE, TRUTH[:, :, :8]), "truth are 16x8"),
    "sizes of images": (lambda: stzoo.show([*images(PAST), Image.new("L", (3, 3))], FUTURE), "past: image 4 is 3x3"),
    "channels": (lambda: stzoo.show(np.zeros((4, 2, 9, 9)), FUTURE), r"past: frames of 1 or 3 .*frames\[:, :1\]"),
    "ambiguous": (lambda: stzoo.show(np.zeros((4, 3, 9, 3)), FUTURE), "past: .* as TCHW or as THWC; say which"),
    "axes": (lambda: stzoo.show(PAST, FUTURE[0]), r"forecast: expected \(T, H, W\), .* given \(16, 24\)"),
    "layout": (lambda: stzoo.show(PAST, FUTURE, layout="HWT"), "layout is 'HWT'; it may be"),
    "layout of others": (lambda: stzoo.show(PAST, FUTURE, layout="TCHW"), "layout TCHW has 4 axes, given"),
    "nothing": (lambda: stzoo.show(PAST, FUTURE[:0]), "forecast: .* empty"),
    "no images": (lambda: stzoo.show([], FUTURE), "past: the iterator yields no frame"),
    "dtype": (lambda: stzoo.show(PAST.astype(complex), FUTURE), "past: complex128 values cannot be drawn"),
    "kind": (lambda: stzoo.show(3, FUTURE), "past: expected a NumPy array, .* given a int"),
    "forecaster": (lambda: stzoo.show(PAST, None), "forecast: expected .* given a NoneType"),
    "path": (lambda: stzoo.show("nowhere.gif", FUTURE), "past: nowhere.gif does not exist"),
    "address": (lambda: stzoo.show("https://example.org/a.gif", FUTURE), "past: .* is an address"),
    "unit": (lambda: stzoo.show(PAST, FUTURE, units="furlongs"), "units is 'furlongs'; it may be mm/h"),
    "seconds": (lambda: stzoo.show(PAST, FUTURE, seconds=0), "seconds is 0; it must be a number above 0"),
    "scale": (lambda: stzoo.show(PAST, FUTURE, scale=0), "scale is 0; it must be a whole number, at least 1"),
    "large": (lambda: stzoo.show(PAST, FUTURE, scale=10**6), "too many for one animation; show fewer"),
    "long": (lambda: stzoo.show(PAST, np.zeros((2001, 16, 24))), "more than 2,000 frames; show a part of it"),
    "shades": (lambda: stzoo.show(PAST, FUTURE, shades=(1, 1)), "two different numbers, for black and for white"),
    "one shade": (lambda: stzoo.show(PAST, FUTURE, shades=(1,)), "two different numbers"),
    "endless shade": (lambda: stzoo.show(PAST, FUTURE, shades=(0, 10**400)), "two different numbers"),
    "map without times": (lambda: stzoo.show(grid(PAST)[:0], FUTURE), "past: there are no frames"),
    "images without pixels": (
        lambda: stzoo.show([Image.new("L", (0, 8)), Image.new("L", (0, 8))], FUTURE), "past: an image has 0x8 pixels"
    ),
    "empty path": (lambda: stzoo.show("", FUTURE), "past: the path is empty"),
    "long path": (lambda: stzoo.show("a" * 5000 + ".gif", FUTURE), "past: aaa.*: File name too long"),
    "negative rain": (lambda: stzoo.show(PAST - 9.0, FUTURE, units="mm/h"), "past: given -9 mm/h, and no rain rate"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_shown_is_refused_with_one_clear_error(case: str) -> None:
    call, message = WRONG[case]
    with pytest.raises(FramesError, match=message) as told:
        call()
    assert "\n" not in str(told.value)


def test_clips_of_gray_frames_are_named() -> None:
    clips = np.stack([PAST, 255 - PAST])
    with pytest.raises(FramesError, match="layout='BTHW'"):
        stzoo.show(clips, clips)
    assert np.array_equal(drawn(stzoo.show(clips, clips, layout="BTHW"))[1][:4], PAST)
