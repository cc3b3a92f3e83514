"""`GatedBlock` with TAU's or gSTA's gate: matrix products by PyTorch, and all between two products by one kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stzoo.models.gated_block import GatedBlock
from stzoo.models.simvp import GstaGate
from stzoo.train.fused.kernels import Kernels


def block(kernels: Kernels, plain: GatedBlock, x: Tensor) -> Tensor:
    """The block but for its change of width, on the float32 residual stream: (B * pixels, C) -> the same shape."""
    gate: Any = plain.gate  # the type checker does not know what an nn.Sequential holds
    mlp: Any = plain.mlp
    attention = gate.attention if isinstance(gate, GstaGate) else gate.statical
    large = (None,) * 6 if attention is None else [t for conv in attention for t in (conv.weight, conv.bias)]
    dynamical = None if isinstance(gate, GstaGate) else gate.dynamical
    squeeze = (None,) * 2 if dynamical is None else (dynamical[0].weight, dynamical[2].weight)
    images = len(x) // kernels.pixels
    out: Tensor = _Block.apply(
        kernels, x, plain.norm1, plain.norm2, plain.drop_path.kept(images), plain.drop_path.kept(images),
        plain.norm1.weight, plain.norm1.bias, plain.proj1.weight, plain.proj1.bias, *large, *squeeze,
        plain.proj2.weight, plain.proj2.bias, plain.scale1,
        plain.norm2.weight, plain.norm2.bias, mlp[0].weight, mlp[0].bias, mlp[1].weight, mlp[1].bias,
        mlp[3].weight, mlp[3].bias, plain.scale2,
    )  # fmt: skip
    return out


class _Block(torch.autograd.Function):
    """x (B * pixels, C) float32 -> the same shape.

    Names: k1 and k2 are what is kept of each image's branches (None: all), a = normalised, p = proj1's product, u =
    GELU(p), e = depthwise output, q = the squeezed u, st = the product of the large-kernel attention, g = gated, y =
    branch output; d5, d7, d3 = depthwise kernels; s = residual scales. Products are without their biases, which the
    kernels add. Without statical attention d5w, d5b, d7w, d7b, c1w and c1b are None, without dynamical attention e1 and
    e2. c1w makes 2 * C channels for gSTA's gate, and C for TAU's.
    """

    @staticmethod
    def forward(
        ctx: Any, kernels: Kernels, x: Tensor, norm1: nn.BatchNorm2d, norm2: nn.BatchNorm2d,
        k1: Tensor | None, k2: Tensor | None,
        n1w: Tensor, n1b: Tensor, p1w: Tensor, p1b: Tensor,
        d5w: Tensor | None, d5b: Tensor | None, d7w: Tensor | None, d7b: Tensor | None,
        c1w: Tensor | None, c1b: Tensor | None, e1: Tensor | None, e2: Tensor | None,
        p2w: Tensor, p2b: Tensor, s1: Tensor,
        n2w: Tensor, n2b: Tensor, f1w: Tensor, f1b: Tensor, d3w: Tensor, d3b: Tensor, f2w: Tensor, f2b: Tensor,
        s2: Tensor,
    ) -> Tensor:  # fmt: skip
        call, stored, full = kernels.call, kernels.stored, kernels.full
        (m, c), hidden = x.shape, len(f1w)
        b = m // kernels.pixels
        halves = c1w is not None and len(c1w) == 2 * c
        wp1, wp2, wf1, wf2 = matrices = [kernels.matrix(w) for w in (p1w, p2w, f1w, f2w)]
        wc1 = None if c1w is None else kernels.matrix(c1w)
        t5, t7, t3 = taps = [_taps(w) for w in (d5w, d7w, d3w)]

        a1, (m1, v1) = stored(m, c), _moments(norm1)
        call("bn_fwd", x, *(None,) * 5, n1w, n1b, None, a1, m1, v1, m, c, norm1.eps, int(not norm1.training))
        p = a1 @ wp1.t()
        u = None if halves else stored(m, c)
        e = None if wc1 is None else stored(m, c)
        q = None if e1 is None else full(b, c)
        call("gate_fwd", p, p1b, t5, d5b, t7, d7b, u, e, q, b, c)
        st = None if e is None or wc1 is None else e @ wc1.t()
        g, r, sig = stored(m, c), None, None
        if halves:
            call("glu_fwd", st, c1b, g, b, c)
        else:
            if q is not None and e1 is not None and e2 is not None:
                r = F.relu(q @ e1.t())
                sig = torch.sigmoid(r @ e2.t())
            call("mul_fwd", st, c1b, u, sig, g, b, c)
        y1 = g @ wp2.t()
        x1, a2, (m2, v2) = torch.empty_like(x), stored(m, c), _moments(norm2)
        call(
            "bn_fwd", x, y1, p2b, a1, s1, k1, n2w, n2b, x1, a2, m2, v2, m, c, norm2.eps, int(not norm2.training)
        )  # fmt: skip
        p3 = a2 @ wf1.t()
        h = stored(m, hidden)
        call("mid_fwd", p3, f1b, t3, d3b, h, b, hidden)
        y2 = h @ wf2.t()
        out = torch.empty_like(x)
        call("res_fwd", x1, y2, f2b, s2, k2, out, m, c)

        _track(norm1, m1, v1, m)
        _track(norm2, m2, v2, m)
        ctx.kernels, ctx.halves = kernels, halves
        ctx.norms = [(norm.eps, int(not norm.training)) for norm in (norm1, norm2)]
        ctx.matrices, ctx.wc1, ctx.taps, ctx.kept = matrices, wc1, taps, (k1, k2)
        ctx.activations = (x, a1, m1, v1, p, u, e, q, st, r, sig, g, y1, x1, a2, m2, v2, p3, h, y2)
        ctx.save_for_backward(
            n1w, n2w, p1w, p1b, d5w, d5b, d7w, c1w, c1b, e1, e2, p2w, p2b, s1, f1w, f1b, d3w, d3b, f2w, f2b, s2
        )
        return out

    @staticmethod
    def backward(ctx: Any, go: Tensor) -> tuple[Tensor | None, ...]:
        x, a1, m1, v1, p, u, e, q, st, r, sig, g, y1, x1, a2, m2, v2, p3, h, y2 = ctx.activations
        (
            n1w, n2w, p1w, p1b, d5w, d5b, d7w, c1w, c1b, e1, e2, p2w, p2b, s1, f1w, f1b, d3w, d3b, f2w, f2b, s2
        ) = ctx.saved_tensors  # fmt: skip
        call, stored, full = ctx.kernels.call, ctx.kernels.stored, ctx.kernels.full
        (wp1, wp2, wf1, wf2), (t5, t7, t3), (k1, k2) = ctx.matrices, ctx.taps, ctx.kept
        go = go.contiguous()
        (m, c), hidden = x.shape, h.shape[1]
        b = m // ctx.kernels.pixels

        gy2, gs2, gf2b = stored(m, c), full(c), full(c)
        call("res_bwd", go, y2, f2b, s2, k2, gy2, gs2, gf2b, m, c)
        gf2w, gh = _matrix_gradient(gy2, h, f2w), gy2 @ wf2
        gp3, gd3, gd3b, gf1b = stored(m, hidden), full(9, hidden), full(hidden), full(hidden)
        call("mid_bwd", p3, f1b, gh, t3, d3b, gp3, gd3, gd3b, gf1b, b, hidden)
        gf1w, ga2 = _matrix_gradient(gp3, a2, f1w), gp3 @ wf1
        gx1, gy1, gn2w, gn2b, gs1, gp2b = full(m, c), stored(m, c), full(c), full(c), full(c), full(c)
        call(
            "bn_bwd", ga2, None, go, x1, m2, v2, n2w, y1, p2b, a1, s1, k1, gx1, gy1, gn2w, gn2b, gs1, gp2b, m, c,
            *ctx.norms[1],
        )  # fmt: skip

        gp2w, gg = _matrix_gradient(gy1, g, p2w), gy1 @ wp2
        gst = None if st is None else torch.empty_like(st)
        gsb = None if st is None else full(b, st.shape[1])
        gu, gsig, gq, ge1, ge2 = (None,) * 5
        if ctx.halves:
            call("glu_bwd", gg, st, c1b, gst, gsb, b, c)
        else:
            gu = stored(m, c)
            gsig = None if sig is None else full(b, c)
            call("mul_bwd", gg, st, c1b, u, sig, gst, gu, gsig, gsb, b, c)
        if sig is not None:
            d2 = gsig * sig * (1 - sig)
            dr = (d2 @ e2) * (r > 0)
            ge2, ge1, gq = d2.t() @ r, dr.t() @ q, dr @ e1
        gc1w, gc1b, ge, gd5, gd5b, gd7, gd7b = (None,) * 7
        if gst is not None and gsb is not None:
            gc1w, gc1b, ge = _matrix_gradient(gst, e, c1w), gsb.sum(0), gst @ ctx.wc1
            gd5, gd5b, gd7, gd7b = full(25, c), full(c), full(49, c), full(c)
        gp, gp1b = stored(m, c), full(c)
        call("gate_bwd", p, p1b, ge, gu, gq, t5, d5b, t7, gp, gd5, gd5b, gd7, gd7b, gp1b, b, c)
        gp1w, ga1 = _matrix_gradient(gp, a1, p1w), gp @ wp1
        gx, gn1w, gn1b = full(m, c), full(c), full(c)
        call(
            "bn_bwd", ga1, gy1, gx1, x, m1, v1, n1w, *(None,) * 5, gx, None, gn1w, gn1b, None, None, m, c,
            *ctx.norms[0],
        )  # fmt: skip
        ctx.activations = None
        return (
            None, gx, None, None, None, None, gn1w, gn1b, gp1w, gp1b, _untapped(gd5, d5w), gd5b, _untapped(gd7, d7w),
            gd7b, gc1w, gc1b, ge1, ge2, gp2w, gp2b, gs1.view(s1.shape), gn2w, gn2b, gf1w, gf1b, _untapped(gd3, d3w),
            gd3b, gf2w, gf2b, gs2.view(s2.shape),
        )  # fmt: skip


def _taps(weight: Tensor | None) -> Tensor | None:
    """Depthwise weights (C, 1, K, K) -> (K * K, C)."""
    return None if weight is None else weight.detach().flatten(1).t().contiguous()


def _untapped(taps: Tensor | None, weight: Tensor | None) -> Tensor | None:
    return None if taps is None or weight is None else taps.t().reshape(weight.shape)


def _matrix_gradient(grad_out: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
    return torch.mm(grad_out.t(), inputs).to(weight.dtype).view(weight.shape)


def _moments(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,): room for those of the batch; or the running ones, if the norm is frozen."""
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None
    assert var is not None
    return (torch.empty_like(mean), torch.empty_like(var)) if norm.training else (mean.clone(), var.clone())


def _track(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, count: int) -> None:
    """Updates the running statistics as BatchNorm2d does, with mean and variance (C,) over `count` values."""
    if not norm.training:
        return
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    momentum = 0.1 if norm.momentum is None else norm.momentum
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(var * (count / (count - 1)), momentum)
