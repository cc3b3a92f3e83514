"""TAU: Temporal Attention Unit (Tan et al., CVPR 2023).

All past frames are translated at once: time lies in the channels, and a stack of attention blocks mixes space (large
depthwise kernels, the *statical* attention) and time (squeeze-excite over channels, the *dynamical* attention).
"""

from dataclasses import dataclass

from torch import Tensor, nn

from stzoo.models.contract import Architecture
from stzoo.models.encoder_decoder import OPENSTL_FRAMES, OPENSTL_INNER, ConvNorm, EncodeTranslateDecode, reads_around
from stzoo.models.gated_block import (
    FIRST_GATE,
    OPENSTL_GATED,
    GatedBlock,
    GatedConfig,
    gated_translator,
    large_kernel,
    told_by_block,
)
from stzoo.models.published import Layout
from stzoo.models.reading import Reader
from stzoo.spec import ModelSpec


@dataclass(frozen=True)
class TauConfig(GatedConfig):
    """A `GatedConfig`; `statical` and `dynamical` switch the two attentions on and off, as in Table 6."""

    statical: bool = True
    dynamical: bool = True


class TauGate(nn.Module):
    """The attention itself: dynamical(u) * statical(u) * u (equations 2 to 4).

    Statical: depthwise 5x5, depthwise 7x7 with dilation 3 (together a 23x23 receptive field), 1x1.
    Dynamical: squeeze-excite, 16 channels wide inside, or C // 4 of narrower inputs.
    """

    def __init__(self, dim: int, statical: bool, dynamical: bool):
        super().__init__()
        self.statical = large_kernel(dim, dim) if statical else None
        squeezed = max(1, dim // max(dim // 16, 4))
        self.dynamical = (
            nn.Sequential(
                nn.Linear(dim, squeezed, bias=False), nn.ReLU(), nn.Linear(squeezed, dim, bias=False), nn.Sigmoid()
            )
            if dynamical
            else None
        )

    def forward(self, u: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        out = u
        if self.statical is not None:
            out = self.statical(u) * out
        if self.dynamical is not None:
            out = self.dynamical(u.mean((2, 3)))[:, :, None, None] * out
        return out


class Tau(EncodeTranslateDecode):
    """Block: past frames (B, T, C, H, W) in, as many future frames out. H and W must be multiples of `stride`."""

    def __init__(self, spec: ModelSpec, config: TauConfig):
        outer = spec.frames_in * config.hid_s
        translator = gated_translator(outer, lambda dim: TauGate(dim, config.statical, config.dynamical), config)
        super().__init__(
            spec.channels, config.hid_s, config.n_s, config.patch, translator, config.begins(spec), config.lagrangian,
            config.frame_norm,
        )  # fmt: skip


OPENSTL = Layout(
    rules=OPENSTL_FRAMES + OPENSTL_GATED,
    inner=OPENSTL_INNER,
    readers=(Reader(f"{FIRST_GATE}fc.0.weight", reads_around(told_by_block())),),
)
ARCHITECTURE = Architecture(
    name="tau",
    kind="block",
    config=TauConfig,
    module=Tau,
    colour="first",  # as nn.PixelUnshuffle folds
    recompute=(ConvNorm, GatedBlock),
    layouts={"openstl": OPENSTL},
    fast_form=True,
    fused_training=True,
)
