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
from stzoo.models.encoder_decoder import EncodeTranslateDecode
from stzoo.models.gated_block import GatedConfig, gated_translator, large_kernel
from stzoo.spec import ModelSpec

GROUPS = 8
KERNELS = (3, 5, 7, 11)
GSTA_ONLY = ("mlp_ratio", "drop_path", "layer_scale", "project")


@dataclass(frozen=True)
class SimVpConfig(GatedConfig):
    """`translator` "gsta" or "incepu", which has no use for the fields in `GSTA_ONLY`; these keep their defaults."""

    translator: Literal["gsta", "incepu"] = "gsta"

    def __post_init__(self) -> None:
        super().__post_init__()
        for f in fields(self):
            if self.translator == "incepu" and f.name in GSTA_ONLY and getattr(self, f.name) != f.default:
                raise SpecError(f"spec.params.{f.name} is {getattr(self, f.name)!r}; translator incepu has none")


class Gate(nn.Module):
    """gSTA: large-kernel attention with twice the channels, one half gating the other through a sigmoid."""

    def __init__(self, dim: int):
        super().__init__()
        self.attention = large_kernel(dim, 2 * dim)

    def forward(self, u: Tensor) -> Tensor:
        value, gate = self.attention(u).chunk(2, 1)
        return gate.sigmoid() * value


def groups_of(channels: int) -> int:
    return GROUPS if channels % GROUPS == 0 else 1


class GroupConv(nn.Sequential):
    """Grouped convolution, GroupNorm, LeakyReLU(0.2); one group where the channels do not divide into eight."""

    def __init__(self, c_in: int, c_out: int, kernel: int):
        groups = groups_of(c_in)
        conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, groups=groups)
        super().__init__(conv, nn.GroupNorm(groups, c_out), nn.LeakyReLU(0.2))


class Inception(nn.Module):
    """1x1 to half of hid_t, then the sum of four grouped convolutions, 3x3 to 11x11."""

    def __init__(self, c_in: int, hid_t: int, c_out: int):
        super().__init__()
        self.reduce = nn.Conv2d(c_in, hid_t // 2, 1)
        self.branches = nn.ModuleList(GroupConv(hid_t // 2, c_out, k) for k in KERNELS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        return torch.stack([branch(x) for branch in self.branches]).sum(0)


class IncepU(nn.Module):
    """n_t modules down and n_t up, all at one resolution; each on the way up but the first reads one of them too."""

    def __init__(self, outer: int, hid_t: int, n_t: int):
        super().__init__()
        self.down = nn.ModuleList(Inception(c, hid_t, hid_t) for c in [outer] + [hid_t] * (n_t - 1))
        ends = [hid_t] * (n_t - 1) + [outer]
        reads = [hid_t] + [2 * hid_t] * (n_t - 1)
        self.up = nn.ModuleList(Inception(c, hid_t, end) for c, end in zip(reads, ends, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for module in self.down:
            x = module(x)
            skips.append(x)
        x = self.up[0](skips.pop())  # the deepest goes straight up
        for module in self.up[1:]:
            x = module(torch.cat([x, skips.pop()], 1))
        return x


class SimVp(EncodeTranslateDecode):
    """(B, T, C, H, W) normalised past -> (B, T, C, H, W) normalised future; H and W multiples of `stride`."""

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
            translator = gated_translator(outer, Gate, config)
        super().__init__(spec.channels, config.hid_s, config.n_s, config.patch, translator, config.from_last)


ARCHITECTURE = Architecture(name="simvp", kind="block", config=SimVpConfig, module=SimVp)
