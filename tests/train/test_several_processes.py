"""Several processes train one model: beside one process with the same batch, and with some of them killed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hub.hf_server import LoopbackHub
from hub.shared import WEIGHTS
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train.together import ended, started, told

import stzoo
from stzoo.data import Clip
from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.errors import MissingExtraError, SpecError, TrainingError
from stzoo.models import build
from stzoo.spec import ModelSpec
from stzoo.train import Recipe, fine_tune, loop, train
from stzoo.train.assignment import weights_digest
from stzoo.train.processes import Processes, joined
from stzoo.train.run import Run

STEPS = 50
CONVLSTM = ModelSpec(
    arch="convlstm", frames_in=3, frames_out=3, channels=1, height=64, width=64,
    params={"layers": 2, "hidden": 8, "kernel": 3, "patch": 8},
)  # fmt: skip
TAU = ModelSpec(
    arch="tau", frames_in=3, frames_out=3, channels=1, height=64, width=64,
    params={"hid_s": 4, "hid_t": 16, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "patch": 4},
)  # fmt: skip
VQVAE = ModelSpec(
    arch="vqvae", frames_in=1, frames_out=1, channels=1, height=64, width=64,
    params={"width": 16, "residual_layers": 1, "residual_width": 4, "codes": 32, "dim": 8},
)  # fmt: skip
RECIPE = Recipe(
    dataset="mmnist", minutes=1, batch=4, lr=1e-2, ddr_weight=0.0, precision="float32", validate_every=1,
    validation_clips=2, checkpoint_minutes=0.0,
)  # fmt: skip


class Recorded(MovingDigits):
    """Notes, in a file, which clips each process was asked for, and what it then draws."""

    def clips(self, start: int, stop: int) -> Clip:
        with Path(os.environ["NOTES"], os.environ.get("RANK", "0")).open("a") as notes:
            notes.write(f"{start} {stop} {torch.rand(()).item()}\n")
        return super().clips(start, stop)


def run(
    out: Path, spec: ModelSpec = CONVLSTM, recipe: Recipe = RECIPE, steps: int = STEPS, micro_batch: int | None = None
) -> None:
    frames = spec.frames_in, spec.frames_out
    source = Recorded if "NOTES" in os.environ else MovingDigits
    data = source(drawn_digits(), 1, 1 << 20, *frames), MovingDigits(drawn_digits(), 2, 100, *frames)
    train(spec, recipe, *data, out, steps=steps, device="cpu", progress=False, micro_batch=micro_batch)


def noting(notes: Path, out: Path) -> None:
    os.environ["NOTES"] = str(notes)  # of a process of its own
    run(out)


def tracked(out: Path) -> None:
    data = (MovingDigits(drawn_digits(), seed, 100, 3, 3) for seed in (1, 2))
    train(CONVLSTM, RECIPE, *data, out, steps=3, device="cpu", progress=False, trackers=("tensorboard",))


def rows(out: Path) -> list[dict[str, float]]:
    file = out / "log.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in rows(out)]


def state(out: Path) -> dict[str, dict[str, torch.Tensor]]:
    return torch.load(out / "checkpoint.pt", weights_only=True)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one process."""
    folder = tmp_path_factory.mktemp("alone")
    run(folder)
    return folder


def wait_for(running: list, lines: int, out: Path) -> None:
    while len(rows(out)) < lines:
        assert all(process.is_alive() for process in running)
        time.sleep(0.01)


@pytest.mark.slow
def test_two_processes_learn_as_one_does_from_clips_that_none_sees_twice(alone: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    assert ended(started(2, noting, tmp_path / "notes", tmp_path / "two")) == [0, 0]
    assert losses(tmp_path / "two") == pytest.approx(losses(alone), rel=1e-5)
    assert len(losses(alone)) == STEPS
    assert losses(alone)[-1] < 0.8 * losses(alone)[0]

    notes = [[line.split() for line in (tmp_path / "notes" / str(rank)).read_text().splitlines()] for rank in (0, 1)]
    shares = [[range(int(a), int(b)) for a, b, _ in each][-STEPS:] for each in notes]
    assert [i for pair in zip(*shares, strict=True) for share in pair for i in share] == list(range(STEPS * 4))
    draws = [draw for each in notes for _, _, draw in each[-STEPS:]]
    assert len(set(draws)) == 2 * STEPS
    assert [row["step"] for row in rows(tmp_path / "two")] == list(range(1, STEPS + 1))  # the first alone writes
    assert stzoo.load(tmp_path / "two" / "best").spec == CONVLSTM


@pytest.mark.slow
def test_the_first_process_alone_has_trackers(tmp_path: Path) -> None:
    assert ended(started(2, tracked, tmp_path)) == [0, 0]
    board = tmp_path / "trackers" / "tensorboard"
    assert len(list(board.glob("*tfevents*"))) == 1
    found = EventAccumulator(str(board)).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in found] == [
        (row["step"], pytest.approx(row["loss"], rel=1e-6)) for row in rows(tmp_path)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_one_that_is_killed_ends_the_run_which_goes_on_with_another_number(
    killed: int, alone: Path, tmp_path: Path
) -> None:
    running = started(2, told, tmp_path / "told", run, tmp_path / "run")
    wait_for(running, 7, tmp_path / "run")
    os.kill(running[killed].pid, signal.SIGKILL)
    codes = ended(running)
    assert codes[killed] == -signal.SIGKILL
    assert codes[1 - killed] == 2
    said = (tmp_path / "told" / f"{1 - killed}.txt").read_text()
    assert said.startswith("TrainingError: one of the 2 processes has ended")
    assert "start the same command again" in said
    reached = state(tmp_path / "run")["step"]
    assert 6 <= reached < STEPS
    if killed:
        run(tmp_path / "run")  # one goes on
    else:
        assert ended(started(4, run, tmp_path / "run")) == [0] * 4
    assert losses(tmp_path / "run") == pytest.approx(losses(alone), rel=1e-5)


@pytest.mark.slow
def test_batchnorm_normalises_each_share_and_averages_what_the_shares_measured(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, seed=3)
    assert ended(started(2, run, tmp_path, TAU, recipe, 1)) == [0, 0]
    torch.manual_seed(recipe.seed)
    module = build(TAU).train().to(memory_format=torch.channels_last)
    start = {name: buffer.clone() for name, buffer in module.named_buffers()}
    clip = MovingDigits(drawn_digits(), 1, 1 << 20, 3, 3).clips(0, 4)
    measured = []
    for share in (slice(0, 2), slice(2, 4)):
        module.load_state_dict(start, strict=False)
        module(clip.past[share] / 255)
        measured.append({name: buffer.clone() for name, buffer in module.named_buffers()})
    found = state(tmp_path)["module"]
    moved = 0
    for name, buffer in measured[0].items():
        if buffer.is_floating_point():
            torch.testing.assert_close(found[name], (buffer + measured[1][name]) / 2, rtol=1e-5, atol=1e-7)
            moved += not torch.equal(buffer, measured[1][name])
        else:
            assert found[name] == 1
    assert moved > 0


@pytest.mark.slow
def test_a_codebook_follows_the_latents_of_all_processes(tmp_path: Path) -> None:
    assert ended(started(2, watched, tmp_path, tmp_path / "two", VQVAE, 1)) == [0, 0]
    run(tmp_path / "one", VQVAE, RECIPE, 1)
    one, two = (state(tmp_path / name)["codebook"] for name in ("one", "two"))
    alive = one["counts"] != 1.0  # the others were put where a latent lies that was drawn
    assert alive.sum() > 1
    torch.testing.assert_close(two["counts"][alive], one["counts"][alive])
    torch.testing.assert_close(two["sums"][alive], one["sums"][alive], rtol=1e-4, atol=1e-6)


def watched(notes: Path, out: Path, spec: ModelSpec, steps: int) -> None:
    """A run, at whose end each process writes down what its weights are."""
    loop_as_it_is = loop._loop

    def noted(one: Run, *rest: object) -> None:
        loop_as_it_is(one, *rest)  # type: ignore[arg-type]
        text = weights_digest(one.module.state_dict())
        (notes / f"weights-{one.processes.rank}").write_text(text)

    loop._loop = noted  # type: ignore[assignment]
    run(out, spec, RECIPE, steps)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [TAU, VQVAE], ids=["tau", "vqvae"])
def test_all_processes_hold_the_same_weights(spec: ModelSpec, tmp_path: Path) -> None:
    """Averaged statistics and codes that were drawn anew included."""
    assert ended(started(2, watched, tmp_path, tmp_path / "run", spec, 5)) == [0, 0]
    first, second = ((tmp_path / f"weights-{rank}").read_text() for rank in (0, 1))
    assert first == second


def differently(out: Path) -> None:
    run(out, recipe=dataclasses.replace(RECIPE, lr=1e-2 * (1 + int(os.environ["RANK"]))))


@pytest.mark.slow
def test_processes_with_other_recipes_refuse_to_train_together(tmp_path: Path) -> None:
    assert ended(started(2, told, tmp_path / "told", differently, tmp_path / "run")) == [2, 2]
    for file in (tmp_path / "told").iterdir():
        assert "were given different recipe" in file.read_text()
    assert not rows(tmp_path / "run")


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    assert [Processes(torch.device("cpu"), rank, 4).share(12) for rank in (0, 3)] == [range(3), range(9, 12)]
    with pytest.raises(TrainingError, match="a batch of 12 cannot be shared equally among 5 processes; start 4"):
        Processes(torch.device("cpu"), 0, 5).share(12)
    with pytest.raises(SpecError, match="micro_batch is 0"):
        run(Path("nowhere"), micro_batch=0)


def test_several_processes_need_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r'2 processes need an extra: pip install "stzoo\[train\]"'):
        run(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert joined("cpu") == Processes(torch.device("cpu"))


def test_processes_that_do_not_meet_are_no_runs_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a scheduler started them, and said to none who it is."""
    for name, count in (("WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_SIZE", "2")):
        with monkeypatch.context() as patch:
            patch.setenv(name, count)
            patch.setattr("accelerate.PartialState", lambda **_: SimpleNamespace(num_processes=1))
            with pytest.raises(TrainingError, match="2 processes were started, and this one meets 1; set LOCAL_RANK"):
                run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fine_tuning_without_a_folder_is_for_one_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("stzoo.train.fine_tuning.joined", lambda device: Processes(torch.device(device), 0, 2))
    with pytest.raises(SpecError, match="pass `out`"):
        fine_tune(stzoo.create(CONVLSTM), tmp_path)


@pytest.mark.slow
def test_the_command_under_a_launcher_downloads_once_and_speaks_once(hub_server: LoopbackHub, tmp_path: Path) -> None:
    stzoo.create(CONVLSTM).save_pretrained(tmp_path / "model")
    hub_server.add("user/model", {f.name: f.read_bytes() for f in (tmp_path / "model").iterdir()})
    (tmp_path / "clips").mkdir()
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 64, 64), dtype=np.uint8)
        np.save(tmp_path / "clips" / f"{i}.npy", pixels)
    (tmp_path / "recipe.toml").write_text(
        'dataset = "clips"\nminutes = 1\nbatch = 4\nprecision = "float32"\nddr_weight = 0.0\nvalidation_clips = 2'
    )
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "stzoo",
        "train", "--from", "hf://user/model", "--data", str(tmp_path / "clips"), "--out", str(tmp_path / "run"),
        "--recipe", str(tmp_path / "recipe.toml"), "--steps", "3", "--device", "cpu", "--micro-batch", "1",
    ]  # fmt: skip
    home = {"HF_HOME": str(tmp_path / "hub"), "STZOO_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, env=os.environ | home, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best weights:") == 1
    assert len(hub_server.asked(WEIGHTS)) == 1
    assert [row["step"] for row in rows(tmp_path / "run")] == [0, 3]

    text = (tmp_path / "recipe.toml").read_text()
    (tmp_path / "recipe.toml").write_text(text.replace("batch = 4", "batch = 3"))
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launcher += ["--main_process_port", "0"]
    again = [*launcher, *command[command.index("-m", 3) :]]
    refused = subprocess.run(again, env=os.environ | home, capture_output=True, text=True, timeout=300)
    assert refused.returncode != 0
    assert "a batch of 3 cannot be shared equally among 2 processes; start 1" in refused.stderr
    assert all(t.isfinite().all() for t in load_file(tmp_path / "run" / "best" / "model.safetensors").values())
