"""Inverses, determinants and Cholesky factors of small matrices, which ONNX has no operators for.

Elimination with the largest pivot, written out for the rows of a matrix and computed in float64, so that it loses no
more than LAPACK does in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir
import torch
from onnxscript import opset18 as op

from exporters.lowerings.constants import double, int64, ints

aten = torch.ops.aten

MOST_ROWS = 16
"""Of a matrix whose elimination is written out."""


def _rows(a: Any) -> int:
    size = a.shape[-1]
    if not isinstance(size, int) or size > MOST_ROWS:
        raise ValueError(f"a matrix of {size} rows; elimination is written out for a number up to {MOST_ROWS}")
    return size


def _column(a: Any, at: int, rows: bool = False) -> Any:
    """A column of a matrix, or a row, which stays an axis of size 1."""
    axis = ints(-2 if rows else -1)
    return op.Slice(a, ints(at), ints(at + 1), axis)


def _eliminated(a: Any, b: Any, size: int) -> tuple[Any, list[Any], list[Any]]:
    """Solves a·x = b: x, the pivots (…, 1, 1), and for each of them whether two rows were exchanged."""
    whole = op.Concat(a, b, axis=-1)
    wide = op.Shape(whole)
    places = op.Constant(value_ints=list(range(size)))
    pivots, exchanged = [], []
    for k in range(size):
        left = op.Abs(_column(whole, k))
        here = op.Unsqueeze(op.GreaterOrEqual(places, int64(k)), ints(1))  # (rows, 1)
        best = op.ArgMax(op.Where(here, left, double(-1.0)), axis=-2, keepdims=1)  # (…, 1, 1)
        exchanged.append(op.Not(op.Equal(best, int64(k))))
        down = op.Unsqueeze(places, ints(1))
        order = op.Where(op.Equal(down, int64(k)), best, op.Where(op.Equal(down, best), int64(k), down))
        whole = op.GatherElements(whole, op.Expand(order, wide), axis=-2)
        row = _column(whole, k, rows=True)
        pivots.append(_column(row, k))
        # Of a singular matrix a whole column is zero: its determinant is.
        row = op.Div(row, op.Where(op.Equal(pivots[-1], double(0.0)), double(1.0), pivots[-1]))
        others = op.Sub(whole, op.Mul(_column(whole, k), row))
        whole = op.Where(op.Equal(down, int64(k)), row, others)
    return op.Slice(whole, ints(size), ints(2**62), ints(-1)), pivots, exchanged


def _of_identity(a: Any) -> tuple[Any, list[Any], list[Any]]:
    """See `_eliminated`, with the inverse for x."""
    size = _rows(a)
    unit = op.Expand(op.Cast(op.EyeLike(op.ConstantOfShape(ints(size, size))), to=onnx_ir.DataType.DOUBLE), op.Shape(a))
    return _eliminated(double(a), unit, size)


def inverse(a: Any, *, check_errors: bool = False) -> Any:
    """The inverse of square matrices (…, n, n)."""
    return op.CastLike(_of_identity(a)[0], a)


def solve(a: Any, b: Any, *, left: bool = True) -> Any:
    """X of a·x = b, for vectors and matrices b.

    Raises:
        ValueError: x·a = b is asked for.
    """
    if not left:
        raise ValueError("left=False")
    rank = len(a.shape)
    vector = len(b.shape) == 1 or (len(b.shape) == rank - 1 and rank > 2)  # torch asks for batches of one size
    right = op.Unsqueeze(b, ints(-1)) if vector else b
    matrix = a
    if rank > 2 or len(b.shape) > 2:
        batch = op.Shape(op.MatMul(a, right), end=-2)
        matrix, right = (op.Expand(x, op.Concat(batch, op.Shape(x, start=-2), axis=0)) for x in (matrix, right))
    found = _eliminated(double(matrix), double(right), _rows(a))[0]
    return op.CastLike(op.Squeeze(found, ints(-1)) if vector else found, a)


def _signed(pivots: list[Any], exchanged: list[Any]) -> Any:
    """The product of pivots, negative for each exchange: (…, 1, 1)."""
    found = None
    for pivot, turned in zip(pivots, exchanged, strict=True):
        signed = op.Where(turned, op.Neg(pivot), pivot)
        found = signed if found is None else op.Mul(found, signed)
    return found


def determinant(a: Any) -> Any:
    """The determinant of square matrices (…, n, n)."""
    _, pivots, exchanged = _of_identity(a)
    return op.CastLike(op.Squeeze(_signed(pivots, exchanged), ints(-2, -1)), a)


def sign_and_logarithm(a: Any) -> tuple[Any, Any]:
    """Sign and logarithm of the absolute value of the determinant."""
    _, pivots, exchanged = _of_identity(a)
    logarithm = None
    for pivot in pivots:
        part = op.Log(op.Abs(pivot))
        logarithm = part if logarithm is None else op.Add(logarithm, part)
    sign = op.Sign(_signed([op.Sign(pivot) for pivot in pivots], exchanged))
    return tuple(op.CastLike(op.Squeeze(value, ints(-2, -1)), a) for value in (sign, logarithm))


def log_determinant(a: Any) -> Any:
    """The logarithm of the determinant, no number where that is negative."""
    sign, logarithm = sign_and_logarithm(a)
    return op.Add(logarithm, op.Log(sign))


def cholesky(a: Any, *, upper: bool = False) -> Any:
    """The lower triangular L with L·Lᵀ = a, or Lᵀ."""
    size, rest = _rows(a), double(a)
    places = op.Unsqueeze(op.Constant(value_ints=list(range(size))), ints(1))
    rank = len(a.shape)
    turn = [*range(rank - 2), rank - 1, rank - 2]
    columns = []
    for k in range(size):
        column = _column(rest, k)
        scaled = op.Div(column, op.Sqrt(_column(column, k, rows=True)))
        columns.append(op.Where(op.GreaterOrEqual(places, int64(k)), scaled, double(0.0)))
        rest = op.Sub(rest, op.Mul(columns[-1], op.Transpose(columns[-1], perm=turn)))
    lower = op.Concat(*columns, axis=-1)
    return op.CastLike(op.Transpose(lower, perm=turn) if upper else lower, a)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """ATen operator -> translation."""
    return {
        aten.inverse.default: inverse,
        aten.linalg_inv.default: inverse,
        aten.linalg_inv_ex.default: lambda a, *, check_errors=False: (inverse(a), int64(0)),
        aten.linalg_solve.default: solve,
        aten.det.default: determinant,
        aten.linalg_det.default: determinant,
        aten.slogdet.default: sign_and_logarithm,
        aten.linalg_slogdet.default: sign_and_logarithm,
        aten.logdet.default: log_determinant,
        aten.linalg_cholesky.default: cholesky,
        aten.cholesky.default: lambda a, upper=False: cholesky(a, upper=upper),
    }
