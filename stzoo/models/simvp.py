"""SimVP: an encoder, a translator and a decoder (Gao et al., CVPR 2022); gSTA is its second version.

IncepU, the first translator, is a U-Net over grouped convolutions of several sizes; gSTA (SimVPv2) is a stack of gated
large-kernel attention blocks. Its authors put ten kinds of MetaFormer blocks in the same place (OpenSTL, NeurIPS 2023).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stzoo.errors import SpecError
from stzoo.models.contract import Architecture
from stzoo.models.encoder_decoder import OPENSTL_FRAMES, OPENSTL_INNER, ConvNorm, EncodeTranslateDecode, reads_around
from stzoo.models.gated_block import (
    FIRST_GATE,
    OPENSTL_GATED,
    GatedBlock,
    gated_translator,
    large_kernel,
    told_by_block,
)
from stzoo.models.metaformers import (
    META_READERS,
    OPENSTL_META,
    OPENSTL_META_DEAD,
    MetaBlock,
    MetaConfig,
    metaformer,
)
from stzoo.models.metaformers.swin import window_of
from stzoo.models.published import Layout, rules
from stzoo.models.reading import Frame, Reader, Shapes, lacks
from stzoo.models.tau import TauGate
from stzoo.spec import ModelSpec

GROUPS = 8
KERNELS = (3, 5, 7, 11)
Translator = Literal[
    "gsta", "incepu", "vit", "swin", "uniformer", "mlpmixer", "convmixer", "poolformer", "convnext", "van", "hornet",
    "moganet",
]  # fmt: skip

_RESIDUAL = ("mlp_ratio", "drop_path", "project")
_CHOICES = frozenset({*_RESIDUAL, "layer_scale", "heads", "window"})  # the fields that some translators do not use
_USED: Mapping[Translator, tuple[str, ...]] = MappingProxyType(
    {
        "gsta": (*_RESIDUAL, "layer_scale"),
        "incepu": (),
        "vit": (*_RESIDUAL, "heads"),
        "swin": (*_RESIDUAL, "heads", "window"),
        "uniformer": (*_RESIDUAL, "heads"),
        "mlpmixer": _RESIDUAL,
        "convmixer": ("project",),
        "poolformer": _RESIDUAL,
        "convnext": _RESIDUAL,
        "van": (*_RESIDUAL, "layer_scale"),
        "hornet": _RESIDUAL,
        "moganet": _RESIDUAL,
    }
)


@dataclass(frozen=True)
class SimVpConfig(MetaConfig):
    """A `MetaConfig` and the choice of `translator`.

    Every translator uses `hid_s`, `hid_t`, `n_s`, `n_t`, `patch`, `frame_norm`, `from_last`, `still`, `period`,
    `blurs`, `decibels` and `lagrangian`; of the others, "incepu" uses none, "convmixer" `project` alone. "vit", "swin"
    and "uniformer" use `heads`, "swin" uses `window`. Only "gsta" and "van" use `layer_scale`: residual scales of the
    others start from a published constant, or there are none.

    Raises `SpecError` if a field that the translator does not use is set all the same.
    """

    translator: Translator = "gsta"

    def __post_init__(self) -> None:
        super().__post_init__()
        for f in fields(self):
            value, unused = getattr(self, f.name), f.name in _CHOICES.difference(_USED[self.translator])
            if unused and value != f.default:
                raise SpecError(f"spec.params.{f.name} is {value!r}; translator {self.translator} does not use it")


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
    """Block: past frames (B, T, C, H, W) in, as many future frames out. H and W must be multiples of `stride`.

    With the translator "swin" the stride counts whole windows; with "mlpmixer" it is None, and H and W are the spec's.
    """

    def __init__(self, spec: ModelSpec, config: SimVpConfig):
        outer = spec.frames_in * config.hid_s
        fold = config.patch * 2 ** (config.n_s // 2)  # pixels to a side of a feature
        if spec.height % fold or spec.width % fold:
            raise SpecError(
                f"spec.height x spec.width is {spec.height}x{spec.width}; this simvp needs multiples of {fold}"
            )
        size = (spec.height // fold, spec.width // fold)
        translator = _translator(outer, size, config)
        super().__init__(
            spec.channels, config.hid_s, config.n_s, config.patch, translator, config.begins(spec), config.lagrangian,
            config.frame_norm,
        )  # fmt: skip
        if config.translator == "swin":
            self.stride = fold * window_of(size, config.window)
        elif config.translator == "mlpmixer":
            self.stride = None


def _translator(outer: int, size: tuple[int, int], config: SimVpConfig) -> nn.Module:
    """(B, outer, h, w) -> (B, outer, h, w); `size` is (h, w) for frames of the spec's size."""
    if config.translator == "gsta":
        return gated_translator(outer, GstaGate, config)
    if config.translator == "van":  # its block is TAU's without the dynamical attention (Guo et al., CVMJ 2023)
        return gated_translator(outer, lambda dim: TauGate(dim, statical=True, dynamical=False), config)
    if config.translator != "incepu":
        return metaformer(config.translator, outer, size, config)
    if config.hid_t % groups_of(config.hid_t // 2):
        raise SpecError(f"spec.params.hid_t is {config.hid_t}; incepu needs a multiple of {GROUPS} here")
    if outer % groups_of(config.hid_t // 2):
        raise SpecError(f"spec.params.hid_s is {config.hid_s}; times frames_in it must divide into {GROUPS} groups")
    return IncepU(outer, config.hid_t, config.n_t)


OPENSTL_INCEPU = rules(
    (r"translator\.down\.(\d+)\.reduce", r"hid.enc.\1.conv1"),
    (r"translator\.up\.(\d+)\.reduce", r"hid.dec.\1.conv1"),
    (r"translator\.down\.(\d+)\.branches\.(\d+)\.0", r"hid.enc.\1.layers.\2.conv"),
    (r"translator\.down\.(\d+)\.branches\.(\d+)\.1", r"hid.enc.\1.layers.\2.norm"),
    (r"translator\.up\.(\d+)\.branches\.(\d+)\.0", r"hid.dec.\1.layers.\2.conv"),
    (r"translator\.up\.(\d+)\.branches\.(\d+)\.1", r"hid.dec.\1.layers.\2.norm"),
)


def is_gsta(shapes: Shapes) -> bool:
    """gSTA's attention ends in twice the channels, and has no squeeze as TAU has."""
    shape = shapes[_LAST]
    return lacks(_SQUEEZE)(shapes) and len(shape) > 1 and shape[0] == 2 * shape[1]


def is_van(shapes: Shapes) -> bool:
    """VAN's block is TAU's without the squeeze."""
    return lacks(_SQUEEZE)(shapes) and not is_gsta(shapes)


def told_by_incepu(shapes: Shapes, known: Frame) -> tuple[int, dict[str, Any]]:
    """What the first module of an IncepU tells, for `reads_around`."""
    return shapes["hid.enc.0.conv1.weight"][1], {"hid_t": shapes["hid.enc.0.layers.0.conv.weight"][0]}


_LAST, _SQUEEZE = f"{FIRST_GATE}conv1.weight", f"{FIRST_GATE}fc.0.weight"
OPENSTL = Layout(
    rules=OPENSTL_FRAMES + OPENSTL_GATED + OPENSTL_INCEPU + OPENSTL_META,
    dead=OPENSTL_META_DEAD,
    inner=OPENSTL_INNER,
    readers=(
        Reader(_LAST, reads_around(told_by_block(), "gsta"), also=is_gsta),
        Reader(_LAST, reads_around(told_by_block(), "van"), also=is_van),
        Reader("hid.enc.0.conv1.weight", reads_around(told_by_incepu, "incepu")),
        *META_READERS,
    ),
)
ARCHITECTURE = Architecture(
    name="simvp",
    kind="block",
    config=SimVpConfig,
    module=SimVp,
    colour="first",  # as nn.PixelUnshuffle folds
    recompute=(ConvNorm, GatedBlock, Inception, MetaBlock),
    layouts={"openstl": OPENSTL},
    fast_form=True,  # of the translators "gsta" and "van"; the engine rewrites the others layer by layer
    fused_training=True,  # of the same two
)
