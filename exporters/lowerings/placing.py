"""What is put into a tensor at places, and what is taken out by a mask: indices and masks of every kind together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir
import torch
from onnxscript import opset18 as op

from exporters.lowerings.constants import int64, ints, typed

aten = torch.ops.aten


def put(x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    """``x[indices] = values``, where an index is a mask over some axes, whole numbers, or None for a whole axis."""
    masks = [index for index in indices if index is not None and index.dtype == onnx_ir.DataType.BOOL]
    if len(masks) == 1 and indices[-1] is masks[0] and not any(indices[:-1]) and not values.shape and not accumulate:
        left = len(x.shape) - (len(indices) - 1) - len(masks[0].shape)
        mask = op.Unsqueeze(masks[0], ints(*range(-left, 0))) if left else masks[0]
        return op.Where(mask, values, x)
    axes: list[int] = []
    places: list[Any] = []
    rank, axis = len(x.shape), 0
    for index in indices:
        found = [] if index is None else _places(index)
        axes += range(axis, axis + len(found))
        places += found
        axis += max(1, len(found))
    every = places[0]
    for other in places[1:]:
        every = typed(op.Add(every, other), every.dtype)  # for its shape
    shape, depth = op.Shape(every), max(len(place.shape) for place in places)
    others = [axis for axis in range(rank) if axis not in axes]
    order = [*axes, *others]
    first = op.Transpose(x, perm=order)
    whole = op.Concat(shape, op.Shape(first, start=len(axes)), axis=0)
    begin = axes[0] if axes == list(range(axes[0], axes[-1] + 1)) else 0
    if begin and values.shape:  # what is put has the places where the first indexed axis was
        front = op.Shape(x, end=begin)
        behind = op.Shape(x, start=axes[-1] + 1)
        spread = op.Expand(values, op.Concat(front, shape, behind, axis=0))
        size = rank - len(axes) + depth
        turned = [*range(begin, begin + depth), *range(begin), *range(begin + depth, size)]
        updates = op.Transpose(spread, perm=turned)
    else:
        updates = op.Expand(values, whole)
    at = op.Concat(*(op.Unsqueeze(op.Expand(place, shape), ints(-1)) for place in places), axis=-1)
    changed = op.ScatterND(first, at, updates, reduction="add" if accumulate else "none")
    return op.Transpose(changed, perm=[order.index(axis) for axis in range(rank)])


def _places(index: Any) -> list[Any]:
    """Whole numbers for each axis of an index."""
    if index.dtype != onnx_ir.DataType.BOOL:
        place = int64(index)
        place.shape = index.shape
        return [place]
    found = op.NonZero(index)
    rows = []
    for axis in range(len(index.shape)):
        row = typed(op.Gather(found, op.Constant(value_int=axis), axis=0), onnx_ir.DataType.INT64)
        row.shape = onnx_ir.Shape([None])
        rows.append(row)
    return rows


def taken(x: Any, mask: Any) -> Any:
    """The values where a mask is true, in one row."""
    flat = op.Reshape(op.Expand(mask, op.Shape(x)), ints(-1))
    return op.Compress(op.Expand(x, op.Shape(mask)), flat)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """ATen operator -> translation."""
    return {
        aten.index_put.default: put,
        aten._unsafe_index_put.default: put,
        aten.masked_select.default: taken,
    }
