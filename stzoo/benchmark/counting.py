"""How much a pass computes, and how much it must move at least. Counted on the plain module, without running it."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from stzoo.machine import Precision
from stzoo.models import build
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll


def macs(spec: ModelSpec, steps: int) -> int:
    """Multiply-accumulates in convolutions and matrix products of one clip: the past read, `steps` frames forecast.

    An engine that gets by with fewer is credited with these all the same: they are what the forecast takes.
    """
    module = build(spec, "meta").eval()
    past = torch.empty(1, spec.frames_in, spec.channels, spec.height, spec.width, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for _ in unroll(module, spec, past, steps):
            pass
    return int(counter.get_total_flops()) // 2


def bytes_moved(spec: ModelSpec, batch: int, steps: int, precision: Precision) -> int:
    """A lower bound for one pass: every weight is read once, the float32 clips are read and the frames written once.

    What lies between layers is left out, so the true intensity is lower than what follows from this.
    """
    weights = sum(t.numel() for t in build(spec, "meta").state_dict().values() if t.is_floating_point())
    frames = batch * (spec.frames_in + steps) * spec.channels * spec.height * spec.width
    return weights * (2 if precision == "bfloat16" else 4) + frames * 4
