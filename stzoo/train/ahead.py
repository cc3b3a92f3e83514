"""The next batch is made while the current one is learned from."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch
from torch import Tensor

from stzoo.data import Clip, ClipSource


class Ahead:
    """A `ClipSource`, open as a context, that has a thread make the clips which will be asked for next.

    Asked for clips start..stop-1, it goes on to make those `stride` further on, never beyond `end`. What is given is
    what `source` would give: its errors are raised where its clips are asked for, and one that draws from torch's
    global generator, whose order of draws would change, is only ever asked when its clips are needed.

    Args:
        stride: clips of a step, of which one process of several is only asked for its share.
        pinned: hand out page-locked memory, which a GPU fetches while it computes.
    """

    def __init__(self, source: ClipSource, end: int, stride: int, pinned: bool):
        self.source, self.end, self.stride, self.pinned = source, end, stride, pinned
        self.thread = ThreadPoolExecutor(1, "stzoo-clips")
        self.next: tuple[range, Future[Clip]] | None = None
        self.draws = False

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.thread.shutdown(cancel_futures=True)

    def __len__(self) -> int:
        return len(self.source)

    def clips(self, start: int, stop: int) -> Clip:
        made, self.next = self.next, None
        if made is not None and made[0] == range(start, stop):
            clip = made[1].result()
        else:
            if made is not None:
                made[1].exception()  # a source is asked by one thread at a time
            state = torch.get_rng_state()
            clip = self._make(start, stop)
            self.draws = self.draws or not torch.equal(state, torch.get_rng_state())
        following = range(start + self.stride, min(stop + self.stride, self.end))
        if following and not self.draws:
            self.next = following, self.thread.submit(self._make, following.start, following.stop)
        return clip

    def _make(self, start: int, stop: int) -> Clip:
        clip = self.source.clips(start, stop)
        if not self.pinned:
            return clip
        return Clip(_pin(clip.past), _pin(clip.future), None if clip.valid is None else _pin(clip.valid))


def _pin(x: Tensor) -> Tensor:
    return x if x.is_cuda else x.pin_memory()
