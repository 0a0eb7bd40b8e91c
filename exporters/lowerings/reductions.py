"""Sums, means, variances, norms and normalisations, over many numbers or numbers far from zero.

ONNX Runtime adds up float32 in few partial sums: the mean of a million equal numbers is off by 1e-3, that of 16,384 by
1.6e-5, where torch is off by 1e-7. Above `FEW` numbers, or where nobody knows how many, they are added up in float64,
which takes four times as long as ReduceMean and a tenth of what a convolution of the same image does. Squares are
multiplied out: ReduceL2 and ReduceSumSquare add up one after the other and are slower than a product and a sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import onnx
import onnx_ir
import torch
from onnxscript import opset18 as op

from exporters.lowerings.constants import double, int64, ints, is_float, like, typed

aten = torch.ops.aten


FEW = 1024


def mean(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: int = -1) -> Any:
    """The mean over some axes, by default all."""
    return _mean(_cast(x, dtype), x, _axes(x, dim), keepdim)


def total(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: int = -1) -> Any:
    """The sum over some axes, by default all; of whole numbers as int64."""
    if dtype == -1 and not is_float(x):
        dtype = onnx.TensorProto.INT64
    values, axes = _cast(x, dtype), _axes(x, dim)
    if is_float(values) and _many(x, axes):
        return op.Cast(op.ReduceSum(double(values), ints(*axes), keepdims=int(keepdim)), to=values.dtype)
    return op.ReduceSum(values, ints(*axes), keepdims=int(keepdim))


def running_sum(x: Any, dim: int, *, dtype: int = -1) -> Any:
    """Sums so far along an axis, added up in float64 as in torch."""
    if dtype == -1 and not is_float(x):
        dtype = onnx.TensorProto.INT64
    values = _cast(x, dtype)
    if not x.shape:
        return op.Identity(values)
    if not is_float(values):
        return op.CumSum(values, int64(dim))
    return op.Cast(op.CumSum(double(values), int64(dim)), to=values.dtype)


def variance(x: Any, dims: Sequence[int] | None, correction: float = 1, *, output_dtype: int | None = None) -> Any:
    """Sum of squared distances from the mean over n - correction."""
    axes = _axes(x, dims)
    if not axes:  # a single number
        return op.Mul(op.Sub(x, x), like(x, math.nan if correction else 1.0))
    over = ints(*axes)
    values = double(x) if _many(x, axes) else x
    away = op.Sub(values, op.ReduceMean(values, over, keepdims=1))
    if values is x:  # the mean of numbers far from zero is rounded by more than they differ
        away = op.Sub(away, op.ReduceMean(away, over, keepdims=1))
    count = double(op.ReduceProd(op.Gather(op.Shape(x), over), keepdims=0))
    free = op.Max(op.Sub(count, double(correction)), double(0.0))
    return op.CastLike(op.Div(double(op.ReduceSum(op.Mul(away, away), over, keepdims=0)), free), x)


def vector_norm(x: Any, ord: float = 2.0, dim: Any = None, keepdim: bool = False, dtype: int = -1) -> Any:  # noqa: A002
    """The p-norm over some axes."""
    return _norm(_cast(x, dtype), x, ord, _axes(x, dim), keepdim)


def distances(x: Any, y: Any, p: float = 2.0, compute_mode: int | None = None) -> Any:
    """The p-norm of each row of x less each row of y.

    Where torch takes the product of the two, over more than 25 rows, so does this: the differences of all pairs would
    need much memory. Elsewhere it would lose what two close rows differ by.
    """
    rows = [tensor.shape[-2] for tensor in (x, y)]
    many = any(isinstance(count, int) and count > 25 for count in rows)
    if p == 2 and (compute_mode == 1 or (compute_mode != 2 and many)):
        rank = len(y.shape)
        squares = [op.ReduceSum(op.Mul(tensor, tensor), ints(-1), keepdims=1) for tensor in (x, y)]
        product, below = (
            op.Transpose(tensor, perm=[*range(rank - 2), rank - 1, rank - 2]) for tensor in (y, squares[1])
        )
        square = op.Sub(op.Add(squares[0], below), op.Mul(op.MatMul(x, product), like(x, 2.0)))
        return op.Sqrt(op.Max(square, like(x, 0.0)))
    return _norm(op.Sub(op.Unsqueeze(x, ints(-2)), op.Unsqueeze(y, ints(-3))), x, p, [-1], False)


def _norm(x: Any, source: Any, ord: float, dims: Sequence[int], keepdim: bool) -> Any:  # noqa: A002
    """The norm over some axes; the type is that of ``source``."""
    axes = ints(*dims)

    def reduced(operator: Any, values: Any) -> Any:
        return operator(values, axes, keepdims=int(keepdim))

    if math.isinf(ord):
        return reduced(op.ReduceMax if ord > 0 else op.ReduceMin, op.Abs(x))
    if ord == 0:
        return reduced(op.ReduceSum, op.CastLike(op.Not(op.Equal(x, like(source, 0.0))), source))
    if ord == 1:
        return reduced(op.ReduceSum, op.Abs(x))
    if ord == 2:
        return op.CastLike(op.Sqrt(reduced(op.ReduceSum, op.Mul(double(x), double(x)))), source)
    return op.Pow(reduced(op.ReduceSum, op.Pow(op.Abs(x), like(source, ord))), like(source, 1 / ord))


def layer_norm(
    x: Any, normalized_shape: Sequence[Any], weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn: bool = True
) -> Any:
    """Each item to mean 0 and variance 1 over its last axes, then scaled."""
    axes = list(range(len(x.shape) - len(normalized_shape), len(x.shape)))
    if _many(x, axes, 8 * FEW):
        return _normalised(x, x, axes, weight, bias, eps)
    ones = op.Expand(like(x, 1.0), op.Shape(x, start=axes[0])) if weight is None else weight
    result, _, _ = op.LayerNormalization(x, ones, bias, axis=axes[0], epsilon=eps)
    return result


def group_norm(
    x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn_enabled: bool = True
) -> Any:
    """Each group of channels of each item to mean 0 and variance 1, then scaled by channel."""
    channels = op.Div(op.Shape(x, start=1, end=2), ints(num_groups))
    grouped = op.Reshape(x, op.Concat(ints(0, num_groups), channels, ints(-1), axis=0))
    scale, shift = (None if w is None else op.Reshape(w, ints(num_groups, -1, 1)) for w in (weight, bias))
    return op.Reshape(_normalised(x, grouped, [2, 3], scale, shift, eps), op.Shape(x))


def instance_norm(
    x: Any,
    weight: Any = None,
    bias: Any = None,
    running_mean: Any = None,
    running_var: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = False,
) -> Any:
    """Each channel of each item to mean 0 and variance 1, of its own or as it was learnt."""
    rank = len(x.shape)
    weight, bias, middle, var = (
        None if w is None else op.Unsqueeze(w, ints(*range(1, rank - 1)))
        for w in (weight, bias, running_mean, running_var)
    )
    if use_input_stats:
        return _normalised(x, x, list(range(2, rank)), weight, bias, eps)
    return _scaled(x, op.Sub(x, middle), var, weight, bias, eps)


def _normalised(source: Any, x: Any, axes: Sequence[int], weight: Any, bias: Any, eps: float) -> Any:
    """To mean 0 and variance 1 over some axes, times weight plus bias; the type is that of ``source``."""

    def over(values: Any) -> Any:
        if x is source and not _many(x, axes):
            return op.ReduceMean(values, ints(*axes), keepdims=1)
        return op.CastLike(op.ReduceMean(double(values), ints(*axes), keepdims=1), source)

    away = op.Sub(x, over(x))
    return _scaled(source, away, over(op.Mul(away, away)), weight, bias, eps)


def _scaled(source: Any, away: Any, variance: Any, weight: Any, bias: Any, eps: float) -> Any:
    factor = op.Div(like(source, 1.0) if weight is None else weight, op.Sqrt(op.Add(variance, like(source, eps))))
    scaled = op.Mul(away, factor)
    return scaled if bias is None else op.Add(scaled, bias)


def _mean(x: Any, source: Any, axes: Sequence[int], keepdim: bool) -> Any:
    if _many(source, axes):
        return op.Cast(op.ReduceMean(double(x), ints(*axes), keepdims=int(keepdim)), to=x.dtype)
    return op.ReduceMean(x, ints(*axes), keepdims=int(keepdim))


def _many(x: Any, axes: Sequence[int], few: int = FEW) -> bool:
    """Whether there are, or may be, more than a few numbers to add up."""
    sizes = [x.shape[axis] for axis in axes]
    return not all(isinstance(size, int) for size in sizes) or math.prod(sizes) > few


def _axes(x: Any, dims: Any) -> list[int]:
    """The axes named, counted from the front, or all."""
    rank = len(x.shape)
    if isinstance(dims, int):
        return [dims % rank] if rank else []
    return [dim % rank for dim in dims] if dims else list(range(rank))


def _cast(x: Any, dtype: int) -> Any:
    return x if dtype == -1 else typed(op.Cast(x, to=dtype), onnx_ir.DataType(dtype))


def extremum(operator: Any) -> Callable[..., Any]:
    """``amax`` or ``amin``, of all axes unless some are named."""

    def reduced(x: Any, dim: Sequence[int] = (), keepdim: bool = False) -> Any:
        axes = [dim] if isinstance(dim, int) else list(dim)
        return operator(x, ints(*axes) if axes else None, keepdims=int(keepdim))

    return reduced


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """ATen operator -> translation."""
    return {
        aten.mean.dim: mean,
        aten.mean.default: lambda x, *, dtype=-1: mean(x, dtype=dtype),
        aten.sum.dim_IntList: total,
        aten.sum.default: lambda x, *, dtype=-1: total(x, dtype=dtype),
        aten.cumsum.default: running_sum,
        aten.layer_norm.default: layer_norm,
        torch.ops.prims.sum.default: lambda x, dims, *, output_dtype=None: total(x, dims),
        torch.ops.prims.var.default: variance,
        aten.linalg_vector_norm.default: vector_norm,
        aten._cdist_forward.default: distances,
        aten.cdist.default: distances,
        aten.group_norm.default: group_norm,
        aten.instance_norm.default: instance_norm,
        aten.amax.default: extremum(op.ReduceMax),
        aten.amin.default: extremum(op.ReduceMin),
    }
