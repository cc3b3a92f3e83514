"""How passes take turns, and what counts as the machine's peak. No time is asserted, only arithmetic."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stzoo.benchmark import timing


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


def test_a_graph_is_captured_or_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU here: what is tested is that a capture that CUDA refuses is none."""

    def refused(graph: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", SimpleNamespace)
    monkeypatch.setattr(torch.cuda, "graph", refused)
    assert timing.captured(list) is None
