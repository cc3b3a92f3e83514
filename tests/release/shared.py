"""A catalogue of one's own, which may be changed, and small models to put into it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import stzoo
from stzoo import catalog
from stzoo.forecaster import Forecaster

TEXTS = {"summary": "s", "dataset": "clips", "license": "MIT", "data_terms": "mine", "citation": "c", "unsuited": "u"}
FRAME = {"frames_in": 4, "frames_out": 4, "channels": 1, "height": 16, "width": 16}
CODEC = {"arch": "vqvae", "params": {"width": 8, "residual_width": 4, "codes": 16, "dim": 4}}
MODULAR = FRAME | {
    "arch": "modular",
    "params": {
        "codec": CODEC,
        "predictor": {"arch": "tctn", "params": {"layers": 1, "hidden": 8, "heads": 2, "patch": 1}},
    },
}


@dataclass(frozen=True)
class Checkout:
    """A manifest, a folder of checkpoints beside it, and clips to measure on."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "weights_manifest.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def clips(self) -> Path:
        return self.root / "clips"

    def read(self) -> dict[str, Any]:
        models: dict[str, Any] = json.loads(self.manifest.read_text())["models"]
        return models

    def write(self, models: dict[str, Any]) -> None:
        self.manifest.write_text(json.dumps({"schema": 1, "models": models}, indent=2) + "\n")
        catalog.entries.cache_clear()

    def snapshot(self) -> dict[str, bytes]:
        """Everything that a failure must leave as it was."""
        files = [self.manifest, *self.checkpoints.rglob("*")]
        return {str(file): file.read_bytes() for file in files}


def constant(spec: Any, level: float) -> Forecaster:
    """A model that forecasts `level` everywhere, exact in float16 where `level` is."""
    model = stzoo.create(spec)
    with torch.no_grad():
        for p in model.module.parameters():
            p.zero_()
        model.module.decoder.readout.bias.fill_(level)  # type: ignore[union-attr]
    return model


def options(folder: Path, name: str, checkout: Checkout, **changed: str | None) -> list[str]:
    """`stzoo catalog add` with everything a new entry needs; None leaves an option out."""
    given: dict[str, str | None] = {key.replace("_", "-"): text for key, text in TEXTS.items()}
    given |= {"name": name, "recipe": "by hand", "sequences": "12", "hours": "0.5", "hardware": "a machine"}
    given |= {"data": str(checkout.clips)}
    given |= {key.replace("_", "-"): text for key, text in changed.items()}
    return ["catalog", "add", str(folder), *(f"--{key}={text}" for key, text in given.items() if text is not None)]
