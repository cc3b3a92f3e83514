"""SimVP: an encoder, a translator and a decoder, all convolutions (Gao et al., CVPR 2022); gSTA is its second version.

IncepU, the first translator, is a U-Net over grouped convolutions of several sizes; gSTA (SimVPv2) is a stack of gated
large-kernel attention blocks.
"""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from stzoo.errors import SpecError
from stzoo.models.contract import Architecture
from stzoo.models.encoder_decoder import OPENSTL_FRAMES, OPENSTL_INNER, ConvNorm, EncodeTranslateDecode
from stzoo.models.gated_block import OPENSTL_GATED, GatedBlock, GatedConfig, gated_translator, large_kernel
from stzoo.models.published import Layout, rules
from stzoo.spec import ModelSpec

GROUPS = 8
KERNELS = (3, 5, 7, 11)
GSTA_ONLY = ("mlp_ratio", "drop_path", "layer_scale", "project")


@dataclass(frozen=True)
class SimVpConfig(GatedConfig):
    """A `GatedConfig` and the choice of `translator`; "incepu" does not use the fields in `GSTA_ONLY`.

    Raises `SpecError` if one of them is set for "incepu" all the same.
    """

    translator: Literal["gsta", "incepu"] = "gsta"

    def __post_init__(self) -> None:
        super().__post_init__()
        for f in fields(self):
            if self.translator == "incepu" and f.name in GSTA_ONLY and getattr(self, f.name) != f.default:
                raise SpecError(f"spec.params.{f.name} is {getattr(self, f.name)!r}; translator incepu does not use it")


class GstaGate(nn.Module):
    """gSTA (SimVPv2): value * sigmoid(gate), the two halves of a large-kernel attention with twice the channels."""

    def __init__(self, dim: int):
        super().__init__()
        self.attention = large_kernel(dim, 2 * dim)

    def forward(self, u: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        value, gate = self.attention(u).chunk(2, 1)
        return gate.sigmoid() * value


def groups_of(channels: int) -> int:
    """Groups of a convolution: eight if they divide the channels, else one."""
    return GROUPS if channels % GROUPS == 0 else 1


class GroupConv(nn.Sequential):
    """LeakyReLU(0.2) of GroupNorm of a grouped convolution: (B, c_in, h, w) -> (B, c_out, h, w)."""

    def __init__(self, c_in: int, c_out: int, kernel: int):
        groups = groups_of(c_in)
        conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, groups=groups)
        super().__init__(conv, nn.GroupNorm(groups, c_out), nn.LeakyReLU(0.2))


class Inception(nn.Module):
    """1x1 to hid_t // 2 channels, then the sum of four `GroupConv` with kernels of 3, 5, 7 and 11."""

    def __init__(self, c_in: int, hid_t: int, c_out: int):
        super().__init__()
        self.reduce = nn.Conv2d(c_in, hid_t // 2, 1)
        self.branches = nn.ModuleList(GroupConv(hid_t // 2, c_out, k) for k in KERNELS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, h, w) -> (B, c_out, h, w)."""
        x = self.reduce(x)
        return torch.stack([branch(x) for branch in self.branches]).sum(0)


class IncepU(nn.Module):
    """n_t `Inception` modules down and n_t up, all at one resolution.

    On the way up, each module but the first also reads the output of its partner on the way down.
    """

    def __init__(self, outer: int, hid_t: int, n_t: int):
        super().__init__()
        self.down = nn.ModuleList(Inception(c, hid_t, hid_t) for c in [outer] + [hid_t] * (n_t - 1))
        ends = [hid_t] * (n_t - 1) + [outer]
        reads = [hid_t] + [2 * hid_t] * (n_t - 1)
        self.up = nn.ModuleList(Inception(c, hid_t, end) for c, end in zip(reads, ends, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """(B, outer, h, w) -> (B, outer, h, w)."""
        skips = []
        for module in self.down:
            x = module(x)
            skips.append(x)
        x = self.up[0](skips.pop())  # the deepest goes straight up
        for module in self.up[1:]:
            x = module(torch.cat([x, skips.pop()], 1))
        return x


class SimVp(EncodeTranslateDecode):
    """Block: past frames (B, T, C, H, W) in, as many future frames out. H and W must be multiples of `stride`."""

    def __init__(self, spec: ModelSpec, config: SimVpConfig):
        outer = spec.frames_in * config.hid_s
        translator: nn.Module
        if config.translator == "incepu":
            if config.hid_t % groups_of(config.hid_t // 2):
                raise SpecError(f"spec.params.hid_t is {config.hid_t}; incepu needs a multiple of {GROUPS} here")
            if outer % groups_of(config.hid_t // 2):
                raise SpecError(
                    f"spec.params.hid_s is {config.hid_s}; times frames_in it must divide into {GROUPS} groups"
                )
            translator = IncepU(outer, config.hid_t, config.n_t)
        else:
            translator = gated_translator(outer, GstaGate, config)
        super().__init__(spec.channels, config.hid_s, config.n_s, config.patch, translator, config.from_last)


OPENSTL_INCEPU = rules(
    (r"translator\.down\.(\d+)\.reduce", r"hid.enc.\1.conv1"),
    (r"translator\.up\.(\d+)\.reduce", r"hid.dec.\1.conv1"),
    (r"translator\.down\.(\d+)\.branches\.(\d+)\.0", r"hid.enc.\1.layers.\2.conv"),
    (r"translator\.down\.(\d+)\.branches\.(\d+)\.1", r"hid.enc.\1.layers.\2.norm"),
    (r"translator\.up\.(\d+)\.branches\.(\d+)\.0", r"hid.dec.\1.layers.\2.conv"),
    (r"translator\.up\.(\d+)\.branches\.(\d+)\.1", r"hid.dec.\1.layers.\2.norm"),
)
ARCHITECTURE = Architecture(
    name="simvp",
    kind="block",
    config=SimVpConfig,
    module=SimVp,
    colour="first",  # as nn.PixelUnshuffle folds
    recompute=(ConvNorm, GatedBlock, Inception),
    layouts={"openstl": Layout(rules=OPENSTL_FRAMES + OPENSTL_GATED + OPENSTL_INCEPU, inner=OPENSTL_INNER)},
    fast_form=True,  # of the translator "gsta"; the engine rewrites "incepu" layer by layer
)
