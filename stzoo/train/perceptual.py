"""The perceptual loss of codec training: how different painted frames look from the true ones, by LPIPS."""

from __future__ import annotations

from torch import Tensor

from stzoo.errors import SpecError
from stzoo.frames.values import denormalise
from stzoo.metrics.perceptual import SMALLEST, LpipsNetwork
from stzoo.spec import ModelSpec


class PerceptualLoss:
    """LPIPS between frames, mean over them. It is differentiable, and the network never learns.

    Args:
        spec: of the codec, whose range of values becomes LPIPS's [-1, 1]; gray is repeated to three channels.
        network: on the device of the frames.
    """

    def __init__(self, spec: ModelSpec, network: LpipsNetwork):
        self.spec, self.network = spec, network.eval().requires_grad_(False)

    def __call__(self, painted: Tensor, frames: Tensor) -> Tensor:
        """(N, C, H, W) and (N, C, H, W), normalised and unclipped -> a float32 scalar."""
        return self.network(self._shown(painted), self._shown(frames)).mean()

    def _shown(self, frames: Tensor) -> Tensor:
        low, high = self.spec.value_range or (0.0, 1.0)
        return ((denormalise(frames, self.spec) - low) / (high - low) * 2.0 - 1.0).expand(-1, 3, -1, -1)


def check_perceptual(spec: ModelSpec) -> None:
    """Raises `SpecError` if LPIPS cannot look at frames of this spec: it needs gray or colour in a known range."""
    if spec.channels not in (1, 3) or spec.value_range is None or min(spec.height, spec.width) < SMALLEST:
        raise SpecError(
            f"recipe.perceptual_weight needs frames of 1 or 3 channels with a value_range, at least {SMALLEST} pixels "
            f"high and wide; these have {spec.channels} channels, value_range {spec.value_range} and "
            f"{spec.height}x{spec.width} pixels"
        )
