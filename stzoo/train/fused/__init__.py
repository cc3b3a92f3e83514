"""TAU, trained on a CPU about four times faster (docs/training-speed.md): fused kernels between matrix products.

`FusedTau` shares the parameters of a plain `Tau` and computes its forward and backward pass in training in bfloat16,
with pixels that lie channel by channel (NHWC). It differs from the plain module under autocast by rounding, and because
its GELU has the tanh form. The kernels (kernels.cpp) are compiled once with g++ into the cache folder. If they cannot
train a module, the plain one trains instead; weights fit both.
"""

from __future__ import annotations

import ctypes
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo import environment
from stzoo.machine import cpu_flags
from stzoo.models import architecture_of, architectures
from stzoo.models.gated_block import GatedBlock
from stzoo.models.motion import along_motion
from stzoo.models.tau import Tau
from stzoo.spec import ModelSpec
from stzoo.train.fused.library import loaded

SIDE = 16  # of a plane in the translator, in pixels
_PIXELS = SIDE * SIDE
_FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-std=c++17")
_BF16 = torch.bfloat16


def why_not(module: Any, spec: ModelSpec) -> str | None:
    """The reason why the fused kernels cannot train this module on this machine; None if they can."""
    if not architecture_of(spec).fused_training:
        return f"only {', '.join(name for name, a in architectures().items() if a.fused_training)} has fused kernels"
    if (spec.height // module.stride, spec.width // module.stride) != (SIDE, SIDE):
        return f"the translator's planes must be {SIDE}x{SIDE}"
    blocks = [m for m in module.translator.children() if isinstance(m, GatedBlock)]
    if any(b.proj1.in_channels % 32 for b in blocks) or module.decoder.readout.in_channels % 32:
        return "widths must be multiples of 32"
    if module.decoder.readout.in_channels > 256:
        return "hid_s must be at most 256"
    if any(b.drop_path.rate for b in blocks):
        return "drop path must be off"
    if next(module.parameters()).device.type != "cpu" or "avx512_bf16" not in cpu_flags():
        return "the kernels need a CPU with AVX-512 and bfloat16"
    if next(module.parameters()).dtype != torch.float32:
        return "parameters must be float32"
    try:
        _kernels()
    except (OSError, RuntimeError) as error:  # no g++, an old one, a cache that cannot be written
        return f"the kernels could not be built: {error}"
    return None


@cache
def _kernels() -> ctypes.CDLL:
    """The compiled library, built if the cache does not hold one of this source for this machine."""
    here = Path(__file__).parent
    source = here / "kernels.cpp"
    code = b"".join(file.read_bytes() for file in (source, *sorted(here.glob("*.h"))))
    key = hashlib.sha256(code + " ".join([*_FLAGS, *sorted(cpu_flags())]).encode()).hexdigest()[:16]
    return loaded("fused_tau", key, source, _FLAGS, environment.home() / "kernels")


class FusedTau(nn.Module):
    """The training form of a `Tau`, whose parameters it shares."""

    def __init__(self, plain: Tau) -> None:
        super().__init__()
        self.plain = plain
        _kernels().omp_set_num_threads(torch.get_num_threads())

    @torch.autocast("cpu", enabled=False)  # what is bfloat16 here is so explicitly
    def forward(self, past: Tensor) -> Tensor:
        """(B, T, C, H, W) float32 normalised past frames -> the T frames that follow, float32."""
        return along_motion(self.still, past) if self.plain.lagrangian else self.still(past)

    def still(self, past: Tensor) -> Tensor:
        """As `forward`, of frames between which nothing is moved."""
        plain: Any = self.plain  # the type checker does not know what an nn.Sequential holds
        b, t, c, h, w = past.shape
        p = plain.patch
        x = past.to(_BF16).view(b * t, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5).flatten(3)
        skip = x = _conv_norm(plain.encoder.layers[0], x)
        for layer in plain.encoder.layers[1:]:
            x = _conv_norm(layer, x)
        width = x.shape[-1]
        x = x.view(b, t, SIDE, SIDE, width).permute(0, 2, 3, 1, 4).reshape(b * _PIXELS, t * width)
        for layer in plain.translator:
            x = _block(layer, x.float()) if isinstance(layer, GatedBlock) else _pointwise(layer, x.to(_BF16))
        x = x.to(_BF16).view(b, SIDE, SIDE, t, width).permute(0, 3, 1, 2, 4).reshape(b * t, SIDE, SIDE, width)
        for layer in plain.decoder.layers[:-1]:
            x = _conv_norm(layer, x)
        x = _conv_norm(plain.decoder.layers[-1], x + skip)
        x = _pointwise(plain.decoder.readout, x).float()
        x = x.view(b, t, h // p, w // p, -1, p, p).permute(0, 1, 4, 2, 5, 3, 6).reshape(b, t, -1, h, w)
        return plain.begins(x, past[:, -1]) if plain.begins else x


def _pointwise(conv: Any, x: Tensor) -> Tensor:
    """A 1x1 convolution as a linear map of the last axis: (..., C_in) -> (..., C_out)."""
    return F.linear(x, conv.weight.flatten(1).to(x.dtype), conv.bias.to(x.dtype))


def _conv_norm(layer: Any, x: Tensor) -> Tensor:
    """`ConvNorm`: (N, h, w, C) -> (N, h', w', C'). In upsampling, channels are ordered so that pixels move whole."""
    weight, bias, channels = layer.conv.weight, layer.conv.bias, layer.norm.num_channels
    up = isinstance(layer.shuffle, nn.PixelShuffle)
    if up:
        weight = weight.unflatten(0, (channels, 4)).transpose(0, 1).flatten(0, 1)
        bias = bias.view(channels, 4).t().flatten()
    weight = weight.to(_BF16).contiguous(memory_format=torch.channels_last)
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias.to(_BF16), layer.conv.stride, 1).permute(0, 2, 3, 1)
    if up:
        n, h, w, _ = y.shape
        y = y.reshape(n, h, w, 2, 2, channels).permute(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, channels)
    return _GroupNormSilu.apply(y.contiguous(), layer.norm.weight, layer.norm.bias, layer.norm.eps)


def _block(block: Any, x: Tensor) -> Tensor:
    """`GatedBlock` on the float32 residual stream: (B * 256, C) -> (B * 256, C')."""
    gate, mlp = block.gate, block.mlp
    statical = (None,) * 6 if gate.statical is None else [t for conv in gate.statical for t in (conv.weight, conv.bias)]
    dynamical = (None,) * 2 if gate.dynamical is None else (gate.dynamical[0].weight, gate.dynamical[2].weight)
    x = _Block.apply(
        x, block.norm1, block.norm2,
        block.norm1.weight, block.norm1.bias, block.proj1.weight, block.proj1.bias, *statical, *dynamical,
        block.proj2.weight, block.proj2.bias, block.scale1,
        block.norm2.weight, block.norm2.bias, mlp[0].weight, mlp[0].bias, mlp[1].weight, mlp[1].bias,
        mlp[3].weight, mlp[3].bias, block.scale2,
    )  # fmt: skip
    return x if isinstance(block.reduction, nn.Identity) else _pointwise(block.reduction, x.to(_BF16))


def _pointer(t: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if t is None else t.data_ptr())


def _call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Run one kernel: tensors as pointers, then sizes and epsilons."""
    converted = [
        ctypes.c_int(a) if isinstance(a, int) else ctypes.c_float(a) if isinstance(a, float) else _pointer(a)
        for a in arguments
    ]
    getattr(_kernels(), name)(*converted)


def _half(*shape: int) -> Tensor:
    return torch.empty(*shape, dtype=_BF16)


def _full(*shape: int) -> Tensor:
    return torch.empty(*shape, dtype=torch.float32)


def _matrix(weight: Tensor) -> Tensor:
    """Weights of a 1x1 convolution (O, C, 1, 1) -> (O, C) in bfloat16."""
    return weight.detach().flatten(1).to(_BF16)


def _taps(weight: Tensor | None) -> Tensor | None:
    """Depthwise weights (C, 1, K, K) -> (K * K, C)."""
    return None if weight is None else weight.detach().flatten(1).t().contiguous()


def _matrix_gradient(grad_out: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
    return torch.mm(grad_out.t(), inputs).float().view(weight.shape)


def _track(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, count: int) -> None:
    """Updates the running statistics as BatchNorm2d does, with mean and variance (C,) over `count` values."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    momentum = 0.1 if norm.momentum is None else norm.momentum
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(var * (count / (count - 1)), momentum)


class _Block(torch.autograd.Function):
    """The whole block except its change of width: x (B * 256, C) float32 -> the same shape.

    Names: a = normalised, u = GELU(proj1), e = depthwise output, q = the squeezed u, st = statical, g = gated,
    y = branch output; d5, d7, d3 = depthwise kernels; s = residual scales. Without statical attention d5w, d5b, d7w,
    d7b, c1w and c1b are None, without dynamical attention e1 and e2; an absent attention multiplies by one.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm1: nn.BatchNorm2d, norm2: nn.BatchNorm2d,
        n1w: Tensor, n1b: Tensor, p1w: Tensor, p1b: Tensor,
        d5w: Tensor | None, d5b: Tensor | None, d7w: Tensor | None, d7b: Tensor | None,
        c1w: Tensor | None, c1b: Tensor | None, e1: Tensor | None, e2: Tensor | None,
        p2w: Tensor, p2b: Tensor, s1: Tensor,
        n2w: Tensor, n2b: Tensor, f1w: Tensor, f1b: Tensor, d3w: Tensor, d3b: Tensor, f2w: Tensor, f2b: Tensor,
        s2: Tensor,
    ) -> Tensor:  # fmt: skip
        m, c = x.shape
        b, hidden = m // _PIXELS, f1w.shape[0]
        wp1, wp2, wf1, wf2 = matrices = [_matrix(w) for w in (p1w, p2w, f1w, f2w)]
        t5, t7, t3 = taps = [_taps(w) for w in (d5w, d7w, d3w)]

        a1, m1, v1 = _half(m, c), _full(c), _full(c)
        _call("bn_fwd", x, None, None, None, n1w, n1b, None, a1, m1, v1, m, c, norm1.eps)
        p = torch.addmm(p1b.to(_BF16), a1, wp1.t())
        if c1w is None or c1b is None:
            u, e = F.gelu(p, approximate="tanh"), None
            q, st = u.view(b, _PIXELS, c).mean(1, dtype=torch.float32), torch.ones_like(u)
        else:
            u, e, q = _half(m, c), _half(m, c), _full(b, c)
            _call("gate_fwd", p, t5, d5b, t7, d7b, u, e, q, b, c)
            st = torch.addmm(c1b.to(_BF16), e, _matrix(c1w).t())
        r, sig = None, torch.ones_like(q)
        if e1 is not None and e2 is not None:
            r = F.relu(q @ e1.t())
            sig = torch.sigmoid(r @ e2.t())
        g = _half(m, c)
        _call("mul_fwd", st, u, sig, g, b, c)
        y1 = torch.addmm(p2b.to(_BF16), g, wp2.t())
        x1, a2, m2, v2 = torch.empty_like(x), _half(m, c), _full(c), _full(c)
        _call("bn_fwd", x, y1, a1, s1, n2w, n2b, x1, a2, m2, v2, m, c, norm2.eps)
        p3 = torch.addmm(f1b.to(_BF16), a2, wf1.t())
        h = _half(m, hidden)
        _call("mid_fwd", p3, t3, d3b, h, b, hidden)
        y2 = torch.addmm(f2b.to(_BF16), h, wf2.t())
        out = torch.empty_like(x)
        _call("res_fwd", x1, y2, s2, out, m, c)

        _track(norm1, m1, v1, m)
        _track(norm2, m2, v2, m)
        ctx.eps = (norm1.eps, norm2.eps)
        ctx.matrices, ctx.taps = matrices, taps
        ctx.activations = (x, a1, m1, v1, p, u, e, q, st, r, sig, g, y1, x1, a2, m2, v2, p3, h, y2)
        ctx.save_for_backward(n1w, n2w, d5w, d5b, d7w, d3w, d3b, e1, e2, s1, s2, p1w, c1w, p2w, f1w, f2w)
        return out

    @staticmethod
    def backward(ctx: Any, go: Tensor) -> tuple[Tensor | None, ...]:
        x, a1, m1, v1, p, u, e, q, st, r, sig, g, y1, x1, a2, m2, v2, p3, h, y2 = ctx.activations
        n1w, n2w, d5w, d5b, d7w, d3w, d3b, e1, e2, s1, s2, p1w, c1w, p2w, f1w, f2w = ctx.saved_tensors
        wp1, wp2, wf1, wf2 = ctx.matrices
        t5, t7, t3 = ctx.taps
        go = go.contiguous()
        (m, c), hidden = x.shape, h.shape[1]
        b = m // _PIXELS
        full = _full

        gy2, gs2, gf2b = _half(m, c), full(c), full(c)
        _call("res_bwd", go, y2, s2, gy2, gs2, gf2b, m, c)
        gf2w, gh = _matrix_gradient(gy2, h, f2w), gy2 @ wf2
        gp3, gd3, gd3b, gf1b = _half(m, hidden), full(9, hidden), full(hidden), full(hidden)
        _call("mid_bwd", p3, gh, t3, d3b, gp3, gd3, gd3b, gf1b, b, hidden)
        gf1w, ga2 = _matrix_gradient(gp3, a2, f1w), gp3 @ wf1
        gx1, gy1, gn2w, gn2b, gs1, gp2b = full(m, c), _half(m, c), full(c), full(c), full(c), full(c)
        _call("bn_bwd", ga2, None, go, x1, m2, v2, n2w, y1, a1, s1, gx1, gy1, gn2w, gn2b, gs1, gp2b, m, c, ctx.eps[1])

        gp2w, gg = _matrix_gradient(gy1, g, p2w), gy1 @ wp2
        gst, gu, gsig, gst_sum = _half(m, c), _half(m, c), full(b, c), full(b, c)
        _call("mul_bwd", gg, st, u, sig, gst, gu, gsig, gst_sum, b, c)
        ge1, ge2, gq = None, None, torch.zeros_like(q)
        if r is not None:
            d2 = gsig * sig * (1 - sig)
            dr = (d2 @ e2) * (r > 0)
            ge2, ge1, gq = d2.t() @ r, dr.t() @ q, dr @ e1
        gd5w, gd5b, gd7w, gd7b, gc1w, gc1b = (None,) * 6
        if e is None:
            gu = gu.view(b, _PIXELS, c) + gq[:, None].to(_BF16) / _PIXELS
            gp = torch.ops.aten.gelu_backward(gu.view(m, c), p, approximate="tanh")
            gp1b = gp.sum(0, dtype=torch.float32)
        else:
            gc1w, gc1b, ge = _matrix_gradient(gst, e, c1w), gst_sum.sum(0), gst @ _matrix(c1w)
            gp, gd5, gd5b, gd7, gd7b, gp1b = _half(m, c), full(25, c), full(c), full(49, c), full(c), full(c)
            _call("gate_bwd", p, ge, gu, gq, t5, d5b, t7, gp, gd5, gd5b, gd7, gd7b, gp1b, b, c)
            gd5w, gd7w = (t.t().reshape(w.shape) for t, w in ((gd5, d5w), (gd7, d7w)))
        gp1w, ga1 = _matrix_gradient(gp, a1, p1w), gp @ wp1
        gd3w = gd3.t().reshape(d3w.shape)
        gx, gn1w, gn1b = full(m, c), full(c), full(c)
        no = (None, None, None)
        _call("bn_bwd", ga1, gy1, gx1, x, m1, v1, n1w, *no, gx, None, gn1w, gn1b, None, None, m, c, ctx.eps[0])
        ctx.activations = None
        return (
            gx, None, None, gn1w, gn1b, gp1w, gp1b, gd5w, gd5b, gd7w, gd7b, gc1w, gc1b, ge1, ge2, gp2w, gp2b,
            gs1.view(s1.shape), gn2w, gn2b, gf1w, gf1b, gd3w, gd3b, gf2w, gf2b, gs2.view(s2.shape),
        )  # fmt: skip


class _GroupNormSilu(torch.autograd.Function):
    """SiLU(GroupNorm(2)(y)): y (N, H, W, C) bfloat16 -> the same shape and dtype."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        n, h, w, c = y.shape
        out, statistics = torch.empty_like(y), _full(n, 4)
        _call("gn_fwd", y, weight, bias, out, statistics, n, h * w, c, eps)
        ctx.save_for_backward(y, weight, bias, statistics)
        return out

    @staticmethod
    def backward(ctx: Any, go: Tensor) -> tuple[Tensor | None, ...]:
        y, weight, bias, statistics = ctx.saved_tensors
        n, h, w, c = y.shape
        gy, gw, gb, scratch = torch.empty_like(y), _full(n, c), _full(n, c), _full(n, c)
        _call("gn_bwd", y, go.contiguous(), weight, bias, statistics, gy, gw, gb, scratch, n, h * w, c)
        return gy, gw.sum(0), gb.sum(0), None
