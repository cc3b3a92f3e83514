"""While it trains, memory that was freed is used again without asking the system; afterwards it is given back."""

import os
import platform
import resource
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
PAGES = (64 << 20) // 4096  # of the tensors below, which are larger than glibc keeps by itself


def faults() -> int:
    """How many pages came from the system while a tensor of 64 MiB was filled."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 << 20, dtype=torch.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def in_a_new_process(**environment: str) -> dict[str, float]:
    """Pages of a later tensor inside the block, and of one after it, that came from the system; the MiB then held."""
    code = """
        import resource, torch
        from stzoo.train.allocator import memory_kept

        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones(16 << 20)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        def held():
            return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

        before = held()
        with memory_kept():
            torch.ones(17 << 20)  # larger: glibc puts no aligned tensor where one of just its size was freed
            again = faults()
            small = [torch.ones(1 << 14) for _ in range(4096)]
            last = small[-1]  # lies above what is freed, so that trimming the top would not give it back
            del small
            inside = held()
        left = held()
        print({"again": again, "inside": inside - before, "left": left - before, "after": faults()})
    """
    settings = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | environment
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=settings, check=True, text=True, stdout=subprocess.PIPE
    )
    return eval(found.stdout)  # type: ignore[no-any-return]


def test_memory_is_used_again_and_then_given_back() -> None:
    found = in_a_new_process()
    assert found["again"] < PAGES / 100
    assert found["after"] > PAGES / 2
    assert found["inside"] > 250
    assert found["left"] < 40


@pytest.mark.parametrize(
    "environment", [{"GLIBC_TUNABLES": "glibc.malloc.mmap_max=1000"}, {"MALLOC_MMAP_THRESHOLD_": "1000000"}]
)
def test_what_the_user_set_is_left(environment: dict[str, str]) -> None:
    assert in_a_new_process(**environment)["again"] > PAGES / 2


def test_which_settings_are_the_users() -> None:
    assert not chosen_by_user({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "MALLOC_ARENA_MAX": "1"})
    assert chosen_by_user({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=1"})
    assert chosen_by_user({"MALLOC_TOP_PAD_": "0"})
    assert chosen_by_user({"MALLOC_MMAP_MAX_": ""})  # glibc reads 0


def kept() -> bool:
    """Whether the memory of a larger tensor that was freed is used again."""
    torch.ones(17 << 20, dtype=torch.float32)  # glibc puts no aligned tensor where one of just its size was freed
    return faults() < PAGES / 10


def test_a_block_in_another_one_ends_nothing() -> None:
    with memory_kept():
        with memory_kept():
            assert kept()
        assert kept()
    assert faults() > PAGES / 2


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
    assert faults() > PAGES / 2


def test_a_block_that_fails_is_left_as_well() -> None:
    with pytest.raises(ZeroDivisionError), memory_kept():
        _ = 1 / 0
    assert faults() > PAGES / 2


def test_training_keeps_it_from_step_to_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    objective = training_run.objective

    def probed(*arguments: Any) -> Tensor:
        seen.append(kept())
        return objective(*arguments)

    monkeypatch.setattr(training_run, "objective", probed)
    run(tmp_path, 3)
    assert any(seen[1:])
    assert faults() > PAGES / 2
