"""VQ-VAE (van den Oord et al., NIPS 2017): a frame becomes a small grid of latents, each one of K codes.

With the default widths it has the 2.17 M parameters of the modular design (Pan et al., arXiv 2210.01500). A *codec*
looks at one frame at a time and forecasts nothing; `stzoo.models.modular` lets a predictor work on its latents.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo.errors import SpecError
from stzoo.models.contract import Architecture
from stzoo.spec import ModelSpec, bounded


@dataclass(frozen=True)
class VqVaeConfig:
    """`width` channels at H/4 x W/4, half of them at H/2 x W/2; a codebook of `codes` codes with `dim` values each.

    `residual_layers` residual blocks, `residual_width` channels wide inside, stand on either side of the codebook.
    """

    width: int = bounded(256, 2, 4096)
    residual_layers: int = bounded(2, 0, 32)
    residual_width: int = bounded(32, 1, 4096)
    codes: int = bounded(512, 2, 1 << 16)
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


class VqVae(nn.Module):
    """Codec: (B, C, H, W) normalised frames <-> (B, dim, H/4, W/4) latents; H and W must be multiples of 4."""

    stride = 4

    def __init__(self, spec: ModelSpec, config: VqVaeConfig):
        super().__init__()
        if (spec.frames_in, spec.frames_out) != (1, 1):
            raise SpecError(f"a codec looks at one frame; spec has frames_in {spec.frames_in}, out {spec.frames_out}")
        half, width = config.width // 2, config.width

        def residuals() -> list[nn.Module]:
            return [*(Residual(width, config.residual_width) for _ in range(config.residual_layers)), nn.ReLU()]

        self.encoder = nn.Sequential(
            nn.Conv2d(spec.channels, half, 4, 2, 1), nn.ReLU(),
            nn.Conv2d(half, width, 4, 2, 1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), *residuals(),
            nn.Conv2d(width, config.dim, 1),
        )  # fmt: skip
        self.codebook = nn.Parameter(
            torch.empty(config.codes, config.dim).uniform_(-1 / config.codes, 1 / config.codes)
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(config.dim, width, 3, padding=1), *residuals(),
            nn.ConvTranspose2d(width, half, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(half, spec.channels, 4, 2, 1),
        )  # fmt: skip

    @property
    def dim(self) -> int:
        """How many values a latent has."""
        return self.codebook.shape[1]

    def encode(self, frames: Tensor) -> Tensor:
        """Normalised frames (B, C, H, W) -> z_e (B, dim, H/4, W/4), not quantised."""
        return self.encoder(frames)

    def nearest(self, latents: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, h, w) int64: the number of the code nearest to each latent, searched in float32."""
        with torch.autocast(latents.device.type, enabled=False):
            points, codes = latents.movedim(1, -1).float(), self.codebook.float()
            distances = codes.square().sum(1) - 2.0 * (points @ codes.t())  # |z|^2 is the same for every code
        return distances.argmin(-1)

    def look_up(self, codes: Tensor) -> Tensor:
        """(B, h, w) numbers of codes -> (B, dim, h, w) codes."""
        return F.embedding(codes, self.codebook).movedim(-1, 1)

    def quantise(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """(B, dim, h, w) -> z_q, the code nearest to each latent, of the same shape, and its number (B, h, w) int64."""
        codes = self.nearest(latents)
        return self.look_up(codes), codes

    def decode(self, latents: Tensor) -> Tensor:
        """(B, dim, h, w) latents, quantised or not -> (B, C, 4h, 4w) frames."""
        return self.decoder(latents)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (B, C, H, W) -> the same frames, encoded, quantised and decoded."""
        return self.decode(self.quantise(self.encode(frames))[0])


ARCHITECTURE = Architecture(name="vqvae", kind="codec", config=VqVaeConfig, module=VqVae)
