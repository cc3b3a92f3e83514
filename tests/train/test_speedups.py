"""What makes steps cheaper is chosen where it helps, and nowhere else."""

import dataclasses
import warnings

import pytest
import torch
from test_loop import RECIPE, SPEC, clips

import stzoo
from stzoo.models import build
from stzoo.train.clips import Ahead
from stzoo.train.precision import autocast, precision_on
from stzoo.train.speedups import computing_form, made_ahead


def test_clips_are_made_ahead_beside_a_gpu_alone() -> None:
    source, gpu = clips(1), torch.device("cuda")
    cached = dataclasses.replace(RECIPE, cached_clips=5)
    for recipe, device in ((RECIPE, torch.device("cpu")), (cached, gpu)):
        with made_ahead(source, recipe, device, 40) as found:
            assert found is source
    with made_ahead(source, RECIPE, gpu, 40) as found:
        assert isinstance(found, Ahead)
        assert (found.end, found.stride) == (40, RECIPE.batch)


def test_a_plain_recipe_trains_the_module_itself() -> None:
    module = build(SPEC)
    assert computing_form(module, SPEC, RECIPE) is module


def test_fused_kernels_are_not_missed_by_an_architecture_that_never_has_them() -> None:
    spec = stzoo.info("convlstm-mmnist").spec
    module = build(spec, "meta")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert computing_form(module, spec, dataclasses.replace(RECIPE, fused=True)) is module


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bfloat16_where_the_device_multiplies_in_it(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stzoo.train.precision.multiplies_in_bfloat16", lambda device: native)
    cpu, expected = torch.device("cpu"), "bfloat16" if native else "float32"
    for precision, wanted in (("auto", expected), ("float32", "float32"), ("bfloat16", "bfloat16")):
        recipe = dataclasses.replace(RECIPE, precision=precision)
        assert precision_on(cpu, recipe) == wanted
        with autocast(cpu, recipe):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == getattr(torch, wanted)
