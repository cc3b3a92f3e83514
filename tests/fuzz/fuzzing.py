"""What the fuzz tests share: how often, what a case may end in, and bytes that nobody wrote on purpose."""

import faulthandler
import re
import resource
import signal
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from stzoo.errors import StzooError

HANG = 60  # seconds of one case; it is meant to find what never ends, not what is slow
GIGABYTE = 1 << 20  # in KiB

numbers = st.sampled_from([0, 1, -1, 2, 7, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1])
words = st.text(max_size=8) | st.sampled_from(["", "\ud800", "\0", "../x", "/", "a" * 10_000])
leaves = st.none() | st.booleans() | st.integers() | numbers | st.just(10**400) | st.floats() | words
json_values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4), max_leaves=8
)


def cases(ordinary: int, nightly: int) -> Any:
    """Runs a test with the argument `amount`: always the same few cases, and under the marker `nightly` many others."""
    few = hypothesis.settings(max_examples=ordinary, derandomize=True, database=None)
    many = hypothesis.settings(max_examples=nightly, database=None, print_blob=True)
    return pytest.mark.parametrize(
        "amount", [pytest.param(few, id="ordinary"), pytest.param(many, id="nightly", marks=pytest.mark.nightly)]
    )


def end_well(amount: hypothesis.settings, strategy: st.SearchStrategy[Any], act: Callable[[Any], object]) -> None:
    """Every case ends in a result or a `StzooError`, at some time, in less than a gigabyte."""
    before = _peak(anew=True)

    @amount
    @hypothesis.given(strategy)
    def each(case: Any) -> None:
        with _guarded(), suppress(StzooError):
            act(case)

    each()
    assert _peak() - before < GIGABYTE


def _peak(anew: bool = False) -> int:
    """The most memory this process ever had, in KiB; on Linux since it was last asked for `anew`."""
    with suppress(OSError):
        if anew:
            Path("/proc/self/clear_refs").write_text("5")
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Hang(BaseException):
    """No `Exception`: readers turn those into errors of their own, which are a good end."""


@contextmanager
def _guarded() -> Iterator[None]:
    """A hang in Python fails the case; one in a library, which no exception reaches, ends the process."""

    def expire(*_: object) -> None:
        raise Hang(f"still running after {HANG} seconds")

    old = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, HANG)
    faulthandler.dump_traceback_later(2 * HANG, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@st.composite
def mutated(draw: st.DrawFn, originals: Sequence[bytes]) -> bytes:
    """One of the files with bytes changed, cut out, put in, doubled, or with its end gone."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(content)))
        kind = draw(st.sampled_from(["bytes", "bytes", "number", "number", "flip", "out", "in", "double", "end"]))
        if kind == "bytes":
            new = draw(st.binary(min_size=1, max_size=8))
            content[at : at + len(new)] = new
        elif kind == "number":
            order, size = draw(st.sampled_from("<>")), draw(st.sampled_from([1, 2, 4, 8]))
            number = draw(numbers) % 2 ** (8 * size)
            content[at : at + size] = struct.pack(order + {1: "B", 2: "H", 4: "I", 8: "Q"}[size], number)
        elif kind == "flip" and at < len(content):
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "out":
            del content[at : at + draw(st.integers(1, 64))]
        elif kind == "in":
            content[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif kind == "double":
            content[at:at] = content[at : at + draw(st.integers(1, 256))]
        elif kind == "end":
            del content[at:]
    return bytes(content)


def with_checksums(png: bytes) -> bytes:
    """The same PNG with checksums that are right, so that what is inside its chunks is read at all."""
    content, at = bytearray(png), 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        if end + 4 > len(content):
            break
        content[end : end + 4] = zlib.crc32(content[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(content)
