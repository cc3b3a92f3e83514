"""What `stzoo benchmark` counts, how it takes turns, what it prints and draws. No time is asserted, only arithmetic."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

import stzoo
from stzoo import engine
from stzoo.benchmark import fresh, timing
from stzoo.benchmark.counting import bytes_moved, macs
from stzoo.benchmark.report import Machine, Plain, Report
from stzoo.benchmark.roofline import PLAIN_COLOUR, ROOF_COLOURS, SIZE, SLOPE_COLOUR, Axis, axes, roofline
from stzoo.benchmark.running import _beside, benchmark
from stzoo.benchmark.setting import Setting, opened
from stzoo.cli.main import build_parser, main
from stzoo.errors import SpecError, StzooError
from stzoo.forecaster import Forecaster
from stzoo.frames.values import noise
from stzoo.hub.card import count_parameters
from stzoo.release.speed import speed_of
from stzoo.spec import ModelSpec
from stzoo.train.recipe import read_recipe

DOCS = Path(__file__).parents[1] / "docs" / "benchmark.md"
BARE = min(  # the smallest entry without weights, whichever has none
    stzoo.list_models("*-mmnist", pretrained=False, kind="forecaster"),
    key=lambda name: count_parameters(stzoo.info(name).spec),
)
PUBLISHED = {  # GMAC of the papers and of published benchmarks, as docs/architectures.md has them
    ("tau-mmnist-paper", 10): 15.95,
    ("simvp-mmnist-paper", 10): 16.53,
    ("simvp-incepu-mmnist-paper", 10): 19.43,
    ("tau-kth", 10): 73.8,
    ("tau-taxibj", 4): 2.49,
    ("convlstm-mmnist-paper", 10): 56.8,
    ("predrnn-mmnist-paper", 10): 115.95,
    ("predrnnpp-mmnist-paper", 10): 171.7,
    ("mim-mmnist-paper", 10): 179.2,
    ("e3dlstm-mmnist-paper", 10): 298.9,
    ("phydnet-mmnist-paper", 10): 15.3,
}


@pytest.mark.parametrize(("entry", "steps"), PUBLISHED)
def test_multiply_accumulates_are_the_published_ones(entry: str, steps: int) -> None:
    found = macs(stzoo.info(entry).spec, steps) / 1e9
    assert found == pytest.approx(PUBLISHED[entry, steps], rel=0.01)


def test_every_block_and_every_step_is_counted() -> None:
    block, step = stzoo.info("tau-mmnist").spec, stzoo.info("predrnn-mmnist").spec
    one, ten, eleven = (macs(block, n) for n in (1, 10, 11))
    assert (one, eleven) == (ten, 2 * ten)
    assert macs(step, 3) * 10 == macs(step, 1) * 12  # ten frames are read, of which the last gives the first forecast


def test_bytes_are_weights_clips_and_frames() -> None:
    spec = stzoo.info("tau-ut").spec
    size = stzoo.info("tau-ut").weights
    assert size is not None
    frames = 4 * 3 * (10 + 7) * 64 * 64
    half = bytes_moved(spec, 3, 7, "bfloat16") - frames
    assert bytes_moved(spec, 3, 7, "float32") - frames == 2 * half
    assert half == pytest.approx(size.size, rel=0.02)  # of float16, with a header


class Looks:
    """In place of `Limits`."""

    def __init__(self) -> None:
        self.count = 0

    def measure(self) -> None:
        self.count += 1


def turns(repeats: int | None, order: list[str]) -> dict[str, list[float]]:
    runs = {name: partial(order.append, name) for name in ("model", "plain")}
    looks: Any = Looks()
    seconds = timing.take_turns(runs, looks, torch.device("cpu"), repeats, progress=False)
    assert looks.count >= 1
    assert all(len(passes) == len(order) // 2 for passes in seconds.values())
    return seconds


def test_passes_take_turns_in_both_orders() -> None:
    order: list[str] = []
    turns(3, order)
    assert order == ["model", "plain", "plain", "model", "model", "plain"]


@pytest.mark.parametrize(("seconds", "rounds"), [(10.0, 5), (1.0, 8), (1e-6, 100)])
def test_as_many_passes_as_fit_into_the_time(seconds: float, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "timed", lambda run, device: (seconds, run()))
    order: list[str] = []
    turns(None, order)
    assert len(order) == 2 * rounds


def test_the_limits_are_the_best_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_SIZES", {"cpu": (8, 16)})
    monkeypatch.setattr(timing, "_COPIED", {"cpu": 1000})
    done: list[Any] = []
    speed = [4.0]

    def timed(run: timing.Pass, device: torch.device) -> tuple[float, None]:
        done.append(run())
        return speed[0], None

    monkeypatch.setattr(timing, "timed", timed)
    limits = timing.Limits(torch.device("cpu"))  # seconds for the smallest size: no larger one
    for speed[0] in (2.0, 8.0):
        limits.measure()
    best = 2 * 8**3 / 2 / 1e12
    assert limits.peak == pytest.approx({"float32": best, "bfloat16": best})
    assert limits.size == {"float32": 8, "bfloat16": 8}
    assert limits.bandwidth == pytest.approx(2 * 4000 / 2 / 1e9)
    assert {len(product) for product in done} == {8, 1000}
    assert {product.dtype for product in done} == {torch.float32, torch.bfloat16}


def test_the_peak_is_of_the_fastest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {8: 3e-3, 16: 4e-3, 32: 6e-2, 100: 1.0}  # 16 by 16 is the fastest for its work
    monkeypatch.setattr(timing, "_SIZES", {"cpu": (8, 16, 32)})
    monkeypatch.setattr(timing, "_COPIED", {"cpu": 100})
    monkeypatch.setattr(timing, "timed", lambda run, device: (seconds[len(run())], None))
    limits = timing.Limits(torch.device("cpu"))
    assert limits.size == {"float32": 16, "bfloat16": 16}
    assert limits.peak["float32"] == pytest.approx(2 * 16**3 / 4e-3 / 1e12)


def test_memory_is_the_peak_of_the_fresh_process_alone() -> None:
    ours = bytearray(400 << 20)  # which a child begins with, as far as ru_maxrss goes
    code = (
        "from stzoo.benchmark.fresh import _resident as r; before = r('VmHWM'); x = bytearray(100 << 20); del x; "
        "print([before, r('VmHWM'), r('VmRSS')])"
    )
    before, most, now = fresh._run(code)
    assert before < len(ours) >> 20
    assert 95 < most - before < 110  # the kernel counts pages in batches
    if Path("/proc/self/status").exists():
        assert now < most - 90


def test_a_fresh_process_that_fails_says_why() -> None:
    with pytest.raises(StzooError, match=r"failed with code 1: .*WeightsError: nowhere/at/all is no folder"):
        fresh.memory(Setting(source="nowhere/at/all"), 1)


@pytest.fixture
def saved(forecaster: Forecaster, tmp_path: Path) -> Path:
    forecaster.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


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
        assert (image.format, image.size) == ("PNG", SIZE)


def test_bfloat16_random_weights_and_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts that a fresh process measures have a test of their own; here they are given."""
    entry = stzoo.info(BARE)
    monkeypatch.setattr(fresh, "start", lambda setting: fresh.Start(0.001, 1.0, 2.0))
    monkeypatch.setattr(fresh, "memory", lambda setting, steps: fresh.Memory(11.0, 111.0, None))
    monkeypatch.setattr(fresh, "stream_memory", lambda setting, steps: 100.0 + steps)
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


def test_streaming_is_measured_in_a_process_of_its_own(saved: Path) -> None:
    values = vars(Setting(source=str(saved), threads=torch.get_num_threads()))
    assert fresh.streaming(values, 9) > 50  # MiB; torch alone has more
    whole = fresh.one_pass(values, 9)["whole"]
    assert whole is not None
    assert whole > 50


def test_noise_fills_the_models_range(spec: ModelSpec) -> None:
    values = noise(replace(spec, value_range=(-2.0, 6.0)), 2)
    assert values.shape == (2, 4, 1, 16, 16)
    assert -2 <= values.min() < -1.9
    assert 5.9 < values.max() <= 6
    assert torch.equal(values, noise(replace(spec, value_range=(-2.0, 6.0)), 2))
    two = noise(replace(spec, channels=2, value_range=None, mean=(0.0, 100.0), std=(1.0, 5.0)), 2)
    assert two.amin((0, 1, 3, 4)).tolist() == pytest.approx([-1, 95], abs=0.1)
    assert two.amax((0, 1, 3, 4)).tolist() == pytest.approx([1, 105], abs=0.1)


def test_a_graph_is_captured_or_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU here: what is tested is that a capture that CUDA refuses is none."""

    def refused(graph: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", SimpleNamespace)
    monkeypatch.setattr(torch.cuda, "graph", refused)
    assert timing.captured(list) is None


MACHINE = Machine(
    processor="An abacus", device="cpu", threads=2, system="Linux", python="3", torch="2", stzoo="0",
    peak_tflops={"float32": 0.2, "bfloat16": 1.6}, peak_size={"float32": 1024, "bfloat16": 2048},
    copy_gb_per_second=10.0,
)  # fmt: skip
PLAIN = Plain(
    ratio_median=4.0, ratio_p10=3.0, ratio_p90=5.0, difference=0.01, difference_rms=0.002,
    latency_median_ms=40.0, latency_p90_ms=50.0,
    clips_per_second=25.0, achieved_tflops=0.1, peak_share=0.5, bytes_per_pass=100, intensity=100.0,
)  # fmt: skip
REPORT = Report(
    model="tau-mmnist", trained=True, parameters=1, precision="bfloat16", batch=1, frames_in=10, steps=10, passes=9,
    latency_median_ms=10.0, latency_p90_ms=12.0, graph_latency_median_ms=None, clips_per_second=100.0,
    macs_per_clip=2 * 10**9, achieved_tflops=0.4, peak_share=0.25, bytes_per_pass=20_000_000, intensity=200.0,
    memory_above_import_mib=80.0, memory_mib=300.0, cuda_memory_mib=None, import_stzoo_ms=1.0, import_torch_ms=900.0,
    first_forecast_ms=500.0, stream_20_mib=None, stream_1000_mib=None, plain=PLAIN, machine=MACHINE, command="c",
)  # fmt: skip


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


def test_an_axis_is_logarithmic() -> None:
    axis = Axis(0.1, 1000.0, 100.0, 500.0)
    assert [axis.pixel(v) for v in (0.1, 1.0, 10.0, 1000.0)] == pytest.approx([100, 200, 300, 500])
    assert axis.pixel(10**0.5) == pytest.approx(250)
    assert axis.ticks() == pytest.approx([0.1, 1, 10, 100, 1000])
    assert Axis(1.0, 100.0, 500.0, 100.0).pixel(10.0) == pytest.approx(300)  # upwards


def test_the_roofline_shows_the_points_below_their_roofs() -> None:
    image = roofline(REPORT)
    x, y = axes(REPORT)
    assert (x.low, x.high, y.low, y.high) == pytest.approx((1, 1000, 0.01, 10))

    def colour(intensity: float, tflops: float) -> Any:
        return image.getpixel((round(x.pixel(intensity)), round(y.pixel(tflops))))

    def rgb(name: str) -> Any:
        return pytest.approx(ImageColor.getrgb(name), abs=30)  # thin lines are blurred a little

    assert image.size == SIZE
    for name, places in {
        ROOF_COLOURS["bfloat16"]: [(200, 0.4), (170, 1.6), (800, 1.6)],
        ROOF_COLOURS["float32"]: [(25, 0.2), (800, 0.2)],
        PLAIN_COLOUR: [(100, 0.1)],
        SLOPE_COLOUR: [(3, 0.03), (60, 0.6)],  # 10 GB/s are 0.01 TFLOP/s at one FLOP a byte
        "white": [(5, 0.25), (50, 3.5), (350, 0.065)],
    }.items():
        for place in places:
            assert colour(*place) == rgb(name)
    alone = roofline(replace(REPORT, plain=None))
    place = round(x.pixel(100)), round(y.pixel(0.1))
    assert axes(replace(REPORT, plain=None)) == (x, y)
    assert alone.getpixel(place) != rgb(PLAIN_COLOUR)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["tau-mnist"], "did you mean tau-mmnist"),
        (["vqvae-mmnist"], "vqvae-mmnist is a codec, which forecasts nothing"),
        (["tau-mmnist", "--batch", "0"], "--batch is 0; it must be at least 1"),
        (["tau-mmnist", "--steps", "-1"], "--steps is -1; it must be at least 1"),
        (["tau-mmnist", "--threads", "0"], "--threads is 0; it must be at least 1"),
        (["tau-mmnist", "--repeats", "0"], "--repeats is 0; it must be at least 1"),
        (["tau-mmnist", "--plot", "roof.pdf"], "--plot is roof.pdf; it must end in .png"),
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
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SpecError, match="--device is cuda; this machine"):
        Setting(source="tau-mmnist", device="cuda")
    with pytest.raises(SpecError, match="--precision is 'float16'; it may be float32 or bfloat16 or auto"):
        Setting(source="tau-mmnist", precision="float16")


def test_an_entry_without_weights_gets_random_ones() -> None:
    assert stzoo.info(BARE).weights is None
    assert opened(Setting(source=BARE)).report.sha256 is None
    assert opened(Setting(source="tau-ut")).report.sha256 is not None


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
