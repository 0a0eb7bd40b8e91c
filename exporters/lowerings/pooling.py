"""Pooling into a given number of windows, whatever the size of the image.

torch.onnx writes the windows of the example into the graph. Here window i of n reaches from floor(i·size/n) to
ceil((i + 1)·size/n), computed in the graph: averages are a product with a matrix of 0 and 1/length along each axis,
maxima those of gathered windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from onnxscript import opset18 as op

from exporters.lowerings.constants import int64, ints, like
from exporters.lowerings.reductions import mean
from exporters.lowerings.resampling import along, axis_size

aten = torch.ops.aten


def average(
    x: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] | int = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    axes: int,
) -> Any:
    """The mean of windows of one size, or their sum over a divisor of one's own (not with ``ceil_mode``).

    Raises:
        ValueError: Both are asked for.
    """
    if ceil_mode and divisor_override is not None:
        raise ValueError("average pooling with both ceil_mode and divisor_override has no form in ONNX")
    kernel, steps, pads = (
        [value] * axes if isinstance(value, int) else list(value) * (axes // len(value))
        for value in (kernel_size, stride or kernel_size, padding)
    )
    single = len(x.shape) == axes + 1  # an image without a batch
    result = op.AveragePool(
        op.Unsqueeze(x, ints(0)) if single else x,
        kernel_shape=kernel,
        strides=steps,
        pads=pads * 2,
        ceil_mode=int(ceil_mode),
        count_include_pad=int(count_include_pad or divisor_override is not None),
    )
    if divisor_override is not None:
        result = op.Mul(result, like(x, math.prod(kernel) / divisor_override))
    return op.Squeeze(result, ints(0)) if single else result


def adaptive_average(x: Any, output_size: Sequence[Any]) -> Any:
    """The mean of each window."""
    rank = len(x.shape)
    axes = list(range(rank - len(output_size), rank))
    whole = [axis for axis, count in zip(axes, output_size, strict=True) if isinstance(count, int) and count == 1]
    result = mean(x, whole, True) if whole else x
    for axis, count in zip(axes, output_size, strict=True):
        if axis in whole:
            continue
        begin, end = _windows(axis_size(x, axis), count)
        places = op.Range(int64(0), axis_size(x, axis), int64(1))
        inside = op.And(op.GreaterOrEqual(places, begin), op.Less(places, end))  # (count, size)
        matrix = op.Div(op.CastLike(inside, x), op.CastLike(op.Sub(end, begin), x))
        result = along(result, axis, rank, matrix)
    return result


def adaptive_maximum(x: Any, output_size: Sequence[int]) -> tuple[Any, Any]:
    """The maximum of each window and its place in the flattened image, of equal ones the first.

    From the last axis on: of the maxima of the rows of a window the first is that of the window.
    """
    rank = len(x.shape)
    values, places, stride = x, None, int64(1)
    for axis in reversed(range(rank - len(output_size), rank)):
        size = axis_size(x, axis)
        begin, end = _windows(size, output_size[axis - rank])
        longest = op.ReduceMax(op.Sub(end, begin), keepdims=0)
        window = op.Min(op.Add(begin, op.Range(int64(0), longest, int64(1))), op.Sub(end, int64(1)))  # (count, longest)
        inside = op.Gather(values, window, axis=axis)
        values = op.ReduceMax(inside, ints(axis + 1), keepdims=0)
        first = op.ArgMax(inside, axis=axis + 1, keepdims=1)
        here = op.Mul(op.Add(first, op.Reshape(begin, ints(-1, *[1] * (rank - axis)))), stride)
        if places is not None:
            here = op.Add(here, op.GatherElements(op.Gather(places, window, axis=axis), first, axis=axis + 1))
        places = op.Squeeze(here, ints(axis + 1))
        stride = op.Mul(stride, size)
    return values, places


def _windows(size: Any, count: Any) -> tuple[Any, Any]:
    """Begin and end of each window, (count, 1)."""
    number = int64(count)
    steps = op.Unsqueeze(op.Range(int64(0), number, int64(1)), ints(1))
    begin = op.Div(op.Mul(steps, size), number)
    end = op.Div(op.Add(op.Mul(op.Add(steps, int64(1)), size), op.Sub(number, int64(1))), number)
    return begin, end


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """ATen operator -> translation."""
    averages = (aten.adaptive_avg_pool1d, aten.adaptive_avg_pool2d, aten.adaptive_avg_pool3d)
    maxima = (aten.adaptive_max_pool1d, aten.adaptive_max_pool2d, aten.adaptive_max_pool3d)
    inner = (aten._adaptive_avg_pool2d, aten._adaptive_avg_pool3d)
    return {
        aten.avg_pool2d.default: partial(average, axes=2),
        aten.avg_pool3d.default: partial(average, axes=3),
        **{packet.default: adaptive_average for packet in (*averages, *inner)},
        **{packet.default: adaptive_maximum for packet in maxima},
    }
