"""Learning-rate schedules: step of steps -> factor of the peak rate. Pure functions, so nothing needs restoring."""

import math


def cosine(step: int, steps: int, warmup: float) -> float:
    """Linear from nearly 0 over the first `warmup` share of the steps, then half a cosine down to 0."""
    ramp = max(1.0, warmup * steps)
    if step < ramp:
        return (step + 1) / (ramp + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - ramp) / max(1.0, steps - ramp)))


def one_cycle(step: int, steps: int, warmup: float) -> float:
    """Smith's one-cycle rate as torch computes it: cosine from 1/25 to 1, then cosine down to 1/250,000."""
    start, end, peak = 1 / 25, 1 / 250_000, warmup * steps - 1
    if step <= peak:
        return _anneal(start, 1.0, step / max(peak, 1e-9))
    return _anneal(1.0, end, (step - peak) / max(steps - 1 - peak, 1e-9))


def _anneal(a: float, b: float, share: float) -> float:
    return b + (a - b) * 0.5 * (1.0 + math.cos(math.pi * share))


SCHEDULES = {"cosine": cosine, "one-cycle": one_cycle}
