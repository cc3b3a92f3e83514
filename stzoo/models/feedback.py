"""Which frames that a recurrent module reads are its own forecasts, for modules that treat these in another way."""

from torch import Tensor


def is_own(frame: Tensor, forecast: Tensor) -> Tensor:
    """(B, C, H, W) each -> (B, 1, 1, 1), true for the clips whose frame is the forecast that was made of it.

    In a rollout the forecast comes back unrounded, so that every value is the same. A true frame is never forecast to
    the last bit, unless both are flat, such as a sky without rain. A frame whose channels are all flat therefore counts
    as a true one.
    """
    same = (frame == forecast).flatten(1).all(1)
    flat = (frame == frame[..., :1, :1]).flatten(1).all(1)
    return (same & ~flat).view(-1, 1, 1, 1)
