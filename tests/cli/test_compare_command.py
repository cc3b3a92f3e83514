"""`stzoo compare`: several models on the same frames, in one table and one picture."""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stzoo.cli import main
from stzoo.forecaster import Forecaster
from stzoo.opening import create
from stzoo.spec import ModelSpec


@pytest.fixture
def places(forecaster: Forecaster, spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Folders of models, and clips of 20 frames for them. The current folder is empty."""
    torch.manual_seed(1)
    forecaster.save_pretrained(tmp_path / "four")
    create(spec.replace(frames_in=2, frames_out=2)).save_pretrained(tmp_path / "two")
    create(spec.replace(channels=3)).save_pretrained(tmp_path / "colour")
    create(spec.replace(height=32)).save_pretrained(tmp_path / "high")
    create(spec.replace(value_range=[0.0, 2.0])).save_pretrained(tmp_path / "wide")
    forecaster.save_pretrained(tmp_path / "run" / "best")
    (tmp_path / "clips").mkdir()
    for number in range(3):
        frames = np.random.default_rng(number).integers(0, 256, (20, 32, 16), dtype=np.uint8)
        np.save(tmp_path / "clips" / f"{number}.npy", frames)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return {path.name.upper(): str(path) for path in tmp_path.iterdir()}


def run(words: list[str], places: dict[str, str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(["compare", *(places.get(word, word) for word in words)])
    return code, *capsys.readouterr()


def test_figures_are_those_of_evaluate(places: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["FOUR", "TWO", "--data", "CLIPS", "--json"], places, capsys)
    assert code == 0
    found = json.loads(out)
    assert (found["protocol"], found["clips"], found["files"]) == ("clips-4-4", 3, 1)
    assert main(["evaluate", places["FOUR"], "--data", places["CLIPS"], "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    four, two = found["models"]
    assert (four["model"], four["steps"], four["total"]) == (places["FOUR"], alone["steps"], alone["total"])
    assert found["persistence"] == {"steps": alone["persistence_steps"], "total": alone["persistence_total"]}
    assert len(two["steps"]["mse"]) == 4  # twice as many as it forecasts at once
    assert two["total"] != four["total"]


def test_a_table_and_a_picture(places: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["FOUR", "TWO", "--data", "CLIPS", "--steps", "6", "--limit", "2", "--part", "validation"]
    code, out, _ = run([*words, "--plot", "a.png", "--metric", "ssim", "--clip", "1"], places, capsys)
    assert code == 0
    heading, _, *rows = out.splitlines()
    protocol = "clips-4-6, validation part, first 2 sequences only: 2 sequences of 1 file"
    assert heading == f"{protocol}, metrics as defined by stzoo, forecasts in float32"
    assert [row.split()[0] for row in rows] == [places["FOUR"], places["TWO"], "persistence"]
    with Image.open("a.png") as picture:
        assert picture.format == "PNG"
    code, out, _ = run([*words, "--csv", "--plot", "a.pdf"], places, capsys)
    assert code == 0
    assert len(list(csv.DictReader(io.StringIO(out)))) == 3 * 6
    assert Path("a.pdf").read_bytes().startswith(b"%PDF")


def test_sizes_differ_unless_frames_keep_their_own(places: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(["FOUR", "HIGH", "--data", "CLIPS"], places, capsys)
    assert (code, out) == (2, "")
    assert "was trained on frames of 16x16 (height x width), " in err
    assert "on frames of 32x16; on clips of your own compare them at the size of the clips, with --size own" in err
    code, out, _ = run(["FOUR", "HIGH", "--data", "CLIPS", "--size", "own"], places, capsys)
    assert code == 0
    assert "frames at their own size" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["FOUR", "FOUR"], "four is named twice"),
        (["FOUR", "vqvae-mmnist"], "vqvae-mmnist is a codec, which forecasts nothing; leave it out"),
        (["FOUR", "tau-mnist"], "did you mean tau-mmnist"),
        (
            ["FOUR", "RUN"],
            "run holds no config.json; a saved model has config.json and model.safetensors; those of this ",
        ),
        (["FOUR", "COLOUR"], "cannot read the same frames: channels 1 and 3"),
        (["FOUR", "WIDE"], "range of values (0.0, 1.0) and (0.0, 2.0)"),
        (["tau-mmnist", "tau-ut"], "for different datasets: tau-mmnist for mmnist, tau-ut for ut; say with --dataset"),
        (["FOUR", "--metric", "ssim"], "--metric and --clip say what --plot draws; name the picture"),
        (["FOUR", "--clip", "0"], "--metric and --clip say what --plot draws; name the picture"),
        (["FOUR", "--plot", "a.gif"], "--plot is a.gif; it must end in .png, .svg or .pdf"),
        (["FOUR", "--plot", "a.png", "--clip", "3"], "there is no clip 3; the number may be 0 to 2"),
        (["FOUR", "--plot", "a.png", "--limit", "1", "--clip", "1"], "there is no clip 1; the number may be 0 to 0"),
        (
            ["FOUR", "--plot", "a.png", "--metric", "csi_1"],
            "no metric 'csi_1' in the definition stzoo; it has mse, mae",
        ),
        (["FOUR", "--steps", "0"], "--steps is 0; it must be at least 1"),
        (["FOUR", "--limit", "9"], "--limit is 9; it may be 1 to 3"),
        (["FOUR", "--steps", "17"], "no recording has 21 frames"),
        (["FOUR", "--device", "gpu"], "gpu"),
    ],
)
def test_bad_input_is_one_line_and_draws_nothing(
    words: list[str], message: str, places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run([*words, "--data", "CLIPS"], places, capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert list(Path().iterdir()) == []


def test_a_name_chooses_the_dataset_and_an_option_does_so_first(
    places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(["tau-mmnist", "simvp-mmnist", "--data", "CLIPS"], places, capsys)
    assert code == 2
    assert "tau-mmnist is measured on mmnist, by its name; for other files add --dataset clips" in err
    code, out, _ = run(["FOUR", "--data", "CLIPS", "--dataset", "clips"], places, capsys)
    assert code == 0
    assert out.startswith("clips-4-4: 3 sequences of 1 file, ")


def test_without_matplotlib_figures_are_printed_and_nothing_is_drawn(
    places: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = run(["FOUR", "--data", "CLIPS", "--plot", "a.png"], places, capsys)
    assert (code, out, err) == (2, "", 'stzoo: charts need an extra: pip install "stzoo[plot]"\n')
    assert run(["FOUR", "--data", "CLIPS"], places, capsys)[0] == 0


def test_packaged_models_on_moving_mnist(mnist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--mnist", str(mnist), "--limit", "4", "--json"]
    assert main(["compare", "tau-mmnist", "simvp-mmnist", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["protocol"] == "mmnist-10-10, first 4 sequences only"
    for model in found["models"]:
        assert main(["evaluate", model["model"], *options]) == 0
        alone = json.loads(capsys.readouterr().out)
        assert model["steps"] == alone["steps"]
        assert (model["skill"], found["persistence"]["total"]) == (alone["skill"], alone["persistence_total"])
