"""TAU and SimVP's gSTA, trained faster on a CPU (docs/training-speed.md): fused kernels between matrix products.

`FusedForm` shares the parameters of a plain module and computes its forward and backward pass in training, in float32
or bfloat16, with pixels that lie channel by channel (NHWC). It computes the same function and differs from the plain
module by rounding. The kernels (kernels.cpp) are compiled with g++ into the cache folder, once for a size of planes. If
they cannot train a module, the plain one trains instead; weights fit both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo.errors import SpecError
from stzoo.models.encoder_decoder import EncodeTranslateDecode
from stzoo.models.gated_block import GatedBlock
from stzoo.models.motion import along_motion
from stzoo.models.simvp import GstaGate
from stzoo.models.tau import TauGate
from stzoo.spec import ModelSpec
from stzoo.train.fused.block import block
from stzoo.train.fused.conv_norm import conv_norm
from stzoo.train.fused.kernels import chunk, kernels_for

WIDEST = 128  # of a plane in the translator, in pixels: loops over its rows are written out when it is compiled


def has_kernels(module: nn.Module) -> bool:
    """Whether there are kernels for modules of this kind: with blocks around TAU's or gSTA's gate as translator."""
    if not isinstance(module, EncodeTranslateDecode):
        return False
    blocks = [m for m in module.translator.children() if isinstance(m, GatedBlock)]
    return bool(blocks) and all(isinstance(b.gate, TauGate | GstaGate) for b in blocks)


def why_not(module: Any, spec: ModelSpec, dtype: torch.dtype) -> str | None:
    """The reason why the kernels cannot train this module, which has some, on this machine; None if they can.

    Args:
        module: one for which `has_kernels` is true, on the CPU.
        spec: its spec.
        dtype: what it is to be computed in, float32 or bfloat16.
    """
    size = _plane(module, spec)
    if size[1] > WIDEST:
        return f"the translator's planes must be at most {WIDEST} pixels wide"
    multiple = chunk(dtype)
    widths = {b.proj1.in_channels for b in module.translator if isinstance(b, GatedBlock)}
    wrong = sorted(w for w in widths | {module.decoder.readout.in_channels} if w % multiple)
    if wrong:
        return f"in {str(dtype).removeprefix('torch.')} widths must be multiples of {multiple}, and one is {wrong[0]}"
    if next(module.parameters()).dtype != torch.float32:
        return "parameters must be float32"
    try:
        kernels_for(*size, dtype)
    except (OSError, RuntimeError) as error:  # another system, no g++, an old one, a cache that cannot be written
        return f"the kernels could not be built: {error}"
    return None


def _plane(module: Any, spec: ModelSpec) -> tuple[int, int]:
    """Height and width of the planes in the translator."""
    return spec.height // module.stride, spec.width // module.stride


class FusedForm(nn.Module):
    """The form in which a module trains, whose parameters it shares."""

    def __init__(self, plain: EncodeTranslateDecode, spec: ModelSpec, dtype: torch.dtype) -> None:
        super().__init__()
        self.plain = plain
        self.kernels = kernels_for(*_plane(plain, spec), dtype)
        self.kernels.library.omp_set_num_threads(torch.get_num_threads())

    @torch.autocast("cpu", enabled=False)  # what is bfloat16 here is so explicitly
    def forward(self, past: Tensor) -> Tensor:
        """(B, T, C, H, W) float32 normalised past frames -> the T frames that follow, float32."""
        return along_motion(self.still, past) if self.plain.lagrangian else self.still(past)

    def still(self, past: Tensor) -> Tensor:
        """As `forward`, of frames between which nothing is moved."""
        plain: Any = self.plain  # the type checker does not know what an nn.Sequential holds
        kernels = self.kernels
        b, t, c, h, w = past.shape
        p = plain.patch
        x = past.to(kernels.dtype).reshape(b * t, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5).flatten(3)
        skip = x = conv_norm(kernels, plain.encoder.layers[0], x)
        for layer in plain.encoder.layers[1:]:
            x = conv_norm(kernels, layer, x)
        _, rows, columns, width = x.shape
        if (rows, columns) != (kernels.height, kernels.width):
            raise SpecError(
                f"frames of {h}x{w} came to fused kernels that were compiled for frames of "
                f"{h * kernels.height // rows}x{w * kernels.width // columns}; train on clips of the size in the spec"
            )
        x = x.view(b, t, rows, columns, width).permute(0, 2, 3, 1, 4).reshape(b * rows * columns, t * width)
        for layer in plain.translator:
            if not isinstance(layer, GatedBlock):
                x = self._pointwise(layer, x)
                continue
            x = block(kernels, layer, x.float())
            x = x if isinstance(layer.reduction, nn.Identity) else self._pointwise(layer.reduction, x)
        x = x.to(kernels.dtype).view(b, rows, columns, t, width)
        x = x.permute(0, 3, 1, 2, 4).reshape(b * t, rows, columns, width)
        for layer in plain.decoder.layers[:-1]:
            x = conv_norm(kernels, layer, x)
        x = conv_norm(kernels, plain.decoder.layers[-1], x + skip)
        x = self._pointwise(plain.decoder.readout, x).float()
        x = x.view(b, t, h // p, w // p, -1, p, p).permute(0, 1, 4, 2, 5, 3, 6).reshape(b, t, -1, h, w)
        return plain.begins(x, past) if plain.begins else x

    def _pointwise(self, conv: Any, x: Tensor) -> Tensor:
        """A 1x1 convolution as a linear map of the last axis: (..., C_in) -> (..., C_out), in the kernels' dtype."""
        dtype = self.kernels.dtype
        return F.linear(x.to(dtype), conv.weight.flatten(1).to(dtype), conv.bias.to(dtype))
