"""TAU: Temporal Attention Unit (Tan et al., CVPR 2023).

All past frames are translated at once: time lies in the channels, and a stack of attention blocks mixes space (large
depthwise kernels, the *statical* attention) and time (squeeze-excite over channels, the *dynamical* attention).
"""

from dataclasses import dataclass

from torch import Tensor, nn

from stzoo.models.encoder_decoder import EncodeTranslateDecode, check_even
from stzoo.models.gated_block import gated_translator, large_kernel
from stzoo.spec import ModelSpec, bounded


@dataclass(frozen=True)
class TauConfig:
    """The paper's names: hid_s and n_s are the encoder's width and depth, hid_t and n_t the translator's.

    `patch` folds p x p pixels into channels before the encoder (1 = the paper). `statical` and `dynamical` switch the
    two attentions of Table 6. `layer_scale` is what the residual scales start from. `project` puts a 1x1 convolution
    before and after the translator, so that the first block works at hid_t too (False = the paper).
    """

    hid_s: int = bounded(64, 2, 1024)
    hid_t: int = bounded(512, 2, 8192)
    n_s: int = bounded(4, 1, 12)
    n_t: int = bounded(8, 2, 64)
    mlp_ratio: int = bounded(8, 1, 16)
    patch: int = bounded(1, 1, 16)
    drop_path: float = bounded(0.0, 0.0, 0.9)
    layer_scale: float = bounded(1e-2, 0.0, 1.0)
    project: bool = False
    statical: bool = True
    dynamical: bool = True

    def __post_init__(self) -> None:
        check_even(self.hid_s)


class Gate(nn.Module):
    """The attention itself: dynamical(u) * statical(u) * u (equations 2 to 4). (B, C, H, W) -> (B, C, H, W).

    Statical: depthwise 5x5, depthwise 7x7 with dilation 3 (together a 23x23 receptive field), 1x1.
    Dynamical: squeeze-excite, 16 channels wide in between.
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
        out = u
        if self.statical is not None:
            out = self.statical(u) * out
        if self.dynamical is not None:
            out = self.dynamical(u.mean((2, 3)))[:, :, None, None] * out
        return out


class Tau(EncodeTranslateDecode):
    """(B, T, C, H, W) normalised past -> (B, T, C, H, W) normalised future; H and W multiples of `stride`."""

    def __init__(self, spec: ModelSpec, config: TauConfig):
        translator = gated_translator(
            spec.frames_in * config.hid_s,
            lambda dim: Gate(dim, config.statical, config.dynamical),
            hid_t=config.hid_t,
            n_t=config.n_t,
            mlp_ratio=config.mlp_ratio,
            layer_scale=config.layer_scale,
            drop_path=config.drop_path,
            project=config.project,
        )
        super().__init__(spec.channels, config.hid_s, config.n_s, config.patch, translator)
