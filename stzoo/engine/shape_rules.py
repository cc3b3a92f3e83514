"""The shapes of what frequent operations return, faster than torch tells them.

For many operations torch's own rules are written in Python: each call takes as long as ten others, and the first one
imports torch's compiler, which takes seconds. Each rule here takes what the operation takes, with tensors on the device
"meta", and returns what it returns, or NotImplemented where the case is not a common one. Then torch is asked.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
_BOOLEAN = {"eq", "ne", "lt", "le", "gt", "ge", "isfinite", "isnan", "isinf"}


@functools.cache
def shape_rule(function: Any) -> Callable[..., Any] | None:
    """The rule for an operation, or None if there is none."""
    if function in _RULES:
        return _RULES[function]
    if torch.Tag.pointwise not in function.tags:
        return None
    if not function._schema.is_mutable:
        return _boolean if function._schema.name.partition("::")[2] in _BOOLEAN else _pointwise
    return _in_place if function._schema.name.endswith("_") else None


def _boolean(*args: Any, **options: Any) -> Any:
    return _pointwise(*args, to=torch.bool, **options)


def _pointwise(*args: Any, to: torch.dtype | None = None, **options: Any) -> Any:
    """Of tensors of floats, conditions and tensors of one number aside."""
    tensors = [x for x in args if isinstance(x, Tensor)]
    arrays = [x for x in tensors if x.dim()] or tensors
    dtypes = {x.dtype for x in arrays if x.dtype != torch.bool}
    if any(isinstance(x, Tensor | torch.dtype | torch.memory_format) for x in options.values()):
        return NotImplemented
    if to is None and (not dtypes or not all(dtype.is_floating_point for dtype in dtypes)):
        return NotImplemented
    dtype = to or functools.reduce(torch.promote_types, dtypes)
    shape = _broadcast([tuple(x.shape) for x in arrays])
    if shape is None:
        return NotImplemented
    for x in arrays:
        if tuple(x.shape) == shape:
            return torch.empty_like(x, dtype=dtype)
    return torch.empty(shape, dtype=dtype, device="meta")


def _arithmetic(a: Any, b: Any, **options: Any) -> Any:
    """Of integers or conditions too, if their dtype is the same."""
    dtypes = {x.dtype for x in (a, b) if isinstance(x, Tensor)}
    whole = len(dtypes) == 1 and not any(isinstance(x, float) for x in (a, b))
    return _pointwise(a, b, to=dtypes.pop() if whole else None, **options)


def _quotient(a: Any, b: Any, **options: Any) -> Any:
    floats = any(isinstance(x, Tensor) and x.dtype.is_floating_point for x in (a, b))
    whole = not floats and options.get("rounding_mode") is None
    return _pointwise(a, b, to=torch.get_default_dtype() if whole else None, **options)


def _broadcast(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...] | None:
    """The shape that arrays of these shapes have together; None if they do not fit."""
    if all(shape == shapes[0] for shape in shapes):
        return shapes[0]
    rank = max(map(len, shapes))
    sizes = [set(column) - {1} for column in zip(*((1,) * (rank - len(s)) + s for s in shapes), strict=True)]
    if any(len(size) > 1 for size in sizes):
        return None
    return tuple(size.pop() if size else 1 for size in sizes)


def _in_place(x: Tensor, *_: Any, **options: Any) -> Any:
    return x


def _arange(end: float, *, dtype: torch.dtype | None = None, **options: Any) -> Any:
    if dtype is None:
        dtype = torch.int64 if isinstance(end, int) else torch.get_default_dtype()
    return torch.empty(math.ceil(end), dtype=dtype, device="meta")


def _eye(size: int, *, dtype: torch.dtype | None = None, **options: Any) -> Any:
    return torch.empty(size, size, dtype=dtype or torch.get_default_dtype(), device="meta")


def _cat(tensors: list[Tensor], dim: int = 0) -> Any:
    first = tensors[0]
    if any(x.dtype != first.dtype or x.dim() != first.dim() for x in tensors):
        return NotImplemented
    dim %= first.dim()
    shape = list(first.shape)
    shape[dim] = sum(x.shape[dim] for x in tensors)
    if any(list(x.shape[:dim]) + list(x.shape[dim + 1 :]) != shape[:dim] + shape[dim + 1 :] for x in tensors):
        return NotImplemented
    return first.new_empty(shape)


def _stack(tensors: list[Tensor], dim: int = 0) -> Any:
    first = tensors[0]
    if any(x.dtype != first.dtype or x.shape != first.shape for x in tensors):
        return NotImplemented
    shape = list(first.shape)
    shape.insert(dim % (first.dim() + 1), len(tensors))
    return first.new_empty(shape)


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Any:
    n = weight.dim() - 2
    if x.dim() != n + 2 or x.dtype != weight.dtype or not len(stride) == len(padding) == len(dilation) == n:
        return NotImplemented
    if x.shape[1] != (weight.shape[0] if transposed else weight.shape[1] * groups):
        return NotImplemented
    sizes = []
    for i in range(n):
        reach = dilation[i] * (weight.shape[i + 2] - 1)
        if transposed:
            sizes.append((x.shape[i + 2] - 1) * stride[i] - 2 * padding[i] + reach + output_padding[i] + 1)
        else:
            sizes.append((x.shape[i + 2] + 2 * padding[i] - reach - 1) // stride[i] + 1)
    if min(sizes) < 1:
        return NotImplemented
    channels = weight.shape[1] * groups if transposed else weight.shape[0]
    return x.new_empty((x.shape[0], channels, *sizes))


def _convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    wanted: list[bool],
) -> Any:
    bias = (weight.shape[1] * groups if transposed else weight.shape[0],)
    return _wanted(wanted, (x, x.shape), (weight, weight.shape), (weight, bias))


def _wanted(wanted: list[bool], *of: tuple[Tensor | None, Sequence[int]]) -> Any:
    """Gradients of these kinds and shapes; None for those that are not wanted."""
    pairs = zip(wanted, of, strict=True)
    return tuple(like.new_empty(tuple(shape)) if yes and like is not None else None for yes, (like, shape) in pairs)


def _statistics(x: Tensor, weight: Tensor | None, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Means and deviations that a norm keeps: of the weight's dtype, which autocast leaves as it is."""
    like = x if weight is None else weight
    return like.new_empty(tuple(shape)), like.new_empty(tuple(shape))


def _group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, c: int, area: int, groups: int, eps: float
) -> Any:
    return x.new_empty(x.shape), *_statistics(x, weight, (n, groups))


def _group_norm_backward(
    gradient: Tensor, x: Tensor, mean: Tensor, deviation: Tensor, weight: Tensor | None,
    n: int, c: int, area: int, groups: int, wanted: list[bool],
) -> Any:  # fmt: skip
    return _wanted(wanted, (x, x.shape), (weight, (c,)), (weight, (c,)))


def _layer_norm(x: Tensor, shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
    if tuple(x.shape[x.dim() - len(shape) :]) != tuple(shape):
        return NotImplemented
    rows = (*x.shape[: x.dim() - len(shape)], *(1 for _ in shape))
    return torch.empty_like(x), *_statistics(x, weight, rows)


def _layer_norm_backward(
    gradient: Tensor, x: Tensor, shape: list[int], mean: Tensor, deviation: Tensor,
    weight: Tensor | None, bias: Tensor | None, wanted: list[bool],
) -> Any:  # fmt: skip
    return _wanted(wanted, (x, x.shape), (weight, shape), (bias, shape))


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, variance: Tensor | None,
    training: bool, momentum: float, eps: float,
) -> Any:  # fmt: skip
    kept = (x.shape[1] if training else 0,)
    return torch.empty_like(x), *_statistics(x, weight, kept)


def _batch_norm_backward(
    gradient: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor | None, variance: Tensor | None,
    saved_mean: Tensor | None, saved_variance: Tensor | None, training: bool, eps: float, wanted: list[bool],
) -> Any:  # fmt: skip
    return _wanted(wanted, (x, x.shape), (weight, (x.shape[1],)), (weight, (x.shape[1],)))


def _reduced(x: Tensor, dims: list[int] | None = None, keep: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    if not x.dtype.is_floating_point:
        return NotImplemented
    gone = {d % x.dim() for d in dims} if dims else set(range(x.dim()))
    shape = [1 if d in gone else size for d, size in enumerate(x.shape) if keep or d not in gone]
    return x.new_empty(shape, dtype=dtype or x.dtype)


def _norm(x: Tensor, order: float = 2, dims: list[int] | None = None, keep: bool = False, **options: Any) -> Any:
    return _reduced(x, dims, keep, **options)


def _softmax(x: Tensor, dim: int, half_to_float: bool) -> Any:
    return NotImplemented if half_to_float else torch.empty_like(x)


def _softmax_backward(gradient: Tensor, result: Tensor, dim: int, dtype: torch.dtype) -> Any:
    return torch.empty_like(gradient, dtype=dtype)


def _of_sizes(gradient: Tensor, sizes: list[int], *_: Any) -> Any:
    """The gradient of a part: zeros of the size of the whole."""
    return gradient.new_empty(sizes)


def _product(a: Tensor, b: Tensor) -> Any:
    if a.dtype != b.dtype or a.shape[-1] != b.shape[-2] or a.shape[:-2] != b.shape[:-2]:
        return NotImplemented
    return a.new_empty((*a.shape[:-1], b.shape[-1]))


def _product_added(bias: Tensor, a: Tensor, b: Tensor, **options: Any) -> Any:
    return _product(a, b)


_RULES: dict[Any, Callable[..., Any]] = {
    aten.add.Tensor: _arithmetic,
    aten.sub.Tensor: _arithmetic,
    aten.mul.Tensor: _arithmetic,
    aten.div.Tensor: _quotient,
    aten.leaky_relu_backward.default: _pointwise,
    aten.bitwise_and.Tensor: _arithmetic,
    aten.bitwise_or.Tensor: _arithmetic,
    aten.arange.default: _arange,
    aten.eye.default: _eye,
    aten.cat.default: _cat,
    aten.stack.default: _stack,
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
    aten.native_group_norm.default: _group_norm,
    aten.native_group_norm_backward.default: _group_norm_backward,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
    aten.native_batch_norm.default: _batch_norm,
    aten.native_batch_norm_backward.default: _batch_norm_backward,
    aten.sum.default: _reduced,
    aten.sum.dim_IntList: _reduced,
    aten.mean.default: _reduced,
    aten.mean.dim: _reduced,
    aten.linalg_vector_norm.default: _norm,
    aten._softmax.default: _softmax,
    aten._softmax_backward_data.default: _softmax_backward,
    aten._log_softmax.default: _softmax,
    aten._log_softmax_backward_data.default: _softmax_backward,
    aten.slice_backward.default: _of_sizes,
    aten.select_backward.default: _of_sizes,
    aten.mm.default: _product,
    aten.bmm.default: _product,
    aten.addmm.default: _product_added,
    aten.copy_.default: _in_place,
}
