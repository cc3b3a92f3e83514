"""Recipes that cannot be read say what is wrong."""

from pathlib import Path

import pytest

from stzoo.errors import SpecError
from stzoo.train.recipe import read_recipe


def test_wrong_recipes_are_named(tmp_path: Path) -> None:
    for text, message in (
        ("dataset = 'mmnist'\nminutes = 1\nlearning = 1", "recipe .*learning"),
        ("dataset = 'x'\nminutes = 1", "may be clips, kitti-caltech, kth, mfmnist, mmnist"),
        ("a = [", "recipe"),
        ("dataset = 'mmnist'", "minutes is missing"),
    ):
        (tmp_path / "r.toml").write_text(text)
        with pytest.raises(SpecError, match=message):
            read_recipe(str(tmp_path / "r.toml"))
    with pytest.raises(SpecError, match="there is no recipe nothing"):
        read_recipe("nothing")
