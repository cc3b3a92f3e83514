"""Scheduled sampling: which true frames a recurrent module is shown in training, in place of its own forecasts."""

import math
from typing import Literal

import torch
from torch import Tensor

Sampling = Literal["none", "true", "scheduled", "reverse", "teacher", "parallel"]


def odds(sampling: Sampling, done: float) -> tuple[float, float]:
    """The probabilities in [0, 1] that the module is shown the true past frame, and the true future frame.

    * "true" (PredNet): always.
    * "scheduled" (Bengio et al., 2015): the past is always true, the future less and less often, linearly.
    * "teacher" (PhyDNet): the same, but drawn once for all frames of a batch.
    * "reverse" (PredRNN-V2): the past is true half the time at first, then more and more often; the future is true half
      the time at first, then less and less often.

    The two others never ask: "none" trains the forecast alone, and with "parallel" (TCTN) every frame is true, because
    all steps of a clip are computed at once.

    Args:
        done: the share of the sampling period that has passed; published runs have a period of 50,000 steps.
    """
    if sampling == "true":
        return 1.0, 1.0
    done = min(max(done, 0.0), 1.0)
    if sampling != "reverse":
        return 1.0, 1.0 - done
    if done < 0.5:
        return 0.5, 0.5
    if done < 1.0:
        return 1.0 - 0.5 * math.exp(-(done - 0.5) / 0.1), 1.0 - done
    return 1.0, 0.0


def draw_shown(sampling: Sampling, done: float, past: int, frames: int, batch: int) -> Tensor:
    """(frames, batch) of booleans: is the module shown the true frame t? The first frame always is.

    They are drawn from torch's global generator on the CPU. If several processes share a batch, or it is cut into
    micro-batches, each part draws for itself.

    Args:
        done: as in `odds`.
        past: how many of the frames are past ones.
        frames: how many frames the module reads.
        batch: how many clips there are.
    """
    of_past, of_future = odds(sampling, done)
    chances = torch.tensor([1.0] + [of_past] * (past - 1) + [of_future] * (frames - past), dtype=torch.float32)[:, None]
    shape = () if sampling == "teacher" else (frames, batch)
    draws = torch.rand(shape, dtype=torch.float32).expand(frames, batch)
    return draws < chances
