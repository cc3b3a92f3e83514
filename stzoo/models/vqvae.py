"""VQ-VAE (van den Oord et al., NIPS 2017): a frame becomes a small grid of latents, each one of K codes.

With the default widths it has the 2.17 M parameters of the modular design (Pan et al., arXiv 2210.01500). A *codec*
looks at one frame at a time and forecasts nothing; `stzoo.models.modular` lets a predictor work on its latents.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo.models.contract import Architecture
from stzoo.models.frame_autoencoder import STRIDE, AutoencoderConfig, decoder_of, encoder_of
from stzoo.spec import ModelSpec, bounded


@dataclass(frozen=True)
class VqVaeConfig(AutoencoderConfig):
    """The encoder and the decoder, and between them a codebook of `codes` codes with `dim` values each."""

    codes: int = bounded(512, 2, 1 << 16)


class VqVae(nn.Module):
    """Codec: (B, C, H, W) normalised frames <-> (B, dim, H/4, W/4) latents; H and W must be multiples of 4."""

    stride = STRIDE

    def __init__(self, spec: ModelSpec, config: VqVaeConfig):
        super().__init__()
        self.encoder = encoder_of(spec, config)
        self.codebook = nn.Parameter(
            torch.empty(config.codes, config.dim).uniform_(-1 / config.codes, 1 / config.codes)
        )
        self.decoder = decoder_of(spec, config)

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

    def units(self) -> tuple[Tensor, Tensor]:
        """The mean of the codes, (dim, 1, 1), and their standard deviation from it, a single number."""
        book = self.codebook.float()
        mean = book.mean(0)
        return mean[:, None, None], (book - mean).square().mean().sqrt().clamp_min(1e-6)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, dim, h, w) latents, quantised or not -> (B, C, 4h, 4w) frames."""
        return self.decoder(latents)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (B, C, H, W) -> the same frames, encoded, quantised and decoded."""
        return self.decode(self.quantise(self.encode(frames))[0])


ARCHITECTURE = Architecture(name="vqvae", kind="codec", config=VqVaeConfig, module=VqVae, quantises=True)
