"""stzoo: pretrained models that forecast the next frames of a video, a radar loop or any gridded field.

>>> import stzoo
>>> model = stzoo.load("tau-mmnist")
>>> future = model.predict(frames)              # (10, 64, 64) uint8 in, (10, 64, 64) uint8 out
>>> longer = model.rollout(frames, steps=40)    # autoregressive, any length

Rooms such as `stzoo.train` and `stzoo.scale` are attributes as well; each is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stzoo import benchmark as benchmark
    from stzoo import charts as charts
    from stzoo import convert as convert
    from stzoo import data as data
    from stzoo import errors as errors
    from stzoo import evaluate as evaluate
    from stzoo import metrics as metrics
    from stzoo import published as published
    from stzoo import scale as scale
    from stzoo import train as train
    from stzoo import viz as viz
    from stzoo.catalog import Entry as Entry
    from stzoo.catalog import list_models as list_models
    from stzoo.codec import Codec as Codec
    from stzoo.codec import load_codec as load_codec
    from stzoo.errors import StzooError as StzooError
    from stzoo.forecaster import Forecaster as Forecaster
    from stzoo.hub.card import Card as Card
    from stzoo.opening import create as create
    from stzoo.opening import load as load
    from stzoo.published import PublishedCheckpoint as PublishedCheckpoint
    from stzoo.published import info as info
    from stzoo.published import list_published as list_published
    from stzoo.showing import Animation as Animation
    from stzoo.showing import show as show
    from stzoo.spec import ModelSpec as ModelSpec

__version__ = "0.1.0"
import_module("stzoo.threads")  # before anybody imports torch: it decides how torch's threads wait for one another

_HOME = {  # name -> its module, imported when the name is first used, so that `import stzoo` does not import torch
    "Animation": "showing",
    "Card": "hub.card",
    "Codec": "codec",
    "Entry": "catalog",
    "Forecaster": "forecaster",
    "ModelSpec": "spec",
    "PublishedCheckpoint": "published",
    "StzooError": "errors",
    "create": "opening",
    "info": "published",
    "list_models": "catalog",
    "list_published": "published",
    "load": "opening",
    "load_codec": "codec",
    "show": "showing",
}
_ROOMS = (
    "benchmark", "charts", "convert", "data", "errors", "evaluate", "metrics", "published", "scale", "train", "viz",
)  # fmt: skip
__all__ = [
    "Animation", "Card", "Codec", "Entry", "Forecaster", "ModelSpec", "PublishedCheckpoint", "StzooError", "create",
    "info", "list_models", "list_published", "load", "load_codec", "show",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"stzoo.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'stzoo' has no attribute {name!r}")
    return getattr(import_module(f"stzoo.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, *_ROOMS, "__version__"]
