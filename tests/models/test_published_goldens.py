"""Forecasts of published code, which its publishers' models gave with random weights, against those of converted ones.

They lie in the folder `published/golden` beside the one that STZOO_DATA names: weights in the publisher's layout
(NAME.pth), and what went in and came out (NAME.io.safetensors). Where that folder is absent, these tests skip.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import stzoo
from stzoo.convert import convert
from stzoo.spec import ModelSpec

LAYERED = {"layers": 2, "hidden": 16}
GOLDEN: dict[str, tuple[str, dict[str, Any]]] = {
    "phydnet": ("phydnet", {}),
    "predrnnv2": ("predrnn", LAYERED | {"decouple": True}),
    "mau": ("mau", LAYERED | {"tau": 3}),
    "swinlstm_d": ("swinlstm", {"dim": 16, "down": [2, 2], "up": [2, 2], "heads": [2, 4]}),
    "predformer_tsst": ("predformer", {"dim": 32, "heads": 4, "head_dim": 8, "blocks": 2}),
}


@pytest.fixture
def golden() -> Path:
    folder = Path(os.environ.get("STZOO_DATA", "")).parent / "published" / "golden"
    if "STZOO_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("set STZOO_DATA to a folder that lies beside published/golden to run this test")
    return folder


def spec_of(name: str) -> ModelSpec:
    arch, params = GOLDEN[name]
    values = (0.0, 1.0) if arch in ("phydnet", "swinlstm") else None  # nothing is clipped away
    return ModelSpec(
        arch=arch, frames_in=4, frames_out=4, channels=1, height=32, width=32, value_range=values, params=params
    )


@pytest.mark.parametrize("name", GOLDEN)
def test_a_converted_checkpoint_forecasts_what_its_publisher_forecast(name: str, golden: Path, tmp_path: Path) -> None:
    convert("openstl", golden / f"{name}.pth", spec_of(name), tmp_path / "out")
    clips = load_file(golden / f"{name}.io.safetensors")
    found = stzoo.load(tmp_path / "out").predict(clips["x"])
    torch.testing.assert_close(found, clips["y"], rtol=0, atol=1e-4)


def test_the_authors_phydnet_is_the_encoder_alone(golden: Path, tmp_path: Path) -> None:
    state = torch.load(golden / "phydnet.pth", weights_only=True)
    alone = {name.removeprefix("encoder."): tensor for name, tensor in state.items() if name.startswith("encoder.")}
    torch.save(alone, tmp_path / "encoder.pth")
    assert convert("official", tmp_path / "encoder.pth", spec_of("phydnet"), tmp_path / "out").unused == ()
    clips = load_file(golden / "phydnet.io.safetensors")
    found = stzoo.load(tmp_path / "out").predict(clips["x"])
    torch.testing.assert_close(found, clips["y"], rtol=0, atol=1e-4)
