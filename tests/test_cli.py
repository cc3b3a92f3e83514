import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stzoo.cli import main
from stzoo.forecaster import Forecaster
from stzoo.frames.images import read_images


def test_list_and_info_speak_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "tau-*", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"tau-mmnist", "tau-mmnist-paper"} <= {r["name"] for r in rows}
    assert main(["info", "tau-mmnist-paper", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spec"]["params"]["hid_t"] == 512
    assert main(["info", "tau-mmnist-paper"]) == 0
    assert "stzoo train tau-mmnist-paper" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["info", "tau-mnist"], "did you mean tau-mmnist"),
        (["predict", "nothing.gif", "--model", "tau-mmnist", "-o", "x.gif"], "nothing.gif"),
        (["rollout", "x", "--model", "tau-mmnist", "--steps", "3", "-o", "x.mkv"], "cannot write x.mkv"),
        (["evaluate", "tau-mmnist-paper", "--mnist", "nowhere"], "no published weights"),
        (["train", "tau-mmnist", "--mnist", "nowhere", "--out", "x"], "holds no train-images"),
        (["train", "tau-mmnist", "--mnist", "nowhere", "--out", "x", "--steps", "-1"], "must be positive"),
        (["train", "tau-mmnist", "--mnist", "nowhere", "--out", "x", "--minutes", "nan"], "must be positive"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    command: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("stzoo: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_rollout_reads_and_writes_animations(
    forecaster: Forecaster, frames: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    first, *rest = [Image.fromarray(f) for f in frames]
    first.save(tmp_path / "in.png", save_all=True, append_images=rest)
    model = ["--model", str(tmp_path / "model")]
    assert main(["rollout", str(tmp_path / "in.png"), *model, "--steps", "7", "-o", str(tmp_path / "out.png")]) == 0
    assert "7 frames" in capsys.readouterr().out
    written = np.stack([np.asarray(i) for i in read_images(tmp_path / "out.png")])
    np.testing.assert_array_equal(written, forecaster.rollout(frames, 7))
    assert main(["predict", str(tmp_path / "in.png"), *model, "-o", str(tmp_path / "folder")]) == 0
    assert len(list((tmp_path / "folder").iterdir())) == 4


def test_steps_of_zero_and_files_in_the_way_are_refused(
    forecaster: Forecaster, frames: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    first, *rest = [Image.fromarray(f) for f in frames]
    first.save(tmp_path / "in.png", save_all=True, append_images=rest)
    start = ["rollout", str(tmp_path / "in.png"), "--model", str(tmp_path / "model")]
    assert main([*start, "--steps", "0", "-o", str(tmp_path / "out.png")]) == 2
    assert "steps is 0" in capsys.readouterr().err
    assert main([*start, "--steps", "3", "-o", str(tmp_path / "model")]) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*start, "--steps", "3", "-o", "/proc/out.png"]) == 2
    assert capsys.readouterr().err.startswith("stzoo: ")


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
