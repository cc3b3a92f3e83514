"""While it trains, memory that was freed is used again without asking the system; afterwards it is given back."""

import os
import platform
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import run
from torch import Tensor

from stzoo.train import run as training_run
from stzoo.train.allocator import chosen_by_user, memory_kept

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
SIZE = 64  # MiB of the tensors below, which are larger than glibc keeps by itself


def resident() -> float:
    """MiB of the system's memory that this process holds.

    Page faults would not tell: NumPy asks the system for huge pages, of which one fault brings 2 MiB, and torch may get
    the same addresses later.
    """
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Rss:")) / 1024


def given_back(size: int = SIZE) -> float:
    """How many MiB go back to the system as soon as a tensor of this many is freed."""
    tensor = torch.ones(size << 18)
    before = resident()
    del tensor
    return before - resident()


def in_a_new_process(**environment: str) -> dict[str, float]:
    """What is given back inside the block, and after it; the MiB held at the block's end and after it."""
    code = """
        import torch
        from test_allocator import given_back, resident
        from stzoo.train.allocator import memory_kept

        before = resident()
        with memory_kept():
            inside = given_back()
            small = [torch.ones(1 << 14) for _ in range(4096)]
            last = small[-1]  # lies above what is freed, so that trimming the top would not give it back
            del small
            held = resident()
        left = resident()
        after = given_back(8 * 64)  # fits into no gap that the block left, from which nothing would be given back
        print({"inside": inside, "held": held - before, "left": left - before, "after": after})
    """
    settings = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | environment
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=settings, cwd=Path(__file__).parent, check=True, text=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    return eval(found.stdout)  # type: ignore[no-any-return]


def test_memory_is_used_again_and_then_given_back() -> None:
    found = in_a_new_process()
    assert found["inside"] < SIZE / 10
    assert found["after"] > 8 * SIZE * 0.9
    assert found["held"] > 250
    assert found["left"] < 40


@pytest.mark.parametrize(
    "environment", [{"GLIBC_TUNABLES": "glibc.malloc.mmap_max=1000"}, {"MALLOC_MMAP_THRESHOLD_": "1000000"}]
)
def test_what_the_user_set_is_left(environment: dict[str, str]) -> None:
    assert in_a_new_process(**environment)["inside"] > SIZE * 0.9


def test_which_settings_are_the_users() -> None:
    assert not chosen_by_user({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "MALLOC_ARENA_MAX": "1"})
    assert chosen_by_user({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=1"})
    assert chosen_by_user({"MALLOC_TOP_PAD_": "0"})
    assert chosen_by_user({"MALLOC_MMAP_MAX_": ""})  # glibc reads 0


def kept() -> bool:
    """Whether the memory of a tensor stays with the process when the tensor is freed."""
    return given_back() < SIZE / 10


def test_a_block_in_another_one_ends_nothing() -> None:
    with memory_kept():
        with memory_kept():
            assert kept()
        held = resident()
        assert kept()
    assert held - resident() > SIZE / 2


def test_nor_does_the_block_of_another_thread_that_began_first() -> None:
    """Of two blocks that overlap, the one that ends last decides."""
    begun, ends = threading.Event(), threading.Event()

    def other() -> None:
        with memory_kept():
            begun.set()
            ends.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    assert begun.wait(60)
    with memory_kept():
        ends.set()
        thread.join()
        assert kept()
        held = resident()
    assert held - resident() > SIZE / 2


def test_a_block_that_fails_is_left_as_well() -> None:
    with pytest.raises(ZeroDivisionError), memory_kept():  # noqa: PT012
        assert kept()
        held = resident()
        _ = 1 / 0
    assert held - resident() > SIZE / 2


def test_training_keeps_it_from_step_to_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    held: list[float] = []
    objective = training_run.objective

    def probed(*arguments: Any) -> Tensor:
        seen.append(kept())
        held.append(resident())
        return objective(*arguments)

    monkeypatch.setattr(training_run, "objective", probed)
    run(tmp_path, 3)
    assert seen == [True] * 3
    assert held[-1] - resident() > SIZE / 2
