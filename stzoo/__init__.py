"""stzoo: the next frames of a video, a radar loop or any gridded field, from pretrained models.

>>> import stzoo
>>> model = stzoo.load("tau-mmnist")
>>> future = model.predict(frames)              # (10, 64, 64) uint8 in, (10, 64, 64) uint8 out
>>> longer = model.rollout(frames, steps=40)    # autoregressive, any length
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stzoo.catalog import Entry as Entry
    from stzoo.catalog import info as info
    from stzoo.catalog import list_models as list_models
    from stzoo.codec import Codec as Codec
    from stzoo.codec import load_codec as load_codec
    from stzoo.errors import StzooError as StzooError
    from stzoo.forecaster import Forecaster as Forecaster
    from stzoo.forecaster import create as create
    from stzoo.forecaster import load as load
    from stzoo.hub.card import Card as Card
    from stzoo.spec import ModelSpec as ModelSpec

__version__ = "0.1.0"

_HOME = {  # imported when first used: `import stzoo` costs no torch
    "Card": "hub.card",
    "Codec": "codec",
    "Entry": "catalog",
    "info": "catalog",
    "list_models": "catalog",
    "StzooError": "errors",
    "Forecaster": "forecaster",
    "create": "forecaster",
    "load": "forecaster",
    "load_codec": "codec",
    "ModelSpec": "spec",
}
__all__ = [
    "Card", "Codec", "Entry", "Forecaster", "ModelSpec", "StzooError", "create", "info", "list_models", "load",
    "load_codec",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'stzoo' has no attribute {name!r}")
    return getattr(import_module(f"stzoo.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
