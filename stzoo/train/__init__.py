"""Training: recipes, losses and the loop. This is the only room that knows optimisers."""

from stzoo.machine import default_device
from stzoo.train.fine_tuning import fine_tune
from stzoo.train.loop import train
from stzoo.train.recipe import Recipe, read_recipe

__all__ = ["Recipe", "default_device", "fine_tune", "read_recipe", "train"]
