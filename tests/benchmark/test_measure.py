"""What `stzoo benchmark` reports, and what it refuses. No time is asserted, only arithmetic."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchmark.shared import PLAIN, REPORT
from PIL import Image

import stzoo
from stzoo import engine
from stzoo.benchmark import fresh, timing
from stzoo.benchmark.counting import bytes_moved
from stzoo.benchmark.measure import _beside, benchmark
from stzoo.benchmark.setting import Setting, load_for
from stzoo.cli.main import build_parser, main
from stzoo.errors import SpecError
from stzoo.frames.values import noise
from stzoo.hub.card import count_parameters
from stzoo.release.speed import speed_of
from stzoo.spec import ModelSpec
from stzoo.train.recipe import read_recipe

DOCS = Path(__file__).parents[2] / "docs" / "benchmark.md"
BARE = min(  # the smallest entry without weights, whichever has none
    stzoo.list_models("*-mmnist", pretrained=False, kind="forecaster"),
    key=lambda name: count_parameters(stzoo.info(name).spec),
)


def keys(values: Mapping[str, Any], prefix: str = "") -> set[str]:
    """Of the JSON, nested ones with a point."""
    found: set[str] = set()
    for key, value in values.items():
        found |= {prefix + key} if not isinstance(value, Mapping) else keys(value, f"{prefix}{key}.")
    return found


def documented() -> set[str]:
    section = DOCS.read_text("utf-8").split("## JSON")[1].split("\n## ")[0]
    first = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    return {key for cell in first for key in re.findall(r"`([^`]+)`", cell)}


@pytest.mark.slow
def test_a_report_adds_up(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh, "_STARTS", 1)
    picture, threads = tmp_path / "roof.png", torch.get_num_threads()
    given = ["benchmark", str(saved), "--batch", "3", "--steps", "6", "--threads", "1", "--repeats", "5"]
    assert main([*given, "--against", "plain", "--json", "--plot", str(picture)]) == 0
    r = json.loads(capsys.readouterr().out)
    assert keys(r) | {"plain"} == documented()
    assert (r["model"], r["trained"], r["precision"], r["passes"]) == (str(saved), True, "float32", 5)
    assert (r["batch"], r["frames_in"], r["steps"], r["machine"]["threads"]) == (3, 4, 6, 1)
    assert torch.get_num_threads() == threads
    peaks, plain = r["machine"]["peak_tflops"], r["plain"]
    for run in (r, plain):
        assert 0 < run["latency_median_ms"] <= run["latency_p90_ms"]
        assert run["clips_per_second"] == pytest.approx(3e3 / run["latency_median_ms"])
        assert run["achieved_tflops"] == pytest.approx(2 * r["macs_per_clip"] * run["clips_per_second"] / 1e12)
        assert run["peak_share"] == pytest.approx(run["achieved_tflops"] / peaks["float32"])
        assert run["intensity"] == pytest.approx(6 * r["macs_per_clip"] / run["bytes_per_pass"])
    assert 0 < plain["ratio_p10"] <= plain["ratio_median"] <= plain["ratio_p90"]
    assert 0 < plain["difference_rms"] < 1e-4
    assert 0 < plain["difference"] < 1e-4
    assert 0 < r["memory_above_import_mib"] < r["memory_mib"]
    assert min(r["import_stzoo_ms"], r["import_torch_ms"], r["first_forecast_ms"]) > 0
    assert r["graph_latency_median_ms"] is r["cuda_memory_mib"] is r["stream_20_mib"] is None
    again = vars(build_parser().parse_args(shlex.split(r["command"])[1:]))
    asked = vars(build_parser().parse_args([*given, "--against", "plain"]))
    assert {k: v for k, v in again.items() if k != "run"} == {k: v for k, v in asked.items() if k != "run"}
    (tmp_path / "report.json").write_text(json.dumps(r))
    speed = speed_of(replace(stzoo.info("tau-ut"), name=str(saved)), tmp_path / "report.json", "an abacus")
    assert (speed.batch, speed.steps, speed.threads, speed.command) == (3, 6, 1, r["command"])
    assert speed.against_plain == pytest.approx(plain["ratio_median"], rel=1e-3)
    with Image.open(picture) as image:
        assert image.format == "PNG"


def test_bfloat16_random_weights_and_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts that a fresh process measures have a test of their own; here they are given."""
    entry = stzoo.info(BARE)
    monkeypatch.setattr(fresh, "measure_start", lambda setting: fresh.StartTimes(0.001, 1.0, 2.0))
    monkeypatch.setattr(fresh, "measure_memory", lambda setting, steps: fresh.PeakMemory(11.0, 111.0, None))
    monkeypatch.setattr(fresh, "measure_streaming", lambda setting, steps: 100.0 + steps)
    monkeypatch.setattr(timing, "_SIZES", {"cpu": (64,)})
    monkeypatch.setattr(engine, "multiplies_in_bfloat16", lambda device: True)
    threads = torch.get_num_threads()
    found = benchmark(Setting(source=entry.name, precision="auto", against_plain=True, repeats=1, stream=True))
    assert (found.trained, found.precision) == (False, "bfloat16")
    assert (found.stream_20_mib, found.stream_1000_mib) == (120, 1100)
    assert found.plain is not None
    assert found.plain.difference is not None
    assert 1e-6 < found.plain.difference < 0.2  # another precision, the same weights
    assert found.peak_share == pytest.approx(found.achieved_tflops / found.machine.peak_tflops["bfloat16"])
    assert found.plain.peak_share == pytest.approx(found.plain.achieved_tflops / found.machine.peak_tflops["float32"])
    assert found.plain.bytes_per_pass == bytes_moved(entry.spec, 1, 10, "float32") > found.bytes_per_pass
    text = str(found)
    for part in (f"{BARE}, random weights: 1 clip of 10", "120 MiB, 1100 MiB", "111 MiB, 11 beyond", "2000 ms"):
        assert part in text
    given = f"--precision bfloat16 --threads {threads} --repeats 1 --against plain --stream"
    assert found.command == f"stzoo benchmark {BARE} {given}"


def test_noise_fills_the_models_range(spec: ModelSpec) -> None:
    values = noise(replace(spec, value_range=(-2.0, 6.0)), 2)
    assert values.shape == (2, 4, 1, 16, 16)
    assert -2 <= values.min() < -1.9
    assert 5.9 < values.max() <= 6
    assert torch.equal(values, noise(replace(spec, value_range=(-2.0, 6.0)), 2))
    two = noise(replace(spec, channels=2, value_range=None, mean=(0.0, 100.0), std=(1.0, 5.0)), 2)
    assert two.amin((0, 1, 3, 4)).tolist() == pytest.approx([-1, 95], abs=0.1)
    assert two.amax((0, 1, 3, 4)).tolist() == pytest.approx([1, 105], abs=0.1)


def test_what_is_not_finite_is_null_and_no_number() -> None:
    answers = {"model": torch.full((2,), torch.nan), "plain": torch.ones(2)}
    given = {name: getattr(PLAIN, name) for name in keys(vars(PLAIN)) if not name.startswith(("ratio", "difference"))}
    beside = _beside({"model": [1.0], "plain": [2.0]}, answers, given)
    found = replace(REPORT, plain=beside)
    assert json.loads(found.to_json())["plain"]["difference"] is beside.difference_rms is None
    assert "answers on noise differ by  no finite number" in str(found)
    near = _beside(
        {"model": [1.0], "plain": [2.0]}, {"model": torch.tensor([3.0, 4.4]), "plain": torch.tensor([3.0, 4.0])}, given
    )
    assert (near.difference, near.difference_rms) == pytest.approx((0.1, 0.08))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["tau-mnist"], "did you mean tau-mmnist"),
        (["vqvae-mmnist"], "vqvae-mmnist is a codec, which forecasts nothing"),
        (["tau-mmnist", "--batch", "0"], "--batch is 0; it must be at least 1"),
        (["tau-mmnist", "--steps", "-1"], "--steps is -1; it must be at least 1"),
        (["tau-mmnist", "--threads", "0"], "--threads is 0; it must be at least 1"),
        (["tau-mmnist", "--repeats", "0"], "--repeats is 0; it must be at least 1"),
        (["tau-mmnist", "--plot", "roof.jpg"], "--plot is roof.jpg; it must end in .png, .svg or .pdf"),
        (["tau-mmnist", "--plot", "nowhere/roof.png"], "--plot is nowhere/roof.png, which cannot be written"),
        (["tau-mmnist", "--data", "."], "--data is for --loader"),
        (["tau-mmnist", "--dataset", "kth"], "--dataset is for --loader"),
        (["tau-mmnist", "--download", "https://host"], "--download is for --loader"),
        (
            ["tau-ut", "--loader", "--data", ".", "--batch", "2"],
            "--batch measures forecasts; leave it out with --loader",
        ),
        (["tau-ut", "--loader", "--against", "plain"], "--against measures forecasts; leave it out with --loader"),
        (["tau-ut", "--loader", "--plot", "roof.png"], "--plot measures forecasts; leave it out with --loader"),
        (["./nowhere"], "nowhere is no folder that save_pretrained wrote"),
    ],
)
def test_bad_input_is_one_line_before_any_work(
    given: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fresh, "_run", lambda code: pytest.fail("this is work"))
    assert main(["benchmark", *given]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SpecError, match="device is cuda; torch finds no such GPU here"):
        Setting(source="tau-mmnist", device="cuda")
    with pytest.raises(SpecError, match="precision is 'float16'; it may be float32, bfloat16, auto"):
        Setting(source="tau-mmnist", precision="float16")


def test_an_entry_without_weights_gets_random_ones() -> None:
    assert stzoo.info(BARE).weights is None
    assert load_for(Setting(source=BARE)).report.sha256 is None
    assert load_for(Setting(source="tau-ut")).report.sha256 is not None


@pytest.mark.slow
def test_the_pace_of_reading_is_told_beside_that_of_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stzoo.train import pace

    recipe = replace(read_recipe("tau-ut"), batch=2)
    monkeypatch.setattr("stzoo.train.recipe.read_recipe", lambda name: recipe)
    ticks = iter(x for i in range(99) for x in (i, i + 0.1, i + 0.5))
    monkeypatch.setattr(pace, "time", SimpleNamespace(perf_counter=ticks.__next__))
    for k in range(3):
        np.save(tmp_path / f"{k}.npy", np.zeros((30, 64, 64), np.uint8))
    assert main(["benchmark", "tau-ut", "--loader", "--dataset", "clips", "--data", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["loader"] == pytest.approx(2 / 0.1)  # a batch of two
    assert found["step"] == pytest.approx(2 / 0.3)  # half a second less twice the reading
    assert found["ratio"] == pytest.approx(3)
    assert main(["benchmark", "tau-ut", "--loader"]) == 2
    assert "name the folder of the dataset with --data DIR" in capsys.readouterr().err
