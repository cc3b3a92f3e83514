"""How much one pass computes, and how much it must move at least: counted on the plain module, without running it."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from stzoo.machine import Precision
from stzoo.models import architecture_of, build
from stzoo.models.contract import SequentialForm
from stzoo.spec import ModelSpec
from stzoo.unroll import unroll


def macs(spec: ModelSpec, steps: int) -> int:
    """Multiply-accumulates (MACs) of one clip in convolutions and matrix products, for `steps` frames of forecast.

    An engine that needs fewer for the same answer is credited with all of these.
    """
    plain: Any = build(spec, "meta").eval()
    module = plain
    if architecture_of(spec).advances:  # as published figures count: each step of the past paints a forecast
        module = SequentialForm(plain.initial_state, plain.step, None, lambda *read: plain.step(*read)[1])
    past = torch.empty(1, spec.frames_in, spec.channels, spec.height, spec.width, device="meta", dtype=torch.float32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for _ in unroll(module, spec, past, steps):
            pass
    return int(counter.get_total_flops()) // 2


def bytes_moved(spec: ModelSpec, batch: int, steps: int, precision: Precision) -> int:
    """Bytes that one pass moves at least: it reads every weight and the float32 clips once, and writes each frame once.

    What moves between layers is left out, so the true intensity is lower than the one computed from these bytes.

    Args:
        spec: the spec of the model.
        batch: clips in the pass.
        steps: frames of forecast of each clip.
        precision: the number format of the weights.
    """
    weights = sum(t.numel() for t in build(spec, "meta").state_dict().values() if t.is_floating_point())
    frames = batch * (spec.frames_in + steps) * spec.channels * spec.height * spec.width
    return weights * (2 if precision == "bfloat16" else 4) + frames * 4
