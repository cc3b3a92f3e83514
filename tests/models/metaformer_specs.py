"""Specs of SimVP with MetaFormer translators, for tests."""

from typing import Any

from stzoo.models.metaformers import BLOCKS
from stzoo.spec import ModelSpec

KINDS = (*BLOCKS, "van")
SMALL: dict[str, Any] = {"hid_s": 4, "hid_t": 24, "n_s": 2, "n_t": 3}
WITHOUT_MLP = ("convmixer",)


def spec_of(
    kind: str, frames: int = 4, channels: int = 2, height: int = 16, width: int = 32, **params: Any
) -> ModelSpec:
    return ModelSpec(
        arch="simvp", frames_in=frames, frames_out=frames, channels=channels, height=height, width=width,
        value_range=None, params={"translator": kind, **params},
    )  # fmt: skip


def small(kind: str, **params: Any) -> ModelSpec:
    ratio = {} if kind in WITHOUT_MLP else {"mlp_ratio": 2}
    return spec_of(kind, **{**SMALL, **ratio, **params})
