"""Training: recipes, losses and the loop. This is the only room that knows optimisers."""

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stzoo.machine import default_device as default_device
    from stzoo.train.fine_tuning import fine_tune as fine_tune
    from stzoo.train.loop import train as train
    from stzoo.train.recipe import Recipe as Recipe
    from stzoo.train.recipe import read_recipe as read_recipe

__all__ = ["Recipe", "default_device", "fine_tune", "read_recipe", "train"]

_HOME = MappingProxyType(
    {
        "Recipe": "stzoo.train.recipe",
        "default_device": "stzoo.machine",
        "fine_tune": "stzoo.train.fine_tuning",
        "read_recipe": "stzoo.train.recipe",
        "train": "stzoo.train.loop",
    }
)


def __getattr__(name: str) -> Any:  # imported when first used: a log is read without torch
    if name not in _HOME:
        raise AttributeError(f"module 'stzoo.train' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
