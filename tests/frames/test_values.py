import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stzoo import frames as room
from stzoo.errors import FramesError
from stzoo.forecaster import Forecaster
from stzoo.frames.rain import DBR
from stzoo.frames.values import denormalise, fill_missing, from_units, normalise, to_units
from stzoo.opening import create
from stzoo.spec import ModelSpec

UNIT = ModelSpec(arch="tau", frames_in=1, frames_out=1, channels=2, height=4, width=4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16])
@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0), (0.0, 0.1), (0.1, 0.9), (0.5, 310.7)])
def test_integers_survive_there_and_back(dtype: torch.dtype, value_range: tuple[float, float]) -> None:
    spec = UNIT.replace(value_range=value_range)
    top = torch.iinfo(dtype).max
    x = torch.tensor([*range(0, top, max(1, top // 777)), top]).to(dtype)
    units = to_units(x, spec)
    assert torch.equal(fill_missing(units[None, None, None, None], spec)[0, 0, 0, 0], units)  # accepted, unchanged
    assert units.min().item() == pytest.approx(value_range[0])
    assert units.max().item() == pytest.approx(value_range[1])
    assert torch.equal(from_units(units, spec, dtype), x)


def test_integers_without_a_range_are_physical_numbers() -> None:
    spec = UNIT.replace(value_range=None)
    assert to_units(torch.tensor([280], dtype=torch.int16), spec).item() == 280.0
    assert from_units(torch.tensor([280.4, 1e9]), spec, torch.int16).tolist() == [280, 32767]


@given(st.floats(-1e3, 1e3, width=32), st.floats(0.125, 1e3, width=32), st.floats(-100, 100, width=32))
def test_normalisation_is_undone(mean: float, std: float, value: float) -> None:
    spec = UNIT.replace(value_range=None, mean=[mean, 0.0], std=[std, 1.0])
    x = torch.full((1, 2, 4, 4), value)
    there = normalise(x, spec)
    assert there[0, 0, 0, 0].item() == pytest.approx((value - mean) / std, rel=1e-4, abs=1e-4)
    torch.testing.assert_close(denormalise(there, spec), x, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.nan, "frame 2 of the last 4 holds NaN"),
        (np.inf, "frame 2 of the last 4 holds an infinite value"),
        (1.5, r"expected values in \[0, 1\], given \[0, 1.5\]$"),
        (2.0, r"given \[0, 2\]; divide by 255"),
        (201.5, r"given \[0, 201.5\]; divide by 255"),
        (-0.5, r"given \[-0.5, 0\]"),
    ],
)
def test_values_that_do_not_belong_are_refused(forecaster: Forecaster, bad: float, message: str) -> None:
    past = np.zeros((4, 16, 16), np.float32)
    past[2, 5, 5] = bad
    with pytest.raises(FramesError, match=message):
        forecaster.predict(past)


@pytest.mark.parametrize("dtype", [np.int64, np.uint32, bool, complex, "U1"])
def test_dtypes_without_a_scale_are_refused(forecaster: Forecaster, dtype: object) -> None:
    with pytest.raises(FramesError, match="no agreed scale"):
        forecaster.predict(np.zeros((4, 16, 16)).astype(dtype))


def test_masked_values_are_missing_ones(forecaster: Forecaster) -> None:
    """Never the numbers that happen to lie under the mask."""
    hidden = np.ma.masked_array(np.zeros((4, 16, 16), np.float32))
    np.testing.assert_array_equal(forecaster.predict(hidden), forecaster.predict(hidden.data))
    hidden[2, 5, 5] = np.ma.masked
    with pytest.raises(FramesError, match="frame 2 of the last 4 holds NaN"):
        forecaster.predict(hidden)
    with pytest.raises(FramesError, match="masked values among uint8"):
        forecaster.predict(hidden.astype(np.uint8))


def test_tensors_without_plain_values_are_refused(forecaster: Forecaster) -> None:
    for tensor in (torch.zeros(4, 16, 16).to_sparse(), torch.zeros(4, 16, 16, device="meta")):
        with pytest.raises(FramesError, match="expected a dense tensor"):
            forecaster.predict(tensor)


@pytest.mark.parametrize("given_", [3, None, [], [[1, 2]], {"a": 1}, object()])
def test_other_kinds_are_refused(forecaster: Forecaster, given_: object) -> None:
    with pytest.raises(FramesError, match="expected a NumPy array, a torch tensor, a list of PIL images or a path"):
        forecaster.predict(given_)


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_integers_below_zero_are_refused(forecaster: Forecaster, dtype: str) -> None:
    top = np.iinfo(dtype).max
    past = np.linspace(0, top, 4 * 16 * 16).reshape(4, 16, 16).astype(dtype)
    floats = past.astype(np.float32) / top
    np.testing.assert_allclose(forecaster.predict(past) / top, forecaster.predict(floats), atol=0.6 / top)
    past[1, 2, 3] = -1
    with pytest.raises(FramesError, match=f"{dtype} frames are read from 0 to {top}, .*; given -1 to {top}, so"):
        forecaster.predict(past)
    with pytest.raises(FramesError, match="given -1 to"):
        forecaster.predict(torch.from_numpy(past))


def test_integers_below_zero_are_numbers_like_others_if_there_is_no_range() -> None:
    spec = UNIT.replace(value_range=None, channels=1)
    past = room.read(np.full((1, 4, 4), -40, np.int16), spec, 4).past
    assert past.unique().tolist() == [-40.0]


@pytest.mark.parametrize(("value", "clipped"), [(np.nextafter(np.float32(1), 2), 1.0), (-1e-8, 0.0), (1 + 9e-6, 1.0)])
def test_values_outside_the_range_by_rounding_are_clipped(forecaster: Forecaster, value: float, clipped: float) -> None:
    past = np.linspace(0, 1, 4 * 16 * 16, dtype=np.float32).reshape(4, 16, 16)
    expected = past.copy()
    past[2, 5, 5], expected[2, 5, 5] = value, clipped
    np.testing.assert_array_equal(forecaster.predict(past), forecaster.predict(expected))
    past[2, 5, 5] = 1.00002
    with pytest.raises(FramesError, match=r"expected values in \[0, 1\], given \[0, 1.00002\]$"):
        forecaster.predict(past)


def test_a_refused_value_is_printed_so_that_it_differs_from_the_bound() -> None:
    spec = UNIT.replace(value_range=(0.0, 250_000.0))
    units = torch.full((1, 1, 2, 4, 4), 250_003.5)
    with pytest.raises(FramesError, match=r"in \[0, 250000\], given \[250004, 250004\]"):
        fill_missing(units, spec)
    spec = UNIT.replace(value_range=(1e6, 1.0001e6))
    with pytest.raises(FramesError, match=r"given \[1e\+06, 1000100.5\]"):
        fill_missing(torch.tensor([1e6, 1000100.5]).reshape(1, 1, 2, 1, 1), spec)


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_twelve_bits_are_scaled_as_the_caller_says(forecaster: Forecaster, frames: np.ndarray, dtype: str) -> None:
    deep = np.rint(frames / 255 * 4095).astype(dtype)
    answer = forecaster.predict(deep, bits=12)
    assert answer.dtype == deep.dtype
    np.testing.assert_allclose(answer / 4095, forecaster.predict(deep.astype(np.float32) / 4095), atol=0.6 / 4095)
    deep[-1, 0, 0] = 4096
    with pytest.raises(FramesError, match=f"{dtype} frames with bits=12 are read from 0 to 4095, .* 4096, so"):
        forecaster.predict(deep, bits=12)
    for given_, bits, message in (
        (frames, 12, "bits is 12; for uint8 it may be 1 to 8"),
        (deep, 17, f"bits is 17; for {dtype} it may be 1 to {15 if dtype == 'int16' else 16}"),
        (deep, 0, "bits is 0; it must be a whole number, at least 1"),
        (frames / 255, 12, "these frames are float64, so leave it out"),
    ):
        with pytest.raises(FramesError, match=message):
            forecaster.predict(given_, bits=bits)


def test_the_range_of_rain_is_told_with_its_unit_and_how_to_come_to_it(spec: ModelSpec) -> None:
    radar = create(spec.replace(value_range=DBR))
    with pytest.raises(FramesError, match=r"\[-10.4, 40.6\] dBR, .* given \[0, 45\].* units='mm/h' or units='dBZ'"):
        radar.predict(np.linspace(0, 45, 4, dtype=np.float32)[:, None, None] * np.ones((16, 16), np.float32))
