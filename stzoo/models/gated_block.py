"""The translator that TAU and SimVP's gSTA share: residual blocks around gates that differ."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stzoo.errors import SpecError
from stzoo.models.beginning import Beginning, BlurredLastFrame, LastFrame, LastPeriod, MovingParts
from stzoo.models.decibels import Decibels
from stzoo.models.encoder_decoder import DropPath, block_widths, check_even
from stzoo.models.published import rules
from stzoo.models.reading import Frame, Shape, Shapes
from stzoo.spec import ModelSpec, bounded


@dataclass(frozen=True)
class GatedConfig:
    """The papers' names: `hid_s` and `n_s` are the encoder's width and depth, `hid_t` and `n_t` the translator's.

    `mlp_ratio` is how many times wider a block's MLP is inside. `patch` folds p x p pixels into channels before the
    encoder (the papers: 1). `frame_norm` normalises each frame by itself, in every layer of the encoder and the decoder
    (the papers: True). The translator then does not see how large the values of a frame are, and a change that is added
    to a frame cannot be small in one frame and large in another. Without it, both go through. `drop_path` is the rate
    at which the last block's branches are skipped in training. `layer_scale` is the value that the residual scales
    start from. `project` puts a 1x1 convolution before and after the translator, so that the first block works at hid_t
    too (the papers: False). `from_last` adds the last past frame to every frame of the block, so that the model learns
    the change from persistence (the papers: False). With `still = s` as well, it changes what lies near something that
    moved by more than about s, in normalised values, and leaves the rest as it was last, see
    `stzoo.models.beginning.MovingParts` (the papers: 0). `lagrangian` lets the model work in coordinates that move with
    the pictures, see `stzoo.models.motion.along_motion` (the papers: False); with `from_last` it then learns the change
    from extrapolation. With `period = P` every frame begins from the one P frames before it instead, which of hours and
    P = 168 is the same hour a week ago (the papers: 0). With `blurs` the forecast begins from a mixture of the last
    frame and so many Gaussian blurs of it, and with `decibels` the mixture is one of the quantity that the values are
    decibels of, see `stzoo.models.beginning.BlurredLastFrame` (the papers: 0 and False).

    Raises `SpecError` if `hid_s` is odd, `blurs` or `still` is set without `from_last`, or both are, `decibels` without
    `blurs`, or `period` beside `from_last` or `lagrangian`.
    """

    hid_s: int = bounded(64, 2, 1024)
    hid_t: int = bounded(512, 2, 8192)
    n_s: int = bounded(4, 1, 12)
    n_t: int = bounded(8, 2, 64)
    mlp_ratio: int = bounded(8, 1, 16)
    patch: int = bounded(1, 1, 16)
    frame_norm: bool = True
    drop_path: float = bounded(0.0, 0.0, 0.9)
    layer_scale: float = bounded(1e-2, 0.0, 1.0)
    project: bool = False
    from_last: bool = False
    still: float = bounded(0.0, 0.0, 1.0)
    period: int = bounded(0, 0, 1024)
    lagrangian: bool = False
    blurs: int = bounded(0, 0, 8)
    decibels: bool = False

    def __post_init__(self) -> None:
        check_even(self.hid_s)
        if self.period and (self.from_last or self.lagrangian):
            other = "from_last" if self.from_last else "lagrangian"
            raise SpecError(f"spec.params.period and {other} exclude each other; set one of them")
        if self.blurs and not self.from_last:
            raise SpecError("spec.params.blurs is about the last frame; set from_last beside it")
        if self.still and not self.from_last:
            raise SpecError("spec.params.still is about the last frame; set from_last beside it")
        if self.still and self.blurs:
            raise SpecError("spec.params.still and blurs exclude each other; set one of them")
        if self.decibels and not self.blurs:
            raise SpecError("spec.params.decibels is about blurs of the last frame; set blurs beside it")

    def begins(self, spec: ModelSpec) -> Beginning | None:
        """What the forecast begins from. Raises `SpecError` if the past is shorter than the period."""
        if self.period > spec.frames_in:
            raise SpecError(f"spec.params.period is {self.period}; it may be at most spec.frames_in, {spec.frames_in}")
        if self.period:
            return LastPeriod(self.period)
        if not self.from_last:
            return None
        if not self.blurs:
            return MovingParts(self.still) if self.still else LastFrame()
        decibels = Decibels.of(spec) if self.decibels else None
        return BlurredLastFrame(spec.frames_in, spec.channels, self.blurs, decibels)


class DilatedDepthwise(nn.Conv2d):
    """A depthwise convolution with dilation, whose training on a CPU is in float32 whatever the precision around it.

    In bfloat16, with the channels last, torch 2.13 returns wrong gradients of its weights, because uninitialised memory
    goes into them. On planes smaller than about 32x32 torch takes another way, which is right.
    """

    def __init__(self, dim: int, kernel: int, dilation: int):
        super().__init__(dim, dim, kernel, padding=kernel // 2 * dilation, dilation=dilation, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w), in the dtype of x."""
        if not (x.is_cpu and torch.is_grad_enabled() and x.dtype in (torch.bfloat16, torch.float16)):
            return super().forward(x)
        assert self.bias is not None
        with torch.autocast("cpu", enabled=False):
            return self._conv_forward(x.float(), self.weight.float(), self.bias.float()).to(x.dtype)


def large_kernel(dim: int, dim_out: int) -> nn.Sequential:
    """Large-kernel attention, (B, dim, h, w) -> (B, dim_out, h, w).

    Depthwise 5x5, depthwise 7x7 with dilation 3 (together a 23x23 receptive field), then 1x1.
    """
    return nn.Sequential(
        nn.Conv2d(dim, dim, 5, padding=2, groups=dim),
        DilatedDepthwise(dim, 7, dilation=3),
        nn.Conv2d(dim, dim_out, 1),
    )


class GatedBlock(nn.Module):
    """x + s1 * Attn(BN(x)), then x + s2 * MLP(BN(x)); a 1x1 convolution at the end if the width changes.

    Attn(x) = conv 1x1 (gate(GELU(conv 1x1 (x)))) + x; MLP = conv 1x1, depthwise 3x3, GELU, conv 1x1.
    """

    def __init__(self, gate: nn.Module, dim: int, dim_out: int, mlp_ratio: int, layer_scale: float, drop_path: float):
        super().__init__()
        hidden = dim * mlp_ratio
        self.norm1 = nn.BatchNorm2d(dim)
        self.proj1 = nn.Conv2d(dim, dim, 1)
        self.gate = gate
        self.proj2 = nn.Conv2d(dim, dim, 1)
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = nn.Sequential(
            nn.Conv2d(dim, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.GELU(),
            nn.Conv2d(hidden, dim, 1),
        )
        self.act = nn.GELU()
        self.scale1 = nn.Parameter(torch.full((dim, 1, 1), layer_scale))
        self.scale2 = nn.Parameter(torch.full((dim, 1, 1), layer_scale))
        self.drop_path = DropPath(drop_path)
        self.reduction = nn.Conv2d(dim, dim_out, 1) if dim_out != dim else nn.Identity()

    def attention(self, x: Tensor) -> Tensor:
        """Attn of a normalised input: (B, dim, h, w) -> (B, dim, h, w)."""
        return self.proj2(self.gate(self.act(self.proj1(x)))) + x

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim_out, h, w)."""
        x = x + self.drop_path(self.scale1 * self.attention(self.norm1(x)))
        x = x + self.drop_path(self.scale2 * self.mlp(self.norm2(x)))
        return self.reduction(x)


def gated_translator(outer: int, gate: Callable[[int], nn.Module], config: GatedConfig) -> nn.Sequential:
    """n_t blocks, (B, outer, h, w) -> (B, outer, h, w), `hid_t` channels wide between the ends.

    `gate` makes the gate of a block from its width.
    """
    widths = block_widths(config.hid_t if config.project else outer, config.hid_t, config.n_t)
    layers: list[nn.Module] = [
        GatedBlock(gate(a), a, b, config.mlp_ratio, config.layer_scale, rate)
        for (a, b), rate in zip(widths, drop_rates(config), strict=True)
    ]
    if config.project:
        layers = [nn.Conv2d(outer, config.hid_t, 1), *layers, nn.Conv2d(config.hid_t, outer, 1)]
    translator = nn.Sequential(*layers)
    initialise(translator)
    return translator


def drop_rates(config: GatedConfig) -> list[float]:
    """`drop_path` of each block: residual branches are dropped more often towards the end."""
    return [config.drop_path * i / (config.n_t - 1) for i in range(config.n_t)]


def initialise(translator: nn.Module) -> None:
    """Normal weights of variance 2 / fan-out in convolutions, of standard deviation 0.02 in linear layers, zero biases.

    As published for the blocks of convolutions. OpenSTL starts some 1x1 convolutions of its other blocks in other ways.
    """
    if next(translator.parameters()).is_meta:
        return  # nothing to fill, and torch would spend most of a second on importing sympy to do so
    for m in translator.modules():
        if isinstance(m, nn.Conv2d):
            fan_out = m.kernel_size[0] * m.kernel_size[1] * m.out_channels // m.groups
            nn.init.normal_(m.weight, 0.0, (2.0 / fan_out) ** 0.5)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.Linear):
            nn.init.trunc_normal_(m.weight, std=0.02)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


def flat(shape: Shape) -> Shape:
    """A residual scale (dim, 1, 1) was published as (dim,)."""
    return shape[:1]


_BLOCK = r"translator\.(\d+)\."
OPENSTL_GATED = rules(
    (_BLOCK + r"(norm[12])", r"hid.enc.\1.block.\2"),
    (_BLOCK + r"proj([12])", r"hid.enc.\1.block.attn.proj_\2"),
    (_BLOCK + r"gate\.(?:statical|attention)\.0", r"hid.enc.\1.block.attn.spatial_gating_unit.conv0"),
    (_BLOCK + r"gate\.(?:statical|attention)\.1", r"hid.enc.\1.block.attn.spatial_gating_unit.conv_spatial"),
    (_BLOCK + r"gate\.(?:statical|attention)\.2", r"hid.enc.\1.block.attn.spatial_gating_unit.conv1"),
    (_BLOCK + r"gate\.dynamical\.([02])", r"hid.enc.\1.block.attn.spatial_gating_unit.fc.\2"),
    (_BLOCK + r"mlp\.0", r"hid.enc.\1.block.mlp.fc1"),
    (_BLOCK + r"mlp\.1", r"hid.enc.\1.block.mlp.dwconv.dwconv"),
    (_BLOCK + r"mlp\.3", r"hid.enc.\1.block.mlp.fc2"),
    (_BLOCK + r"reduction", r"hid.enc.\1.reduction"),
) + rules((_BLOCK + r"scale([12])", r"hid.enc.\1.block.layer_scale_\2"), shape=flat)


FIRST_BLOCK = "hid.enc.0.block."  # OpenSTL's name of it
FIRST_GATE = f"{FIRST_BLOCK}attn.spatial_gating_unit."


def told_by_block(
    norm: str = "norm1", wide: str | None = "mlp.fc1"
) -> Callable[[Shapes, Frame], tuple[int, dict[str, Any]]]:
    """What the first block of a translator tells, for `stzoo.models.encoder_decoder.reads_around`.

    Args:
        norm: the part of the block whose bias has one value for each channel.
        wide: the first layer of its MLP; None if a block has none.
    """

    def told(shapes: Shapes, known: Frame) -> tuple[int, dict[str, Any]]:
        outer = shapes[f"{FIRST_BLOCK}{norm}.bias"][0]
        params = {"hid_t": shapes.get("hid.enc.0.reduction.bias", (outer,))[0]}
        if wide is not None:
            params["mlp_ratio"] = shapes[f"{FIRST_BLOCK}{wide}.bias"][0] // outer
        return outer, params

    return told
