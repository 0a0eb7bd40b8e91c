"""Order: sorting, medians, searches, running extrema and what torch.onnx leaves out of scattering and counting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnxscript import opset18 as op

from exporters.lowerings.constants import int64, ints, is_float, like

aten = torch.ops.aten

REDUCTIONS = {
    "sum": ("add", 0),
    "mean": ("add", 0),
    "prod": ("mul", 1),
    "amax": ("max", -math.inf),
    "amin": ("min", math.inf),
}
"""torch's name -> ONNX's, and the value that changes no result."""


def sort(x: Any, *, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """Sorted values and their places; of equal values the earlier one comes first, as TopK is defined."""
    if not x.shape:
        return op.Identity(x), op.Constant(value_int=0)
    axis = dim % len(x.shape)
    return op.TopK(x, op.Shape(x, start=axis, end=axis + 1), axis=axis, largest=int(descending), sorted=1)


def kth_value(x: Any, k: Any, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th smallest along an axis, from 1, and a place where it stands."""
    axis = dim % len(x.shape)
    count = op.Reshape(int64(k), ints(1))
    found = op.TopK(x, count, axis=axis, largest=0, sorted=1)
    last = [op.Gather(values, ints(-1), axis=axis) for values in found]
    return tuple(op.Identity(v) if keepdim else op.Squeeze(v, ints(axis)) for v in last)


def median(x: Any, dim: int = -1, keepdim: bool = False) -> Any:
    """The median along an axis, of an even number the lower one, and a place where it stands."""
    axis = dim % len(x.shape)
    size = op.Shape(x, start=axis, end=axis + 1)
    return kth_value(x, op.Div(op.Add(size, ints(1)), ints(2)), axis, keepdim)


def median_of_all(x: Any) -> Any:
    """The median of all values."""
    flat = op.Reshape(x, ints(-1))
    size = op.Shape(flat)
    (values, _) = op.TopK(flat, op.Div(op.Add(size, ints(1)), ints(2)), axis=0, largest=0, sorted=1)
    return op.Gather(values, op.Constant(value_int=-1), axis=0)


def search_sorted(
    boundaries: Any,
    x: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Any:
    """How many boundaries lie below each value, with ``right`` those equal to it too."""
    if sorter is not None:
        boundaries = op.GatherElements(boundaries, sorter, axis=-1)
    if not is_float(x):
        boundaries, x = int64(boundaries), int64(x)  # torch's own `isin` brings two kinds of integers
    below = op.LessOrEqual if right or side == "right" else op.Less
    passed = below(op.Unsqueeze(boundaries, ints(-2)), op.Unsqueeze(x, ints(-1)))
    kind = onnx.TensorProto.INT32 if out_int32 else onnx.TensorProto.INT64
    return op.ReduceSum(op.Cast(passed, to=kind), ints(-1), keepdims=0)


def histogram(x: Any, bins: int = 100, min: float = 0.0, max: float = 0.0) -> Any:  # noqa: A002
    """How many values lie in each of some bins of equal width; the last holds its upper edge too.

    Raises:
        ValueError: No range is given, so that it would come from the values.
    """
    if min == max:
        raise ValueError("histc without min and max takes its range from the values: give both")
    edges = torch.linspace(min, max, bins + 1).tolist()
    values = op.Unsqueeze(op.Reshape(x, ints(-1)), ints(1))
    high = [*edges[1:-1], math.inf]
    inside = op.And(op.GreaterOrEqual(values, like(x, edges[:-1])), op.Less(values, like(x, high)))
    inside = op.And(inside, op.LessOrEqual(values, like(x, max)))
    return op.ReduceSum(op.CastLike(inside, x), ints(0), keepdims=0)


def running(largest: bool) -> Callable[..., Any]:
    """``cummax`` or ``cummin``: values so far and the last place where they stand."""

    def translated(x: Any, dim: int) -> tuple[Any, Any]:
        axis = dim % len(x.shape)
        prefixes, before, steps = _prefixes(x, axis, -math.inf if largest else math.inf)
        values = (op.ReduceMax if largest else op.ReduceMin)(prefixes, ints(-1), keepdims=1)
        here = op.Where(op.And(before, op.Equal(prefixes, values)), steps, int64(-1))
        places = op.ReduceMax(here, ints(-1), keepdims=0)
        return _back(op.Squeeze(values, ints(-1)), axis, len(x.shape)), _back(places, axis, len(x.shape))

    return translated


def log_cumulative_sum_exp(x: Any, dim: int) -> Any:
    """Log of the running sum of exp, each against the largest so far."""
    if not x.shape:
        return op.Identity(x)
    axis = dim % len(x.shape)
    found = op.ReduceLogSumExp(_prefixes(x, axis, -math.inf)[0], ints(-1), keepdims=0)
    return _back(found, axis, len(x.shape))


def _prefixes(x: Any, axis: int, fill: float) -> tuple[Any, Any, Any]:
    """For each place along an axis the values up to it, the rest filled: (…, K) -> (…, K, K), the axis put last.

    Beside it what was not filled, (K, K), and the places, (K,).
    """
    rank = len(x.shape)
    last = op.Transpose(x, perm=[*(i for i in range(rank) if i != axis), axis])
    size = op.Shape(x, start=axis, end=axis + 1)
    steps = op.Range(int64(0), op.Squeeze(size), int64(1))
    before = op.LessOrEqual(op.Unsqueeze(steps, ints(0)), op.Unsqueeze(steps, ints(1)))
    return op.Where(before, op.Unsqueeze(last, ints(-2)), like(x, fill)), before, steps


def _back(x: Any, axis: int, rank: int) -> Any:
    """The last axis in its place again."""
    order = list(range(rank - 1))
    order.insert(axis, rank - 1)
    return op.Transpose(x, perm=order)


def product(x: Any, dims: Sequence[int] | None, *, output_dtype: int | None = None) -> Any:
    """The product over some axes; torch writes ``cumprod`` with it."""
    return op.ReduceProd(x, ints(*dims) if dims else None, keepdims=0)


def scatter_reduce(x: Any, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True) -> Any:
    """Values put together where an index sends them: by sum, product, mean or an extremum."""
    if not x.shape:
        x, index, src = (op.Reshape(value, ints(-1)) for value in (x, index, src))
        return op.Squeeze(_scattered(x, dim, index, src, reduce, include_self), ints(0))
    rank = len(x.shape)
    src_part = op.Slice(src, ints(*[0] * rank), op.Shape(index), ints(*range(rank)))
    return _scattered(x, dim, index, src_part, reduce, include_self)


def _scattered(x: Any, dim: int, index: Any, src: Any, reduce: str, include_self: bool) -> Any:
    kind, neutral = REDUCTIONS[reduce]

    def filled(value: float) -> Any:
        return op.Expand(like(x, value), op.Shape(index))

    if not include_self:
        bounds = np.iinfo(x.dtype.numpy()) if not is_float(x) else None
        value = neutral if bounds is None else max(bounds.min, min(bounds.max, neutral))
        x_free = op.ScatterElements(x, index, filled(value), axis=dim)
    joined = op.ScatterElements(x if include_self else x_free, index, src, axis=dim, reduction=kind)
    if reduce != "mean":
        return joined
    own = op.Expand(like(x, int(include_self)), op.Shape(x))
    count = op.ScatterElements(own, index, filled(1), axis=dim, reduction="add")
    return op.Div(joined, op.Max(count, like(x, 1)))


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """ATen operator -> translation."""
    return {
        aten.sort.stable: sort,
        aten.kthvalue.default: kth_value,
        aten.median.dim: median,
        aten.median.default: median_of_all,
        aten.searchsorted.Tensor: search_sorted,
        aten.histc.default: histogram,
        aten.cummax.default: running(largest=True),
        aten.cummin.default: running(largest=False),
        aten.logcumsumexp.default: log_cumulative_sum_exp,
        torch.ops.prims.prod.default: product,
        aten.scatter_reduce.two: scatter_reduce,
    }
