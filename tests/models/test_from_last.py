"""`from_last` adds the last past frame to every frame of a block, `period` the frames of the last period."""

import pytest
import torch

from stzoo.errors import SpecError
from stzoo.models import build
from stzoo.spec import ModelSpec

PARAMS = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2}


@pytest.mark.parametrize("arch", ["tau", "simvp"])
def test_the_block_is_the_change_from_the_last_frame(arch: str) -> None:
    spec = ModelSpec(arch=arch, frames_in=3, frames_out=3, channels=2, height=16, width=16, params=PARAMS)
    plain, changed = build(spec).eval(), build(spec.replace(from_last=True)).eval()
    changed.load_state_dict(plain.state_dict())  # no parameter of its own
    past = torch.rand(2, 3, 2, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(changed(past), plain(past) + past[:, -1:])


@pytest.mark.parametrize("arch", ["tau", "simvp"])
@pytest.mark.parametrize(("period", "earlier"), [(5, [0, 1, 2, 3, 4]), (4, [1, 2, 3, 4, 1]), (2, [3, 4, 3, 4, 3])])
def test_the_block_is_the_change_from_the_frame_one_period_earlier(arch: str, period: int, earlier: list[int]) -> None:
    spec = ModelSpec(arch=arch, frames_in=5, frames_out=5, channels=2, height=16, width=16, params=PARAMS)
    plain, changed = build(spec).eval(), build(spec.replace(period=period)).eval()
    changed.load_state_dict(plain.state_dict())
    past = torch.rand(2, 5, 2, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(changed(past), plain(past) + past[:, earlier])


@pytest.mark.parametrize("other", ["from_last", "lagrangian"])
def test_a_forecast_begins_from_one_thing(other: str) -> None:
    spec = ModelSpec(arch="tau", frames_in=3, frames_out=3, channels=2, height=16, width=16, params=PARAMS)
    with pytest.raises(SpecError, match=f"period and {other} exclude each other"):
        build(spec.replace(period=2, **{other: True}), "meta")
    with pytest.raises(SpecError, match=r"spec\.params\.period is 4; it may be at most spec\.frames_in, 3"):
        build(spec.replace(period=4), "meta")
