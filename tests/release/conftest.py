"""Checkouts that the tests may write to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from release.shared import CODEC, FRAME, MODULAR, Checkout, constant, options

import stzoo
from stzoo import catalog
from stzoo.cli import main
from stzoo.codec import Codec
from stzoo.spec import ModelSpec
from stzoo.weights import random_module


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkout]:
    """An empty catalogue."""
    place = Checkout(tmp_path / "checkout")
    place.checkpoints.mkdir(parents=True)
    place.clips.mkdir()
    for k in range(3):
        clip = np.random.default_rng(k).integers(0, 256, (12, 16, 16), dtype=np.uint8)
        np.save(place.clips / f"{k}.npy", clip)
    monkeypatch.setattr(catalog, "manifest_path", lambda: place.manifest)
    monkeypatch.setattr(catalog, "CHECKPOINTS", place.checkpoints)
    place.write({})
    yield place
    monkeypatch.undo()
    catalog.entries.cache_clear()


@pytest.fixture
def three(checkout: Checkout, tmp_path: Path, spec: Any) -> Checkout:
    """A forecaster "one", a codec "squeeze" and a modular "two" on it, entered by the command."""
    codec_spec = FRAME | CODEC | {"frames_in": 1, "frames_out": 1}
    constant(spec, 0.5).save_pretrained(tmp_path / "one")
    assert main(options(tmp_path / "one", "one", checkout)) == 0
    torch.manual_seed(1)
    made = ModelSpec.from_dict(codec_spec)
    Codec(made, *random_module(made)).save_pretrained(tmp_path / "squeeze")  # type: ignore[arg-type]
    assert main(options(tmp_path / "squeeze", "squeeze", checkout)) == 0
    modular: Any = stzoo.create(ModelSpec.from_dict(MODULAR))
    modular.module.codec.load_state_dict(stzoo.load_codec("squeeze").module.state_dict())
    modular.save_pretrained(tmp_path / "two")
    assert main(options(tmp_path / "two", "two", checkout)) == 0
    return checkout
