"""Training that cannot fit is refused before it begins, and what the refusal advises does fit."""

import dataclasses
import re
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from test_loop import RECIPE, SPEC, clips, log, run

import stzoo
from stzoo import catalog
from stzoo.cli import main
from stzoo.cli.main import build_parser
from stzoo.data import Clip
from stzoo.errors import MemoryNeededError, NotPublishedError
from stzoo.hub import resolve
from stzoo.metrics.perceptual import LpipsNetwork
from stzoo.models import architecture_of, build
from stzoo.spec import ModelSpec
from stzoo.train import loop, read_recipe, train
from stzoo.train import memory as training
from stzoo.train.assignment import Assignment
from stzoo.train.memory import check_memory, training_memory
from stzoo.train.objectives import check
from stzoo.train.processes import Processes

CPU = Processes(torch.device("cpu"))
UNPUBLISHED = [name for name, entry in catalog.entries().items() if entry.weights is None]


def test_a_step_that_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = training_memory(SPEC, RECIPE, 4)
    monkeypatch.setenv("STZOO_MEMORY", str((whole.total - whole.clip) / 1e9))
    with pytest.raises(MemoryNeededError, match=r"4 clips at once needs about .* BatchNorm .*STZOO_MEMORY") as error:
        run(tmp_path / "run", 2)
    assert not (tmp_path / "run").exists()
    advised = re.search(r"--micro-batch (\d+)", str(error.value))
    assert advised is not None
    pieces = int(advised[1])
    assert pieces == 2
    train(
        SPEC, RECIPE, clips(1), clips(2, 100), tmp_path / "run",
        steps=2, device="cpu", progress=False, micro_batch=pieces,
    )  # fmt: skip
    assert log(tmp_path / "run")[-1]["step"] == 2


def test_a_recipe_that_computes_again_is_offered_where_it_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = dataclasses.replace(RECIPE, batch=1, fused=True)
    plain = dataclasses.replace(recipe, fused=False)
    less = training_memory(SPEC, dataclasses.replace(plain, checkpoint=True), 1).total
    assert less < training_memory(SPEC, plain, 1).total
    monkeypatch.setenv("STZOO_MEMORY", str((less + 1000) / 1e9))
    with pytest.raises(MemoryNeededError, match=r"checkpoint = true, fused = false in a copy of the recipe") as error:
        check_memory(SPEC, recipe, None, CPU)
    assert "micro-batch" not in str(error.value)  # of one clip there are no smaller pieces


def test_processes_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    both = dataclasses.replace(CPU, count=2)
    monkeypatch.setenv("STZOO_MEMORY", str(1.5 * training_memory(SPEC, RECIPE, 2).total / 1e9))
    check_memory(SPEC, RECIPE, None, both)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(MemoryNeededError, match="2 clips at once"):
        check_memory(SPEC, RECIPE, None, both)


def test_steps_of_a_recurrent_model_that_are_not_counted_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = stzoo.info("convlstm-mmnist").spec.replace(frames_in=4, frames_out=5)
    recipe = read_recipe("convlstm-mmnist")
    added = training_memory(spec, recipe, 2)
    monkeypatch.setattr(training, "_COUNTED", (3, 8))
    assert added.total == pytest.approx(training_memory(spec, recipe, 2).total, rel=0.1)


def test_where_there_is_plenty_nothing_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STZOO_MEMORY", "1000")
    monkeypatch.setattr(training, "training_memory", None)
    check_memory(SPEC, RECIPE, None, CPU)


class Noise:
    """A dataset of any shape."""

    def __init__(self, spec: ModelSpec) -> None:
        self.size = (spec.channels, spec.height, spec.width)

    def split(self, part: str, past: int, future: int) -> "Noise":
        self.frames = (past, future)
        return self

    def __len__(self) -> int:
        return 8

    def clips(self, start: int, stop: int) -> Clip:
        return Clip(*(torch.zeros(stop - start, n, *self.size) for n in self.frames))


class FirstStep(Exception):
    """Training would begin."""


def test_every_advised_command_goes_as_far_as_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With clips of noise; tests/data/test_official_commands.py reads files."""

    def begins(assignment: Assignment, *_: object) -> NoReturn:
        check(build(assignment.spec, "meta"), assignment.spec, assignment.recipe)
        raise FirstStep

    def noise(arguments: object, spec: ModelSpec, dataset: str, zoom: object) -> tuple[str, Noise]:
        return dataset, Noise(spec)

    held = {re.sub(r"^heads\.(\d)$", r"lin\1.weight", n): t.numpy() for n, t in LpipsNetwork().state_dict().items()}
    np.savez(tmp_path / "lpips.npz", **held)  # type: ignore[arg-type]
    monkeypatch.setenv("STZOO_LPIPS", str(tmp_path / "lpips.npz"))
    monkeypatch.setenv("STZOO_MEMORY", "1000")
    monkeypatch.setattr(loop, "Run", begins)
    monkeypatch.setattr("stzoo.cli.train.chosen_dataset", noise)
    monkeypatch.chdir(tmp_path)
    for name in UNPUBLISHED:
        with pytest.raises(NotPublishedError) as error:
            resolve(name)  # and not `stzoo.load`, which may find a file that somebody else published
        command = re.search(r"`stzoo (train [^`]*)`", str(error.value))
        assert command is not None
        words = command[1].replace("RUN", name).split()
        arguments = build_parser().parse_args(words)
        assert (arguments.name, arguments.data, arguments.out) == (name, Path("DIR"), Path(name))
        with pytest.raises(FirstStep):
            main([*words, "--steps", "1"])  # without it the pace would be measured


@pytest.mark.slow
def test_with_one_clip_at_once_every_model_trains_on_small_machines() -> None:
    """Of recurrent models two steps are counted; CrevNet forecasts nothing from fewer than three frames."""
    for name in UNPUBLISHED:
        spec = catalog.info(name).spec
        few = (4, 1) if spec.arch == "crevnet" else (2, 1)
        frames = few if architecture_of(spec).kind == "sequential" else (spec.frames_in, spec.frames_out)
        assert sum(training._counted(spec, read_recipe(name), 1, *frames)) < 4e9, name
