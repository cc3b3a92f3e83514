"""Damaged files of a run folder: one clear message, and the run goes on from what is left, to the same end."""

import dataclasses
import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_loop import RECIPE as LOOP_RECIPE
from test_loop import SPEC, clips, log

import stzoo
from stzoo.errors import TrainingError
from stzoo.train import train
from stzoo.train.checkpoint import read_checkpoint, write_checkpoint
from stzoo.train.folder import RunFolder

RECIPE = dataclasses.replace(LOOP_RECIPE, validate_every=5)
NAMES = ("checkpoint.pt", "checkpoint.previous.pt", "plan.json", "log.jsonl", "best.sha256")


def run(out: Path, steps: int) -> None:
    train(SPEC, RECIPE, clips(1), clips(2, 100), out, steps=steps, device="cpu", progress=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 15 steps, whose checkpoints are of step 10 and 15."""
    out = tmp_path_factory.mktemp("finished")
    run(out, 15)
    return out


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def outcome(out: Path) -> tuple[bytes, dict[str, torch.Tensor], list[dict[str, float]]]:
    records = [{k: v for k, v in r.items() if k != "seconds"} for r in log(out)]
    return (out / "best" / "model.safetensors").read_bytes(), read_checkpoint(out / "checkpoint.pt")["module"], records


def assert_equal_outcome(one: Path, other: Path) -> None:
    (best, module, records), (its_best, its_module, its_records) = outcome(one), outcome(other)
    assert best == its_best
    assert records == its_records
    assert all(torch.equal(module[n], its_module[n]) for n in module)


def as_earlier_versions_wrote(out: Path) -> None:
    """Without sums and copies, and without a previous checkpoint."""
    state = read_checkpoint(out / "checkpoint.pt")
    torch.save({k: v for k, v in state.items() if k not in ("plan", "log", "kept")}, out / "checkpoint.pt")
    plan = json.loads((out / "plan.json").read_text())
    plan.pop("sha256")
    (out / "plan.json").write_text(json.dumps(plan, indent=2))
    for name in ("checkpoint.previous.pt", "best.sha256"):
        (out / name).unlink()


def damages(content: bytes, count: int) -> list[bytes]:
    """Files that are cut short and files in which a bit is flipped, one half each."""
    draw = random.Random(0)
    cut = [content[: draw.randrange(len(content))] for _ in range(count // 2)]
    places = [draw.randrange(len(content)) for _ in range(count // 2)]
    return [*cut, *(content[:p] + bytes([content[p] ^ 1 << draw.randrange(8)]) + content[p + 1 :] for p in places)]


def test_no_damaged_checkpoint_is_taken_and_no_message_is_torchs(copy: Path) -> None:
    file = copy / "checkpoint.pt"
    for damaged in damages(file.read_bytes(), 200):
        file.write_bytes(damaged)
        with pytest.raises(TrainingError, match="checkpoint.pt is damaged") as error:
            read_checkpoint(file)
        assert "weights_only" not in str(error.value)


def test_a_damaged_checkpoint_of_an_earlier_version_gives_the_same_tensors_or_an_error(copy: Path) -> None:
    as_earlier_versions_wrote(copy)
    file = copy / "checkpoint.pt"
    whole = read_checkpoint(file)
    for damaged in damages(file.read_bytes(), 100):
        file.write_bytes(damaged)
        try:
            found = read_checkpoint(file)
        except TrainingError:
            continue
        for part in ("module", "ema"):  # the flipped bit was one that nobody reads, such as a date in the zip
            assert all(torch.equal(found[part][n], whole[part][n]) for n in whole[part])


def test_other_programs_read_a_checkpoint_as_before(copy: Path) -> None:
    assert torch.load(copy / "checkpoint.pt", weights_only=True)["step"] == 15


def test_it_goes_on_from_the_checkpoint_before_a_damaged_one(finished: Path, copy: Path) -> None:
    file = copy / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.warns(UserWarning, match=r"checkpoint.pt is damaged.*from the checkpoint before it, of step 10"):
        run(copy, 15)
    assert_equal_outcome(copy, finished)


def test_if_no_checkpoint_is_whole_one_message_says_what_helps(copy: Path) -> None:
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (copy / name).write_bytes(b"PK")
    with pytest.raises(TrainingError, match=r"pt is damaged.*pt is damaged.*put one back .* to begin from step 0"):
        run(copy, 15)
    assert len(log(copy)) == 3  # nothing was touched


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_changes_nothing_in_the_end(finished: Path, copy: Path, name: str) -> None:
    (copy / name).unlink()
    with warnings.catch_warnings(record=True):
        run(copy, 15)
    assert_equal_outcome(copy, finished)


@pytest.mark.parametrize("name", ["plan.json", "log.jsonl"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"\xff\xfe" + content,
        lambda content: b"[" * 100_000,
        lambda content: content.replace(b"15", b"16"),
    ],
    ids=["cut", "empty", "not UTF-8", "nested", "another number"],
)
def test_a_damaged_plan_or_log_is_taken_from_the_checkpoint(
    finished: Path, copy: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    (copy / name).write_bytes(damage((copy / name).read_bytes()))
    with pytest.warns(UserWarning, match=rf"{name}.*damaged.* the checkpoint takes its place"):
        run(copy, 15)
    assert_equal_outcome(copy, finished)
    assert (copy / "plan.json").read_bytes() == (finished / "plan.json").read_bytes()


def test_a_damaged_plan_without_a_copy_of_it(copy: Path, tmp_path: Path) -> None:
    as_earlier_versions_wrote(copy)
    (copy / "plan.json").write_text("{")
    with pytest.raises(TrainingError, match=r"plan.json: it is damaged .* Put it back from a copy"):
        run(copy, 15)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "plan.json").write_text("{")
    with pytest.warns(UserWarning, match="no checkpoint yet, so the run begins anew"):
        run(tmp_path / "new", 1)


def test_a_run_of_an_earlier_version_goes_on(finished: Path, copy: Path) -> None:
    shutil.copy(copy / "checkpoint.previous.pt", copy / "checkpoint.pt")
    as_earlier_versions_wrote(copy)
    with (copy / "log.jsonl").open("ab") as file:
        file.write(b'{"step": 6')  # by a process that was killed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(copy, 15)
    assert_equal_outcome(copy, finished)


@pytest.mark.parametrize("earlier", [False, True])
def test_damaged_best_weights_are_replaced_by_those_of_the_checkpoint(copy: Path, earlier: bool) -> None:
    if earlier:
        as_earlier_versions_wrote(copy)
    file = copy / "best" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + (b"" if earlier else b"\x01\x02\x03\x04"))
    with pytest.warns(UserWarning, match="best is damaged or missing; the weights of step 15 take its place"):
        run(copy, 15)
    assert stzoo.load(copy / "best").report.tensors > 0


def test_a_damaged_configuration_beside_the_best_weights_is_written_again(finished: Path, copy: Path) -> None:
    (copy / "best" / "config.json").write_text("{")
    run(copy, 15)
    for name in ("config.json", "model.safetensors"):
        assert (copy / "best" / name).read_bytes() == (finished / "best" / name).read_bytes()


def test_what_is_in_the_way_of_a_file_is_renamed(finished: Path, copy: Path) -> None:
    (copy / "best" / "stray").mkdir()
    for name in ("checkpoint.pt", "best/config.json", "log.jsonl"):
        (copy / name).unlink()
        (copy / name / "inside").mkdir(parents=True)
    shutil.rmtree(copy / "samples")
    (copy / "samples").write_text("a file")
    with pytest.warns(UserWarning, match="is in the way of a file of this run; it is now called config.json.aside"):
        run(copy, 15)
    assert_equal_outcome(copy, finished)
    assert (copy / "log.jsonl.aside" / "inside").is_dir()
    assert (copy / "samples.aside").read_text() == "a file"


def test_a_full_disk_leaves_both_checkpoints_as_they_were(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: (copy / name).read_bytes() for name in NAMES}

    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:860] . PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="is the disk full"):
        RunFolder(copy).save({"step": 1})
    assert {name: (copy / name).read_bytes() for name in NAMES} == before
    assert not list(copy.glob(".checkpoint*"))


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path: Path) -> None:
    state = {"step": 3, "best": float("inf"), "tensors": [torch.arange(5.0), torch.ones(2, dtype=torch.int64)]}
    write_checkpoint(tmp_path / "a.pt", state)
    found = read_checkpoint(tmp_path / "a.pt")
    assert (found["step"], found["best"]) == (3, float("inf"))
    assert all(map(torch.equal, found["tensors"], state["tensors"]))


def test_what_holds_no_run_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a.pt", {"weights": torch.ones(1)})
    with pytest.raises(TrainingError, match="it holds no training run"):
        read_checkpoint(tmp_path / "a.pt")


def test_half_written_files_are_cleared_away_everywhere(copy: Path) -> None:
    litter = [copy / ".best.abc123", copy / ".log.jsonl.abc123", copy / "best" / ".config.json.abc123"]
    for folder in litter:
        folder.mkdir()
        (folder / folder.name[1:].removesuffix(".abc123")).write_bytes(b"half")
    run(copy, 15)
    assert not any(folder.exists() for folder in litter)
