"""Training: it learns, it stops when it diverges, and a killed run ends in the same weights as an undisturbed one."""

import dataclasses
import json
import math
import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import stzoo
from stzoo.data import ClipSource
from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.errors import SpecError, TrainingError
from stzoo.spec import ModelSpec
from stzoo.train import Recipe, train
from stzoo.train.run import Run

SPEC = ModelSpec(
    arch="tau", frames_in=3, frames_out=3, channels=1, height=64, width=64,
    params={"hid_s": 4, "hid_t": 16, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "patch": 4, "drop_path": 0.1},
)  # fmt: skip
RECIPE = Recipe(
    dataset="mmnist", minutes=1, batch=4, lr=5e-3, validate_every=20, validation_clips=8, checkpoint_minutes=0.0
)


def clips(seed: int, count: int = 1 << 30) -> MovingDigits:
    return MovingDigits(drawn_digits(), seed, count, 3, 3)


def run(
    out: Path,
    steps: int = 40,
    spec: ModelSpec = SPEC,
    recipe: Recipe = RECIPE,
    training: ClipSource | None = None,
    device: str = "cpu",
) -> Path:
    data = clips(1) if training is None else training
    return train(spec, recipe, data, clips(2, 100), out, steps=steps, device=device, progress=False)


def log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_it_learns_and_leaves_a_loadable_model_and_pictures(tmp_path: Path) -> None:
    best = run(tmp_path, 60)
    errors = [r["validation_mse"] for r in log(tmp_path) if "validation_mse" in r]
    assert len(errors) == 3
    assert errors[-1] < errors[0] * 0.8
    assert [r["step"] for r in log(tmp_path)] == [20, 40, 60]
    assert len(list((tmp_path / "samples").glob("*.png"))) == 3
    clip = clips(3).clips(0, 1)
    assert stzoo.load(best).predict(clip.past).shape == clip.future.shape


def test_the_saved_weights_are_the_best_validated(tmp_path: Path) -> None:
    best = run(tmp_path, 60)
    model = stzoo.load(best)
    clip = clips(2, 100).clips(0, 8)
    with torch.no_grad():
        forecast = model.module(clip.past / 255)
    error = (forecast - clip.future / 255).square().sum((2, 3, 4)).mean().item()
    assert error == pytest.approx(min(r["validation_mse"] for r in log(tmp_path) if "validation_mse" in r), rel=0.02)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_stopping_and_going_on_is_bit_equal(tmp_path: Path, optimizer: str) -> None:
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer)
    spec = SPEC.replace(hid_t=32)  # wide enough that Muon has something to do
    whole = load_file(run(tmp_path / "whole", 40, spec, recipe) / "model.safetensors")

    class Stop(Exception):
        pass

    class Stopping(MovingDigits):
        def clips(self, start: int, stop: int):
            if start == 27 * 4:
                raise Stop
            return super().clips(start, stop)

    broken = Stopping(drawn_digits(), 1, 1 << 30, 3, 3)
    with pytest.raises(Stop):
        train(spec, recipe, broken, clips(2, 100), tmp_path / "cut", steps=40, device="cpu", progress=False)
    cut = load_file(run(tmp_path / "cut", 40, spec, recipe) / "model.safetensors")
    assert all(torch.equal(whole[n], cut[n]) for n in whole)
    assert [r["step"] for r in log(tmp_path / "cut")] == [20, 40]


def lines_of(out: Path) -> list[str]:
    file = out / "log.jsonl"
    return file.read_text().splitlines() if file.exists() else []


STEPS = 40
KILLED = dataclasses.replace(RECIPE, batch=2, validate_every=5, validation_clips=2)


def run_alone(out: Path) -> None:
    torch.set_num_threads(1)
    run(out, STEPS, recipe=KILLED)


@pytest.mark.slow
def test_killed_at_any_moment_it_reaches_the_same_weights(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("forkserver")
    # imports what takes long once, for all of them; this module itself is not on the path of the fork server
    processes.set_forkserver_preload(["torch", "torch._dynamo", "stzoo", "stzoo.train.loop", "stzoo.train.validation"])

    def start(out: Path) -> Any:
        process = processes.Process(target=run_alone, args=(out,))
        process.start()
        return process

    def finished(process: Any) -> bool:
        process.join()
        return bool(process.exitcode == 0)

    assert finished(start(tmp_path / "whole"))
    # Killed a random while after the log has grown by a random number of lines: at the very start, between two
    # checkpoints, while writing one. By progress and not by the clock, so that a fast machine is interrupted too.
    moments, resumed_from = random.Random(0), set()
    for lines in [0, 1, 2, 3]:
        process = start(tmp_path / "killed")
        goal = len(lines_of(tmp_path / "killed")) + lines
        while process.is_alive() and not (
            (tmp_path / "killed").exists() and len(lines_of(tmp_path / "killed")) >= goal
        ):
            time.sleep(0.005)
        time.sleep(moments.uniform(0.0, 0.15))
        process.kill()
        process.join()
        if (tmp_path / "killed" / "checkpoint.pt").exists():
            resumed_from.add(torch.load(tmp_path / "killed" / "checkpoint.pt", weights_only=True)["step"])
    assert finished(start(tmp_path / "killed"))
    assert any(0 < step < STEPS for step in resumed_from), resumed_from
    whole, killed = (load_file(tmp_path / d / "best" / "model.safetensors") for d in ("whole", "killed"))
    assert all(torch.equal(whole[n], killed[n]) for n in whole)
    seconds = [{k: v for k, v in r.items() if k != "seconds"} for r in log(tmp_path / "whole")]
    assert [{k: v for k, v in r.items() if k != "seconds"} for r in log(tmp_path / "killed")] == seconds


@pytest.mark.parametrize(("every", "stops", "kept"), [(20, 100, 40), (15, 80, 45)])
def test_a_diverging_loss_stops_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, every: int, stops: int, kept: int
) -> None:
    class Poisoned(MovingDigits):
        def clips(self, start: int, stop: int):
            clip = super().clips(start, stop)
            if start >= 45 * 4:
                return dataclasses.replace(clip, future=clip.future.float() * 1e4)
            return clip

    poisoned = Poisoned(drawn_digits(), 1, 1 << 30, 3, 3)
    recipe = dataclasses.replace(RECIPE, validate_every=every)
    with pytest.raises(TrainingError, match=rf"diverged to .* at step {stops}"):
        train(SPEC, recipe, poisoned, clips(2, 100), tmp_path, steps=120, device="cpu", progress=False)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == kept
    assert stzoo.load(tmp_path / "best").report.tensors > 0


def test_a_batch_unlike_the_others_does_not_stop_a_run(tmp_path: Path) -> None:
    """Clips depend on the step alone, so a run that stopped there could never pass it."""

    class Loud(MovingDigits):
        def clips(self, start: int, stop: int):
            clip = super().clips(start, stop)
            loud = start == 39 * 4  # the batch of step 40, which is looked at
            return dataclasses.replace(clip, future=clip.future.float() * 1e3) if loud else clip

    recipe = dataclasses.replace(RECIPE, validate_every=60)
    run(tmp_path, 60, recipe=recipe, training=Loud(drawn_digits(), 1, 1 << 30, 3, 3))
    losses = [r["loss"] for r in log(tmp_path)]
    assert losses[1] > 1e4 * max(losses[0], losses[2])


def test_a_loss_of_nothing_is_no_measure_of_others() -> None:
    """That of clips that stood still, before others."""
    one: Any = object.__new__(Run)
    one.step, one.running_loss, one._high = 20, math.inf, 0
    for loss in (0.0, 0.5, 0.6, 0.4, 0.5):
        assert one.check_loss(loss) == loss
    assert one.running_loss == pytest.approx(0.5, abs=0.05)
    with pytest.raises(TrainingError, match="diverged to nan at step 20"):
        one.check_loss(math.nan)


@pytest.mark.parametrize("steps", [0, -3, 1e4, True, "many"])
def test_a_number_of_steps_that_is_none_is_refused(steps: Any, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"steps is .*; it must be a whole number, at least 1"):
        run(tmp_path / "run", steps)
    assert not (tmp_path / "run").exists()


def test_clips_that_would_be_at_their_end_are_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"40 steps need 160 clips, and the training part has 100; .*endless"):
        run(tmp_path, 40, training=clips(1, 100))


def test_a_recipe_that_is_refused_leaves_no_plan_behind(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="freeze names 'encodr'"):
        run(tmp_path, 5, recipe=dataclasses.replace(RECIPE, freeze=("encodr",)))
    run(tmp_path, 5, recipe=dataclasses.replace(RECIPE, freeze=("encoder",)))


def test_weights_that_are_no_numbers_are_never_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The update after the last good loss can ruin them."""
    advance = Run.advance

    def ruining(self: Run, total: int) -> torch.Tensor:
        loss = advance(self, total)
        if self.step == 40:
            next(self.module.parameters()).data.fill_(float("nan"))
        return loss

    monkeypatch.setattr(Run, "advance", ruining)
    with pytest.raises(TrainingError, match="is not finite at step 40"):
        run(tmp_path, 60)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == 20
    assert all(t.isfinite().all() for t in [*state["module"].values(), *state["ema"].values()])


def test_minutes_become_steps_once(tmp_path: Path) -> None:
    for _ in range(2):
        train(SPEC, RECIPE, clips(1), clips(2, 100), tmp_path, minutes=0.02, device="cpu", progress=False)
    steps = json.loads((tmp_path / "plan.json").read_text())["steps"]
    assert steps >= 1
    assert log(tmp_path)[-1]["step"] == steps
    assert sum(r["step"] == steps for r in log(tmp_path)) == 1
