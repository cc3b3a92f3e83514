"""`Live`: push one frame at a time, and get the forecast of the frames that follow."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stzoo import frames as frames_room
from stzoo.engine import Engine, EngineState, in_units
from stzoo.engine.forking import use_one_thread_if_forked
from stzoo.engine.handing_out import Past, handed_out
from stzoo.engine.memory import check_kept
from stzoo.errors import FramesError
from stzoo.frames.layout import FRAME_LAYOUTS, check_layout, find_layout
from stzoo.frames.values import normalise
from stzoo.models import stride_of
from stzoo.spec import ModelSpec

CARRIED_WINDOWS = 10  # times `frames_in`: how much a state reads before it begins anew, see docs/live.md


class Live:
    """Frames that come one after the other, and forecasts of what follows the newest one. See `Forecaster.live`.

    Memory does not grow: only the last `frames_in` frames that were used are kept, and one state of a recurrent model.
    An error leaves everything as it was before the push, so that the same frame can be pushed again.
    """

    def __init__(
        self,
        engine: Engine,
        spec: ModelSpec,
        options: frames_room.ReadingOptions,
        *,
        carry: int | None = None,
        matched: bool = False,
    ):
        """`engine` runs the model that `spec` describes; the other arguments are those of `Forecaster.live`."""
        self._engine, self._spec = engine, spec
        self._single = spec.replace(frames_in=1)  # for the readers of frames, which are given one at a time
        self._matched = matched
        self._every, self._options = options.every, replace(options, every=1)
        self._carry = CARRIED_WINDOWS * spec.frames_in if carry is None else frames_room.whole_number("carry", carry)
        self._layout = options.layout.removeprefix("T") if isinstance(options.layout, str) else options.layout
        check_layout(self._layout, FRAME_LAYOUTS)
        self._window: deque[Tensor] = deque(maxlen=spec.frames_in)  # (B, C, H, W) in units, on the model's device
        self._observed: deque[Tensor | None] = deque(maxlen=spec.frames_in)  # (B, 1, H, W), as in `CallerFrames`
        self.reset()

    def reset(self) -> None:
        """Forget every frame. The next ones may be of another kind and size."""
        self._window.clear()
        self._observed.clear()
        self._kind: str | None = None  # of all frames, as the first one had it
        self._newest: frames_room.CallerFrames | None = None  # knows the way back to the caller's kind
        self._pushes = 0
        self._missing = 0  # used pushes in a row that brought no frame
        self._state: EngineState | None = None  # of a recurrent model
        self._age = 0  # frames that the state has read
        self._unread = 0  # frames of the window that the state has not read
        self._coming: Tensor | None = None  # the forecast of the next frame (B, C, H, W), normalised, if it is known

    @property
    def needed(self) -> int:
        """How many more frames must be used before there is a forecast; 0 if there can be one now."""
        return self._spec.frames_in - len(self._window)

    def push(self, frame: Any, steps: int | None = None) -> Any:
        """Add the next frame, and return the forecast from it.

        Args:
            frame: a NumPy array or a torch tensor (H, W), (C, H, W) or (H, W, C), or a PIL image; all of the kind,
                dtype and size of the first one. None stands for a frame that is missing: the model's own forecast of
                it takes its place, or before the first forecast the frame before it. If `frames_in` frames in a row
                are missing, nothing that was seen is left, so everything is forgotten, as by `reset`.
            steps: how many frames to forecast; `spec.frames_out` by default.

        Returns:
            The next `steps` frames, of the kind that was pushed: an array or a tensor with an axis of time before the
            others, or a list of PIL images. None if there are too few frames so far (see `needed`), or if this push is
            one of those that `every` leaves out.

        Raises:
            FramesError: the frame does not fit the model, differs from those before it in kind or size, or has a
                missing value; or `steps` is wrong.
            ForecastError: a frame that the model made holds NaN or infinite values.
            MemoryNeededError: there is not enough memory, by an estimate.
        """
        steps = self._steps(steps)
        with self._all_or_nothing():
            return self.forecast(steps) if self.read(frame) else None

    def read(self, frame: Any) -> bool:
        """Add the next frame without a forecast. A later forecast is the same as if every frame had been pushed.

        It takes little time, since the model reads the frame only when that is needed: for a forecast, or in place of
        a missing frame. A recurrent model also reads frames before they leave the window, all `frames_in` at once, so
        that its state misses none; of reads without a forecast in between one in `frames_in` then takes that long.

        Args:
            frame: as in `push`.

        Returns:
            Whether the frame is used and `forecast` can be called now.

        Raises:
            FramesError, ForecastError, MemoryNeededError: as in `push`.
        """
        use_one_thread_if_forked()
        used = self._pushes % self._every == 0
        with self._all_or_nothing():
            if used and frame is None:
                self._fill_in()
            elif used:
                self._add_given(frame)
            self._pushes += 1
        return used and self.needed == 0

    def forecast(self, steps: int | None = None) -> Any:
        """The frames that follow those pushed so far, as `push` returns them.

        Raises:
            FramesError: there are too few frames so far, or `steps` is wrong.
            ForecastError, MemoryNeededError: as in `push`.
        """
        steps = self._steps(steps)
        if self.needed or self._newest is None:
            raise FramesError(f"push {self.needed} more frames first: the model reads {self._spec.frames_in}")
        check_kept(len(self._window[-1]), steps, self._window[-1].shape[1:], self._window[-1].device)
        with self._all_or_nothing():
            past, keeps = self._past(), self._options.missing == "keep"
            coming = handed_out(self._noted(steps, past), past, keeps=keeps, matched=self._matched)
            return self._newest.collect(map(self._newest.frame, coming), steps)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """If the block raises an error, everything is as before the block. No tensor is ever changed in place."""
        before, window, observed = dict(vars(self)), self._window.copy(), self._observed.copy()
        try:
            yield
        except BaseException:
            vars(self).update(before, _window=window, _observed=observed)
            raise

    def _steps(self, steps: int | None) -> int:
        return self._spec.frames_out if steps is None else frames_room.whole_number("steps", steps)

    def _add_given(self, frame: Any) -> None:
        kind = _kind_of(frame)
        if self._kind is not None and kind != self._kind:
            raise FramesError(
                f"this frame is {kind}, but those before it are {self._kind}: convert it to theirs, or call reset() to "
                "begin anew with frames like this one"
            )
        module = self._engine.module
        clip = [frame] if isinstance(frame, Image.Image) else frame[None]
        layout = None if isinstance(frame, Image.Image) else f"T{self._layout_of(frame)}"
        given = frames_room.read(clip, self._single, stride_of(module), replace(self._options, layout=layout))
        past = given.past.to(next(module.parameters()).device)
        self._kind, self._missing = kind, 0
        self._add(self._in_as_many_clips(past[:, 0], given), None if given.observed is None else given.observed[:, 0])

    def _layout_of(self, frame: np.ndarray | Tensor) -> str:
        """The axes of an array or a tensor. Raises `FramesError` if none fit, or it has masked values."""
        if np.ma.is_masked(frame) and self._spec.fill is None:
            raise FramesError(
                "the frame has masked values; this model has no fill value for missing data, so fill them first, such "
                "as with frame.filled(0), or push None in place of the whole frame"
            )
        stride = 1 if self._options.resize else stride_of(self._engine.module)
        alpha = frame.dtype in (np.uint8, torch.uint8)
        return find_layout(tuple(frame.shape), self._single, stride, self._layout, alpha=alpha, layouts=FRAME_LAYOUTS)

    def _in_as_many_clips(self, frame: Tensor, given: frames_room.CallerFrames) -> Tensor:
        """The frame (B, C, H, W), with the B of the others.

        Of a model that reads gray, a frame in colour is three clips, and one in colours that look gray is one. Among
        others in colour it becomes three; and once colour begins, so do the frames before it.
        """
        others = len(self._window[-1]) if self._window else len(frame)
        if len(frame) > others:
            self._window = deque((each.expand_as(frame) for each in self._window), self._window.maxlen)
            self._state, self._unread = None, 0  # it begins anew with the window that ends with this frame
        if len(frame) >= others:
            self._newest = given  # knows the way back for so many clips
            return frame
        return frame.expand_as(self._window[-1])

    def _fill_in(self) -> None:
        """Put something in the place of a missing frame; or give up, if that would leave nothing that was seen."""
        if self._missing + 1 >= self._spec.frames_in:
            self.reset()
        elif self._window:
            frame, before = self._window[-1] if self.needed else self._next(), self._observed[-1]
            self._missing += 1
            self._add(frame, None if before is None else torch.zeros_like(before))

    def _add(self, frame: Tensor, observed: Tensor | None) -> None:
        """Put a frame into the window. The state begins anew with it if it would have read more than `carry` frames."""
        lasts = self._engine.is_recurrent and self._carry > self._spec.frames_in
        if lasts and self._unread == self._spec.frames_in:
            self._up_to_date(self._past())  # before the oldest of them leaves the window
        self._window.append(frame)
        self._observed.append(observed)
        self._unread += 1
        if self._state is None or self._age + self._unread > self._carry:
            self._state, self._unread = None, len(self._window)
        self._coming = None

    def _noted(self, steps: int, past: Past) -> Iterator[Tensor]:
        """The next frames, as `_future` yields them; the first one is kept."""
        for number, frame in enumerate(self._future(steps, past)):
            if number == 0:
                self._coming = frame
            yield frame

    def _next(self) -> Tensor:
        """The model's forecast of the next frame (B, C, H, W), in the spec's units.

        Raises `ForecastError` if it has none.
        """
        frame = next(self._future(1, self._past())) if self._coming is None else self._coming
        return in_units(frame, self._spec, 1)

    def _future(self, steps: int, past: Past) -> Iterator[Tensor]:
        """The frames (B, C, H, W) that follow a past, normalised, each made when it is asked for."""
        if self._engine.is_recurrent:
            return self._engine.unroll_from(self._up_to_date(past), steps)
        return self._engine.unroll(normalise(past.frames, self._spec), steps)

    def _past(self) -> Past:
        """The frames of the window."""
        return Past(torch.stack(tuple(self._window), 1), self._spec, self._seen())

    def _seen(self) -> Tensor | None:
        """Where the frames of the window were observed, (B, T, 1, H, W); None if nothing tells."""
        clips = len(self._window[-1])  # where gray frames come before those in colour, they were fewer
        seen = [each.expand(clips, -1, -1, -1) for each in self._observed if each is not None]
        return torch.stack(seen, 1) if len(seen) == len(self._window) else None

    def _up_to_date(self, past: Past) -> EngineState:
        """The state after the newest frame of the window, `past`. Only frames that it has not read are read now."""
        if self._unread:
            frames = past.frames[:, -self._unread :]
            self._age = self._unread + (self._age if self._state else 0)
            self._state = self._engine.read_on(normalise(frames, self._spec), self._state)
            self._unread = 0
        assert self._state is not None
        return self._state


def _kind_of(frame: Any) -> str:
    """What a frame is, as a message calls it. Frames of which this is the same can follow each other.

    Raises:
        FramesError: it is nothing that can be pushed.
    """
    if isinstance(frame, Image.Image):
        return f"PIL images of {frame.width}x{frame.height} pixels in mode {frame.mode}"
    if isinstance(frame, np.ndarray | Tensor):
        if frame.ndim not in (2, 3):
            raise FramesError(f"push one frame at a time: (H, W), (C, H, W) or (H, W, C), given {tuple(frame.shape)}")
        what = "NumPy arrays" if isinstance(frame, np.ndarray) else "torch tensors"
        return f"{what} {tuple(frame.shape)} of {str(frame.dtype).removeprefix('torch.')}"
    raise FramesError(
        f"expected one frame as a NumPy array, a torch tensor or a PIL image, or None for a missing one, given a "
        f"{type(frame).__name__}"
    )
