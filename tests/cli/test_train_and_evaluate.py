"""`stzoo train` and `stzoo evaluate`, one after the other: a forecaster, and a modular model with its codec."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stzoo
from stzoo import catalog
from stzoo.cli import main
from stzoo.data import mmnist as digits_room
from stzoo.data.digits import drawn_digits
from stzoo.forecaster import Forecaster


@pytest.mark.slow
def test_train_then_evaluate(mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text("dataset = 'mmnist'\nminutes = 1\nbatch = 2\nvalidate_every = 4\nvalidation_clips = 4\n")
    run = ["train", "tau-mmnist", "--mnist", str(mnist), "--out", str(tmp_path / "run")]
    assert main([*run, "--recipe", str(recipe), "--steps", "4"]) == 0
    best = str(tmp_path / "run" / "best")
    assert best in capsys.readouterr().out
    assert main(["evaluate", best, "--mnist", str(mnist), "--limit", "8", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["clips"] == 8
    assert "first 8 sequences only" in report["protocol"]
    assert report["persistence_total"]["mse"] == pytest.approx(285, abs=120)


@pytest.fixture
def idx_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like MNIST's, of drawn digits, and a test set of eight sequences of them."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for name, count in (("train-images-idx3-ubyte", 10_010), ("t10k-images-idx3-ubyte", 10)):
        images = drawn_digits()[np.arange(count) % 10].numpy().tobytes()
        (folder / name).write_bytes(struct.pack(">4i", 0x803, count, 28, 28) + images)
    monkeypatch.setattr(
        digits_room, "protocol_set",
        lambda folder, a=10, b=10: digits_room.MovingDigits(digits_room.read_digits(folder, "test"), 0, 8, a, b),
    )  # fmt: skip
    return folder


@pytest.fixture
def two_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Entries of a small codec and a small modular model, without weights, and the options that train them at once."""
    codec: dict[str, Any] = {"arch": "vqvae", "params": {"width": 8, "residual_width": 4, "codes": 16, "dim": 4}}
    predictor = {"arch": "tctn", "params": {"layers": 1, "hidden": 8, "heads": 2, "patch": 1}}
    frame = {"channels": 1, "height": 64, "width": 64}
    common = {"summary": "s", "dataset": "mmnist", "weights": None, "license": "l", "data_terms": "t", "citation": "c"}
    entries = {
        "vqvae-mmnist": common | {"kind": "codec", "spec": codec | frame | {"frames_in": 1, "frames_out": 1}},
        "tctn-modular-mmnist": common
        | {
            "codec": {"entry": "vqvae-mmnist"},
            "spec": frame
            | {"arch": "modular", "frames_in": 10, "frames_out": 10}
            | {"params": {"codec": codec, "predictor": predictor}},
        },
        "vqvae-kth": common | {"kind": "codec", "spec": codec | frame | {"frames_in": 1, "frames_out": 1}},
    }
    parsed = catalog.parse_manifest(json.dumps({"schema": 1, "models": entries}).encode())
    monkeypatch.setattr(catalog, "entries", lambda: parsed)
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        "dataset = 'mmnist'\nminutes = 1\nbatch = 2\nvalidate_every = 4\nvalidation_clips = 2\n"
        "ddr_weight = 0.0\nsampling = 'parallel'\n"
    )
    return ["--recipe", str(recipe), "--steps", "2"]


def test_one_command_trains_a_codec_and_a_predictor_on_it(
    idx_files: Path, two_stages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["train", "tctn-modular-mmnist", "--mnist", str(idx_files), "--out", str(tmp_path / "run"), *two_stages]
    run += ["--codec-minutes", "0.02"]
    assert main(run) == 0
    assert "first the codec, vqvae-mmnist" in capsys.readouterr().err
    codec = stzoo.load_codec(tmp_path / "run" / "codec" / "best")
    model: Any = stzoo.load(tmp_path / "run" / "best")
    for name, tensor in codec.module.state_dict().items():
        assert np.array_equal(model.module.codec.state_dict()[name], tensor)
    before = (tmp_path / "run" / "codec" / "checkpoint.pt").read_bytes()
    assert main(run) == 0  # both are finished: nothing is trained again
    assert (tmp_path / "run" / "codec" / "checkpoint.pt").read_bytes() == before

    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run" / "codec" / "best"), "--mnist", str(idx_files), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["protocol"], report["frames"], report["precision"]) == ("mmnist-frames", 16, "float32")
    assert 1 <= report["perplexity"] <= report["codes_used"] <= 16
    for option in ("--csv", "--limit=3"):
        assert main(["evaluate", str(tmp_path / "run" / "codec" / "best"), "--mnist", str(idx_files), option]) == 0
    out = capsys.readouterr().out
    assert "mse,mae,ssim,psnr,codes_used,perplexity" in out
    assert "first 3 sequences only: 6 frames" in out
    evaluation = ["evaluate", str(tmp_path / "run" / "best"), "--mnist", str(idx_files), "--precision", "bfloat16"]
    assert main(evaluation) == 0
    assert "8 sequences, metrics as defined by stzoo, forecasts in bfloat16" in capsys.readouterr().out


def test_clips_that_are_too_short_for_the_predictor_are_said_before_its_codec_trains(
    two_stages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my clips").mkdir()
    for name in ("a", "b", "c"):
        np.save(tmp_path / "my clips" / f"{name}.npy", np.zeros((15, 64, 64), np.uint8))
    run = ["train", "tctn-modular-mmnist", "--dataset", "clips", "--data", str(tmp_path / "my clips")]
    assert main([*run, "--out", str(tmp_path / "run"), *two_stages, "--codec-minutes", "0.02"]) == 2
    assert "no recording has 20 frames" in capsys.readouterr().err
    assert not (tmp_path / "run" / "codec").exists()


def test_a_codec_may_be_given(
    idx_files: Path, two_stages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = stzoo.load_codec("vqvae-mmnist", pretrained=False)
    given.save_pretrained(tmp_path / "given")
    run = ["train", "tctn-modular-mmnist", "--mnist", str(idx_files), "--out", str(tmp_path / "run"), *two_stages]
    assert main([*run, "--codec", str(tmp_path / "given")]) == 0
    assert not (tmp_path / "run" / "codec").exists()
    assert main([*run, "--codec", str(tmp_path / "given"), "--codec-minutes", "1"]) == 2
    assert "--codec-minutes is for a codec that must be trained first" in capsys.readouterr().err
    assert main([*run, "--codec", "tau-mmnist"]) == 2
    assert "stzoo: no model 'tau-mmnist'" in capsys.readouterr().err


def test_codec_options_are_for_modular_entries(
    idx_files: Path, two_stages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["train", "vqvae-mmnist", "--mnist", str(idx_files), "--out", str(tmp_path / "run")]
    assert main([*run, "--codec-minutes", "1"]) == 2
    assert "stzoo: vqvae-mmnist has no codec; --codec and" in capsys.readouterr().err
    assert main([*run, "--codec-minutes", "-1"]) == 2
    assert "stzoo: --codec-minutes is -1.0; it must be positive" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_any_horizon_is_measured_on_clips_of_ones_own(
    forecaster: Forecaster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    clips = tmp_path / "clips"
    clips.mkdir()
    for k in range(3):
        np.save(clips / f"{k}.npy", np.random.default_rng(k).integers(0, 256, (20, 16, 16), dtype=np.uint8))
    start = ["evaluate", str(tmp_path / "model"), "--data", str(clips)]
    assert main([*start, "--steps", "9", "--limit", "1"]) == 0
    out = capsys.readouterr().out
    assert "clips-4-9, first 1 sequences only: 1 sequence of 1 file" in out
    np.save(clips / "short.npy", np.zeros((5, 16, 16), np.uint8))  # the last one in order, which is for testing
    assert main([*start, "--part", "validation", "--steps", "9", "--skip-bad"]) == 0
    out = capsys.readouterr().out
    assert "clips-4-9, validation part, files that cannot be read left out" in out
    assert main([*start, "--steps", "9", "--every", "2", "--json"]) == 2  # ten frames are left, thirteen needed
    assert "no recording has 13 frames" in capsys.readouterr().err
    for options, message in (
        (["--steps", "0"], "--steps is 0"),
        (["--limit", "0"], "--limit is 0; it must be at least 1"),
        (["--definition", "stzoo-rain-rates"], "are no dBR as those of tau-radar are"),
    ):
        assert main([*start, *options]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*start, "--csv", "--json"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_clips_are_measured_at_the_models_size_or_at_their_own(
    forecaster: Forecaster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    frames = np.random.default_rng(0).integers(0, 256, (8, 19, 22), dtype=np.uint8)
    for part in ("train", "validation", "test"):
        (tmp_path / "clips" / part).mkdir(parents=True)
        np.save(tmp_path / "clips" / part / "a.npy", frames)
    start = ["evaluate", str(tmp_path / "model"), "--data", str(tmp_path / "clips"), "--json"]
    found = {}
    for size in ("model", "own"):
        assert main([*start, "--size", size]) == 0
        found[size] = json.loads(capsys.readouterr().out)
    assert found["model"]["protocol"] == "clips-4-4"
    assert found["own"]["protocol"] == "clips-4-4, frames at their own size"
    values = torch.from_numpy(frames.astype(np.float32) / 255)[None, :, None]
    for size, part in (("own", values), ("model", values[..., 1:17, 3:19])):  # arrays are cut in the middle
        future = torch.stack(list(forecaster.engine.unroll(part[:, :4], 4)), 1)
        expected = (future - part[:, 4:]).square().sum((2, 3, 4)).mean().item()
        assert found[size]["total"]["mse"] == pytest.approx(expected, rel=1e-4)
    np.save(tmp_path / "clips" / "test" / "b.npy", frames[:, :-1])
    assert main([*start, "--size", "own"]) == 2
    assert "a.npy has frames of 19x22, " in capsys.readouterr().err
    assert main([*start, "--dataset", "kth", "--size", "own"]) == 2
    assert "--size own is for your own clips" in capsys.readouterr().err
