"""Scheduled sampling: which frames a recurrent module is shown, and at which it must go on from its own forecast."""

import math
from typing import Literal

import torch
from torch import Tensor

Sampling = Literal["none", "scheduled", "reverse", "teacher", "parallel"]


def odds(sampling: Sampling, done: float) -> tuple[float, float]:
    """The probabilities that a past frame and a future frame is the true one.

    `done` is the share of the sampling period that has passed; published runs have a period of 50,000 steps.

    * "scheduled" (Bengio et al., 2015): the past is always true, the future less and less, linearly.
    * "teacher": the same, but drawn once for all frames of a batch (PhyDNet).
    "parallel" (TCTN) draws nothing: every frame is true, and all steps of a clip are computed at once.

    * "reverse" (PredRNN-V2): the past is true more and more, from a half; the future half the time, then less and less.
    """
    done = min(max(done, 0.0), 1.0)
    if sampling != "reverse":
        return 1.0, 1.0 - done
    if done < 0.5:
        return 0.5, 0.5
    if done < 1.0:
        return 1.0 - 0.5 * math.exp(-(done - 0.5) / 0.1), 1.0 - done
    return 1.0, 0.0


def draw_shown(sampling: Sampling, done: float, past: int, frames: int, batch: int) -> Tensor:
    """(frames, batch) of booleans: is the module shown the true frame t? The first one always; `past` of them are past.

    Drawn from torch's global generator on the CPU. Of a batch that several processes share, or that is cut, each part
    draws for itself.
    """
    of_past, of_future = odds(sampling, done)
    chances = torch.tensor([1.0] + [of_past] * (past - 1) + [of_future] * (frames - past))[:, None]
    draws = torch.rand(()).expand(frames, batch) if sampling == "teacher" else torch.rand(frames, batch)
    return draws < chances
