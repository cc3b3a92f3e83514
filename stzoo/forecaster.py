"""`Forecaster`: past frames in, the next frames out, as the same kind of object."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stzoo import frames as frames_room
from stzoo import html
from stzoo.adapting import adapt_tensors
from stzoo.catalog import CHECKPOINTS, described
from stzoo.engine import Engine
from stzoo.engine.forking import use_one_thread_if_forked
from stzoo.engine.handing_out import future
from stzoo.engine.memory import check_kept
from stzoo.errors import FramesError
from stzoo.export import Exported, export
from stzoo.frames import ReadingOptions
from stzoo.hindcast import Hindcast, hindcast, tried, warn_unless_it_fits
from stzoo.hub.sharing import Shareable
from stzoo.hub.sources import Resolved
from stzoo.live import Live
from stzoo.machine import check_device
from stzoo.models import build, check_kind, stride_of
from stzoo.progress import tqdm
from stzoo.published.fetching import find
from stzoo.showing.glimpse import Glimpse, glimpse, watched
from stzoo.spec import ModelSpec
from stzoo.weights import LoadReport, load_module


class Forecaster(Shareable):
    """A module with its spec, ready to predict. Made by `stzoo.load` and `stzoo.create`.

    In a notebook it shows what it is, and its last forecast by `predict` or `rollout`. Of that it keeps pictures of the
    first clip, at most 40 past and 40 future ones of 128x128 pixels, which are not saved, copied or pickled with it.

    Attributes:
        spec: what the model is.
        report: where its weights came from.
        engine: runs the module; when the module's weights change, so do the forecasts.
    """

    def __init__(
        self, spec: ModelSpec, module: nn.Module, report: LoadReport, precision: str = "float32", backend: str = "torch"
    ):
        self.spec, self.report = spec, report
        self.engine = Engine(module.eval(), spec, precision, backend)
        self._last: Glimpse | None = None  # the last forecast

    @property
    def module(self) -> nn.Module:
        """The plain, trainable module, in float32 and at first in eval mode. Forecasts are always made in eval mode."""
        return self.engine.module

    def predict(
        self,
        frames: Any,
        *,
        layout: str | None = None,
        resize: bool | None = None,
        color: str | None = None,
        every: int = 1,
        start: float | None = None,
        fps: float | None = None,
        bits: int | None = None,
        variable: str | None = None,
        time: str | None = None,
        units: str | None = None,
        missing: str = "keep",
        matched: bool = False,
    ) -> Any:
        """The next `spec.frames_out` frames: ``rollout(frames, spec.frames_out)``."""
        options = ReadingOptions(
            layout=layout, resize=resize, color=color, every=every, start=start, fps=fps, bits=bits, variable=variable,
            time=time, units=units, missing=missing,
        )  # fmt: skip
        return self._rollout(frames, self.spec.frames_out, options, matched=matched)

    def rollout(
        self,
        frames: Any,
        steps: int,
        *,
        layout: str | None = None,
        resize: bool | None = None,
        color: str | None = None,
        every: int = 1,
        start: float | None = None,
        fps: float | None = None,
        bits: int | None = None,
        variable: str | None = None,
        time: str | None = None,
        units: str | None = None,
        missing: str = "keep",
        matched: bool = False,
        check: bool = False,
        progress: bool = False,
    ) -> Any:
        """The next `steps` frames. Beyond its own block the model reads its own forecasts, unrounded and unclipped.

        Args:
            frames: at least `spec.frames_in` past frames; if there are more, the last ones are used. A NumPy array or
                torch tensor (T, H, W), (T, C, H, W), (B, T, C, H, W) or (T, H, W, C); an xarray DataArray with a
                dimension of time, two of space, and perhaps `channel` and `sample`; a list of PIL images; or the path
                of a video, an animated GIF, PNG or WebP, a folder of images, or a .npy, .npz, netCDF or Zarr file.
                Integers are scaled from the range of their dtype to `spec.value_range`; floats must lie in it.
            steps: how many frames to return, at least 1.
            layout: the axes of an array whose shape alone is ambiguous, such as "THWC" or "BTHW".
            resize: what happens to frames of another size than the spec's. With None, arrays and maps are forecast at
                their own size (padded by reflection to what the model takes, and cropped back), and images and videos
                at the model's, from which the answer is brought back to theirs. True brings images, videos and arrays
                to the model's size, where the answer stays. False forecasts everything at its own size.
            color: "gray" makes one gray forecast of frames in colour. With None, a model that reads gray forecasts each
                of their channels as a clip of its own, and a warning says so once. A model that reads colour gets
                three equal channels of gray frames, and answers in gray.
            every: use the frames 0, every, 2 * every, ... of those given.
            start: of the path of a video or an animation, seconds from its beginning to the first frame that is used.
                The past is then the first `spec.frames_in` frames from there, instead of the last ones.
            fps: sample a video or an animation at so many frames a second, before `every` thins them.
            bits: scale integers from 0 to 2^bits - 1, such as 12 for a camera's 12 bits in uint16; the forecast comes
                back in that scale.
            variable: which variable of a netCDF or Zarr file or of an xarray Dataset, if it has several; or which array
                of a .npz file.
            time: the name of the dimension of time of a map, if neither its name nor its attributes tell.
            units: of a model of rain, the unit of the numbers in arrays and maps, which is also that of the forecast:
                "mm/h", "dBZ" (Marshall-Palmer), "dBR", or another spelling of these such as "kg m-2 s-1". Less than
                0.1 mm/h is dry, which comes back as 0 mm/h or -32 dBZ. With None it is the attribute `units` of a map;
                numbers without one are in dBR.
            missing: of a model of rain that is given floats, in which NaN stands for what was not observed. "keep"
                makes NaN of the cells of the forecast whose rain, followed back along the motion of the past frames,
                was nowhere observed, or comes from beyond the edge; "fill" leaves what the model makes of them.
            matched: give each frame of the forecast the values of the last past frame, carried to its time along the
                motion in the past, in the order of its own cells (`stzoo.engine.matching`). The plain forecast is the
                mean of what may come, with the least squared error, but too smooth; a matched one has the right areas
                and peaks, and a larger squared error. The model goes on from its plain frames.
            check: warn, in one line, if the model does worse than persistence on the last known frames (with `start` on
                those that followed the past), as `check` measures it. That costs a second forecast, so it is left out
                if frames are large (more than 512x512 pixels, of all clips together). Of fewer than frames_in +
                frames_out frames those are forecast that there are after the first frames_in, if any.
            progress: show a bar if reading a video, or the forecast, takes longer than a second.

        Returns:
            `steps` future frames of the same kind, dtype, range, axes and device as `frames`. A DataArray keeps its
            coordinates, and its times continue. For the path of pictures the answer is a list of PIL images, for the
            path of an array an array, and for a netCDF or Zarr file a DataArray.

        Raises:
            FramesError: the frames have a wrong shape, dtype, range or size, are too few, or have a missing value;
                their times cannot be continued; or the file cannot be read.
            ForecastError: a frame that the model made holds NaN or infinite values.
            MemoryNeededError: there is not enough memory, by an estimate.
            MissingExtraError: the package that reads such a file is not installed; the message holds the pip command.
        """
        options = ReadingOptions(
            layout=layout, resize=resize, color=color, every=every, start=start, fps=fps, bits=bits, variable=variable,
            time=time, units=units, missing=missing,
        )  # fmt: skip
        return self._rollout(
            frames, frames_room.whole_number("steps", steps), options, matched=matched, check=check, progress=progress
        )

    def stream(
        self,
        frames: Any,
        steps: int | None = None,
        *,
        layout: str | None = None,
        resize: bool | None = None,
        color: str | None = None,
        every: int = 1,
        start: float | None = None,
        fps: float | None = None,
        bits: int | None = None,
        variable: str | None = None,
        time: str | None = None,
        units: str | None = None,
        missing: str = "keep",
        matched: bool = False,
    ) -> Iterator[Any]:
        """Like `rollout`, but one frame at a time; without end if `steps` is None. Memory does not grow.

        `frames` may also be a generator or another iterator of past frames, as `live` takes them. It is read to its
        end, and only the last frames are kept. For frames that never end there is `live`.

        The frames before one that holds NaN or infinite values are yielded; that one raises `ForecastError`.
        """
        steps = None if steps is None else frames_room.whole_number("steps", steps)
        options = ReadingOptions(
            layout=layout, resize=resize, color=color, every=every, start=start, fps=fps, bits=bits, variable=variable,
            time=time, units=units, missing=missing,
        )  # fmt: skip
        source = self._read(frames, options)
        return self._frames(source, steps, matched)

    def check(
        self,
        frames: Any,
        steps: int | None = None,
        *,
        layout: str | None = None,
        resize: bool | None = None,
        color: str | None = None,
        every: int = 1,
        start: float | None = None,
        fps: float | None = None,
        bits: int | None = None,
        variable: str | None = None,
        time: str | None = None,
        units: str | None = None,
        missing: str = "keep",
    ) -> Hindcast:
        """Does the model fit these frames? Forecasts the last of them from those before, and compares with persistence.

        Args:
            frames: as in `rollout`, but at least `spec.frames_in` + 1 of them. With `start` those that follow the past
                there are forecast, instead of the last ones.
            steps: how many of the last frames are forecast; by default `spec.frames_out`, or as many as there are after
                the first `spec.frames_in`.
            layout, resize, color, every, start, fps, bits, variable, time, units, missing: as in `rollout`. Cells that
                were not observed are left out.

        Returns:
            The errors of the forecast and of persistence, and the skill; ``fits`` says whether the model is of use.

        Raises:
            FramesError: there are too few frames, or they do not fit the model, as in `rollout`.
            StzooError: the frames cannot be read or forecast for another reason, as in `rollout`.
        """
        wanted = self.spec.frames_out if steps is None else frames_room.whole_number("steps", steps)
        options = ReadingOptions(
            layout=layout, resize=resize, color=color, every=every, start=start, fps=fps, bits=bits, variable=variable,
            time=time, units=units, missing=missing,
        )  # fmt: skip
        source = self._read(frames, options, extra=wanted)
        known = source.past
        if steps is not None and known.shape[1] < self.spec.frames_in + steps:
            raise FramesError(
                f"to forecast the last {steps} frames from {self.spec.frames_in} before them takes "
                f"{self.spec.frames_in + steps} frames; given are {known.shape[1]}"
                f"{', so use fewer steps' if known.shape[1] > self.spec.frames_in else ''}"
            )
        return hindcast(self.engine, self.spec, known, source.observed, source.keeps)

    def live(
        self,
        *,
        every: int = 1,
        layout: str | None = None,
        resize: bool | None = None,
        color: str | None = None,
        units: str | None = None,
        missing: str = "keep",
        carry: int | None = None,
        matched: bool = False,
    ) -> Live:
        """A live source: push one frame after the other, and get the forecast of what follows. See docs/live.md.

        Each forecast equals `predict` of the last `spec.frames_in` frames. Only a recurrent model, which keeps a state
        from frame to frame, does not read the past again: it goes on from its state, which has then seen more frames.

        Args:
            every: use the pushes 0, every, 2 * every, ... The others give no forecast, and are not looked at.
            layout: the axes of a frame whose shape alone is ambiguous: "HW", "CHW" or "HWC".
            resize, color, units, missing: as in `rollout`. A frame that is missing as a whole was not observed.
            carry: how many frames the state of a recurrent model may have read. One that would have read more begins
                anew with the last `spec.frames_in` frames. By default it is ten times `spec.frames_in`; with
                ``carry=1`` each forecast equals `predict`. Other models have no state, so that `carry` does not matter.
            matched: as in `rollout`.

        Raises:
            FramesError: `every` or `carry` is no whole number of at least 1, or there is no such `layout`, `resize`,
                `color`, `units` or `missing`.
        """
        options = ReadingOptions(layout=layout, resize=resize, color=color, every=every, units=units, missing=missing)
        return Live(self.engine, self.spec, options, carry=carry, matched=matched)

    def to(self, device: str | torch.device) -> Forecaster:
        """Move the module, in place, and return the forecaster. Forecasts still return to the device of their frames.

        Raises:
            SpecError: torch knows no such device, or this machine has none.
        """
        self.module.to(check_device(device))
        return self

    def compile(self) -> Forecaster:
        """Use `torch.compile` from now on. The first forecast is slow; on a CPU later ones are too (docs/speed.md)."""
        self.engine.compile()
        return self

    def export(self, format: str, path: str | os.PathLike[str], *, steps: int | None = None) -> Exported:
        """Write the whole forecast into one file that runs without stzoo; see docs/export.md.

        The file takes `past` (B, frames_in, C, H, W) and gives `future` (B, steps, C, H, W). Both are float32 in the
        spec's units; the future is neither rounded nor clipped. B may be any number, and H and W any size that the
        architecture takes, from twice its stride on.

        Args:
            format: "onnx", or "torch-export" for `torch.export.load`.
            path: a name ending in .onnx or .pt2, in a folder that exists. The file appears whole or not at all.
            steps: how many frames the file forecasts, by default `spec.frames_out`; at most 1024.

        Returns:
            The shapes that the file takes and gives.

        Raises:
            SpecError: there is no such format, the suffix belongs to another format, or there are too many steps.
            FramesError: `steps` is not a whole number of at least 1.
            WeightsError: the folder does not exist or cannot be written to, or `path` is itself a folder.
            MissingExtraError: the package that writes ONNX is not installed; the message holds the pip command.
        """
        use_one_thread_if_forked()
        return export(self.spec, self.module, format, Path(path), steps)

    @classmethod
    def from_files(
        cls,
        found: Resolved,
        name: str,
        adapt: Mapping[str, Any] | None = None,
        precision: str = "float32",
        backend: str = "torch",
    ) -> Forecaster:
        """The forecaster in files that `stzoo.hub.resolve` found, on the CPU.

        Args:
            found: the files.
            name: what errors call the model.
            adapt, precision, backend: as in `stzoo.load`.

        Raises:
            SpecError: the files hold a codec, `adapt` is wrong, or there is no such precision or backend.
            MissingExtraError: the backend is not installed.
            WeightsError: the file cannot be read. MismatchError: its tensors are not the module's.
        """
        check_kind(found.spec, "forecaster", name)
        module, report = load_module(
            found.spec, found.path, found.sha256, found.codec, found.codec_sha256, found.known,
            found.held.pop() if found.held else None,
        )  # fmt: skip
        if not adapt:
            return cls(found.spec, module, report, precision, backend)
        spec = found.spec.replace(**adapt)
        tensors, done = adapt_tensors(module.state_dict(), found.spec, spec)
        module = build(spec)
        module.load_state_dict(tensors)
        parameters = sum(p.numel() for p in module.parameters())
        return cls(spec, module, dataclasses.replace(report, parameters=parameters, adapted=done), precision, backend)

    @classmethod
    def found(cls, source: str | os.PathLike[str], revision: str | None) -> Resolved:
        """The files of a source, which may be a name of a checkpoint that others published."""
        return find(source, revision=revision)

    def __repr__(self) -> str:
        s = self.spec
        shape = f"{s.frames_in} frames of {s.channels}x{s.height}x{s.width} -> {s.frames_out}"
        return f"Forecaster({s.arch}, {shape}, {self.report})"

    def _repr_html_(self) -> str:
        """What a notebook shows: what the model is, where its weights are from, and its last forecast."""
        runs = f"{next(self.module.parameters()).device}, {self.engine.precision}, {self.engine.backend}"
        weights = str(self.report).replace(str(CHECKPOINTS), "stzoo/checkpoints")  # wherever the package lies
        facts = [*described(self.spec), ("weights", weights), ("runs on", runs)]
        last = "" if self._last is None else self._last.animation()._repr_html_()
        return f"<div>{html.facts('Forecaster', facts)}{last}</div>"

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the pictures of the last forecast, which belong to whoever made that."""
        return self.__dict__ | {"_last": None}

    def _rollout(
        self,
        frames: Any,
        steps: int,
        options: ReadingOptions,
        *,
        matched: bool,
        check: bool = False,
        progress: bool = False,
    ) -> Any:
        if check and isinstance(frames, Iterator):  # which can be read only once
            last = self.spec.frames_in + self.spec.frames_out
            frames, options = frames_room.gathered(frames, options.every, last), dataclasses.replace(options, every=1)
        read = partial(self._read, frames, options, progress=progress)
        source = self._checked(read, from_start=options.start is not None) if check else read()
        check_kept(len(source.past), steps, source.frame_shape, source.past.device)
        kept: list[torch.Tensor] = []
        coming = self._frames(source, steps, matched, kept)
        bar = tqdm(coming, total=steps, unit="frame", delay=1, disable=not progress)
        answer = source.collect(bar, steps)
        self._last = glimpse(source, self.spec, kept, steps)
        return answer

    def _read(
        self, frames: Any, options: ReadingOptions, *, progress: bool = False, extra: int = 0
    ) -> frames_room.CallerFrames:
        use_one_thread_if_forked()
        return frames_room.read(frames, self.spec, stride_of(self.module), options, progress=progress, extra=extra)

    def _checked(self, read: Callable[..., frames_room.CallerFrames], *, from_start: bool) -> frames_room.CallerFrames:
        """What `read()` returns. If enough frames beside those are known and good, the model is tried on them first."""
        try:
            source = read(extra=self.spec.frames_out)
        except FramesError:  # it may be in frames that the forecast does not need
            return read()
        warn_unless_it_fits(tried(self.engine, self.spec, source.past, source.observed, source.keeps))
        return source.part(slice(self.spec.frames_in) if from_start else slice(-self.spec.frames_in, None))

    @torch.no_grad()
    def _frames(
        self, source: frames_room.CallerFrames, steps: int | None, matched: bool, kept: list[torch.Tensor] | None = None
    ) -> Iterator[Any]:
        coming = future(
            self.engine, self.spec, source.past, steps, observed=source.observed, keeps=source.keeps, matched=matched
        )
        yield from map(source.frame, coming if kept is None else watched(coming, source, kept))
