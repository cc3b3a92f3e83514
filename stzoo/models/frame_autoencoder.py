"""What VQ-VAE and VAE share: a convolutional encoder of single frames, and the decoder that paints them again.

Their sizes are those of the modular design (Pan et al., arXiv 2210.01500).
"""

from dataclasses import dataclass

from torch import Tensor, nn

from stzoo.errors import SpecError
from stzoo.spec import ModelSpec, bounded

STRIDE = 4  # H and W of frames are multiples of it; latents have H / 4 rows and W / 4 columns


@dataclass(frozen=True)
class AutoencoderConfig:
    """`width` channels at H/4 x W/4, half of them at H/2 x W/2; latents have `dim` channels.

    `residual_layers` residual blocks, `residual_width` channels wide inside, stand on either side of the latents.
    """

    width: int = bounded(256, 2, 4096)
    residual_layers: int = bounded(2, 0, 32)
    residual_width: int = bounded(32, 1, 4096)
    dim: int = bounded(64, 1, 4096)

    def __post_init__(self) -> None:
        if self.width % 2:
            raise SpecError(f"spec.params.width is {self.width}; it must be even")


class Residual(nn.Module):
    """x + conv 1x1 (ReLU(conv 3x3 (ReLU(x)))), without biases."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.spread = nn.Conv2d(width, inner, 3, padding=1, bias=False)
        self.merge = nn.Conv2d(inner, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, width, h, w)."""
        return x + self.merge(self.spread(x.relu()).relu())


def encoder_of(spec: ModelSpec, config: AutoencoderConfig) -> nn.Sequential:
    """(B, C, H, W) -> (B, dim, H/4, W/4). Its last layer is the 1x1 convolution from `width` to `dim` channels.

    Raises:
        SpecError: the spec is not one of single frames.
    """
    if (spec.frames_in, spec.frames_out) != (1, 1):
        raise SpecError(f"a codec looks at one frame; spec has frames_in {spec.frames_in}, out {spec.frames_out}")
    half, width = config.width // 2, config.width
    return nn.Sequential(
        nn.Conv2d(spec.channels, half, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(half, width, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), *_residuals(config),
        nn.Conv2d(width, config.dim, 1),
    )  # fmt: skip


def decoder_of(spec: ModelSpec, config: AutoencoderConfig) -> nn.Sequential:
    """(B, dim, h, w) -> (B, C, 4h, 4w)."""
    half, width = config.width // 2, config.width
    return nn.Sequential(
        nn.Conv2d(config.dim, width, 3, padding=1), *_residuals(config),
        nn.ConvTranspose2d(width, half, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(half, spec.channels, 4, 2, 1),
    )  # fmt: skip


def _residuals(config: AutoencoderConfig) -> list[nn.Module]:
    return [*(Residual(config.width, config.residual_width) for _ in range(config.residual_layers)), nn.ReLU()]
