"""Training: recipes, losses, the loop. The only room that knows optimisers; nothing outside imports it."""

from stzoo.machine import default_device
from stzoo.train.fine_tuning import fine_tune
from stzoo.train.loop import train
from stzoo.train.recipe import Recipe, read_recipe

__all__ = ["Recipe", "default_device", "fine_tune", "read_recipe", "train"]
