"""Memory is estimated before it is taken: what is counted, what is free, and what is said if that is too little."""

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stzoo import environment
from stzoo.benchmark import Setting, benchmark
from stzoo.cli import main
from stzoo.engine import memory
from stzoo.engine.memory import available, forecast_bytes, memory_errors_told, rough_forecast_bytes, weights_bytes
from stzoo.errors import MemoryNeededError, SpecError
from stzoo.forecaster import Forecaster
from stzoo.frames import read
from stzoo.models import build
from stzoo.scale import forecast_archive
from stzoo.spec import ModelSpec

CPU = torch.device("cpu")
MB = 10**6


def test_estimates_grow_with_clips_and_pixels_and_stay_below_the_rough_bound(spec: ModelSpec) -> None:
    module = build(spec, "meta")
    copies = weights_bytes(module) + memory.BESIDE
    one, two, larger = (
        forecast_bytes(spec, clips, (side, side)) - copies for clips, side in ((1, 64), (2, 64), (1, 128))
    )
    assert two == pytest.approx(2 * one, rel=0.05)
    assert larger == pytest.approx(4 * one, rel=0.05)
    assert larger < rough_forecast_bytes(module, spec, 1, (128, 128))
    in_turn = forecast_bytes(spec, 2, (64, 64), at_once=1) - copies
    assert one < in_turn < two


def test_a_forecast_that_does_not_fit_is_refused_at_once(
    forecaster: Forecaster, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STZOO_MEMORY", "0.00001")
    with pytest.raises(MemoryNeededError, match=r"needs about .* GB of memory, and .* as STZOO_MEMORY says"):
        forecaster.predict(frames)
    with pytest.raises(MemoryError):  # what a caller would expect
        next(forecaster.stream(frames))
    monkeypatch.setenv("STZOO_MEMORY", "4")
    assert len(forecaster.predict(frames)) == forecaster.spec.frames_out


def test_the_commands_say_so_in_one_line(
    forecaster: Forecaster,
    frames: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    first, *rest = [Image.fromarray(f) for f in frames]
    first.save(tmp_path / "in.png", save_all=True, append_images=rest)
    monkeypatch.setenv("STZOO_MEMORY", "0.00001")
    command = ["predict", str(tmp_path / "in.png"), "--model", str(tmp_path / "model"), "-o", str(tmp_path / "out.gif")]
    assert main(command) == 2
    assert "needs about" in capsys.readouterr().err
    assert not (tmp_path / "out.gif").exists()
    monkeypatch.setenv("STZOO_MEMORY", "much")
    assert main(command) == 2
    assert "STZOO_MEMORY is 'much'; it must be a positive number of GB" in capsys.readouterr().err


def test_a_module_that_cannot_be_tried_is_not_refused(
    forecaster: Forecaster, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> int:
        raise RuntimeError("data-dependent")

    monkeypatch.setattr(memory, "forecast_bytes", fails)
    monkeypatch.setenv("STZOO_MEMORY", "0.00001")
    assert len(forecaster.predict(frames)) == forecaster.spec.frames_out


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e300", "16 GB"])
def test_a_wrong_setting_is_told(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STZOO_MEMORY", text)
    with pytest.raises(SpecError, match="STZOO_MEMORY"):
        environment.memory()


def system(root: Path, groups: str, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 8 GB available, whose control groups have these files."""
    files = files | {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 8000000 kB\n", "proc/self/cgroup": groups}
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    monkeypatch.delenv("STZOO_MEMORY", raising=False)
    monkeypatch.setattr(memory, "_PROC", root / "proc")
    monkeypatch.setattr(memory, "_CGROUPS", root / "cgroup")


def test_the_limits_of_control_groups_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def group(path: str, limit: str, used: int, cached: int, names: tuple[str, str] = memory._V2) -> dict[str, str]:
        values = (limit, str(used), f"anon 5\ninactive_file {cached}\n")
        return {f"cgroup/{path}/{n}": v for n, v in zip((*names, "memory.stat"), values, strict=True)}

    system(tmp_path / "none", "0::/\n", {}, monkeypatch)
    assert available(CPU) == 8_000_000 * 1024
    inner = group("a/b", "max", 100 * MB, 0) | group("a", str(900 * MB), 500 * MB, 50 * MB)
    system(tmp_path / "second", "0::/a/b\n", inner, monkeypatch)
    assert available(CPU) == 450 * MB
    first = group("memory/job", str(700 * MB), 800 * MB, 0, memory._V1)
    system(tmp_path / "first", "5:devices:/\n4:memory:/job\n0::/\n", first, monkeypatch)
    assert available(CPU) == 0
    (tmp_path / "first" / "proc" / "meminfo").unlink()  # another system
    assert available(CPU) is None


def test_errors_of_allocators_are_told_and_others_pass() -> None:
    for error in (
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
        ),
        MemoryError("Unable to allocate 9 TiB"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
    ):
        with pytest.raises(MemoryNeededError, match="not enough memory for training"), memory_errors_told("training"):
            raise error
    with pytest.raises(RuntimeError, match="other"), memory_errors_told("training"):
        raise RuntimeError("other")
    assert memory.shown_bytes(1_440_000_000) == "1.4 GB"


def test_frames_that_are_kept_are_counted_before_the_first_step(
    forecaster: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(forecaster.engine), "unroll", None)  # nothing is forecast
    np.save(tmp_path / "clip.npy", np.zeros((4, 1, 16, 16), np.uint8))
    (tmp_path / "clips").mkdir()
    (tmp_path / "clip.npy").rename(tmp_path / "clips" / "clip.npy")
    forecaster.save_pretrained(tmp_path / "model")
    with pytest.raises(MemoryNeededError, match="1,000,000,000,000 frames of 16x16 need at least 256000.0 GB"):
        forecaster.rollout(tmp_path / "clips" / "clip.npy", 10**12)
    with pytest.raises(MemoryNeededError, match="1,000,000,000,000 frames of 16x16 need"):
        forecast_archive(tmp_path / "clips", tmp_path / "model", 10**12, tmp_path / "out", in_process=True)
    assert not (tmp_path / "out").exists()
    with pytest.raises(MemoryNeededError, match="1,000,000,000 x "):
        benchmark(Setting(source=str(tmp_path / "model"), batch=10**9))


def as_map(frames: np.ndarray) -> Any:
    """With times, in memory that is not in the order of its dimensions."""
    dataarray = pytest.importorskip("xarray", reason="the extra `array` is not installed").DataArray
    return dataarray(frames, dims=("time", "y", "x"), coords={"time": np.arange(len(frames))}).transpose(
        "y", "time", "x"
    )


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, as_map], ids=["NumPy", "torch", "xarray"])
def test_of_a_long_answer_no_frame_is_kept_beside_it(
    forecaster: Forecaster, frames: np.ndarray, kind: Callable[[np.ndarray], Any]
) -> None:
    source = read(kind(frames), forecaster.spec, None)
    made = torch.rand(100, *source.past[:, 0].shape)
    alive: list[weakref.ref] = []

    def coming() -> Iterator[object]:
        for each in made:
            frame = source.frame(each)
            alive.append(weakref.ref(frame))
            yield frame
            del frame
            assert sum(one() is not None for one in alive) <= 1  # the one that went to its place last

    answer = source.collect(coming(), len(made))
    wanted = source.frame(made[70])
    if kind is as_map:
        assert answer.dims == ("y", "time", "x")
        np.testing.assert_array_equal(answer["time"], len(frames) + np.arange(100))
        answer = answer.transpose("time", "y", "x")
    assert answer.shape == (100, *frames.shape[1:])
    np.testing.assert_array_equal(answer[70], wanted)
