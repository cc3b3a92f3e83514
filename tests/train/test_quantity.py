"""Training on the quantity that decibels stand for: the loss and the validation error are those of rain in mm/h."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stzoo.data import Clip
from stzoo.errors import SpecError
from stzoo.models import build
from stzoo.spec import ModelSpec
from stzoo.train.objectives import check, objective
from stzoo.train.recipe import Recipe
from stzoo.train.validation import validate

PARAMS = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "from_last": True, "blurs": 2, "decibels": True}
RAIN = ModelSpec(
    arch="tau", frames_in=3, frames_out=3, channels=1, height=16, width=16, value_range=(-10.4, 40.6), mean=(-10.2,),
    std=(16.0,), fill=-10.2, params=PARAMS,
)  # fmt: skip
RECIPE = Recipe(dataset="radar", minutes=1, batch=2, ddr_weight=0.0, precision="float32", quantity=True)


class Clips:
    """Two clips, in dBR."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        rain = torch.from_numpy(rng.uniform(-10, 20, (2, 6, 1, 16, 16)).astype(np.float32))
        self.past, self.future = rain[:, :3], rain[:, 3:]
        self.valid = torch.from_numpy(rng.random((2, 3, 1, 16, 16)) < 0.8)

    def __len__(self) -> int:
        return 2

    def clips(self, start: int, stop: int) -> Clip:
        return Clip(*(each[start:stop] for each in (self.past, self.future, self.valid)))


def rate(dbr: Tensor) -> np.ndarray:
    """mm/h, less the 0.0955 mm/h that -10.2 dBR would be."""
    return np.maximum(10 ** (dbr.double().numpy() / 10) - 10**-1.02, 0)


def parts() -> tuple[torch.nn.Module, Clips, np.ndarray, np.ndarray]:
    """A model, two clips, and of the known cells the rates that were forecast and those that came."""
    torch.manual_seed(0)
    model, clips = build(RAIN).eval(), Clips()
    with torch.no_grad():
        forecast = model((clips.past + 10.2) / 16) * 16 - 10.2
    known = clips.valid.numpy()
    return model, clips, np.where(known, rate(forecast), rate(clips.future)), rate(clips.future)


def test_the_loss_is_the_squared_error_of_rates_and_their_deviance() -> None:
    model, clips, forecast, truth = parts()
    normalised = [(each + 10.2) / 16 for each in (clips.past, clips.future)]
    squared = ((forecast - truth) ** 2).mean()
    f, y = forecast + 10**-1.02, truth + 10**-1.02
    deviance = (f - y - y * np.log(f / y)).mean()
    for weight in (0.0, 7.5):
        recipe = dataclasses.replace(RECIPE, deviance_weight=weight)
        with torch.no_grad():
            found = objective(model, model, RAIN, recipe, *normalised, 0.0, clips.valid).item()
        assert found == pytest.approx(squared + weight * deviance, rel=1e-4)


def test_the_validation_error_is_that_of_rates(tmp_path: Path) -> None:
    model, clips, forecast, truth = parts()
    error = ((forecast - truth) ** 2).sum((2, 3, 4)) / clips.valid.double().numpy().mean((2, 3, 4))
    found = validate(model, RAIN, RECIPE, clips, torch.device("cpu"), tmp_path / "picture.png")
    assert found["validation_mse"] == pytest.approx(error.mean(), rel=1e-4)


def test_recipes_that_cannot_weigh_a_quantity_are_refused() -> None:
    def refused(spec: ModelSpec, recipe: Recipe, message: str) -> None:
        with pytest.raises(SpecError, match=message):
            check(build(spec, "meta"), spec, recipe)

    gray = RAIN.replace(fill=None, value_range=(0.0, 1.0), blurs=0, decibels=False)
    refused(gray, RECIPE, "fill value")
    refused(RAIN, dataclasses.replace(RECIPE, quantity=False, deviance_weight=1.0), r"set recipe\.quantity too")
