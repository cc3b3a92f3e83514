"""The translator that TAU and SimVP's gSTA share: residual blocks around gates that differ."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stzoo.models.encoder_decoder import DropPath, block_widths, check_even
from stzoo.spec import bounded


@dataclass(frozen=True)
class GatedConfig:
    """The papers' names: hid_s and n_s are the encoder's width and depth, hid_t and n_t the translator's.

    `patch` folds p x p pixels into channels before the encoder (1 = the papers). `layer_scale` is what the residual
    scales start from. `project` puts a 1x1 convolution before and after the translator, so that the first block works
    at hid_t too (False = the papers). `from_last` adds the last past frame to every frame of the block, so that what is
    learned is the change from persistence (False = the papers).
    """

    hid_s: int = bounded(64, 2, 1024)
    hid_t: int = bounded(512, 2, 8192)
    n_s: int = bounded(4, 1, 12)
    n_t: int = bounded(8, 2, 64)
    mlp_ratio: int = bounded(8, 1, 16)
    patch: int = bounded(1, 1, 16)
    drop_path: float = bounded(0.0, 0.0, 0.9)
    layer_scale: float = bounded(1e-2, 0.0, 1.0)
    project: bool = False
    from_last: bool = False

    def __post_init__(self) -> None:
        check_even(self.hid_s)


class DilatedDepthwise(nn.Conv2d):
    """A depthwise convolution with dilation, whose training on a CPU is in float32 whatever the precision around it.

    In bfloat16, with the channels last, torch (2.13) returns gradients of its weights that have nothing to do with the
    right ones: uninitialised memory goes into them. Smaller planes than some 32x32 take another way and are right.
    """

    def __init__(self, dim: int, kernel: int, dilation: int):
        super().__init__(dim, dim, kernel, padding=kernel // 2 * dilation, dilation=dilation, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        if not (x.is_cpu and torch.is_grad_enabled() and x.dtype in (torch.bfloat16, torch.float16)):
            return super().forward(x)
        assert self.bias is not None
        with torch.autocast("cpu", enabled=False):
            return self._conv_forward(x.float(), self.weight.float(), self.bias.float()).to(x.dtype)


def large_kernel(dim: int, dim_out: int) -> nn.Sequential:
    """Large-kernel attention: depthwise 5x5, depthwise 7x7 with dilation 3 (together a 23x23 receptive field), 1x1."""
    return nn.Sequential(
        nn.Conv2d(dim, dim, 5, padding=2, groups=dim),
        DilatedDepthwise(dim, 7, dilation=3),
        nn.Conv2d(dim, dim_out, 1),
    )


class GatedBlock(nn.Module):
    """x + s1 * Attn(BN(x)), then x + s2 * MLP(BN(x)); a 1x1 at the end where the width changes.

    Attn = 1x1, GELU, `gate`, 1x1, plus its input.
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
        return self.proj2(self.gate(self.act(self.proj1(x)))) + x

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.scale1 * self.attention(self.norm1(x)))
        x = x + self.drop_path(self.scale2 * self.mlp(self.norm2(x)))
        return self.reduction(x)


def gated_translator(outer: int, gate: Callable[[int], nn.Module], config: GatedConfig) -> nn.Sequential:
    """n_t blocks, `outer` wide at both ends and `hid_t` between.

    `gate` makes the gate of a block from its width. Residual branches are dropped ever more often towards the end.
    """
    widths = block_widths(config.hid_t if config.project else outer, config.hid_t, config.n_t)
    rates = [config.drop_path * i / (config.n_t - 1) for i in range(config.n_t)]
    layers: list[nn.Module] = [
        GatedBlock(gate(a), a, b, config.mlp_ratio, config.layer_scale, rate)
        for (a, b), rate in zip(widths, rates, strict=True)
    ]
    if config.project:
        layers = [nn.Conv2d(outer, config.hid_t, 1), *layers, nn.Conv2d(config.hid_t, outer, 1)]
    translator = nn.Sequential(*layers)
    _initialise(translator)
    return translator


def _initialise(translator: nn.Module) -> None:
    """Normal weights of variance 2 / fan-out in convolutions, zero biases (as published)."""
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
