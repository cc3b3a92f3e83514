"""How a module is run fast: precision, layout, layers rewritten for forecasts, batches cut to the cache, torch.compile.

The trainable module stays as it is; what runs is a twin that is made of it when the first forecast is asked for, and
made anew when its weights have changed. `docs/speed.md` says what each of these gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn

from stzoo.engine import translating
from stzoo.engine.compiling import compiled
from stzoo.engine.packed import PackedConv, Rounded, can_pack, is_plain, pieces, twin
from stzoo.machine import Precision, check_precision, cpu_flags
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll

PIXELS_AT_ONCE = 40 * 64 * 64  # of a CPU: more clips at once are no faster, and in the end slower than one by one


class Engine:
    """Runs a module that `stzoo.unroll` could drive, faster.

    Attributes:
        module: the plain one.
        precision: "float32" agrees with the module to rounding, 1e-4 of the largest value. In "bfloat16" products and
            what TAU and SimVP compute between them are rounded; states, residual sums and readouts are not.
    """

    def __init__(self, module: nn.Module, spec: ModelSpec, precision: str = "float32"):
        """Raises `SpecError` where `precision` is none of `stzoo.machine.PRECISION_CHOICES`."""
        check_precision(precision)
        self.module, self._spec, self._asked = module, spec, precision
        self._compiles = False
        self.refresh()

    @property
    def precision(self) -> Precision:
        if self._asked != "auto":
            return cast(Precision, self._asked)
        return "bfloat16" if multiplies_in_bfloat16(self._device) else "float32"

    def unroll(self, past: Tensor, steps: int | None = None) -> Iterator[Tensor]:
        """As `stzoo.unroll.unroll(module, spec, past, steps)` in eval mode, without gradients: normalised frames.

        Weights must not change before the last frame is taken: some of what runs shares them, some has copies.
        """
        runs = self._current()
        streams = [unroll(runs, self._spec, some, steps) for some in past.split(self._at_once(past))]
        while True:
            with torch.no_grad(), torch.autocast(past.device.type, enabled=False):
                frames = [next(stream, None) for stream in streams]
                if frames[0] is None:
                    return
                whole = torch.cat(cast(list[Tensor], frames))  # a copy even of one: what is fed back is nobody else's
            yield whole

    def compile(self) -> None:
        """Run through `torch.compile` from now on."""
        self._compiles = True
        self.refresh()

    def refresh(self) -> None:
        """Make what runs anew at the next forecast. That happens by itself where weights have changed; a change that
        PyTorch keeps no record of, and that leaves the first values of every tensor alone, would go unseen."""
        self._made: _Made | None = None

    def __getstate__(self) -> dict[str, object]:
        """Without what runs: packed weights are this process's own, and are made again."""
        return self.__dict__ | {"_made": None}

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _at_once(self, past: Tensor) -> int:
        """Of how many clips the frames go through together."""
        if past.device.type != "cpu":
            return len(past)
        together = 1 if hasattr(self.module, "step") else self._spec.frames_in  # frames of a clip
        return pieces(len(past), PIXELS_AT_ONCE // (together * past.shape[-2] * past.shape[-1]))

    def _current(self) -> Any:
        """What runs, made where there is none of the module's weights as they are now. The module itself where it has
        hooks, which a twin of it would not call."""
        if any(part._forward_hooks or part._forward_pre_hooks for part in self.module.modules()):
            return self.module
        tensors = list(chain(self.module.parameters(), self.module.buffers()))
        if self._made is None or self._made.is_of_other(tensors):
            with torch.no_grad():
                made = for_inference(self.module, self.precision)
            self._made = _Made(compiled(made) if self._compiles else made, tensors)
        return self._made.runs


class _Made:
    """What runs, and how to tell that the weights it was made of have changed since.

    PyTorch counts the changes of a tensor, but not those that fused optimizers, CUDA graphs or `.data` make; so the
    first few values of each are looked at as well.
    """

    def __init__(self, runs: Any, tensors: list[Tensor]):
        self.runs, self._state = runs, _state(tensors)
        self._first = [_first(t.detach()) for t in tensors if t.is_floating_point()]  # views
        self._values = torch.cat(self._first)

    def is_of_other(self, tensors: list[Tensor]) -> bool:
        return self._state != _state(tensors) or not torch.equal(self._values, torch.cat(self._first))


def _state(tensors: list[Tensor]) -> list[tuple[int, int]]:
    """Where each tensor lies, and how often it was changed."""
    return [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]


def _first(tensor: Tensor) -> Tensor:
    """Its first values in memory, 16 at most."""
    there = tensor.untyped_storage().nbytes() // tensor.element_size() - tensor.storage_offset()
    return tensor.as_strided((min(16, tensor.numel(), there),), (1,), tensor.storage_offset())


def for_inference(module: nn.Module, precision: Precision) -> nn.Module:
    """A module that computes what `module` does in eval mode, faster; it shares what it does not repack.

    On other devices than CPUs float32 stays as it is: nothing was measured that would make it faster.
    """
    made, one = twin(module), next(module.parameters())
    if precision == "bfloat16":
        return _rewritten(made, torch.bfloat16)
    packs = one.dtype == torch.float32 and can_pack(one.device, torch.float32)
    return _rewritten(made, torch.float32) if packs else made


def _rewritten(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """`module`, or what takes its place; its parts are replaced in it."""
    if translating.applies(module) and next(module.parameters()).device.type == "cpu":
        return translating.Translating(module, dtype)
    if is_plain(module):
        return PackedConv.of(module, dtype)
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and dtype != torch.float32:
        return Rounded(module, dtype)
    for name, child in module.named_children():
        setattr(module, name, _rewritten(child, torch.float32 if name == "readout" else dtype))
    return module


def multiplies_in_bfloat16(device: torch.device) -> bool:
    """Does this machine have instructions that multiply matrices of bfloat16 faster than of float32?"""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and not cpu_flags().isdisjoint({"amx_bf16", "avx512_bf16", "bf16"})
