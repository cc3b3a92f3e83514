"""Recurrent forecasters written out in float64, equation by equation, on the tensors of published checkpoints.

Where the code that published them departs from its paper, these follow the code (docs/architectures.md says where).

Slow on purpose: one convolution a gate, loops over time, layers, rows and columns, and nothing shared with stzoo. Each
`<arch>(state, past, steps, patch)` reads (B, T, C, H, W) past frames and returns the (B, steps, C, H, W) that follow.
"""

from collections.abc import Callable, Iterator
from itertools import count

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
Step = Callable[[Tensor], Tensor]
sig, tanh = torch.sigmoid, torch.tanh


def cut(frame: Tensor, p: int) -> Tensor:
    """(B, C, H, W) -> (B, p*p*C, H/p, W/p); channel (row * p + column) * C + c."""
    c = frame.shape[1]
    parts = [frame[:, k, row::p, column::p] for row in range(p) for column in range(p) for k in range(c)]
    return torch.stack(parts, 1)


def paste(patches: Tensor, p: int) -> Tensor:
    b, n, h, w = patches.shape
    c = n // (p * p)
    frame = patches.new_zeros(b, c, h * p, w * p)
    for row in range(p):
        for column in range(p):
            for k in range(c):
                frame[:, k, row::p, column::p] = patches[:, (row * p + column) * c + k]
    return frame


def run(step: Step, past: Tensor, steps: int, p: int) -> Tensor:
    """Feed the past, then every forecast."""
    forecasts: list[Tensor] = []
    for t in range(past.shape[1] + steps - 1):
        frame = past[:, t] if t < past.shape[1] else forecasts[-1]
        forecasts.append(paste(step(cut(frame, p)), p))
    return torch.stack(forecasts[past.shape[1] - 1 :], 1)


class Weights:
    """The tensors below one prefix of a checkpoint, in float64."""

    def __init__(self, state: State, prefix: str = ""):
        self.state, self.prefix = state, prefix

    def __call__(self, key: str) -> Tensor:
        return self.state[self.prefix + key].double()

    def has(self, key: str) -> bool:
        return self.prefix + key in self.state

    def conv(self, name: str, x: Tensor) -> Tensor:
        """The whole convolution `name`, without a bias, zero outside the plane."""
        weight = self(name + ".weight")
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)

    def gates(self, name: str, x: Tensor, n: int) -> list[Tensor]:
        """The n gates of `name`.0, a convolution each; normalised over all of them together where `name`.1 exists."""
        weight = self(name + ".0.weight")
        size = len(weight) // n
        planes = [F.conv2d(x, weight[j * size : (j + 1) * size], padding=weight.shape[-1] // 2) for j in range(n)]
        if self.has(name + ".1.weight"):
            every = torch.cat(planes, 1)
            mean = every.mean((1, 2, 3), keepdim=True)
            variance = (every - mean).square().mean((1, 2, 3), keepdim=True)
            every = (every - mean) / (variance + 1e-5).sqrt() * self(name + ".1.weight") + self(name + ".1.bias")
            planes = [every[:, j * size : (j + 1) * size] for j in range(n)]
        return planes


def cells(state: State, prefix: str) -> Iterator[Weights]:
    for i in count():
        if not any(key.startswith(f"{prefix}.{i}.") for key in state):
            return
        yield Weights(state, f"{prefix}.{i}.")


def blank(x: Tensor, channels: int) -> Tensor:
    return x.new_zeros(len(x), channels, *x.shape[-2:])


def convlstm(state: State, past: Tensor, steps: int, p: int) -> Tensor:
    top, stack = Weights(state), list(cells(state, "cell_list"))
    hidden = state["conv_last.weight"].shape[1]
    memory: dict[int, tuple[Tensor, Tensor]] = {}

    def step(x: Tensor) -> Tensor:
        for i, w in enumerate(stack):
            h, c = memory.get(i, (blank(x, hidden), blank(x, hidden)))
            xi, xf, xg, xo = w.gates("conv_x", x, 4)
            hi, hf, hg, ho = w.gates("conv_h", h, 4)
            c = sig(xf + hf) * c + sig(xi + hi) * tanh(xg + hg)
            x = sig(xo + ho) * tanh(c)
            memory[i] = x, c
        return top.conv("conv_last", x)

    return run(step, past, steps, p)


def st_lstm(w: Weights, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    xi, xf, xg, xi2, xf2, xg2, xo = w.gates("conv_x", x, 7)
    hi, hf, hg, ho = w.gates("conv_h", h, 4)
    mi, mf, mg = w.gates("conv_m", m, 3)
    c = sig(xf + hf + 1) * c + sig(xi + hi) * tanh(xg + hg)
    m = sig(xf2 + mf + 1) * m + sig(xi2 + mi) * tanh(xg2 + mg)
    both = torch.cat([c, m], 1)
    (oo,) = w.gates("conv_o", both, 1)
    return sig(xo + ho + oo) * tanh(w.conv("conv_last", both)), c, m


def predrnn(state: State, past: Tensor, steps: int, p: int) -> Tensor:
    top, stack = Weights(state), list(cells(state, "cell_list"))
    hidden = state["conv_last.weight"].shape[1]
    memory: dict[int, tuple[Tensor, Tensor]] = {}
    zigzag: list[Tensor] = []

    def step(x: Tensor) -> Tensor:
        m = zigzag[-1] if zigzag else blank(x, hidden)
        for i, w in enumerate(stack):
            h, c = memory.get(i, (blank(x, hidden), blank(x, hidden)))
            x, c, m = st_lstm(w, x, h, c, m)
            memory[i] = x, c
        zigzag.append(m)
        return top.conv("conv_last", x)

    return run(step, past, steps, p)


def predrnnpp(state: State, past: Tensor, steps: int, p: int) -> Tensor:
    top, stack, highway = Weights(state), list(cells(state, "cell_list")), Weights(state, "gradient_highway.")
    hidden = state["conv_last.weight"].shape[1]
    memory: dict[int, tuple[Tensor, Tensor]] = {}
    zigzag: list[Tensor] = []
    ways: list[Tensor] = []

    def step(x: Tensor) -> Tensor:
        m = zigzag[-1] if zigzag else blank(x, hidden)
        for i, w in enumerate(stack):
            h, c = memory.get(i, (blank(x, hidden), blank(x, hidden)))
            xi, xf, xg, xi2, xf2, xg2, xo = w.gates("conv_x", x, 7)
            hi, hf, hg, ho = w.gates("conv_h", h, 4)
            ci, cf, cg = w.gates("conv_c", c, 3)
            mi, mf, mm = w.gates("conv_m", m, 3)
            c = sig(xf + hf + cf + 1) * c + sig(xi + hi + ci) * tanh(xg + hg + cg)
            ci2, cg2, cf2, co = w.gates("conv_c2m", c, 4)
            m = sig(xf2 + mf + cf2 + 1) * tanh(mm) + sig(xi2 + mi + ci2) * tanh(xg2 + cg2)
            (mo,) = w.gates("conv_om", m, 1)
            x = tanh(xo + ho + co + mo) * tanh(w.conv("conv_last", torch.cat([c, m], 1)))
            memory[i] = x, c
            if i == 0:
                z = ways[-1] if ways else blank(x, hidden)
                xp, xs = highway.gates("x_concat", x, 2)
                zp, zs = highway.gates("z_concat", z, 2)
                x = sig(xs + zs) * tanh(xp + zp) + (1 - sig(xs + zs)) * z
                ways.append(x)
        zigzag.append(m)
        return top.conv("conv_last", x)

    return run(step, past, steps, p)


def peephole_unit(w: Weights, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """MIM-N and MIM-S."""
    xi, xg, xf, xo = w.gates("conv_x_concat", x, 4)
    hi, hg, hf, ho = w.gates("conv_h_concat", h, 4)
    n = len(w("oc_weight"))
    peep_i, peep_f = w("ct_weight")[:n], w("ct_weight")[n:]
    new = sig(hf + xf + c * peep_f + 1) * c + sig(hi + xi + c * peep_i) * tanh(hg + xg)
    return sig(ho + xo + new * w("oc_weight")) * tanh(new), new


def mim(state: State, past: Tensor, steps: int, p: int) -> Tensor:
    top, stack = Weights(state), list(cells(state, "stlstm_layer"))
    units = list(cells(state, "stlstm_layer_diff"))
    hidden = state["conv_last.weight"].shape[1]
    memory: dict[int, tuple[Tensor, Tensor]] = {}
    inner: dict[int, Tensor] = {}
    changes: dict[int, tuple[Tensor, Tensor]] = {}
    zigzag: list[Tensor] = []

    def step(x: Tensor) -> Tensor:
        zero = blank(x, hidden)
        first, m = not zigzag, zigzag[-1] if zigzag else zero
        before, c = memory.get(0, (zero, zero))
        x, c, m = st_lstm(stack[0], x, before, c, m)
        memory[0] = x, c
        change = x - before
        for i in range(1, len(stack)):
            w = stack[i]
            if first:
                change = zero
            else:
                changes[i] = peephole_unit(units[i - 1], change, *changes.get(i, (zero, zero)))
                change = changes[i][0]
            h, c = memory.get(i, (zero, zero))
            ti, tg, to = w.gates("conv_t_cc", h, 3)
            si, sg, sf, so = w.gates("conv_s_cc", m, 4)
            xi, xg, xf, xo = w.gates("conv_x_cc", x, 4)
            m = sig(xf + sf + 1) * m + sig(xi + si) * tanh(xg + sg)
            kept, inner[i] = peephole_unit(w, change, c, inner.get(i, zero))
            c = kept + sig(xi + ti) * tanh(xg + tg)
            x = sig(xo + to + so) * tanh(w.conv("conv_last", torch.cat([c, m], 1)))
            memory[i] = x, c
        zigzag.append(m)
        return top.conv("conv_last", x)

    return run(step, past, steps, p)


def deep_gates(w: Weights, name: str, x: Tensor, n: int, stride: int = 1) -> list[Tensor]:
    """Kernels as deep as the two frames, without padding in time; the one frame that comes out is repeated.

    With a stride, so is every place, stride x stride times.
    """
    weight = w(name + ".conv3d.weight")
    size, pad = len(weight) // n, weight.shape[-1] // 2
    kernels = (weight[j * size : (j + 1) * size] for j in range(n))
    found = (F.conv3d(x, kernel, padding=(0, pad, pad), stride=(1, stride, stride)) for kernel in kernels)
    return [y.repeat(1, 1, 2, 1, 1).repeat_interleave(stride, 3).repeat_interleave(stride, 4) for y in found]


def recall(query: Tensor, history: list[Tensor], public: bool) -> Tensor:
    """Every place of the query attends to every place of every memory; "public" cuts rows in storage order instead."""
    b, c, *shape = query.shape
    out = torch.empty_like(query)
    for k in range(b):
        if public:
            q = query[k].reshape(-1, c)
            kv = torch.cat([memory[k] for memory in history]).reshape(-1, c)
        else:
            q = query[k].reshape(c, -1).T
            kv = torch.cat([memory[k].reshape(c, -1).T for memory in history])
        weight = (q @ kv.T).exp()
        found = (weight / weight.sum(1, keepdim=True)) @ kv
        out[k] = found.reshape(c, *shape) if public else found.T.reshape(c, *shape)
    return out


def e3dlstm(state: State, past: Tensor, steps: int, p: int, public: bool = True, stride: int = 1) -> Tensor:
    top, stack = Weights(state), list(cells(state, "cell_list"))
    hidden = state["conv_last.weight"].shape[1]
    hs: dict[int, Tensor] = {}
    histories: dict[int, list[Tensor]] = {}
    zigzag: list[Tensor] = []
    frames: list[Tensor] = []

    def step(frame: Tensor) -> Tensor:
        frames.append(frame)
        x = torch.stack([frames[-2] if len(frames) > 1 else torch.zeros_like(frame), frame], 2)
        zero = x.new_zeros(len(x), hidden, *x.shape[2:])
        m = zigzag[-1] if zigzag else zero
        for i, w in enumerate(stack):
            history = histories.setdefault(i, [zero])
            h, c = hs.get(i, zero), history[-1]
            xi, xg, xr, xo, xi2, xg2, xf2 = deep_gates(w, "conv_x.0", x, 7, stride)
            hi, hg, hr, ho = deep_gates(w, "conv_h.0", h, 4, stride)
            mi, mf, mg, mm = deep_gates(w, "conv_gm.0", m, 4, stride)
            sum_ = c + recall(sig(xr + hr), history, public)
            mean = sum_.mean((1, 2, 3, 4), keepdim=True)
            variance = (sum_ - mean).square().mean((1, 2, 3, 4), keepdim=True)
            normed = (sum_ - mean) / (variance + 1e-5).sqrt() * w("_norm_c_t.weight") + w("_norm_c_t.bias")
            c = normed + sig(xi + hi) * tanh(xg + hg)
            new = sig(xf2 + mf + 1) * tanh(mm) + sig(xi2 + mi) * tanh(xg2 + mg)
            (co,), (mo,) = (
                deep_gates(w, "conv_new_cell.0", c, 1, stride),
                deep_gates(w, "conv_new_gm.0", new, 1, stride),
            )
            mixed = F.conv3d(torch.cat([c, new], 1), w("conv_last.conv3d.weight"))
            x = hs[i] = sig(tanh(xo + ho + co + mo)) * tanh(mixed)
            history.append(c)
            m = m if public else new
        zigzag.append(m)
        return F.conv3d(x, top("conv_last.weight"))[:, :, 0]

    return run(step, past, steps, p)


FORECASTS = {"convlstm": convlstm, "predrnn": predrnn, "predrnnpp": predrnnpp, "mim": mim, "e3dlstm": e3dlstm}


def shapes(arch: str, layers: int, h: int, k: int, p: int, channels: int, size: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published checkpoint, the tensors that nothing reads among them."""
    patch, side = p * p * channels, size // p
    found: dict[str, tuple[int, ...]] = {"conv_last.weight": (patch, h, 1, 1)}

    def conv(name: str, c_out: int, c_in: int = h) -> None:
        found[f"{name}.0.weight"] = (c_out, c_in, k, k)

    for i in range(layers):
        c_in, cell = h if i else patch, f"cell_list.{i}"
        if arch == "e3dlstm":
            for name, n, c in (("x", 7, c_in), ("h", 4, h), ("gm", 4, h), ("new_cell", 1, h), ("new_gm", 1, h)):
                found[f"{cell}.conv_{name}.0.conv3d.weight"] = (n * h, c, 2, k, k)
            found[f"{cell}.conv_last.conv3d.weight"] = (h, 2 * h, 1, 1, 1)
            for leaf in ("weight", "bias"):
                found[f"{cell}._norm_c_t.{leaf}"] = (h, 2, side, side)
            continue
        if arch == "mim":
            cell = f"stlstm_layer.{i}"
        found[f"{cell}.conv_last.weight"] = (h, 2 * h, 1, 1)
        if arch == "mim" and i:
            for name, n in (("t_cc", 3), ("s_cc", 4), ("x_cc", 4), ("h_concat", 4), ("x_concat", 4)):
                conv(f"{cell}.conv_{name}", n * h)
            for unit in (cell, f"stlstm_layer_diff.{i - 1}"):
                found |= {f"{unit}.ct_weight": (2 * h, side, side), f"{unit}.oc_weight": (h, side, side)}
            for name in ("h_concat", "x_concat"):
                conv(f"stlstm_layer_diff.{i - 1}.conv_{name}", 4 * h)
            found[f"stlstm_layer_diff.{i - 1}.conv_last.weight"] = (h, 2 * h, 1, 1)
            continue
        conv(f"{cell}.conv_x", (4 if arch == "convlstm" else 7) * h, c_in)
        conv(f"{cell}.conv_h", 4 * h)
        conv(f"{cell}.conv_o", h, 2 * h)
        if arch != "convlstm":
            conv(f"{cell}.conv_m", 3 * h)
        if arch == "predrnnpp":
            conv(f"{cell}.conv_c", 3 * h)
            conv(f"{cell}.conv_c2m", 4 * h)
            conv(f"{cell}.conv_om", h)
    if arch == "predrnnpp":
        for name in ("x", "z"):
            conv(f"gradient_highway.{name}_concat", 2 * h)
    if arch == "e3dlstm":
        found["conv_last.weight"] = (patch, h, 2, 1, 1)
    return found


def published(arch: str, layers: int, hidden: int, kernel: int, p: int, channels: int, size: int) -> State:
    """Random weights in a published layout, lively but tame: no gate shut, none saturated."""
    generator = torch.Generator().manual_seed(3)
    state = {}
    for name, shape in shapes(arch, layers, hidden, kernel, p, channels, size).items():
        fan_in = max(1, torch.Size(shape[1:]).numel())
        scale = 0.5 if name.endswith(("ct_weight", "oc_weight")) or "_norm_c_t" in name else 1.5 / fan_in**0.5
        state[name] = scale * torch.randn(shape, generator=generator) + ("norm_c_t.weight" in name)
    return state
