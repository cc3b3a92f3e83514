"""`from_last` adds the last past frame to every frame of a block, `from_period` the past frames in their order."""

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
def test_the_block_is_the_change_from_the_frame_one_block_earlier(arch: str) -> None:
    spec = ModelSpec(arch=arch, frames_in=3, frames_out=3, channels=2, height=16, width=16, params=PARAMS)
    plain, changed = build(spec).eval(), build(spec.replace(from_period=True)).eval()
    changed.load_state_dict(plain.state_dict())
    past = torch.rand(2, 3, 2, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(changed(past), plain(past) + past)


@pytest.mark.parametrize("other", ["from_last", "lagrangian"])
def test_a_forecast_begins_from_one_thing(other: str) -> None:
    spec = ModelSpec(arch="tau", frames_in=3, frames_out=3, channels=2, height=16, width=16, params=PARAMS)
    with pytest.raises(SpecError, match=f"from_period and {other} exclude each other"):
        build(spec.replace(from_period=True, **{other: True}), "meta")
