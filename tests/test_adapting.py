"""A checkpoint for other channels and other numbers of frames: what fits stays, what is averaged answers as before."""

from pathlib import Path

import numpy as np
import pytest
import torch

import stzoo
from stzoo.errors import SpecError
from stzoo.forecaster import Forecaster
from stzoo.models import architectures
from stzoo.opening import create
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

BLOCK = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 3, "mlp_ratio": 2, "patch": 2, "project": True}
RECURRENT = {"layers": 2, "hidden": 4, "kernel": 3, "patch": 2}


def saved(tmp_path: Path, arch: str, **changes: object) -> Forecaster:
    plain = {k: BLOCK[k] for k in ("hid_s", "hid_t", "n_s", "n_t", "patch")}
    tctn = {"layers": 1, "hidden": 4, "heads": 2, "window": 4, "patch": 2}
    own = {"tau": BLOCK, "simvp": BLOCK, "conv": plain, "pfgnet": plain, "tctn": tctn}
    params = own.get(arch, RECURRENT)
    spec = ModelSpec(
        arch=arch, frames_in=3, frames_out=3, height=16, width=16, **{"channels": 3, "params": params, **changes}
    )  # type: ignore[arg-type]  # fmt: skip
    torch.manual_seed(0)
    model = create(spec)
    model.save_pretrained(tmp_path / "model")
    return model


@pytest.mark.parametrize("arch", [name for name, a in architectures().items() if a.colour])
@pytest.mark.parametrize("channels", [1, 5])
def test_frames_alike_in_all_channels_are_answered_with_their_mean(arch: str, channels: int, tmp_path) -> None:
    """Averaging reads and writes the mean colour: of gray frames the answer is the old answer's mean over channels."""
    old = saved(tmp_path, arch)
    new = stzoo.load(tmp_path / "model", adapt={"channels": channels})
    assert new.spec.channels == channels
    gray = torch.rand(1, 3, 1, 16, 16) * 0.5 + 0.25
    first = [
        next(unroll(model.module, model.spec, gray.expand(-1, -1, c, -1, -1)))
        for model, c in ((old, 3), (new, channels))
    ]
    expected = first[0].mean(1, keepdim=True).expand_as(first[1])
    torch.testing.assert_close(first[1], expected, atol=1e-5, rtol=1e-4)
    assert new.report.adapted
    assert all("averaged over channels" in what for what in new.report.adapted)
    assert new.report.adapted[0] in str(new.report)


def test_another_number_of_past_frames_begins_the_ends_anew(tmp_path) -> None:
    old = saved(tmp_path, "tau")
    new = stzoo.load(tmp_path / "model", adapt={"frames_in": 5, "frames_out": 2})
    assert new.predict(np.zeros((5, 3, 16, 16), np.uint8)).shape == (2, 3, 16, 16)
    anew = {what.split()[0] for what in new.report.adapted}
    assert all("begins anew" in what for what in new.report.adapted)
    state, before = new.module.state_dict(), old.module.state_dict()
    assert anew == {n for n in state if state[n].shape != before[n].shape}
    assert anew
    assert all(torch.equal(state[n], before[n]) for n in state if n not in anew)


def test_a_horizon_alone_changes_no_tensor(tmp_path) -> None:
    old = saved(tmp_path, "convlstm")
    new = stzoo.load(tmp_path / "model", adapt={"frames_out": 7, "frames_in": 2})
    assert new.report.adapted == ()
    assert all(torch.equal(t, old.module.state_dict()[n]) for n, t in new.module.state_dict().items())


def test_what_cannot_be_adapted_is_refused(tmp_path) -> None:
    saved(tmp_path, "tau")
    with pytest.raises(SpecError, match="a tau cannot be adapted to be a conv"):
        stzoo.load(tmp_path / "model", adapt={"arch": "conv"})
    with pytest.raises(SpecError, match=r"spec\.params\.hid_z"):
        stzoo.load(tmp_path / "model", adapt={"hid_z": 3})
    with pytest.raises(SpecError, match="codec was trained on; channels cannot be adapted"):
        stzoo.load("predrnn-modular-mmnist", adapt={"channels": 3})


@pytest.mark.parametrize("arch", ["e3dlstm", "phydnet"])
def test_where_averaging_is_not_known_to_be_right_layers_begin_anew(arch: str, tmp_path: Path) -> None:
    params = {"e3dlstm": RECURRENT | {"history": 3}, "phydnet": {"width": 16, "lstm": [8], "kernel": 3}}[arch]
    saved(tmp_path, arch, params=params)
    loaded = [stzoo.load(tmp_path / "model", adapt={"channels": 1}) for _ in range(2)]
    assert loaded[0].report.adapted
    assert all("begins anew" in what for what in loaded[0].report.adapted)
    a, b = (m.module.state_dict() for m in loaded)
    assert all(torch.equal(a[n], b[n]) for n in a)  # the same way every time
