"""A run that is told to stop saves first, and one that is killed soon has something to go on from."""

import dataclasses
import signal
import threading
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from test_damage import assert_equal_outcome
from test_loop import RECIPE, SPEC, clips, run

from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.train import interruption, loop, train
from stzoo.train.checkpoint import read_checkpoint
from stzoo.train.folder import RunFolder
from stzoo.train.interruption import SavingClock, stop_requests

RARELY = dataclasses.replace(RECIPE, checkpoint_minutes=60.0, validate_every=5)
STEPS = 10


@dataclasses.dataclass(frozen=True)
class Interrupting(MovingDigits):
    """Sends this process a signal, perhaps several times, while it makes the clips of step 7."""

    number: int = signal.SIGINT
    times: int = 1

    def clips(self, start: int, stop: int):
        if start == 7 * 4:
            for _ in range(self.times):
                signal.raise_signal(self.number)
        return super().clips(start, stop)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole")
    run(out, STEPS, recipe=RARELY)
    return out


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_saves_the_step_and_stops(
    number: int, raised: type[BaseException], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    source = Interrupting(drawn_digits(), 1, 1 << 30, 3, 3, number=number)
    with pytest.raises(raised) as stopped:
        train(SPEC, RARELY, source, clips(2, 100), tmp_path / "cut", steps=STEPS, device="cpu")
    if raised is SystemExit:
        assert stopped.value.code == 143
    said = capsys.readouterr().err
    assert "Step 8 of 10 is saved" in said
    assert read_checkpoint(tmp_path / "cut" / "checkpoint.pt")["step"] == 8
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    train(SPEC, RARELY, clips(1), clips(2, 100), tmp_path / "cut", steps=STEPS, device="cpu")
    assert "training goes on from step 8 of 10" in capsys.readouterr().err
    assert_equal_outcome(tmp_path / "cut", whole)


def test_a_signal_that_comes_after_a_step_is_for_the_next_one(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It comes while the record of step 5 is written, when it is already clear what is saved."""
    log = RunFolder.log

    def interrupted(self: RunFolder, record: Mapping[str, Any]) -> None:
        log(self, record)
        if record["step"] == 5:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(RunFolder, "log", interrupted)
    recipe = dataclasses.replace(RARELY, validate_every=10)
    monkeypatch.setattr(loop, "CHECK_EVERY", 5)  # looks at step 5, and does not save there
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", STEPS, recipe=recipe)
    assert "Step 6 of 10 is saved" in capsys.readouterr().err
    assert read_checkpoint(tmp_path / "cut" / "checkpoint.pt")["step"] == 6


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, STEPS, recipe=RARELY, training=Interrupting(drawn_digits(), 1, 1 << 30, 3, 3, times=2))
    assert read_checkpoint(tmp_path / "checkpoint.pt")["step"] == 5  # of the last validation


def test_handlers_of_the_program_and_other_threads_are_left_alone() -> None:
    def handler(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with stop_requests(heard=True):
            assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    found = []

    def elsewhere() -> None:
        with stop_requests(heard=True) as asked:
            found.append(asked.signal)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [None]


def test_the_first_checkpoint_comes_soon_and_later_ones_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now[0])
    clock, saved = SavingClock(120.0), []
    while now[0] < 1000:
        now[0] += 1
        if clock.due(at_a_look=False):
            clock.saved(0.1)
            saved.append(now[0] - 100)
    assert saved[:6] == [5, 15, 35, 75, 155, 275]
    assert {b - a for a, b in pairwise(saved[4:])} == {120}
    clock.saved(1.0)  # takes 1 s, so there are at least 50 to the next one
    assert SavingClock(120.0).wait == 5
    expensive = SavingClock(120.0)
    expensive.saved(1.0)
    assert expensive.wait == 50


def test_a_run_that_is_killed_between_two_looks_goes_on_from_there(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    class Stopping(MovingDigits):
        def clips(self, start: int, stop: int):
            if start == 7 * 4:
                raise Killed
            return super().clips(start, stop)

    monkeypatch.setattr(interruption, "EARLY", 0.0)
    monkeypatch.setattr(interruption, "LARGEST_SHARE", 0)
    with pytest.raises(Killed):
        run(tmp_path / "cut", STEPS, recipe=RARELY, training=Stopping(drawn_digits(), 1, 1 << 30, 3, 3))
    assert read_checkpoint(tmp_path / "cut" / "checkpoint.pt")["step"] == 7
    assert read_checkpoint(tmp_path / "cut" / "checkpoint.previous.pt")["step"] == 6
    monkeypatch.undo()
    run(tmp_path / "cut", STEPS, recipe=RARELY)
    assert_equal_outcome(tmp_path / "cut", whole)
