"""Drawn clips tell models that forecast from models that do not."""

import dataclasses
import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import stzoo
from stzoo.cli import main
from stzoo.published import published
from stzoo.published.behaviour import Verdict, behaviour
from stzoo.spec import ModelSpec

BOUNCE = published()["tau-mmnist-paper.openstl-ep200"]
SPEC = ModelSpec(arch="conv", frames_in=4, frames_out=4, channels=2, height=32, width=32)


class Made(nn.Module):
    """A block whose forecast is a function of the past frames."""

    def __init__(self, make: Callable[[Tensor], Tensor]):
        super().__init__()
        self.make, self.unused = make, nn.Parameter(torch.zeros(1))

    def forward(self, past: Tensor) -> Tensor:
        return self.make(past)


@pytest.mark.parametrize("clip", ["digits", "shapes", None])
def test_our_own_model_behaves(clip: str | None) -> None:
    """Although it never saw drawn shapes."""
    model = stzoo.load("tau-mmnist")
    record = dataclasses.replace(BOUNCE, clip=clip)
    verdict = behaviour(record, model.spec, model.module, clips=2, steps=1, cheaply=True)
    assert verdict.ok
    assert (verdict.mse is None) == (clip is None)
    assert verdict.mse is None or verdict.mse < verdict.persistence_mse
    assert BOUNCE.name in str(verdict)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda past: past / 0, "not finite"),
        (lambda past: past * 0 + 0.5, "flat frames"),
        (lambda past: past.mean(0, keepdim=True).expand_as(past) + 0, "the same for different clips"),
        (lambda past: past * 9, "values from"),
    ],
)
def test_faults_are_found(make: Callable[[Tensor], Tensor], fault: str) -> None:
    record = dataclasses.replace(BOUNCE, clip=None)
    assert behaviour(record, SPEC, Made(lambda past: past), clips=2, steps=4).ok
    verdict = behaviour(record, SPEC, Made(make), clips=2, steps=4)
    assert not verdict.ok
    assert fault in str(verdict)
    assert "does not behave as published" in str(verdict)


def test_a_model_must_be_better_than_persistence() -> None:
    spec = SPEC.replace(channels=1, height=64, width=64)
    verdict = behaviour(BOUNCE, spec, Made(lambda past: past[:, -1:].expand_as(past)), clips=2, steps=4)
    assert verdict.faults == ("it is not better than persistence",)
    assert verdict.mse == verdict.persistence_mse


def test_a_figure_that_is_not_finite_is_no_number_in_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = Verdict(BOUNCE.name, "drawn digits", float("nan"), 3.5, ("it forecasts values that are not finite",))
    monkeypatch.setattr("stzoo.opening.load", lambda name: stzoo.create(SPEC))
    monkeypatch.setattr("stzoo.published.behaviour.behaviour", lambda *_, **__: verdict)
    assert main(["published", "verify", BOUNCE.name, "--json"]) == 2

    def refuse(word: str) -> None:
        raise ValueError(word)

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert (found["mse"], found["persistence_mse"], found["ok"]) == (None, 3.5, False)


def test_standardised_values_have_no_range() -> None:
    spec = SPEC.replace(value_range=None)
    record = dataclasses.replace(BOUNCE, clip=None)
    assert behaviour(record, spec, Made(lambda past: past), clips=2, steps=4).ok
    assert not behaviour(record, spec, Made(lambda past: past * 100), clips=2, steps=4).ok
