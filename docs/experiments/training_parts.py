"""Parts of a training step by themselves, each beside another way to compute it (docs/training-speed.md).

  python docs/experiments/training_parts.py muon predrnn-mmnist  Muon's products against those of the plain iteration
  python docs/experiments/training_parts.py gradients predrnn-mmnist  those of weights, for several steps at once

Both take random numbers of the sizes that the model has, and turns, and print the medians of the ratios of pairs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter

import torch
from torch import Tensor, nn

import stzoo
from stzoo.machine import PRECISIONS
from stzoo.models import build
from stzoo.spec import ModelSpec
from stzoo.train import Recipe, read_recipe
from stzoo.train.muon import Muon, orthogonalised
from stzoo.train.optim import optimizers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("muon", "gradients"))
    parser.add_argument("model")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--pairs", type=int, default=9)
    arguments = parser.parse_args()
    spec, recipe = stzoo.info(arguments.model).spec, read_recipe(arguments.model)
    {"muon": muon, "gradients": gradients}[arguments.part](
        spec, recipe, getattr(torch, arguments.precision), arguments.pairs
    )


def muon(spec: ModelSpec, recipe: Recipe, dtype: torch.dtype, pairs: int) -> None:
    """Orthogonalises as many matrices as a step does."""
    alike = Counter(
        (p.shape[0], p[0].numel())
        for optimizer in optimizers(build(spec), recipe)
        for group in optimizer.param_groups
        for p in group["params"]
        if isinstance(optimizer, Muon)
    )
    taken = []
    stacks = [torch.randn(count, *shape, dtype=torch.float32) for shape, count in alike.items()]
    for _ in range(1 + pairs):
        start = time.perf_counter()
        for matrices in stacks:
            orthogonalised(matrices, dtype)
        between = time.perf_counter()
        for matrices in stacks:
            plainly_orthogonalised(matrices, dtype)
        taken.append((between - start, time.perf_counter() - between))
    told("Muon", "the plain iteration", taken[1:])


def plainly_orthogonalised(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Five Newton-Schulz steps, with two products of the full size in each."""
    x = (matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices).contiguous()
    x = (x / x.norm(dim=(1, 2), keepdim=True)).to(dtype)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.float()


def gradients(spec: ModelSpec, recipe: Recipe, dtype: torch.dtype, pairs: int) -> None:
    """The gradients of the weights of each kind of convolution of a recurrent model, over all steps of a clip."""
    steps, patch = spec.frames_in + spec.frames_out - 1, spec.params["patch"]
    kinds = {m.weight.shape: m for m in build(spec).modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1}
    for conv in kinds.values():
        conv.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        inputs, outputs = (
            torch.randn(steps * recipe.batch, width, spec.height // patch, spec.width // patch)
            .to(dtype)
            .contiguous(memory_format=torch.channels_last)
            .split(recipe.batch)
            for width in (conv.in_channels, conv.out_channels)
        )
        for at_once in (5, steps):
            taken = [
                (seconds(conv, inputs, outputs, at_once), seconds(conv, inputs, outputs, 1)) for _ in range(1 + pairs)
            ]
            told(f"{conv.in_channels} -> {conv.out_channels}, {at_once} steps at once", "one by one", taken[1:])


def seconds(conv: nn.Conv2d, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], at_once: int) -> float:
    """How long the gradient of the weight takes, for inputs and gradients of outputs of all steps, `at_once` a call."""
    start, total = time.perf_counter(), torch.zeros_like(conv.weight)
    for i in range(0, len(inputs), at_once):
        several = [each[i] if at_once == 1 else torch.cat(each[i : i + at_once]) for each in (outputs, inputs)]
        total += torch.ops.aten.convolution_backward(
            *several, conv.weight, None, conv.stride, conv.padding, conv.dilation, False, [0, 0], conv.groups,
            [False, True, False],
        )[1]  # fmt: skip
    return time.perf_counter() - start


def told(of: str, against: str, taken: list[tuple[float, float]]) -> None:
    ours, other = (statistics.median(each) for each in zip(*taken, strict=True))
    ratio = statistics.median(b / a for a, b in taken)
    print(f"{of}: {ours * 1e3:.1f} ms a step, {against} {other * 1e3:.1f} ms, {ratio:.2f} times as fast", flush=True)


if __name__ == "__main__":
    with torch.no_grad():
        main()
