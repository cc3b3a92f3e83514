"""Weights for other clips than those they were trained on: another number of channels or frames."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stzoo.errors import SpecError
from stzoo.models import architecture_of, build
from stzoo.models.contract import Colour
from stzoo.spec import ModelSpec

ANEW = "begins anew"  # how the line about a tensor ends that has random values


def adapt_tensors(
    state: Mapping[str, Tensor], old: ModelSpec, new: ModelSpec
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a module of spec `old`, changed so that a module of spec `new` can load them.

    A tensor that fits stays. If the number of channels has changed its shape, and the architecture states its `colour`
    axis, weights are averaged over the channels and spread over the new ones, so that frames whose channels are all
    alike are answered as before. Any other tensor begins anew, with the same random values every time.

    Args:
        state: the tensors by their names, as `module.state_dict()` has them.

    Returns:
        The new tensors by their names, and a line of text for each tensor that was changed or begins anew.

    Raises:
        SpecError: the specs are of two architectures, a modular model would get other channels than its codec was
            trained on, or no tensor fits.
    """
    if old.arch != new.arch:
        raise SpecError(f"a {old.arch} cannot be adapted to be a {new.arch}")
    architecture = architecture_of(old)
    if architecture.kind == "modular" and old.channels != new.channels:
        raise SpecError("a modular model paints the channels that its codec was trained on; channels cannot be adapted")
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the same beginning every time, so that a run that starts from it can be resumed
        fresh = build(new).state_dict()
    recoloured = build(old.replace(channels=new.channels, mean=(0.0,), std=(1.0,)), "meta").state_dict()
    out, done = {}, []
    for name, tensor in fresh.items():
        present = state.get(name)
        if present is None:
            done.append(f"{name} {ANEW}")
            out[name] = tensor
        elif present.shape == tensor.shape:
            out[name] = present
        elif architecture.colour and name in recoloured and recoloured[name].shape == tensor.shape:
            out[name] = _recoloured(present, tensor.shape, old.channels, new.channels, architecture.colour)
            done.append(f"{name} is averaged over channels")
        else:
            done.append(f"{name} {ANEW}")
            out[name] = tensor
    if len(done) == len(fresh):
        raise SpecError("no tensor of the checkpoint fits the new spec; train a new model instead")
    return out, tuple(done)


def _recoloured(tensor: Tensor, shape: torch.Size, old: int, new: int, colour: Colour) -> Tensor:
    """Averages each axis that differs over its `old` channels and repeats the mean for the `new` ones.

    The second axis of a weight, which reads the channels, is scaled too, so that their sum stays.
    """
    for axis, (a, b) in enumerate(zip(tensor.shape, shape, strict=True)):
        if a == b:
            continue
        pixels = a // old
        if pixels * old != a or pixels * new != b:
            raise SpecError(f"{tuple(tensor.shape)} cannot become {tuple(shape)} by averaging {old} channels")
        split, channels = ((pixels, old), axis + 1) if colour == "last" else ((old, pixels), axis)
        mean = tensor.unflatten(axis, split).mean(channels, keepdim=True)
        spread = mean.expand(*[new if i == channels else s for i, s in enumerate(mean.shape)]).flatten(axis, axis + 1)
        tensor = spread * (old / new) if axis == 1 else spread
    return tensor.contiguous()
