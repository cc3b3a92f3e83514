"""Rain in mm/h, dBZ and dBR: conversions against formulas in float64, round trips, spellings, and nonsense refused."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stzoo.errors import FramesError
from stzoo.forecaster import Forecaster
from stzoo.frames.rain import DBR, checked_unit, is_amount, rain_unit
from stzoo.opening import create
from stzoo.spec import ModelSpec

RATES = np.array([0.0, 1e-6, 0.0999, 0.1, 0.5, 1.0, 7.5, 100.0, 260.0, 11000.0])  # mm/h


@pytest.fixture
def model(spec: ModelSpec) -> Forecaster:
    torch.manual_seed(1)
    return create(spec.replace(value_range=DBR, mean=[-10.2], std=[16.0], fill=-10.2))


@pytest.fixture
def rate() -> np.ndarray:
    """(4, 16, 16) float32 in mm/h: about half of the cells are dry."""
    noise = np.random.default_rng(0).gamma(0.3, 8, (4, 16, 16))
    return np.where(noise < 0.1, 0, noise).astype(np.float32)


def dbz_of(rates: np.ndarray) -> np.ndarray:
    """By Marshall and Palmer, as their formula stands."""
    return 10 * np.log10(200 * rates**1.6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_conversions_are_those_of_the_formulas(dtype: type) -> None:
    wet = RATES[RATES >= 0.1]
    expected = np.where(RATES >= 0.1, 10 * np.log10(np.maximum(RATES, 0.1)), -10.2)
    for unit, numbers, dry in (("mm/h", RATES, 0.0), ("dBZ", np.append(np.full(3, -32), dbz_of(wet)), -32.0)):
        known = checked_unit(unit)
        dbr = known.to_dbr(torch.from_numpy(numbers.astype(dtype)))
        assert dbr.dtype == torch.float32
        np.testing.assert_allclose(dbr, expected, atol=1e-5)
        back = known.from_dbr(dbr).numpy()
        assert (back[:3] == dry).all()
        np.testing.assert_allclose(back[3:], numbers[3:], rtol=2e-6)


def test_what_is_dry_and_what_is_missing() -> None:
    rate, dbz, dbr = (checked_unit(name) for name in ("mm/h", "dBZ", "dBR"))
    barely = torch.tensor([-0.04, 0.09999, 0.1])  # as interpolation may leave a dry cell; the least rain
    assert rate.to_dbr(barely).tolist() == pytest.approx([-10.2, -10.2, -10.0])
    assert dbz.to_dbr(torch.tensor([-math.inf, -327.68, -32, 7.01, 7.02])).tolist() == pytest.approx(
        [-10.2, -10.2, -10.2, -10.2, (7.02 - 10 * math.log10(200)) / 1.6]
    )
    assert dbr.to_dbr(torch.tensor([-math.inf, -15.0, -10.0])).tolist() == pytest.approx([-10.2, -10.2, -10.0])
    for unit in (rate, dbz, dbr):
        assert unit.to_dbr(torch.tensor([math.nan])).isnan().all()
        assert unit.from_dbr(torch.tensor([math.nan])).isnan().all()
    assert rate.to_dbr(torch.tensor([11482.0, 49000.0])).tolist() == pytest.approx([40.6, 40.6], abs=1e-3)  # clipped


@pytest.mark.parametrize(
    ("text", "of_a_rate"),
    [
        *((text, 1.0) for text in (
            "mm/h", "mm h-1", "mm hr-1", "mm hr**-1", "mm h**-1", "mm/hr", "mm h^-1", "mm hr^-1", "mm.h-1",
            "mmh-1", "mm h\u207b\u00b9", "MM/HR", "mm/hour", "mm hour-1", "mm per hour", "kg m-2/hr",
            "millimeters per hour", "millimetre/hr", "kg m-2 h-1", "kg m**-2 h**-1", "kg/m2/h", "kg/(m2 h)",
        )),
        *((text, 1 / 3600) for text in (
            "kg m-2 s-1", "kg m**-2 s**-1", "kg m^-2 s^-1", "kg/m2/s", "kg/(m^2 s)",
            "kg m\u207b\u00b2 s\u207b\u00b9", "mm/s", "mm s-1",
        )),
        ("mm/day", 24.0), ("mm d-1", 24.0), ("mm min-1", 1 / 60), ("m s-1", 1 / 3.6e6), ("in/hr", 1 / 25.4),
    ],
)  # fmt: skip
def test_spellings_of_rates(text: str, of_a_rate: float) -> None:
    unit = checked_unit(text)
    assert (unit.scale, unit.name) == ("rate", text)
    assert unit.of_a_rate == pytest.approx(of_a_rate)
    rates = torch.tensor([0.0, 0.1, 30.0], dtype=torch.float64)
    assert unit.to_dbr(rates * of_a_rate).tolist() == pytest.approx([-10.2, -10.0, 10 * math.log10(30)], abs=1e-5)


@pytest.mark.parametrize(
    "text", ["dBZ", "dbz", "DBZ", "dBZe", "dBR", "dbr", "dB", "10*log10(mm/h)", "10 log10(mm h-1)"]
)
def test_spellings_of_decibels(text: str) -> None:
    assert checked_unit(text).scale == ("dBZ" if "z" in text.lower() else "dBR")


@pytest.mark.parametrize(
    "text", ["", "K", "mm", "kg m-2", "m2 s-1", "h mm-1", "mm h", "1", "W m-2", "mm/5min", "hour", "%"]
)
def test_what_is_no_unit_of_rain(text: str) -> None:
    assert rain_unit(text) is None
    assert is_amount(text) == (text in ("mm", "kg m-2"))


def test_a_forecast_is_the_same_in_every_unit(model: Forecaster, rate: np.ndarray) -> None:
    """Forecast dBR is converted by the formulas here, and compared with forecasts in other units."""
    dbr = np.where(rate < 0.1, -10.2, 10 * np.log10(np.maximum(rate, 0.1, dtype=np.float64))).astype(np.float32)
    dbz = np.where(rate < 0.1, -32, dbz_of(np.maximum(rate, 0.1)))
    future = model.predict(dbr).astype(np.float64)
    assert min((future < -10).sum(), (future > 0).sum(), np.isnan(future).sum()) > 0
    dry, seen = future < -10, ~np.isnan(future)
    expected = {
        "mm/h": (rate, np.where(dry, 0, 10 ** (future / 10))),
        "kg m-2 s-1": (rate / 3600, np.where(dry, 0, 10 ** (future / 10) / 3600)),
        "dBZ": (dbz, np.where(dry, -32, dbz_of(10 ** (future / 10)))),
        "dBR": (np.where(rate < 0.1, -15, dbr), np.where(dry, -10.2, future)),
    }
    for unit, (given, wanted) in expected.items():
        for dtype in (np.float32, np.float64):
            for made in (
                model.predict(given.astype(dtype), units=unit),
                model.rollout(torch.from_numpy(given.astype(dtype)), 4, units=unit).numpy(),
                np.stack(list(model.stream(given.astype(dtype), 4, units=unit))),
            ):
                assert made.dtype == dtype
                np.testing.assert_array_equal(np.isnan(made), ~seen)
                # where dBR is within rounding of -10, either is right
                near = np.abs(future + 10) < 1e-4
                np.testing.assert_allclose(made[seen & ~near], wanted[seen & ~near], rtol=2e-4, atol=2e-4)
    skill = model.check(np.concatenate([rate, rate[::-1]]), units="mm/h")
    again = model.check(np.concatenate([dbr, dbr[::-1]]))
    assert skill.mse_steps == pytest.approx(again.mse_steps, rel=1e-4, nan_ok=True)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "int64", ">i2"])
def test_integers_in_a_unit_are_numbers(model: Forecaster, rate: np.ndarray, dtype: str) -> None:
    whole = rate.round().astype(dtype)
    expected = model.predict(whole.astype(np.float64), units="mm/h", missing="fill")
    made = model.predict(whole, units="mm/h")
    assert made.dtype == np.dtype(dtype)
    top = np.iinfo(dtype).max
    np.testing.assert_array_equal(made, expected.round().clip(0, top).astype(dtype))
    if dtype != ">i2":
        tensor = model.predict(torch.from_numpy(whole), units="mm/h")
        np.testing.assert_array_equal(tensor.numpy(), made)
    with pytest.raises(FramesError, match="bits=8 says how integers are scaled; these are numbers in mm/h"):
        model.predict(whole, units="mm/h", bits=8)


@pytest.mark.parametrize(
    ("value", "units", "message"),
    [
        (-1.0, "mm/h", "given -1 mm/h, and no rain rate is negative: if it stands for missing data, make it NaN"),
        (-9999.0, "mm h-1", "given -9999 mm h-1, and no rain rate is negative"),
        (-np.inf, "mm/h", "given -inf mm/h, and no rain rate is negative"),
        (1e5, "mm/h", "given 100000 mm/h, and no rain exceeds 50000 mm/h"),
        (np.inf, "mm/h", "given inf mm/h"),
        (15.0, "kg m-2 s-1", "given 15 kg m-2 s-1, and no rain exceeds 13.889 kg m-2 s-1"),
        (-999.0, "dBZ", "given -999 dBZ, and no radar detects so little"),
        (255.0, "dBZ", "given 255 dBZ, and no rain exceeds 98.194 dBZ"),
        (60.0, "dBR", "given 60 dBR, and no rain exceeds 46.99 dBR"),
        (1.0, "furlong", "units is 'furlong'; it may be mm/h, dBZ, dBR, or another spelling of these$"),
        (1.0, "mm", "units is 'mm'; .*that is an amount: divide it by the hours in which it fell"),
        (1.0, 3, "units is 3; it may be"),
    ],
)
def test_what_is_no_rain_is_refused(model: Forecaster, value: float, units: str, message: str) -> None:
    past = np.zeros((4, 16, 16))
    past[2, 3, 4] = value
    with pytest.raises(FramesError, match=message):
        model.predict(past, units=units)


def test_units_are_for_numbers_and_for_models_of_rain(
    model: Forecaster, forecaster: Forecaster, tmp_path: Path
) -> None:
    images = [Image.new("L", (16, 16), shade) for shade in range(4)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:])
    for pictures in (images, tmp_path / "a.gif"):
        with pytest.raises(FramesError, match="units='mm/h' .*is for arrays and maps, and pictures hold shades"):
            model.predict(pictures, units="mm/h")
    with pytest.raises(FramesError, match="units='mm/h' .* is for models of rain, and this is none"):
        forecaster.predict(np.zeros((4, 16, 16), np.float32), units="mm/h")
