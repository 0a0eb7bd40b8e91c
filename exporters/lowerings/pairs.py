"""Functions of two numbers: smooth maxima, angles, lengths, and what is left when one is divided by the other.

Quotients and remainders follow torch: its remainder has the sign of the divisor and comes from C's ``fmod``, which is
exact; x - y·floor(x / y) is off by more than y where x / y has more digits than float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18 as op

from exporters.lowerings.activations import log1p, log1p_of_share, signbit
from exporters.lowerings.constants import as_tensors, int64, is_float, like

aten = torch.ops.aten

LARGEST = 3.4028234663852886e38


def logaddexp(x: Any, y: Any) -> Any:
    """log(exp(x) + exp(y)) = max + log(1 + exp(-|x - y|))."""
    return op.Add(op.Max(x, y), log1p_of_share(op.Exp(op.Neg(_distance(x, y))), x))


def logaddexp2(x: Any, y: Any) -> Any:
    """log2(2^x + 2^y)."""
    share = log1p_of_share(op.Pow(like(x, 2.0), op.Neg(_distance(x, y))), x)
    return op.Add(op.Max(x, y), op.Div(share, like(x, math.log(2))))


def _distance(x: Any, y: Any) -> Any:
    """|x - y|, 0 between equal infinities."""
    low, high = like(x, -LARGEST), like(x, LARGEST)
    return op.Abs(op.Sub(op.Clip(x, low, high), op.Clip(y, low, high)))


def xlogy(x: Any, y: Any) -> Any:
    """X · log(y), 0 where x is 0."""
    return _zero_times(*as_tensors(x, y), op.Log)


def xlog1py(x: Any, y: Any) -> Any:
    """X · log(1 + y), 0 where x is 0."""
    return _zero_times(*as_tensors(x, y), log1p)


def _zero_times(x: Any, y: Any, function: Callable[[Any], Any]) -> Any:
    """X · function(y), 0 where x is 0 unless y is no number."""
    zero = op.And(op.Equal(x, like(y, 0.0)), op.Not(op.IsNaN(y)))
    return op.Where(zero, like(y, 0.0), op.Mul(x, function(y)))


def atan2(y: Any, x: Any) -> Any:
    """The angle of (x, y): from the octant of the two magnitudes, turned by their order and by both signs."""
    a, b = op.Abs(x), op.Abs(y)
    low, high = op.Min(a, b), op.Max(a, b)
    ratio = op.Where(op.Equal(low, high), op.Sign(high), op.Div(low, high))  # 0 / 0 and infinity / infinity
    angle = op.Atan(ratio)
    angle = op.Where(op.Greater(b, a), op.Sub(like(x, math.pi / 2), angle), angle)
    angle = op.Where(signbit(x), op.Sub(like(x, math.pi), angle), angle)
    return op.Where(signbit(y), op.Neg(angle), angle)


def hypot(x: Any, y: Any) -> Any:
    """The length of (x, y), without squares that overflow."""
    a, b = op.Abs(x), op.Abs(y)
    low, high = op.Min(a, b), op.Max(a, b)
    ratio = op.Where(op.Equal(low, high), op.Sign(high), op.Div(low, high))
    return op.Mul(high, op.Sqrt(op.Add(op.Mul(ratio, ratio), like(x, 1.0))))


def copysign(x: Any, y: Any) -> Any:
    """The magnitude of x with the sign of y."""
    x, y = as_tensors(x, y)
    return op.Where(signbit(y), op.Neg(op.Abs(x)), op.Abs(x))


def fmax(x: Any, y: Any) -> Any:
    """The larger of two, or the one that is a number."""
    return op.Where(op.IsNaN(x), y, op.Where(op.IsNaN(y), x, op.Max(x, y))) if is_float(x) else op.Max(x, y)


def fmin(x: Any, y: Any) -> Any:
    """The smaller of two, or the one that is a number."""
    return op.Where(op.IsNaN(x), y, op.Where(op.IsNaN(y), x, op.Min(x, y))) if is_float(x) else op.Min(x, y)


def remainder(x: Any, y: Any) -> Any:
    """What is left of x, with the sign of y."""
    x, y = as_tensors(x, y)
    if not is_float(x):
        return op.Mod(x, y)
    left = op.Mod(x, y, fmod=1)
    return op.Where(_on_other_side(left, y), op.Add(left, y), left)


def fmod(x: Any, y: Any) -> Any:
    """What is left of x, with the sign of x."""
    return op.Mod(*as_tensors(x, y), fmod=1)


def floor_divide(x: Any, y: Any) -> Any:
    """The whole number below x / y."""
    x, y = as_tensors(x, y)
    if not is_float(x):
        wide = int64(x), int64(y)
        quotient = op.Div(*wide)
        left = op.Sub(wide[0], op.Mul(quotient, wide[1]))
        return op.CastLike(op.Sub(quotient, op.CastLike(_on_other_side(left, wide[1]), left)), x)
    left = op.Mod(x, y, fmod=1)
    quotient = op.Round(op.Div(op.Sub(x, left), y))  # a whole number but for its rounding
    below = op.Sub(quotient, op.CastLike(_on_other_side(left, y), x))
    return op.Where(op.Equal(y, like(y, 0.0)), op.Div(x, y), below)


def divide(x: Any, y: Any, rounding_mode: str | None = None) -> Any:
    """X / y, rounded towards zero (``trunc``) or down (``floor``)."""
    x, y = as_tensors(x, y)
    if rounding_mode == "floor":
        return floor_divide(x, y)
    if not is_float(x):
        wide = int64(x), int64(y)
        return op.CastLike(op.Div(*wide), x)
    quotient = op.Div(x, y)
    return op.Mul(op.Sign(quotient), op.Floor(op.Abs(quotient))) if rounding_mode == "trunc" else quotient


def _on_other_side(left: Any, y: Any) -> Any:
    """Whether a remainder is not zero and has not the sign of the divisor."""
    zero = like(y, 0)
    return op.And(op.Not(op.Equal(left, zero)), op.Xor(op.Less(left, zero), op.Less(y, zero)))


def shift_left(x: Any, bits: Any) -> Any:
    """X · 2^bits."""
    return _shifted(*as_tensors(x, bits), op.Mul)


def shift_right(x: Any, bits: Any) -> Any:
    """X / 2^bits, rounded down: the sign stays."""
    return _shifted(*as_tensors(x, bits), floor_divide)


def _shifted(x: Any, bits: Any, operator: Callable[[Any, Any], Any]) -> Any:
    power = op.Pow(int64(2), int64(bits))
    return op.CastLike(operator(int64(x), int64(power)), x)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """ATen operator -> translation."""
    return {
        aten.logaddexp.default: logaddexp,
        aten.logaddexp2.default: logaddexp2,
        **dict.fromkeys((aten.xlogy.Tensor, aten.xlogy.Scalar_Self, aten.xlogy.Scalar_Other), xlogy),
        aten.special_xlog1py.default: xlog1py,
        aten.special_xlog1py.other_scalar: xlog1py,
        aten.special_xlog1py.self_scalar: xlog1py,
        aten.atan2.default: atan2,
        aten.hypot.default: hypot,
        aten.copysign.Tensor: copysign,
        aten.copysign.Scalar: copysign,
        aten.fmax.default: fmax,
        aten.fmin.default: fmin,
        **dict.fromkeys((aten.remainder.Tensor, aten.remainder.Scalar, aten.remainder.Scalar_Tensor), remainder),
        aten.fmod.Tensor: fmod,
        aten.fmod.Scalar: fmod,
        aten.floor_divide.default: floor_divide,
        aten.div.Tensor_mode: divide,
        aten.div.Scalar_mode: divide,
        **dict.fromkeys(
            (
                aten.bitwise_left_shift.Tensor,
                aten.bitwise_left_shift.Tensor_Scalar,
                aten.__lshift__.Tensor,
                aten.__lshift__.Scalar,
            ),
            shift_left,
        ),
        **dict.fromkeys(
            (
                aten.bitwise_right_shift.Tensor,
                aten.bitwise_right_shift.Tensor_Scalar,
                aten.__rshift__.Tensor,
                aten.__rshift__.Scalar,
            ),
            shift_right,
        ),
    }
