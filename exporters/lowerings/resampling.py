"""Resizing as torch does it: where a pixel of the result lies in the source is computed in the graph, as there.

torch computes the place of a nearest pixel in float32 whatever the type of the image, that of the others in the type of
the image; the reference is in float64, so here in float64. ONNX Runtime's Resize rounds otherwise for one size pair in
fifty below 128, knows no scale beside ``antialias``, and takes 14 ms for a cubic doubling of 50,000 numbers where four
gathers along each axis take 1. It stays for what it does right: nearest by powers of two, and linear by sizes or by
scales that float32 holds exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from onnxscript import opset18 as op

from exporters.lowerings.constants import double, int64, ints

aten = torch.ops.aten

CUBIC = -0.75
"""The free coefficient of the cubic kernel; with antialias torch takes -0.5, as PIL does."""
CUBIC_ANTIALIAS = -0.5

Sizes = Sequence[Any]
Scales = Sequence[float | None]


def nearest(x: Any, sizes: Sizes, scales: Scales, exact: bool) -> Any:
    """The pixel at floor(i · in/out), with ``exact`` at floor((i + 0.5) · in/out)."""
    if not exact and all(scale in (1, 2, 4, 8) for scale in scales):
        return _resize(x, sizes, scales, "nearest", "asymmetric", nearest_mode="floor")
    result = x
    for axis, (size, scale) in enumerate(zip(sizes, scales, strict=True), start=2):
        old = axis_size(x, axis)
        single = onnx.TensorProto.FLOAT
        step = (
            op.Div(op.Cast(old, to=single), op.Cast(size, to=single))
            if scale is None
            else op.Constant(value_float=1 / scale)
        )
        places = op.Cast(_range(size, 0.5 if exact else 0.0), to=single)
        result = _summed(result, x, axis, old, op.Floor(op.Mul(places, step)), [(0, None)])
    return result


def linear(x: Any, sizes: Sizes, scales: Scales, align_corners: bool) -> Any:
    """Between the two nearest pixels along each axis."""
    if align_corners:
        return _resize(x, sizes, [None] * len(sizes), "linear", "align_corners")
    if all(scale is None or float(np.float32(scale)) == scale for scale in scales):
        return _resize(x, sizes, scales, "linear", "half_pixel")
    result = x
    for axis, (size, scale) in enumerate(zip(sizes, scales, strict=True), start=2):
        old = axis_size(x, axis)
        places = op.Max(_centres(old, size, scale, align_corners), double(0.0))
        first = op.Floor(places)
        share = op.Sub(places, first)
        result = _summed(result, x, axis, old, first, [(0, op.Sub(double(1.0), share)), (1, share)])
    return result


def cubic(x: Any, sizes: Sizes, scales: Scales, align_corners: bool) -> Any:
    """Between the four nearest pixels along each axis, those beyond the border as the one on it."""
    result = x
    for axis, (size, scale) in enumerate(zip(sizes, scales, strict=True), start=2):
        old = axis_size(x, axis)
        places = _centres(old, size, scale, align_corners)
        first = op.Floor(places)
        t = op.Sub(places, first)
        rest = op.Sub(double(1.0), t)
        taps = [
            (-1, _outer(op.Add(t, double(1.0)), CUBIC)),
            (0, _inner(t, CUBIC)),
            (1, _inner(rest, CUBIC)),
            (2, _outer(op.Add(rest, double(1.0)), CUBIC)),
        ]
        result = _summed(result, x, axis, old, first, taps)
    return result


def antialiased(x: Any, sizes: Sizes, scales: Scales, align_corners: bool, kernel: str) -> Any:
    """Each axis by a matrix of weights: the kernel, wider where the image shrinks, normalised within the image."""
    if not align_corners and kernel == "linear" and all(scale is None for scale in scales):
        return _resize(x, sizes, scales, "linear", "half_pixel", antialias=1, exclude_outside=1)
    reach = 1.0 if kernel == "linear" else 2.0
    result = x
    for axis, (size, scale) in enumerate(zip(sizes, scales, strict=True), start=2):
        old = axis_size(x, axis)
        step = _aligned_step(old, size) if align_corners else _step(old, size, scale)
        width = op.Max(step, double(1.0))
        centres = op.Mul(_range(size, 0.5), step)
        support = op.Mul(width, double(reach))
        begin = op.Max(op.Floor(op.Add(op.Sub(centres, support), double(0.5))), double(0.0))
        end = op.Min(op.Floor(op.Add(op.Add(centres, support), double(0.5))), double(old))
        pixels = _range(old, 0.0)
        away = op.Abs(
            op.Div(op.Sub(op.Add(op.Unsqueeze(pixels, ints(0)), double(0.5)), op.Unsqueeze(centres, ints(1))), width)
        )
        weights = _triangle(away) if kernel == "linear" else _cubic_kernel(away)
        inside = op.And(
            op.GreaterOrEqual(op.Unsqueeze(pixels, ints(0)), op.Unsqueeze(begin, ints(1))),
            op.Less(op.Unsqueeze(pixels, ints(0)), op.Unsqueeze(end, ints(1))),
        )
        weights = op.Mul(weights, double(inside))
        matrix = op.CastLike(op.Div(weights, op.ReduceSum(weights, ints(1), keepdims=1)), x)  # (out, in)
        result = along(result, axis, len(x.shape), matrix)
    return result


def along(x: Any, axis: int, rank: int, matrix: Any) -> Any:
    """A matrix (out, in) applied along an axis."""
    if axis == rank - 2:
        return op.MatMul(matrix, x)
    turned = op.Transpose(matrix, perm=[1, 0])
    if axis == rank - 1:
        return op.MatMul(x, turned)
    swapped = list(range(rank))
    swapped[axis], swapped[-1] = swapped[-1], swapped[axis]
    return op.Transpose(op.MatMul(op.Transpose(x, perm=swapped), turned), perm=swapped)


def axis_size(x: Any, axis: int) -> Any:
    """The size of an axis as a number, constant where it is known."""
    known = x.shape[axis]
    return int64(known) if isinstance(known, int) else int64(op.Squeeze(op.Shape(x, start=axis, end=axis + 1)))


def _summed(x: Any, source: Any, axis: int, old: Any, first: Any, taps: Sequence[tuple[int, Any]]) -> Any:
    """Pixels beside ``first`` along an axis of x, the border repeated, each times its weight, summed.

    Rows are copied as a whole; along the last axis they would be single numbers, so it is put first meanwhile. Rank and
    type are those of ``source``.
    """
    rank = len(source.shape)
    last = axis == rank - 1
    if last:
        x, axis = op.Transpose(x, perm=[rank - 1, *range(rank - 1)]), 0
    total = None
    for offset, weight in taps:
        place = op.Add(int64(first), int64(offset)) if offset else int64(first)
        place = op.Min(op.Max(place, int64(0)), op.Sub(old, int64(1)))
        part = op.Gather(x, place, axis=axis)
        if weight is not None:
            beside = ints(*range(1, rank - axis))
            part = op.Mul(part, op.CastLike(op.Unsqueeze(weight, beside) if axis < rank - 1 else weight, source))
        total = part if total is None else op.Add(total, part)
    return op.Transpose(total, perm=[*range(1, rank), 0]) if last else total


def _centres(old: Any, size: Any, scale: float | None, align_corners: bool) -> Any:
    """Where the pixels of the result lie in the source."""
    if align_corners:
        return op.Mul(_range(size, 0.0), _aligned_step(old, size))
    return op.Sub(op.Mul(_range(size, 0.5), _step(old, size, scale)), double(0.5))


def _step(old: Any, size: Any, scale: float | None) -> Any:
    return op.Div(double(old), double(size)) if scale is None else double(1 / scale)


def _aligned_step(old: Any, size: Any) -> Any:
    """(in - 1) / (out - 1), 0 for one pixel."""
    one = double(1.0)
    step = op.Div(op.Sub(double(old), one), op.Max(op.Sub(double(size), one), one))
    return op.Mul(step, double(op.Greater(size, int64(1))))


def _range(size: Any, offset: float) -> Any:
    """0 … size - 1, each plus an offset, in float64."""
    return op.Add(double(op.Range(int64(0), size, int64(1))), double(offset))


def _resize(x: Any, sizes: Sizes, scales: Scales, mode: str, coordinates: str, **attributes: Any) -> Any:
    attributes |= {"mode": mode, "coordinate_transformation_mode": coordinates}
    if all(scale is not None for scale in scales):
        return op.Resize(x, None, op.Constant(value_floats=[1.0, 1.0, *scales]), **attributes)
    # With all axes: on two of them ONNX Runtime cannot push a transpose through.
    wanted = op.Concat(op.Shape(x, start=0, end=2), *(op.Reshape(size, ints(1)) for size in sizes), axis=0)
    return op.Resize(x, None, None, wanted, **attributes)


def _inner(t: Any, a: float) -> Any:
    """The cubic kernel at a distance of 0 … 1."""
    return op.Add(op.Mul(op.Mul(op.Sub(op.Mul(t, double(a + 2)), double(a + 3)), t), t), double(1.0))


def _outer(t: Any, a: float) -> Any:
    """The cubic kernel at a distance of 1 … 2."""
    inside = op.Add(op.Mul(op.Sub(op.Mul(t, double(a)), double(5 * a)), t), double(8 * a))
    return op.Sub(op.Mul(inside, t), double(4 * a))


def _cubic_kernel(away: Any) -> Any:
    far = op.Where(op.Less(away, double(2.0)), _outer(away, CUBIC_ANTIALIAS), double(0.0))
    return op.Where(op.Less(away, double(1.0)), _inner(away, CUBIC_ANTIALIAS), far)


def _triangle(away: Any) -> Any:
    return op.Max(op.Sub(double(1.0), away), double(0.0))


def _upsampling(function: Callable[..., Any], vector: bool, aligned: bool) -> Callable[..., Any]:
    """A translation of ``(x, output_size, [align_corners,] *scales)``. A ``vec`` form has a list or None."""

    def translated(x: Any, output_size: Sizes | None, *rest: Any) -> Any:
        corners = rest[:1] if aligned else ()
        scales: Any = rest[len(corners) :]
        if vector:
            scales = scales[0] if scales else None
        if output_size is None:
            sizes = [
                int64(op.Floor(op.Mul(double(axis_size(x, axis)), double(s)))) for axis, s in enumerate(scales, start=2)
            ]
        else:
            sizes = [int64(size) for size in output_size]
        return function(x, sizes, scales or [None] * len(sizes), *corners)

    return translated


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """ATen operator -> translation."""
    nearest_floor, nearest_centre = partial(nearest, exact=False), partial(nearest, exact=True)
    forms: list[tuple[Any, Callable[..., Any], bool]] = [
        *(
            (packet, nearest_floor, False)
            for packet in (aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_nearest3d)
        ),
        *(
            (packet, nearest_centre, False)
            for packet in (
                aten._upsample_nearest_exact1d,
                aten._upsample_nearest_exact2d,
                aten._upsample_nearest_exact3d,
            )
        ),
        *(
            (packet, linear, True)
            for packet in (aten.upsample_linear1d, aten.upsample_bilinear2d, aten.upsample_trilinear3d)
        ),
        (aten.upsample_bicubic2d, cubic, True),
        (aten._upsample_bilinear2d_aa, partial(antialiased, kernel="linear"), True),
        (aten._upsample_bicubic2d_aa, partial(antialiased, kernel="cubic"), True),
    ]
    return {
        overload: _upsampling(function, overload is packet.vec, aligned)
        for packet, function, aligned in forms
        for overload in (packet.default, packet.vec)
    }
