"""Clips that are made ahead are the clips of the source, in the main thread's time and order."""

import dataclasses
import threading
from typing import Any

import pytest
import torch
from test_loop import RECIPE, SPEC, clips, run

from stzoo.data import Clip
from stzoo.train.assignment import Assignment
from stzoo.train.clips import Ahead
from stzoo.train.processes import Processes
from stzoo.train.run import Run

ALONE = Processes(torch.device("cpu"))


class Counted:
    """Clip i is filled with i; remembers what it was asked for, and by which thread."""

    def __init__(self, fails_at: int = -1) -> None:
        self.asked: list[tuple[int, int]] = []
        self.threads: list[str] = []
        self.fails_at = fails_at

    def __len__(self) -> int:
        return 1000

    def clips(self, start: int, stop: int) -> Clip:
        self.asked.append((start, stop))
        self.threads.append(threading.current_thread().name)
        if start == self.fails_at:
            raise OSError(f"clip {start} cannot be read")
        numbers = torch.arange(start, stop).float().view(-1, 1, 1, 1, 1)
        return Clip(numbers, numbers + 0.5)


def makers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("stzoo-clips")]


def test_it_makes_the_next_clips_and_none_beyond_the_end() -> None:
    source = Counted()
    with Ahead(source, 10, 4, pinned=False) as ahead:
        found = [ahead.clips(start, start + 4).past.flatten().tolist() for start in (0, 4)]
        found.append(ahead.clips(8, 10).past.flatten().tolist())
    assert found == [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [8.0, 9.0]]
    assert source.asked == [(0, 4), (4, 8), (8, 10)]
    assert source.threads[0] == threading.current_thread().name
    assert all(name.startswith("stzoo-clips") for name in source.threads[1:])


def test_of_one_process_of_several_it_makes_the_next_share() -> None:
    source = Counted()
    with Ahead(source, 16, 8, pinned=False) as ahead:
        found = [ahead.clips(start, start + 4).past.flatten().tolist() for start in (4, 12)]
    assert found == [[4.0, 5.0, 6.0, 7.0], [12.0, 13.0, 14.0, 15.0]]
    assert source.asked == [(4, 8), (12, 16)]


def test_the_next_clips_are_made_while_nothing_is_asked() -> None:
    reached = threading.Event()

    class Waiting(Counted):
        def clips(self, start: int, stop: int) -> Clip:
            if start == 4:
                reached.set()
            return super().clips(start, stop)

    with Ahead(Waiting(), 100, 4, pinned=False) as ahead:
        ahead.clips(0, 4)
        assert reached.wait(60)


def test_other_clips_than_the_next_are_made_when_asked_for() -> None:
    source = Counted()
    with Ahead(source, 100, 4, pinned=False) as ahead:
        for start in (0, 40, 8, 12):
            assert ahead.clips(start, start + 4).past.flatten().tolist() == [start, start + 1, start + 2, start + 3]
    assert len(ahead) == len(source)


def test_an_error_is_raised_where_its_clips_are_asked_for() -> None:
    with Ahead(Counted(fails_at=4), 100, 4, pinned=False) as ahead:
        ahead.clips(0, 4)
        with pytest.raises(OSError, match="clip 4 cannot be read"):
            ahead.clips(4, 8)
    assert not makers()


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_its_thread_ends_with_it(error: type[BaseException] | None) -> None:
    def use() -> None:
        with Ahead(Counted(), 100, 4, pinned=False) as ahead:
            ahead.clips(0, 4)
            assert makers()
            if error is not None:
                raise error

    if error is None:
        use()
    else:
        with pytest.raises(error):
            use()
    assert not makers()


def test_a_source_that_draws_from_the_global_generator_is_asked_in_order() -> None:
    """Else the draws of clips and those of a step, such as dropout, would change places from run to run."""

    class Random(Counted):
        def clips(self, start: int, stop: int) -> Clip:
            super().clips(start, stop)
            return Clip(torch.rand(stop - start), torch.rand(stop - start))

    def drawn(source: Any) -> list[float]:
        torch.manual_seed(0)
        found = []
        for start in range(0, 12, 4):
            found += [*source.clips(start, start + 4).past.tolist(), torch.rand(()).item()]
        return found

    source = Random()
    with Ahead(source, 100, 4, pinned=False) as ahead:
        assert drawn(ahead) == drawn(Random())
    assert source.asked == [(0, 4), (4, 8), (8, 12)]
    assert set(source.threads) == {threading.current_thread().name}


def test_training_is_bit_equal_with_and_without() -> None:
    """The model draws too: a rate of 0.1 drops residual branches."""

    def trained(source: Any) -> dict[str, torch.Tensor]:
        run = Run(Assignment(SPEC, RECIPE, source), ALONE)
        for _ in range(5):
            run.advance(5)
        return run.module.state_dict()

    with Ahead(clips(1), 5 * RECIPE.batch, RECIPE.batch, pinned=False) as ahead:
        made_ahead = trained(ahead)
    plain = trained(clips(1))
    assert all(torch.equal(plain[name], tensor) for name, tensor in made_ahead.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_clips_are_made_ahead(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Noted(type(clips(0))):  # type: ignore[misc]
        def clips(self, start: int, stop: int) -> Clip:
            made.append(threading.current_thread().name)
            return super().clips(start, stop)

    recipe = dataclasses.replace(RECIPE, validate_every=4)
    run(tmp_path, 4, recipe=recipe, training=Noted(clips(1).digits, 1, 1 << 30, 3, 3), device="cuda")
    assert sum(name.startswith("stzoo-clips") for name in made) == 3
    assert not makers()
