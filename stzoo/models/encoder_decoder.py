"""The frame encoder and decoder that TAU and SimVP share (SimVP, CVPR 2022, section 3.2).

Each frame is encoded by itself; the first layer's output skips over the translator and is added before the last
decoder layer, so that fine detail does not have to pass through the bottleneck.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from stzoo.errors import SpecError
from stzoo.models.beginning import Beginning
from stzoo.models.motion import along_motion
from stzoo.models.published import rules
from stzoo.models.reading import Frame, Shapes, Told, depth, same_channels

# OpenSTL's names of the tensors below. Its upsampling convolution lies one level deeper, inside its pixel shuffle.
OPENSTL_FRAMES = rules(
    (r"encoder\.layers\.(\d+)\.(conv|norm)", r"enc.enc.\1.conv.\2"),
    (r"decoder\.layers\.(\d+)\.(conv|norm)", r"dec.dec.\1.conv.\2"),
    (r"decoder\.readout", r"dec.readout"),
)
OPENSTL_INNER = ((r"^(dec\.dec\.\d+\.conv\.conv)\.0\.", r"\1."),)


def strides(layers: int) -> list[int]:
    """1, 2, 1, 2, ... : the stride of each encoder layer; the decoder's upsampling reads it backwards."""
    return [1 + i % 2 for i in range(layers)]


def block_widths(outer: int, inner: int, blocks: int) -> list[tuple[int, int]]:
    """(width, width out) of each block: `outer` at both ends, `inner` between."""
    return list(pairwise([outer] + [inner] * (blocks - 1) + [outer]))


def check_even(hid_s: int) -> None:
    """The encoder normalises in two groups of channels. Raises `SpecError` if `hid_s` is odd."""
    if hid_s % 2:
        raise SpecError(f"spec.params.hid_s is {hid_s}; it must be even")


class ConvNorm(nn.Module):
    """3x3 convolution, GroupNorm(2), SiLU; upsampling convolves to up * up times the width and shuffles pixels.

    Without `normed`, there is no GroupNorm: what is large stays large.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1, up: int = 1, normed: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out * up * up, 3, stride=stride, padding=1)
        self.shuffle = nn.PixelShuffle(up) if up > 1 else nn.Identity()
        self.norm = nn.GroupNorm(2, c_out) if normed else nn.Identity()
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, h, w) -> (N, c_out, up * h / stride, up * w / stride)."""
        return self.act(self.norm(self.shuffle(self.conv(x))))


class Encoder(nn.Module):
    """`layers` times `ConvNorm` after folding `patch` x `patch` pixels; every second layer halves H and W."""

    def __init__(self, channels: int, width: int, layers: int, patch: int, normed: bool = True):
        super().__init__()
        self.unshuffle = nn.PixelUnshuffle(patch) if patch > 1 else nn.Identity()
        c_in = [channels * patch**2] + [width] * (layers - 1)
        self.layers = nn.ModuleList(
            ConvNorm(c, width, stride=s, normed=normed) for c, s in zip(c_in, strides(layers), strict=True)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (N, C, H, W) -> features (N, width, H/s, W/s), s = patch * 2^(layers // 2), and the skip.

        The skip is the first layer's output, (N, width, H/patch, W/patch).
        """
        skip = self.layers[0](self.unshuffle(x))
        hidden = skip
        for layer in self.layers[1:]:
            hidden = layer(hidden)
        return hidden, skip


class Decoder(nn.Module):
    """The encoder's layers backwards, then a 1x1 convolution to pixels, without an activation at the end."""

    def __init__(self, channels: int, width: int, layers: int, patch: int, normed: bool = True):
        super().__init__()
        self.layers = nn.ModuleList(ConvNorm(width, width, up=s, normed=normed) for s in reversed(strides(layers)))
        self.readout = nn.Conv2d(width, channels * patch**2, 1)
        self.shuffle = nn.PixelShuffle(patch) if patch > 1 else nn.Identity()

    def forward(self, hidden: Tensor, skip: Tensor) -> Tensor:
        """Features (N, width, H/s, W/s) and the encoder's skip -> frames (N, C, H, W)."""
        for layer in self.layers[:-1]:
            hidden = layer(hidden)
        return self.shuffle(self.readout(self.layers[-1](hidden + skip)))


class EncodeTranslateDecode(nn.Module):
    """Block: encode each frame, translate the features of all frames together, decode each frame.

    Time is folded into the batch for the encoder and decoder, and into the channels for the translator:
    (B, T, C, H, W) -> (B*T, width, h, w) -> (B, T*width, h, w) -> (B, T, C, H, W). With `lagrangian` all of this
    happens in coordinates that move with the pictures, see `stzoo.models.motion`. What is made is added to what the
    forecast `begins` from, if that is given. Without `normed`, the encoder and the decoder have no GroupNorm.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        layers: int,
        patch: int,
        translator: nn.Module,
        begins: Beginning | None = None,
        lagrangian: bool = False,
        normed: bool = True,
    ):
        super().__init__()
        self.encoder = Encoder(channels, width, layers, patch, normed)
        self.translator = translator
        self.decoder = Decoder(channels + (begins.more if begins else 0), width, layers, patch, normed)
        self.begins = begins
        if begins and begins.more and not self.decoder.readout.weight.is_meta:  # the same mixture everywhere at first
            nn.init.zeros_(self.decoder.readout.weight)
            nn.init.zeros_(self.decoder.readout.bias)  # type: ignore[arg-type]
        self.patch, self.lagrangian = patch, lagrangian
        self.stride: int | None = patch * 2 ** (layers // 2)

    def forward(self, past: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised past frames -> the T frames that follow. H and W are multiples of `stride`."""
        return along_motion(self.still, past) if self.lagrangian else self.still(past)

    def still(self, past: Tensor) -> Tensor:
        """As `forward`, of frames between which nothing is moved."""
        b, t = past.shape[:2]
        hidden, skip = self.encoder(past.flatten(0, 1))
        width, h, w = hidden.shape[1:]
        hidden = self.translator(hidden.reshape(b, t * width, h, w)).reshape(b * t, width, h, w)
        future = self.decoder(hidden, skip).unflatten(0, (b, t))
        return self.begins(future, past) if self.begins else future


class DropPath(nn.Module):
    """Stochastic depth: in training, a residual branch is skipped for whole samples with probability `rate`."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> the same shape: zero in the samples that are skipped, x / (1 - rate) in the others."""
        kept = self.kept(x.shape[0], x.device)
        return x if kept is None else x * kept.view(-1, *(1 for _ in x.shape[1:])).to(x.dtype)

    def kept(self, samples: int, device: torch.device | str = "cpu") -> Tensor | None:
        """The factors of the samples' branches, (samples,) float32, newly drawn; None if nothing is ever skipped."""
        if self.rate == 0.0 or not self.training:
            return None
        keep = torch.rand(samples, device=device, dtype=torch.float32) >= self.rate
        return keep / (1.0 - self.rate)


def told_by_encoder(shapes: Shapes, known: Frame) -> tuple[dict[str, Any], Frame]:
    """What OpenSTL's tensors of an encoder tell: `hid_s`, `n_s`, and how many channels a frame has."""
    first = shapes["enc.enc.0.conv.conv.weight"]
    params = {"hid_s": first[0], "n_s": depth(shapes, "enc.enc")}
    return params, Frame(channels=same_channels(first[1], known.channels))


def reads_around(
    told: Callable[[Shapes, Frame], tuple[int, Mapping[str, Any]]],
    translator: str | None = None,
    untold: tuple[str, ...] = (),
) -> Callable[[Shapes, Frame], Told]:
    """For `Reader.read`: an encoder and a decoder around a translator.

    Args:
        told: (shapes, what is known of the frames) -> how many channels the translator reads, those of all past frames,
            and the `params` that its tensors tell.
        translator: its name, of an architecture with several.
        untold: params of the translator that no tensor tells.
    """

    def read(shapes: Shapes, known: Frame) -> Told:
        params, frame = told_by_encoder(shapes, known)
        outer, more = told(shapes, known)
        params |= {"n_t": depth(shapes, "hid.enc"), **more}
        params |= {} if translator is None else {"translator": translator}
        settings = (*untold, "from_last", "period", "lagrangian")
        return Told(params=params, frame=frame, frames_in=outer // params["hid_s"], untold=settings)

    return read
