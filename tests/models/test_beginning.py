"""The mixture of blurs that a forecast begins from, against SciPy's Gaussian filter and a sum in float64."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from stzoo.errors import SpecError
from stzoo.models import build
from stzoo.models.beginning import BlurredLastFrame, LastFrame, LastPeriod, MovingParts, blurred
from stzoo.models.decibels import Decibels
from stzoo.models.gated_block import GatedConfig
from stzoo.spec import ModelSpec

RAIN = ModelSpec(
    arch="tau", frames_in=3, frames_out=3, channels=1, height=16, width=16, value_range=(-10.4, 40.6),
    mean=(-10.2,), std=(16.0,), fill=-10.2,
    params={
        "hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "from_last": True, "blurs": 2, "decibels": True
    },
)  # fmt: skip


@pytest.mark.parametrize("sigma", [1.0, 2.0, 4.0])
def test_a_blur_is_a_gaussian_filter_within_the_frame(sigma: float) -> None:
    frame = np.random.default_rng(0).random((2, 3, 20, 33))
    options = {"sigma": (0, 0, sigma, sigma), "mode": "constant", "truncate": 12.0}
    wanted = gaussian_filter(frame, **options) / gaussian_filter(np.ones_like(frame), **options)
    np.testing.assert_allclose(blurred(torch.from_numpy(frame), sigma), wanted, rtol=1e-10)


def parts(logits: list[float], change: float, more: int = 3, size: int = 24) -> Tensor:
    """(1, 2, 1 + more, size, size): the same everywhere and at both times."""
    return torch.tensor([change, *logits]).view(1, 1, -1, 1, 1).expand(1, 2, 1 + more, size, size)


def test_the_mixture_is_the_weighted_sum_and_the_change() -> None:
    begins = BlurredLastFrame(2, 1, 2, None)
    torch.nn.init.normal_(begins.bias)
    last, logits = torch.rand(1, 1, 24, 24), [0.3, -1.0, 0.5]
    found = begins(parts(logits, 0.7), last[:, None])
    for t in range(2):
        weights = np.exp(np.array(logits) + 10 * begins.bias[t].detach().double().numpy())
        weights /= weights.sum()
        views = [last, blurred(last, 1.0), blurred(last, 2.0)]
        wanted = sum(w * v.double() for w, v in zip(weights, views, strict=True)) + 0.7
        torch.testing.assert_close(found[:, t].double(), wanted, atol=1e-6, rtol=0)


def test_of_decibels_the_mean_of_the_quantity_is_taken_and_the_change_multiplies_it() -> None:
    """Half of the cells have 10 mm/h, half are dry: a wide blur has 5 mm/h, and one doubling is twice that."""
    decibels = Decibels.of(RAIN)
    begins = BlurredLastFrame(2, 1, 3, decibels)
    rate = torch.zeros(1, 1, 24, 24)
    rate[..., ::2] = 10.0
    last = decibels.values(rate)
    torch.testing.assert_close(decibels.quantity(last), rate, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(last[..., 0] * 16 - 10.2, torch.full((1, 1, 24), 10 * np.log10(10 + 10**-1.02)))
    found = decibels.quantity(begins(parts([-60.0, -60.0, -60.0, 60.0], 1.0, more=4), last[:, None]))
    assert (found[..., 8:-8, 8:-8] - 10.0).abs().max() < 0.1


def test_nothing_comes_of_nothing() -> None:
    decibels = Decibels.of(RAIN)
    begins = BlurredLastFrame(2, 1, 2, decibels)
    dry = torch.zeros(1, 1, 24, 24)  # normalised: -10.2 dBR
    found = begins(torch.randn(1, 2, 4, 24, 24), dry[:, None])
    assert found.abs().max() < 1e-5


def test_a_model_of_rain_stays_dry_whatever_its_weights() -> None:
    torch.manual_seed(0)
    model = build(RAIN.replace(lagrangian=True)).eval()
    torch.nn.init.normal_(model.decoder.readout.weight)  # type: ignore[union-attr, arg-type]
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 1, 16, 16)).abs().max() < 1e-5
        assert model(torch.rand(1, 3, 1, 16, 16)).abs().max() > 0.1


def test_a_change_is_made_near_what_moved_alone() -> None:
    """Against SciPy's filter; 60 pixels away from what moved nothing changes."""
    begins, past = MovingParts(0.01), torch.full((1, 4, 2, 40, 90), 0.3)
    past[0, :3, :, 10:20, 10:16] = torch.rand(3, 1, 10, 6)
    change = torch.randn(1, 2, 2, 40, 90)
    squared = (past - past[:, -1:])[0].double().square().mean((0, 1)).numpy()
    options = {"sigma": 8.0, "mode": "constant", "truncate": 12.0}
    moved = gaussian_filter(squared, **options) / gaussian_filter(np.ones_like(squared), **options)
    share = moved / (moved + 0.01**2)
    assert share[15, 13] > 0.9
    found = begins(change, past)
    torch.testing.assert_close(
        found.double(), past[:, -1:] + change.double() * torch.from_numpy(share), atol=1e-6, rtol=0
    )
    assert torch.equal(found[..., 76:], past[:, -1:, :, :, 76:].expand(-1, 2, -1, -1, -1))
    still = past[:, -1:].expand(-1, 4, -1, -1, -1)
    assert torch.equal(begins(change, still), still[:, :2])


def test_settings_that_need_others_are_refused_without_them() -> None:
    with pytest.raises(SpecError, match="from_last"):
        GatedConfig(blurs=2)
    with pytest.raises(SpecError, match="blurs"):
        GatedConfig(from_last=True, decibels=True)
    with pytest.raises(SpecError, match=r"params\.still is about the last frame"):
        GatedConfig(still=0.01)
    with pytest.raises(SpecError, match=r"params\.still and blurs exclude each other"):
        GatedConfig(from_last=True, still=0.01, blurs=2)
    with pytest.raises(SpecError, match="fill"):
        build(RAIN.replace(fill=None))
    assert isinstance(GatedConfig(from_last=True).begins(RAIN), LastFrame)
    assert isinstance(GatedConfig(from_last=True, still=0.1).begins(RAIN), MovingParts)
    assert isinstance(GatedConfig(period=2).begins(RAIN), LastPeriod)
    assert GatedConfig().begins(RAIN) is None
