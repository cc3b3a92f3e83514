"""What a run is about, and how it is told from others."""

import dataclasses
import json

import pytest
import torch
from test_loop import RECIPE, SPEC, clips

from stzoo.errors import SpecError
from stzoo.models import build
from stzoo.train.assignment import Assignment, clips_digest, weights_digest


def test_a_plan_read_back_is_the_identity_that_was_written() -> None:
    recipe = dataclasses.replace(RECIPE, freeze=("encoder",), betas=(0.9, 0.98))
    start = build(SPEC).state_dict()
    identity = Assignment(SPEC, recipe, clips(1), start=start).identity(clips(2, 100))
    assert json.loads(json.dumps(identity)) == identity
    assert list(identity) == ["spec", "recipe", "start", "clips"]  # the order in plan.json


def test_weights_are_told_apart_by_names_and_values_wherever_they_lie() -> None:
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(1)}
    digest = weights_digest(weights)
    elsewhere = {"a": weights["a"].T.contiguous().T, "b": weights["b"].expand(2)[:1]}
    assert digest == weights_digest(elsewhere)
    assert digest != weights_digest(weights | {"b": torch.ones(1)})
    assert digest != weights_digest({"a": weights["a"], "c": weights["b"]})


def test_clips_are_told_apart_by_their_number_and_by_some_of_them() -> None:
    assert clips_digest(clips(1, 100)) == clips_digest(clips(1, 100))
    assert len({clips_digest(clips(1, 100)), clips_digest(clips(1, 101)), clips_digest(clips(2, 100))}) == 3


def test_a_micro_batch_has_a_clip() -> None:
    Assignment(SPEC, RECIPE, clips(1)).check()
    with pytest.raises(SpecError, match="micro_batch is 0; it must be at least 1"):
        Assignment(SPEC, RECIPE, clips(1), micro_batch=0).check()
