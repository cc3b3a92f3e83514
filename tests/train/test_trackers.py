"""What goes into log.jsonl goes to trackers: the same figures at the same steps, and never at the cost of the run."""

import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate import PartialState, tracking
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import stzoo
from stzoo.cli import main
from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.errors import MissingExtraError, SpecError, TrainingError
from stzoo.spec import ModelSpec
from stzoo.train import Recipe, fine_tune, train

SPEC = ModelSpec(
    arch="tau", frames_in=2, frames_out=2, channels=1, height=64, width=64,
    params={"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "patch": 4},
)  # fmt: skip
RECIPE = Recipe(
    dataset="mmnist", minutes=1, batch=2, validate_every=30, validation_clips=2, checkpoint_minutes=60.0, ema=0.9
)
BOARD = ("tensorboard",)


def clips(seed: int, count: int = 1 << 30) -> MovingDigits:
    return MovingDigits(drawn_digits(), seed, count, 2, 2)


def run(out: Path, trackers: tuple[str, ...] = BOARD, training: Any = None, **changes: Any) -> Path:
    recipe = dataclasses.replace(RECIPE, **changes)
    data = clips(1) if training is None else training
    return train(
        SPEC, recipe, data, clips(2, 10), out, steps=60, device="cpu", progress=False, trackers=trackers
    )  # fmt: skip


def log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def board(out: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads: the name of a figure -> (step, value)."""
    found = EventAccumulator(str(out / "trackers" / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def logged(out: Path) -> dict[str, list[tuple[int, float]]]:
    """The same of log.jsonl, in the float32 of TensorBoard's files."""
    found: dict[str, list[tuple[int, float]]] = {}
    for record in log(out):
        for key in record.keys() - {"step", "seconds"}:
            value = torch.tensor(record[key], dtype=torch.float32).item()
            found.setdefault(key, []).append((int(record["step"]), value))
    return found


class Stop(Exception):
    pass


class Stopping(MovingDigits):
    """Clips that end a run in its step 48, after step 40 was logged and step 30 was saved."""

    def clips(self, start: int, stop: int) -> Any:
        if start == 47 * 2:
            raise Stop
        return super().clips(start, stop)


def stop(out: Path, trackers: tuple[str, ...] = BOARD) -> None:
    with pytest.raises(Stop):
        run(out, trackers, Stopping(drawn_digits(), 1, 1 << 30, 2, 2))


def test_tensorboard_gets_every_record(tmp_path: Path) -> None:
    run(tmp_path)
    assert [record["step"] for record in log(tmp_path)] == [20, 30, 40, 60]
    assert board(tmp_path) == logged(tmp_path)
    assert board(tmp_path).keys() == {"loss", "validation_mse", "sequences"}


def test_it_is_told_what_the_run_is_about(tmp_path: Path) -> None:
    run(tmp_path)
    (file,) = (tmp_path / "trackers").rglob("hparams.yml")
    told = yaml.safe_load(file.read_text())
    assert told["spec.params.hid_t"] == 8
    assert told["recipe.validate_every"] == 30
    assert told["recipe.betas"] == "[0.9, 0.999]"
    assert told["steps"] == 60


def test_a_run_that_goes_on_leaves_no_step_twice(tmp_path: Path) -> None:
    stop(tmp_path)
    assert [step for step, _ in board(tmp_path)["loss"]] == [20, 30, 40]
    run(tmp_path)
    assert [record["step"] for record in log(tmp_path)] == [20, 30, 40, 60]
    assert board(tmp_path) == logged(tmp_path)
    assert len(list((tmp_path / "trackers").rglob("hparams.yml"))) == 1


def test_a_run_that_begins_anew_forgets_what_was_logged(tmp_path: Path) -> None:
    stop(tmp_path)
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (tmp_path / name).unlink(missing_ok=True)
    run(tmp_path)
    assert board(tmp_path) == logged(tmp_path)


def test_trackers_change_nothing_and_may_change(tmp_path: Path) -> None:
    whole = load_file(run(tmp_path / "without", ()) / "model.safetensors")
    assert not list((tmp_path / "without").glob("trackers"))
    stop(tmp_path / "later", ())
    later = load_file(run(tmp_path / "later") / "model.safetensors")
    assert whole.keys() == later.keys()
    assert all(torch.equal(whole[name], later[name]) for name in whole)
    assert [step for step, _ in board(tmp_path / "later")["loss"]] == [40, 60]
    plans = [(tmp_path / out / "plan.json").read_text() for out in ("without", "later")]
    assert plans[0] == plans[1]


def test_a_tracker_that_fails_costs_nothing_but_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = tracking.TensorBoardTracker.log

    def full(self: Any, values: dict[str, Any], step: int | None = None, **options: Any) -> None:
        if step is not None and step > 20:
            raise OSError(28, "No space left on device\nand more")
        usual(self, values, step, **options)

    monkeypatch.setattr(tracking.TensorBoardTracker, "log", full)
    with pytest.warns(UserWarning, match="tensorboard failed, .* No space left on device$") as told:
        best = run(tmp_path)
    assert len([w for w in told if "tracker" in str(w.message)]) == 1
    assert [record["step"] for record in log(tmp_path)] == [20, 30, 40, 60]
    assert stzoo.load(best).spec == SPEC


def test_a_tracker_that_cannot_end_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(self: Any) -> None:
        raise ConnectionError("the server is gone")

    monkeypatch.setattr(tracking.TensorBoardTracker, "finish", lost)
    with pytest.warns(UserWarning, match="the server is gone"):
        assert run(tmp_path).is_dir()


def test_a_tracker_that_cannot_start_ends_the_run_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Any) -> None:
        raise PermissionError("no key: log in first\nTraceback ...")

    monkeypatch.setattr(tracking.TensorBoardTracker, "start", refused)
    with pytest.raises(TrainingError, match="^the tracker tensorboard cannot be started: no key: log in first$"):
        run(tmp_path)
    assert not (tmp_path / "log.jsonl").exists()
    monkeypatch.undo()
    run(tmp_path)
    assert board(tmp_path) == logged(tmp_path)


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "unknown": (("tensorbord",), SpecError, "there is no tracker 'tensorbord'; it may be .*tensorboard, .*wandb"),
    "text": ("wandb", SpecError, r"trackers is 'wandb'; it must be several names, such as \('tensorboard',\)"),
    "nothing": (None, SpecError, "trackers is None; it must be several names"),
    "number": (3, SpecError, "trackers is 3; it must be several names"),
    "no name": ((3,), SpecError, "must be several names"),
    "absent": (("wandb",), MissingExtraError, "the tracker wandb needs its package: pip install wandb"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_track_is_refused_before_anything_happens(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["tensorboard"])
    trackers, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        run(tmp_path / "run", trackers)
    assert list(tmp_path.iterdir()) == []


def test_without_accelerate_an_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "stzoo\[train\]"'):
        run(tmp_path / "run")


def test_an_accelerator_of_the_caller_is_free_to_choose(tmp_path: Path) -> None:
    run(tmp_path)
    assert PartialState._shared_state == {}


def test_fine_tuning_logs_the_untouched_model_too(tmp_path: Path) -> None:
    model = stzoo.create(SPEC)

    class Digits:
        name = "digits"

        def split(self, part: str, past: int, future: int) -> MovingDigits:
            return clips({"train": 1, "validation": 2}[part], 10)

    fine_tune(model, Digits(), steps=20, out=tmp_path, recipe=RECIPE, progress=False, trackers=BOARD)  # type: ignore[arg-type]
    assert board(tmp_path)["validation_mse"][0][0] == 0
    assert board(tmp_path) == logged(tmp_path)
    with pytest.raises(SpecError, match="pass `out`"):
        fine_tune(model, Digits(), steps=20, trackers=BOARD)  # type: ignore[arg-type]


COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "from scratch": lambda out: ["train", "tau-ut", "--out", str(out / "run"), "--data", str(out)],
    "fine-tuning": lambda out: ["train", "--from", "tau-ut", "--out", str(out / "run"), "--data", str(out)],
}


@pytest.mark.parametrize("case", COMMANDS)
def test_the_command_refuses_a_tracker_in_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMANDS[case](tmp_path), "--tracker", "tensorboard", "--tracker", "none"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_command_tracks(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(12):
        frames = [Image.new("L", (64, 64), 10 * number + t) for t in range(24)]
        (tmp_path / "clips").mkdir(exist_ok=True)
        frames[0].save(tmp_path / "clips" / f"{number:02}.gif", save_all=True, append_images=frames[1:], duration=100)
    recipe = tmp_path / "short.toml"
    recipe.write_text('dataset = "clips"\nminutes = 1\nbatch = 1\nvalidation_clips = 1\n')
    out = tmp_path / "run"
    command = ["train", "--from", "tau-ut", "--data", str(tmp_path / "clips"), "--recipe", str(recipe), "--steps", "2"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main([*command, "--out", str(out), "--tracker", "tensorboard"]) == 0
    assert board(out) == logged(out)
    assert {step for step, _ in board(out)["validation_mse"]} == {0, 2}
