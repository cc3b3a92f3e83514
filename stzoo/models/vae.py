"""VAE (Kingma and Welling, ICLR 2014): a frame becomes a small grid of latents with Gaussian distributions.

Encoder and decoder are those of `stzoo.models.vqvae`, so that the two codecs of the modular design differ in their
latents alone. A forecast reads the means; only training draws from the distributions (`stzoo.train.gaussian`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stzoo.models.contract import Architecture
from stzoo.models.frame_autoencoder import STRIDE, AutoencoderConfig, decoder_of, encoder_of
from stzoo.spec import ModelSpec

WIDEST = 20.0  # logarithms of variances lie between minus and plus this, so that no exponential overflows


@dataclass(frozen=True)
class VaeConfig(AutoencoderConfig):
    """The encoder and the decoder; see there."""


class Vae(nn.Module):
    """Codec: (B, C, H, W) normalised frames <-> (B, dim, H/4, W/4) latents; H and W must be multiples of 4.

    `latent_mean` (dim,) and `latent_std`, a single number, are those of the latents of training frames. Training
    measures them, and they are saved with the weights; a module with random weights has 0 and 1.
    """

    stride = STRIDE

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, spec: ModelSpec, config: VaeConfig):
        super().__init__()
        self.encoder = encoder_of(spec, config)
        self.log_variance = nn.Conv2d(config.width, config.dim, 1)
        self.decoder = decoder_of(spec, config)
        self.register_buffer("latent_mean", torch.zeros(config.dim))
        self.register_buffer("latent_std", torch.ones(()))

    @property
    def dim(self) -> int:
        """How many values a latent has."""
        return self.latent_mean.shape[0]

    def encode(self, frames: Tensor) -> Tensor:
        """Normalised frames (B, C, H, W) -> the means of their latents, (B, dim, H/4, W/4)."""
        return self.encoder(frames)

    def posterior(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised frames (B, C, H, W) -> mean and log variance of each latent, (B, dim, H/4, W/4) each."""
        hidden = self.encoder[:-1](frames)
        return self.encoder[-1](hidden), self.log_variance(hidden).clamp(-WIDEST, WIDEST)

    def units(self) -> tuple[Tensor, Tensor]:
        """The mean of the latents, (dim, 1, 1), and their standard deviation from it, a single number: as measured."""
        return self.latent_mean.float()[:, None, None], self.latent_std.float().clamp_min(1e-6)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, dim, h, w) latents -> (B, C, 4h, 4w) frames."""
        return self.decoder(latents)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (B, C, H, W) -> the same frames, painted from the means of their latents."""
        return self.decode(self.encode(frames))


ARCHITECTURE = Architecture(name="vae", kind="codec", config=VaeConfig, module=Vae)
