"""From a run to a catalogue entry: measured on the stored file, and never for the worse."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stzoo import catalog, hub
from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.errors import TrainingError
from stzoo.opening import create, load
from stzoo.release import manifest as manifest_room
from stzoo.release.candidate import Measurement
from stzoo.release.enter_run import enter_run
from stzoo.spec import ModelSpec
from stzoo.train.assignment import weights_digest

CLIPS = MovingDigits(drawn_digits(), 9, 6, 3, 3)
PROTOCOL = Measurement("p", CLIPS, "stzoo", "stzoo evaluate one")
SPEC = ModelSpec(
    arch="tau", frames_in=3, frames_out=3, channels=1, height=64, width=64,
    params={"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "patch": 4},
)  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A manifest with one entry without weights, and an empty folder of checkpoints."""
    entry = {
        "summary": "s", "dataset": "mmnist", "spec": SPEC.to_dict(), "weights": None,
        "license": "l", "data_terms": "t", "citation": "c", "unsuited": "u",
    }  # fmt: skip
    manifest = tmp_path / "weights_manifest.json"
    manifest.write_text(json.dumps({"schema": 1, "models": {"one": entry}}))
    monkeypatch.setattr(catalog, "manifest_path", lambda: manifest)
    monkeypatch.setattr(catalog, "CHECKPOINTS", tmp_path / "checkpoints")
    catalog.entries.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    catalog.entries.cache_clear()


def a_run(folder: Path, level: float) -> Path:
    """A run whose model forecasts `level` everywhere: black is better than white."""
    model = create(SPEC)
    with torch.no_grad():
        for p in model.module.parameters():
            p.zero_()
        model.module.decoder.readout.bias.fill_(level)
    model.save_pretrained(folder / "best")
    (folder / "plan.json").write_text(json.dumps({"steps": 30}))
    rows = [
        {"step": 10, "seconds": 1000.0, "sequences": 40, "validation_mse": 9.0},
        {"step": 20, "seconds": 1360.0, "sequences": 80, "validation_mse": 8.0},
        {"step": 30, "seconds": 91360.0, "sequences": 120, "validation_mse": 8.5},
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def test_a_run_becomes_an_entry(checkout: Path) -> None:
    (report,) = enter_run("one", a_run(checkout / "run", 0.5), [PROTOCOL], "a machine")
    entry = catalog.parse_manifest((checkout / "weights_manifest.json").read_bytes())["one"]
    assert entry.weights is not None
    assert entry.training is not None
    truth = CLIPS.clips(0, 6).future.double() / 255
    assert entry.metrics[0].mse == pytest.approx((truth - 0.5).square().sum((2, 3, 4)).mean().item(), rel=1e-4)
    assert entry.metrics[0].mse == pytest.approx(report.total["mse"], abs=1e-3)
    assert (entry.training.sequences_seen, entry.training.hours) == (80, 0.3)  # the day's pause left out
    stored = load(checkout / "checkpoints" / entry.weights.file)
    assert stored.report.sha256 == entry.weights.sha256
    assert "float16" in stored.report.stored_as
    assert [p.name for p in (checkout / "checkpoints").iterdir()] == ["one.safetensors"]


def test_its_learning_curve_is_kept(checkout: Path) -> None:
    enter_run("one", a_run(checkout / "run", 0.5), [PROTOCOL], "a machine")
    training = catalog.info("one").training
    assert training is not None
    assert (training.curve_sequences, training.curve_mse) == ((40, 80, 120), (9.0, 8.0, 8.5))
    assert not training.curve_quantity


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda log: log + '{"step": 40, "secon', None),
        (lambda log: log[:-20] + "\n", "is not the log of a run"),
        (lambda log: log.replace("validation_mse", "loss"), "was never validated"),
        (lambda log: "", "was never validated"),
        (None, "was never validated"),
    ],
)
def test_a_log_is_read_as_far_as_it_is_whole(
    checkout: Path, change: Callable[[str], str] | None, message: str | None
) -> None:
    log = a_run(checkout / "run", 0.5) / "log.jsonl"
    if change is None:
        log.unlink()
    else:
        log.write_text(change(log.read_text()))
    if message is None:
        enter_run("one", checkout / "run", [PROTOCOL], "a machine")
        return
    with pytest.raises(TrainingError, match=message):
        enter_run("one", checkout / "run", [PROTOCOL], "a machine")
    assert not list((checkout / "checkpoints").glob("*"))


def test_the_same_weights_are_measured_again(checkout: Path) -> None:
    run = a_run(checkout / "run", 0.5)
    other = dataclasses.replace(PROTOCOL, protocol="q")
    enter_run("one", run, [PROTOCOL, other], "a machine")
    (file,) = (checkout / "checkpoints").iterdir()
    save_file(load_file(file), file, {"stzoo_spec": json.dumps(SPEC.to_dict()), "format": "pt"})  # another header
    before = {file.name: file.read_bytes()}
    manifest = json.loads((checkout / "weights_manifest.json").read_text())
    old = manifest["models"]["one"]
    old["weights"] |= {"sha256": hub.file_sha256(file), "size": file.stat().st_size}
    for m in old["metrics"]:
        m |= {"mse": 1.0, "command": "an old one"}
    (checkout / "weights_manifest.json").write_text(json.dumps(manifest))
    catalog.entries.cache_clear()

    enter_run("one", run, [PROTOCOL], "another machine")
    first, second = catalog.info("one").metrics
    assert (first.protocol, first.command, second.protocol, second.command) == (
        "p",
        "stzoo evaluate one",
        "q",
        "an old one",
    )
    assert first.mse > second.mse == 1.0  # worse than what it replaces, and yet what these weights have
    assert {p.name: p.read_bytes() for p in (checkout / "checkpoints").iterdir()} == before


def test_only_a_better_one_replaces_it(checkout: Path) -> None:
    enter_run("one", a_run(checkout / "good", 0.0), [PROTOCOL], "a machine")
    before = {p: p.read_bytes() for p in [*checkout.glob("*.json"), *(checkout / "checkpoints").iterdir()]}
    with pytest.raises(TrainingError, match="no better than the present"):
        enter_run("one", a_run(checkout / "bad", 0.5), [PROTOCOL], "a machine")
    assert {p: p.read_bytes() for p in [*checkout.glob("*.json"), *(checkout / "checkpoints").iterdir()]} == before


@pytest.mark.parametrize("present", [False, True])
def test_where_the_manifest_cannot_be_written_the_file_is_not_there_either(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, present: bool
) -> None:
    if present:
        enter_run("one", a_run(checkout / "run", 0.5), [PROTOCOL], "a machine")
    files = [*checkout.glob("*.json"), *(checkout / "checkpoints").glob("*")]
    before = {p: p.read_bytes() for p in files}

    def full(path: Path, content: bytes) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(manifest_room, "write_atomically", full)
    with pytest.raises(OSError, match="no space left"):
        enter_run("one", a_run(checkout / "better", 0.0), [PROTOCOL], "a machine")
    files = [*checkout.glob("*.json"), *(checkout / "checkpoints").glob("*")]
    assert {p: p.read_bytes() for p in files} == before


def test_figures_of_another_protocol_replace_nothing(checkout: Path) -> None:
    enter_run("one", a_run(checkout / "good", 0.5), [PROTOCOL], "a machine")
    other = dataclasses.replace(PROTOCOL, protocol="q")
    with pytest.raises(TrainingError, match="one is compared on p, which was not asked for"):
        enter_run("one", a_run(checkout / "better", 0.0), [other], "a machine")
    reports = enter_run("one", a_run(checkout / "better", 0.0), [other, PROTOCOL], "a machine")
    assert [r.protocol for r in reports] == ["q", "p"]


def test_a_second_stage_names_its_first(checkout: Path) -> None:
    first, second = a_run(checkout / "first", 0.5), a_run(checkout / "second", 0.0)
    start = weights_digest(load(first / "best").module.state_dict())
    (second / "plan.json").write_text(json.dumps({"steps": 7, "start": start}))
    with pytest.raises(TrainingError, match="was fine-tuned; name --after"):
        enter_run("one", second, [PROTOCOL], "a machine")
    with pytest.raises(TrainingError, match="was not fine-tuned from"):
        enter_run("one", second, [PROTOCOL], "a machine", before=second)
    enter_run("one", second, [PROTOCOL], "a machine", before=first)
    training = catalog.parse_manifest((checkout / "weights_manifest.json").read_bytes())["one"].training
    assert training is not None
    assert (training.sequences_seen, training.hours) == (160, 0.6)
    assert (training.curve_sequences, training.curve_mse) == ((40, 80, 120), (9.0, 8.0, 8.5))  # of the first stage
    assert training.recipe == (
        "stzoo train one --data DIR --out RUN --steps 30; "
        "stzoo train --from RUN/best --recipe one-second-stage --data DIR --out TUNED --steps 7"
    )
