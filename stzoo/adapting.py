"""A checkpoint for other clips than it was made for: other numbers of channels or frames."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from stzoo.errors import SpecError
from stzoo.models import build
from stzoo.spec import ModelSpec

# Where an architecture folds pixels into channels, which part of that axis tells the colour.
COLOUR: Mapping[str, str] = MappingProxyType(
    {"tau": "first", "simvp": "first", "conv": "first"}
    | dict.fromkeys(("convlstm", "predrnn", "predrnnpp", "mim", "tctn"), "last")
)


def adapt_tensors(
    state: Mapping[str, Tensor], old: ModelSpec, new: ModelSpec
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Tensors of a module of `old` as a module of `new` takes them, and what had to be done.

    What fits stays. Where only the number of channels differs, the weights of the channels are averaged, and spread so
    that frames whose channels are all alike are answered as before; but not in the architectures that `COLOUR` leaves
    out. What else has another shape begins anew, the same way every time.

    Raises:
        SpecError: another architecture, or nothing fits.
    """
    if old.arch != new.arch:
        raise SpecError(f"a {old.arch} cannot be adapted to be a {new.arch}")
    if old.arch == "modular" and old.channels != new.channels:
        raise SpecError("a modular model paints what its codec was trained on; channels cannot be adapted")
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the same beginning every time, so that a run that starts from it can be resumed
        fresh = build(new).state_dict()
    recoloured = build(old.replace(channels=new.channels, mean=(0.0,), std=(1.0,)), "meta").state_dict()
    out, done = {}, []
    for name, tensor in fresh.items():
        present = state.get(name)
        if present is None:
            done.append(f"{name} begins anew")
            out[name] = tensor
        elif present.shape == tensor.shape:
            out[name] = present
        elif old.arch in COLOUR and name in recoloured and recoloured[name].shape == tensor.shape:
            out[name] = _recoloured(present, tensor.shape, old.channels, new.channels, COLOUR[old.arch] == "last")
            done.append(f"{name} is averaged over channels")
        else:
            done.append(f"{name} begins anew")
            out[name] = tensor
    if len(done) == len(fresh):
        raise SpecError("nothing of the checkpoint fits the new spec")
    return out, tuple(done)


def _recoloured(tensor: Tensor, shape: torch.Size, old: int, new: int, last: bool) -> Tensor:
    """Average the colours of the axes that differ, and repeat; of an axis that is read (the second), share out."""
    for axis, (a, b) in enumerate(zip(tensor.shape, shape, strict=True)):
        if a == b:
            continue
        pixels = a // old
        if pixels * old != a or pixels * new != b:
            raise SpecError(f"{tuple(tensor.shape)} cannot become {tuple(shape)} by averaging {old} channels")
        split = (pixels, old) if last else (old, pixels)
        colour = axis + 1 if last else axis
        mean = tensor.unflatten(axis, split).mean(colour, keepdim=True)
        spread = mean.expand(*[new if i == colour else s for i, s in enumerate(mean.shape)]).flatten(axis, axis + 1)
        tensor = spread * (old / new) if axis == 1 else spread
    return tensor.contiguous()
