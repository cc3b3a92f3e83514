"""How a module is run fast: precision, layout, rewritten layers, batches cut to the cache, torch.compile, ONNX Runtime.

The trainable module stays as it is. What runs is a twin: it is made when the first forecast is asked for, and made anew
when the module's weights have changed. `docs/speed.md` says what each of these gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from stzoo.engine import choosing, forking, translating
from stzoo.engine.compiling import compiled
from stzoo.engine.memory import check_forecast
from stzoo.engine.onnx_runtime import check_installed, in_onnx_runtime, why_not
from stzoo.engine.packed import PackedConv, Rounded, can_pack, is_plain, pieces, twin
from stzoo.engine.padding import Padding
from stzoo.engine.parts import buffers, parameters, parts
from stzoo.engine.winograd import with_fewer_products
from stzoo.errors import ForecastError, MissingExtraError, SpecError, StzooError
from stzoo.frames.values import denormalise
from stzoo.machine import Backend, Precision, check_backend, check_precision, cpu_flags
from stzoo.models import architecture_of, stride_of
from stzoo.spec import ModelSpec
from stzoo.unroll import Carried, is_recurrent, read_on, unroll, unroll_carried

PIXELS_AT_ONCE = 40 * 64 * 64  # on a CPU: with more, a batch is no faster, and in the end slower than clip by clip


@dataclass(frozen=True)
class EngineState:
    """What a recurrent module keeps of the frames that `Engine.read_on` gave it. A forecast leaves it as it is.

    Attributes:
        pieces: one for each part of the batch that goes through the module together.
        device: where it lies.
        padding: what was added around the frames.
    """

    pieces: tuple[Carried, ...]
    device: torch.device
    padding: Padding


class Engine:
    """Runs a module that `stzoo.unroll` could drive, faster.

    Attributes:
        module: the plain, trainable module.
        precision: "float32" agrees with the module up to rounding, 1e-4 of the largest value. In "bfloat16" the results
            of convolutions and linear layers are rounded, and in TAU and SimVP's gSTA also what lies between them;
            states, residual sums and readouts are not. ONNX Runtime computes in float32.
        backend: what computes: "torch", or "onnxruntime", which agrees with the module as torch does in float32. Where
            "auto" was asked for, it is "torch" until the first forecast has found out which is faster.
    """

    def __init__(self, module: nn.Module, spec: ModelSpec, precision: str = "float32", backend: str = "torch"):
        """Raises errors if the model cannot be run in this way.

        Raises:
            SpecError: `precision` or `backend` is none of `stzoo.machine.PRECISION_CHOICES` and `BACKEND_CHOICES`, or
                the backend is "onnxruntime" and does not compute such a model in this precision.
            MissingExtraError: the backend is "onnxruntime", which is not installed; the message holds the pip command.
        """
        check_precision(precision)
        check_backend(backend)
        if backend == "onnxruntime":
            reason = why_not(spec, precision)
            if reason is not None:
                raise SpecError(f'{reason}; use the backend "torch" or "auto"')
            check_installed()
        self.module, self._spec, self._asked, self._asked_backend = module, spec, precision, backend
        self._compiles = False
        self.refresh()

    @property
    def precision(self) -> Precision:
        return "float32" if self.backend == "onnxruntime" else self._torch_precision

    @property
    def backend(self) -> Backend:
        if self._asked_backend == "auto":
            return self._chosen
        return cast(Backend, self._asked_backend)

    @property
    def _torch_precision(self) -> Precision:
        if self._asked != "auto":
            return cast(Precision, self._asked)
        return "bfloat16" if multiplies_in_bfloat16(self._device) else "float32"

    def unroll(self, past: Tensor, steps: int | None = None) -> Iterator[Tensor]:
        """Like `stzoo.unroll.unroll(module, spec, past, steps)` in eval mode, without gradients, at any size.

        Frames whose sides the module's stride does not divide are padded, and what the module makes of them is cropped
        back. A rollout goes on in the padded frame. (To pad each forecast anew before it is fed back is no better by
        `docs/experiments/sizes.py padding`.)

        Weights must not change before the last frame is taken: some of what runs shares them, some has copies.

        Args:
            past: (B, T, C, H, W), normalised, T >= spec.frames_in. H and W may be any; for a module whose stride is
                None they must be the spec's.
            steps: how many frames to yield; None for as many as are asked for.

        Returns:
            An iterator over normalised frames (B, C, H, W).

        Raises:
            MemoryNeededError: there is not enough memory, by an estimate; see `stzoo.engine.memory`.
        """
        forking.use_one_thread_if_forked()
        padding = Padding.of((past.shape[-2], past.shape[-1]), stride_of(self.module))
        past = padding.add(past)
        check_forecast(self.module, self._spec, past, self._at_once(past))
        clips = past.split(self._at_once(past))
        runs = self._current(clips[0][:, -self._spec.frames_in :])
        streams = [unroll(runs, self._spec, some, steps) for some in clips]
        yield from _side_by_side(streams, past.device, padding, self._in_eval_mode(runs))

    @property
    def is_recurrent(self) -> bool:
        """Whether the module reads frame after frame, so that `read_on` can carry its state."""
        return is_recurrent(self.module, self._spec)

    def read_on(self, frames: Tensor, before: EngineState | None = None) -> EngineState:
        """Like `stzoo.unroll.read_on`, in eval mode and without gradients, of a recurrent module, at any size.

        Args:
            frames: (B, T, C, H, W), normalised, T >= 1: those that follow what was read before, of the same B, H and W.
            before: what was kept of all frames before them; None if there were none.

        Raises:
            MemoryNeededError: as in `unroll`, if these are the first frames.
        """
        forking.use_one_thread_if_forked()
        padding = Padding.of((frames.shape[-2], frames.shape[-1]), stride_of(self.module))
        frames = padding.add(frames)
        if before is None:
            check_forecast(self.module, self._spec, frames, self._at_once(frames))
        clips = frames.split(self._at_once(frames))
        runs = self._current(clips[0])
        kept = before.pieces if before else (None,) * len(clips)
        with torch.no_grad(), torch.autocast(frames.device.type, enabled=False), self._in_eval_mode(runs)():
            pieces = [read_on(runs, self._spec, some, own) for some, own in zip(clips, kept, strict=True)]
        return EngineState(tuple(pieces), frames.device, padding)

    def unroll_from(self, state: EngineState, steps: int | None = None) -> Iterator[Tensor]:
        """Future frames, as `unroll` yields them, from what `read_on` kept of the past."""
        runs = self._current(state.pieces[0].coming)
        streams = [unroll_carried(runs, self._spec, piece, steps) for piece in state.pieces]
        yield from _side_by_side(streams, state.device, state.padding, self._in_eval_mode(runs))

    def compile(self) -> None:
        """Run through `torch.compile` from now on. Raises `SpecError` if the backend is ONNX Runtime."""
        if self._asked_backend == "onnxruntime":
            raise SpecError('torch.compile is for the backend "torch"; load the model with that')
        self._compiles = True
        self.refresh()

    def refresh(self) -> None:
        """Make the twin anew at the next forecast.

        This happens by itself when weights have changed. Call it after a change that PyTorch keeps no record of and
        that leaves the first values of every tensor as they were.
        """
        self._made: _Made | None = None
        self._chosen: Backend = "torch"

    def __getstate__(self) -> dict[str, object]:
        """Leaves the twin out: its packed weights belong to this process, and another one makes them again."""
        return self.__dict__ | {"_made": None}

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _at_once(self, past: Tensor) -> int:
        """How many clips go through the module together."""
        if past.device.type != "cpu":
            return len(past)
        together = 1 if architecture_of(self._spec).kind == "sequential" else self._spec.frames_in  # frames of a clip
        return pieces(len(past), PIXELS_AT_ONCE // (together * past.shape[-2] * past.shape[-1]))

    def _current(self, frames: Tensor) -> Any:
        """The twin of the module as it is now, for frames that go through it together.

        A module with hooks runs itself, since a twin would not call them.
        """
        found = parts(self.module)
        if any(part._forward_hooks or part._forward_pre_hooks for part in found):
            return self.module
        tensors = parameters(found) + buffers(found)
        if self._made is None or self._made.is_of_other(tensors):
            with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
                self._made = _Made(self._twin(frames), tensors)
        return self._made.runs

    def _in_eval_mode(self, runs: Any) -> Callable[[], AbstractContextManager[None]]:
        """What surrounds a step of what `_current` returned: twins are in eval mode, the module itself may not be."""
        return partial(evaluating, self.module) if runs is self.module else nullcontext

    def _twin(self, frames: Tensor) -> Any:
        if self._asked_backend == "onnxruntime":
            return in_onnx_runtime(twin(self.module), self._spec)
        self._chosen = "torch"
        if self._asked_backend == "auto" and self._may_race:
            return self._raced(frames)
        return self._in_torch()

    def _in_torch(self) -> Any:
        made = for_inference(self.module, self._spec, self._torch_precision)
        return compiled(made, self._spec) if self._compiles else made

    @property
    def _may_race(self) -> bool:
        if self._compiles or self._device.type != "cpu" or why_not(self._spec, self._asked):
            return False
        try:
            check_installed()
        except MissingExtraError:
            return False
        return True

    def _raced(self, frames: Tensor) -> Any:
        """The faster twin: as a race found here before, or by one now. What fails in ONNX Runtime runs in torch."""
        raced = self.module, self._spec, frames, self._torch_precision
        known = choosing.remembered(*raced)
        if known == "torch":
            return self._in_torch()
        try:
            other = in_onnx_runtime(twin(self.module), self._spec)
        except (StzooError, OSError):
            other = None
        if other is not None and known == "onnxruntime":
            self._chosen = "onnxruntime"
            return other
        own = self._in_torch()
        if other is not None and choosing.faster(other, own, frames):
            self._chosen = "onnxruntime"
        choosing.remember(self._chosen, *raced)
        return own if self._chosen == "torch" else other


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Puts those parts of a module into eval mode that are not, and back again at the end."""
    learning = [part for part in module.modules() if part.training]
    for part in learning:
        part.training = False
    try:
        yield
    finally:
        for part in learning:
            part.training = True


def _side_by_side(
    streams: Sequence[Iterator[Tensor]],
    device: torch.device,
    padding: Padding,
    around: Callable[[], AbstractContextManager[None]],
) -> Iterator[Tensor]:
    """Padded frames of parts of a batch -> frames (B, C, H, W) of the whole batch, made when they are asked for."""
    while True:
        forking.use_one_thread_if_forked()
        with torch.no_grad(), torch.autocast(device.type, enabled=False), around():
            frames = [next(stream, None) for stream in streams]
            if frames[0] is None:
                return
            # a copy even of one: what is fed back is nobody else's
            whole = torch.cat([padding.remove(frame) for frame in cast(list[Tensor], frames)])
        yield whole


def in_units(values: Tensor, spec: ModelSpec, frame: int) -> Tensor:
    """What a module made, in the spec's units. Nothing that is not finite may become a picture: NaN would be black.

    Args:
        values: (..., C, H, W), normalised.
        spec: the module's.
        frame: the number of the frame, from 1, for the message.

    Returns:
        The values in the spec's units, of the same shape.

    Raises:
        ForecastError: a value is NaN or infinite.
    """
    units = denormalise(values, spec)
    if not units.isfinite().all():
        what = "NaN" if units.isnan().any() else "infinite values"
        raise ForecastError(
            f"frame {frame} that the model made holds {what}: its weights are damaged or too large, or training "
            "diverged; use other weights"
        )
    return units


class _Made:
    """The twin that runs, and a way to tell whether the module's weights have changed since it was made.

    PyTorch counts the changes of a tensor, but not those that fused optimizers, CUDA graphs or `.data` make; so the
    first few values of each tensor are compared as well.
    """

    def __init__(self, runs: Any, tensors: list[Tensor]):
        self.runs, self._state = runs, _state(tensors)
        self._first = [_first(t.detach()) for t in tensors if t.is_floating_point()]  # views, which show later changes
        self._values = torch.cat(self._first)

    def is_of_other(self, tensors: list[Tensor]) -> bool:
        return self._state != _state(tensors) or not torch.equal(self._values, torch.cat(self._first))


def _state(tensors: list[Tensor]) -> list[tuple[int, int]]:
    """The address of each tensor, and how often PyTorch saw it change."""
    return [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]


def _first(tensor: Tensor) -> Tensor:
    """The first values of a tensor in memory, 16 at most: (n,), a view."""
    there = tensor.untyped_storage().nbytes() // tensor.element_size() - tensor.storage_offset()
    return tensor.as_strided((min(16, tensor.numel(), there),), (1,), tensor.storage_offset())


def for_inference(module: nn.Module, spec: ModelSpec, precision: Precision) -> nn.Module:
    """A module that computes what `module` does in eval mode, faster; it shares the weights that it does not repack.

    On other devices than CPUs float32 stays as it is: nothing was measured that would make it faster.
    """
    made, one = twin(module), next(module.parameters())
    if precision == "bfloat16":
        return _rewritten(made, spec, torch.bfloat16)
    packs = one.dtype == torch.float32 and can_pack(one.device, torch.float32)
    return _rewritten(made, spec, torch.float32) if packs else made


def _rewritten(module: Any, spec: ModelSpec, dtype: torch.dtype) -> nn.Module:
    """`module`, in which layers are replaced, or the fast form of its architecture."""
    architecture = architecture_of(spec)
    if architecture.kind == "modular":
        module.codec = _layer_by_layer(module.codec, dtype)
        module.predictor = _rewritten(module.predictor, module.predictor_spec, dtype)
        return module
    as_stated = type(module) is architecture.module  # and not what somebody put in its place
    on_cpu = next(module.parameters()).device.type == "cpu"
    if architecture.fast_form and as_stated and on_cpu and translating.applies(module):
        return translating.Translating(module, dtype)
    if dtype == torch.float32:
        module = with_fewer_products(module)
    return _layer_by_layer(module, dtype)


def _layer_by_layer(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """`module`, or what takes its place; the layers in it are replaced. What is not known here stays as it is."""
    if is_plain(module):
        return PackedConv.of(module, dtype)
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d) and dtype != torch.float32:
        return Rounded(module, dtype)
    for name, child in module.named_children():
        setattr(module, name, _layer_by_layer(child, torch.float32 if name == "readout" else dtype))
    return module


def multiplies_in_bfloat16(device: torch.device) -> bool:
    """Does this machine have instructions that multiply matrices of bfloat16 faster than of float32?"""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and not cpu_flags().isdisjoint({"amx_bf16", "avx512_bf16", "bf16"})
